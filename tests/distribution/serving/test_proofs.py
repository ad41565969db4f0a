"""Ranges come with a proof where one is asked for."""

import base64
import random

import pytest
from datacomp.distribution.release import Releases
from datacomp.pools.http import http_get
from datacomp.pools.merkle import BLOCK, blocks_in, leaves_of, root_of_blocks

SIZES = {"a.tar": 3 << 20, "b.bin": (5 << 20) + 12345, "c.txt": 100, "d.bin": 5 * BLOCK}


@pytest.fixture
def files():
    return {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}


@pytest.mark.parametrize("name", SIZES)
def test_every_range_of_whole_blocks_is_proved(publish, serving, files, name):
    folder = publish(files)
    server = serving(folder)
    root = Releases(folder).latest.manifest.by_path[name].pieces_root
    data, chance = files[name], random.Random(1)
    count = blocks_in(len(data))
    for _ in range(20):
        first = chance.randrange(count)
        end = chance.randint(first + 1, count)
        start, stop = first * BLOCK, min(end * BLOCK, len(data))
        asked = {"Range": f"bytes={start}-{stop - 1}", "Want-Proof": "btmh"}
        response, found, _ = http_get(f"{server.url}versions/1/birds/{name}", asked, 1 << 30)
        assert found == data[start:stop]
        proof = base64.b64decode(response.getheader("Proof"))
        assert len(proof) < 1024
        hashes = [proof[at : at + 32] for at in range(0, len(proof), 32)]
        assert root_of_blocks(leaves_of(memoryview(found)), first, count, hashes).hex() == root


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-16383"},
        {"Range": "bytes=0-16383", "Want-Proof": "other"},
        {"Range": "bytes=0-16000", "Want-Proof": "btmh"},
        {"Range": "bytes=1-16383", "Want-Proof": "btmh"},
        {"Range": "bytes=0-16383,32768-49151", "Want-Proof": "btmh"},
        {"Want-Proof": "btmh"},
    ],
)
def test_nothing_else_is(publish, serving, files, headers):
    server = serving(publish(files))
    response, *_ = http_get(f"{server.url}versions/1/birds/b.bin", headers, 1 << 30)
    assert response.status in (200, 206)
    assert response.getheader("Proof") is None


def test_what_no_manifest_lists_has_none(publish, serving, files):
    server = serving(publish(files))
    asked = {"Range": "bytes=0-16383", "Want-Proof": "btmh"}
    response, *_ = http_get(f"{server.url}versions/1/SHA256SUMS", asked, 1 << 30)
    assert response.getheader("Proof") is None
