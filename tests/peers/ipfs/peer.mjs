// Answers questions of the tests with other implementations of IPFS: one JSON object a line in,
// one a line out.

import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { CarReader, CarWriter } from '@ipld/car'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { MemoryBlockstore } from 'blockstore-core'
import { exporter, recursive } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { createIPNSRecord, marshalIPNSRecord, multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsValidator } from 'ipns/validator'
import { base36 } from 'multiformats/bases/base36'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

const OPTIONS = {
  'unixfs-v1-2025': { profile: 'unixfs-v1-2025' },
  'unixfs-v0-2015': { profile: 'unixfs-v0-2015' },
  'legacy-256k': {
    cidVersion: 1,
    rawLeaves: true,
    reduceSingleLeafToSelf: true,
    chunker: fixedSize({ chunkSize: 262144 }),
    layout: balanced({ maxChildrenPerNode: 174 }),
    shardSplitStrategy: 'links-bytes',
    shardSplitThresholdBytes: 262144
  }
}

// What the tests fill files with: byte i of a file is (i * step + (i >> 8) * 7 + 3) % 251.
function * filled ({ size, step }) {
  for (let start = 0; start < size; start += 65536) {
    const part = new Uint8Array(Math.min(65536, size - start))
    for (let k = 0; k < part.length; k++) {
      const i = start + k
      part[k] = (i * step + (i >> 8) * 7 + 3) % 251
    }
    yield part
  }
}

async function add ({ profile, entries }, blocks = new MemoryBlockstore()) {
  const source = entries.map(({ path, ...recipe }) => ({ path, content: filled(recipe) }))
  const cids = {}
  let root
  for await (const entry of importer(source, blocks, { ...OPTIONS[profile], wrapWithDirectory: true })) {
    cids[entry.path ?? ''] = entry.cid.toString()
    root = entry
  }
  return { cid: root.cid.toString(), tsize: Number(root.size), type: root.unixfs?.type ?? 'raw', cids }
}

async function writeCar ({ path, ...wanted }) {
  const blocks = new MemoryBlockstore()
  const made = await add(wanted, blocks)
  const { writer, out } = CarWriter.create([CID.parse(made.cid)])
  const file = Readable.from(out).pipe(createWriteStream(path))
  const digests = new Set()
  for await (const { cid, bytes } of blocks.getAll()) {
    const parts = []
    for await (const part of bytes) parts.push(part)
    digests.add(Buffer.from(cid.multihash.digest).toString('hex'))
    await writer.put({ cid, bytes: Buffer.concat(parts) })
  }
  await writer.close()
  await finished(file)
  return { cid: made.cid, digests: [...digests] }
}

async function readCar ({ path }) {
  const reader = await CarReader.fromIterable(createReadStream(path))
  const blocks = new MemoryBlockstore()
  let count = 0
  for await (const { cid, bytes } of reader.blocks()) {
    const found = await sha256.digest(bytes)
    if (Buffer.compare(found.digest, cid.multihash.digest) !== 0) throw new Error(`wrong block ${cid}`)
    await blocks.put(cid, bytes)
    count++
  }
  const [root] = await reader.getRoots()
  const files = {}
  for await (const entry of recursive(root, blocks)) {
    const file = await exporter(entry.cid, blocks)
    if (file.type !== 'file' && file.type !== 'raw') continue
    const hash = createHash('sha256')
    for await (const part of file.content()) hash.update(part)
    files[entry.path.slice(root.toString().length + 1)] = hash.digest('hex')
  }
  return { root: root.toString(), count, files }
}

async function createRecord ({ seed, value, sequence, lifetime, v1 }) {
  const key = await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex'))
  const record = await createIPNSRecord(key, value, sequence, lifetime, { v1Compatible: v1 })
  const name = key.publicKey.toCID().toString(base36)
  return { name, peer: key.publicKey.toString(), record: Buffer.from(marshalIPNSRecord(record)).toString('base64') }
}

async function checkRecord ({ name, record }) {
  const bytes = Buffer.from(record, 'base64')
  await ipnsValidator(multihashToIPNSRoutingKey(CID.parse(name, base36).multihash), bytes)
  const { value, sequence, validity } = unmarshalIPNSRecord(bytes)
  return { value: value.toString(), sequence: Number(sequence), validity }
}

const QUESTIONS = { add, writeCar, readCar, createRecord, checkRecord }

for await (const line of createInterface({ input: process.stdin })) {
  const { ask, ...about } = JSON.parse(line)
  let answer
  try {
    answer = await QUESTIONS[ask](about)
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
