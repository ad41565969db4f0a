"""``datacomp get`` against ``curl`` of the same shards and ``sha256sum`` of what came.

Both from ``datacomp serve`` on this machine, in alternating order. DATACOMP_BENCH_GET_MB says how
many megabytes (default 1024, in shards of 32). The server, on the same processors, works for both.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datacomp.distribution.release import Plan, SigningKey, Source, create_version

MEGABYTES = int(os.environ.get("DATACOMP_BENCH_GET_MB", "1024"))
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "3"))
SHARD = 32

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("get")
    shards = folder / "shards"
    shards.mkdir()
    chance = random.Random(0)
    for number in range(MEGABYTES // SHARD):
        (shards / f"{number:05d}.tar").write_bytes(chance.randbytes(SHARD << 20))
    found = [Source(path.name, path) for path in sorted(shards.iterdir())]
    create_version(folder / "releases", found, Plan("bench", "1"), SigningKey.from_seed(bytes(32)))
    yield folder / "releases"
    shutil.rmtree(folder)


@pytest.fixture
def server(release):
    process = subprocess.Popen(
        [sys.executable, "-m", "datacomp.curate.cli", "serve", str(release), "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait()
    process.stdout.close()


def wall(*command: str, cwd: Path | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def wall_and_memory(*command: str) -> tuple[float, float]:
    """Run a command; return seconds, and its largest size in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def test_get_is_as_fast_as_curl_and_hashing(release, server, tmp_path, capsys):
    ours, theirs, memory = [], [], 0.0
    names = [f"{number:05d}.tar" for number in range(MEGABYTES // SHARD)]
    get = (
        "import sys\n"
        "from datacomp.distribution.getting import Options, get\n"
        "assert get(sys.argv[1], sys.argv[2], Options(bittorrent=False)).whole\n"
    )
    for round_ in range(ROUNDS):
        for who in ("ours", "theirs") if round_ % 2 else ("theirs", "ours"):
            place = tmp_path / f"{who}{round_}"
            if who == "ours":
                spent, size = wall_and_memory(sys.executable, "-c", get, server, str(place))
                ours.append(spent)
                memory = max(memory, size)
            else:
                place.mkdir()
                url = f"{server}versions/1/bench/[00000-{len(names) - 1:05d}].tar"
                spent = wall("curl", "-sf", "-o", "#1.tar", url, cwd=place)
                theirs.append(spent + wall("sha256sum", *names, cwd=place))
            shutil.rmtree(place)
    rates = [MEGABYTES / statistics.median(times) for times in (ours, theirs)]
    with capsys.disabled():
        print(
            f"\nget {rates[0]:,.0f} MiB/s, curl then sha256sum {rates[1]:,.0f} MiB/s, "
            f"ratio {rates[0] / rates[1]:.2f}; its memory {memory:,.0f} MiB"
        )
    assert memory < 200
