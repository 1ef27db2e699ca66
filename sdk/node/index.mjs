import sdk from './index.js'
export const { isHandoff, slot, generation, ready, onDrain, requestRestart, reportRequests } = sdk
export default sdk
