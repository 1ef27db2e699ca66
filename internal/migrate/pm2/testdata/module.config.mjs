console.log('noise on stdout')
export default [{ script: 'worker.ts', instances: -1, watch: true, nodeArgs: '--import tsx' }]
