module.exports = {
  apps: [{
    name: 'shop', script: './app.js', cwd: 'sub', args: '--flag "two words" \'\'', node_args: ['--no-warnings'], instances: 2, exec_mode: 'cluster',
    wait_ready: true, listen_timeout: 4000, kill_timeout: '3000', restart_delay: 100.5, max_memory_restart: '300M',
    watch: ['./lib', '*.js', '.'], ignore_watch: ['tmp/', 'x.log'], watch_delay: 500, merge_logs: true, mystery: 1, min_uptime: null,
    uid: 'www-data', gid: 33, autorestart: true, cron_restart: '0', instance_var: 'SLOT',
    env: { WHO: 'dev', N: 1e21, LIST: [1, 'a'], NOT: null, YES: true }, env_production: { WHO: 'production' }, env_staging: { WHO: 'no' }, handler() {}
  }]
}
