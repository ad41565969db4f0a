"""Pretends that a large dataset was read: sparse files, and made-up digests of them in the memory.

``python large.py FOLDER FILES PIECES`` publishes them, compares the torrents and has the blocks
found, in processes of their own; each tells how many MiB it took at most. Nothing is hashed, so a
TB takes a minute.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from datacomp.distribution.ipfs.unixfs import FileTree
from datacomp.distribution.release import Record
from datacomp.distribution.release.state import Seen, State
from datacomp.pools import merkle

PIECE = 1 << 20

START = """
import json, sys
from pathlib import Path
from datacomp.distribution.release import Plan, SigningKey, Source, create_version
from datacomp.distribution.release.beside import list_faults, torrent_faults
folder, version = Path(sys.argv[1]), sys.argv[2]

def told(**more):
    status = dict(line.split(":") for line in open("/proc/self/status"))
    print(json.dumps({"peak": int(status["VmHWM"].split()[0]) / 1024, **more}))
"""

CREATE = (
    START
    + """
files = [Source(p.name, p) for p in (folder / "data").iterdir()]
plan = Plan("ds", version, date="2026-11-20", piece_length=1 << 20, mirrors=("http://h/r/",))
report = create_version(folder / "releases", files, plan, SigningKey.from_seed(bytes(32)))
told(read=report.bytes_read, bytes=report.bytes)
"""
)

COMPARE = (
    START
    + """
from datacomp.distribution.release import Releases
release = Releases(folder / "releases").version(version)
told(faults=[str(fault) for fault in list_faults(release) + torrent_faults(release)])
"""
)

SERVE = (
    START
    + """
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.gateway import Gateway
from datacomp.distribution.release import Releases
releases = Releases(folder / "releases")
gateway = Gateway(releases)
manifest = releases.version(version).manifest
cids = [manifest.root_cid, *(file.cid for file in manifest.files)]
told(blocks=sum(len(gateway.blocks.get(CID.parse(cid))) for cid in cids))
"""
)


def some(count, size, seed):
    """Return ``count`` made-up digests."""
    return hashlib.shake_256(seed.encode()).digest(count * size)


def pretend(folder, files, pieces):
    """Make so many sparse files of so many pieces each, and remember digests of them."""
    state = State(folder / "releases")
    state.folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    for number in range(files):
        name, size = f"{number:08d}.tar", pieces * PIECE
        path = folder / "data" / name
        with path.open("wb") as file:
            file.truncate(size)
        layer, leaves = some(pieces, 32, f"l{name}"), some(pieces, 32, f"i{name}")
        root = layer if size <= PIECE else merkle.root_of_layer(layer, PIECE)
        node = FileTree(size, leaves).node
        record = Record(
            sha256=some(1, 32, f"s{name}").hex(), size=size, piece_length=PIECE,
            pieces=some(pieces, 20, f"p{name}"), padded_last=some(1, 20, name),
            layer=layer if size > PIECE else b"", pieces_root=root.hex(),
            profile="unixfs-v1-2025", cid=node.cid, tsize=node.tsize, leaves=leaves,
        )  # fmt: skip
        state.keep(record)
        state.note(Seen(name, size, path.stat().st_mtime_ns, record.sha256))


def measured(script, *arguments):
    """Run a script in a process of its own; return what it told."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    place = Path(sys.argv[1])
    pretend(place, int(sys.argv[2]), int(sys.argv[3]))
    print("create", measured(CREATE, place, "1"))
    print("compare", measured(COMPARE, place, "1"))
    print("serve", measured(SERVE, place, "1"))
