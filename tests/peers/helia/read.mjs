// Reads a whole folder with a Helia node that knows one gateway and nothing else, and resolves a
// name: node read.mjs GATEWAY ROOT NAME

import { createHash } from 'node:crypto'
import { withHTTP } from '@helia/http'
import { ipns } from '@helia/ipns'
import { unixfs } from '@helia/unixfs'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

const [gateway, root, name] = process.argv.slice(2)
const node = await withHTTP(createHeliaLight(), {
  delegatedRouters: [gateway],
  recursiveGateways: [],
  allowInsecure: true,
  allowLocal: true
}).start()
const fs = unixfs(node)

const files = {}
async function read (folder, prefix) {
  for await (const entry of fs.ls(folder)) {
    const { type } = await fs.stat(entry.cid)
    if (type === 'directory') {
      await read(entry.cid, `${prefix}${entry.name}/`)
      continue
    }
    const hash = createHash('sha256')
    for await (const part of fs.cat(entry.cid)) hash.update(part)
    files[prefix + entry.name] = hash.digest('hex')
  }
}
await read(CID.parse(root), '')

let value
for await (const result of ipns(node).resolve(name)) {
  value = result.value
}
await node.stop()
process.stdout.write(JSON.stringify({ files, value }) + '\n', () => process.exit(0))
