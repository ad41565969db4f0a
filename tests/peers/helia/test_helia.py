"""A Helia node reads a whole release from 'datacomp serve', and resolves its IPNS name."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datacomp.distribution.ipfs import ipns
from datacomp.distribution.release import Plan, Releases, SigningKey, Source, create_version

HERE = Path(__file__).parent


@pytest.fixture
def node(node_js: Path) -> Path:
    if not (HERE / "node_modules" / "helia").is_dir():
        pytest.skip("Helia is not installed; 'make test-peers' does it")
    return node_js


@pytest.fixture
def files() -> dict[str, bytes]:
    chance = random.Random(0)
    files = {f"{n:05d}.tar": chance.randbytes((3 << 20) + n * 4096) for n in range(4)}
    many = {f"notes/{'n' * 220}{n}.txt": b"note %d" % n for n in range(1_000)}
    return files | many | {"README.md": b"birds\n", "empty": b""}


@pytest.fixture
def releases(tmp_path: Path, files: dict[str, bytes]) -> Releases:
    sources = []
    for path, data in files.items():
        place = tmp_path / "source" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        sources.append(Source(path, place))
    key = SigningKey.from_seed(b"h" * 32)
    create_version(tmp_path / "releases", sources, Plan("birds", "1"), key)
    return Releases(tmp_path / "releases")


@pytest.fixture
def url(releases: Releases) -> Iterator[str]:
    command = [sys.executable, "-m", "datacomp.curate.cli", "serve", releases.folder, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        found = [word for word in line.split() if word.startswith("http://")]
        if found:
            yield found[0].rstrip("/,;.")
            break
    server.terminate()
    server.stdout.close()
    assert server.wait(10) is not None


def test_a_whole_release_is_read(node, url, releases, files):
    manifest = releases.latest.manifest
    name = ipns.name_of(manifest.key)
    done = subprocess.run(
        [node, HERE / "read.mjs", url, manifest.root_cid, name],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    published = {file.path: file.sha256 for file in manifest.files}
    assert found["files"] == published
    assert published["README.md"] == hashlib.sha256(files["README.md"]).hexdigest()
    assert found["value"] == f"/ipfs/{manifest.root_cid}"
