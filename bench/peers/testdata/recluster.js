const b = require(process.env.MODULE)(process.env.APP, { workers: Number(process.env.WORKERS), timeout: 5, respawn: 0.1, log: {} })
process.on('SIGUSR2', () => b.reload(() => {}))
process.on('SIGTERM', () => process.exit(0))
b.run()
