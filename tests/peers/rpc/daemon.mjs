// A js-ipfs node with its HTTP RPC on a free port of loopback, and no network besides. Prints the
// address; ends when its input does.
import { create } from 'ipfs-core'
import { HttpApi } from 'ipfs-http-server'

// Not started: else it would ask the network for what it lacks, without end.
const ipfs = await create({
  repo: process.argv[2],
  silent: true,
  start: false,
  config: {
    Addresses: { Swarm: [], API: '/ip4/127.0.0.1/tcp/0', Gateway: '', RPC: '' },
    Bootstrap: [],
    Discovery: { MDNS: { Enabled: false }, webRTCStar: { Enabled: false } }
  }
})
const api = new HttpApi(ipfs)
await api.start()
console.log(api._apiServers[0].info.uri)
process.stdin.resume()
process.stdin.on('end', async () => {
  await api.stop()
  await ipfs.stop()
  process.exit(0)
})
