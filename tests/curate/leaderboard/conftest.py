"""A store of submissions, and a server of it as a process of its own."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from datacomp.evaluate.leaderboard.layout import pack
from datacomp.evaluate.leaderboard.make import Statement, make_submission
from datacomp.pools.uids import from_hex, save_subset


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what is remembered of judged submissions out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def submissions(tmp_path_factory, write_run):
    """Return a maker of ``count`` different submissions at a scale, as folders."""
    root = tmp_path_factory.mktemp("submissions")
    made = []

    def submissions(count, scale="small", seeds=(0,), **more):
        folders = []
        for number in range(count):
            name = f"{len(made)}-{number}"
            folder = root / name
            quality = 0.05 + 0.002 * (len(made) + number)
            size = 50 + 10 * number
            runs = [write_run(root / f"run{name}-{s}", scale, quality, s, size) for s in seeds]
            subset = root / f"subset{name}.npy"
            save_subset(subset, from_hex([f"{i:032x}" for i in range(size)]))
            funnel = [
                {"filter": "basic_filter", "before": 1000, "after": 600,
                 "reasons": {"caption_too_short": 400}},
                {"filter": "clip_score:fraction=0.3", "before": 600, "after": size,
                 "reasons": {"below_threshold": 600 - size}},
            ]  # fmt: skip
            values = {
                "track": "filtering" if number % 3 else "byod", "method": f"Method {name}",
                "author": ("Ada", "Bob")[number % 2], "pool": {"samples": 1000, "available": 900},
                "pipeline": ["basic_filter", "clip_score:fraction=0.3"], "funnel": funnel,
            }  # fmt: skip
            made.append(
                make_submission(runs, [subset], Statement(**values | more), folder,
                                created=f"2026-01-{1 + number % 28:02d}T00:00:00Z")
            )  # fmt: skip
            folders.append(folder)
        return folders

    return submissions


@pytest.fixture
def tar_of(tmp_path):
    """Return a maker of a submission's tar, as bytes."""

    def tar_of(folder: Path) -> bytes:
        pack(folder, tmp_path / "packed.tar")
        return (tmp_path / "packed.tar").read_bytes()

    return tar_of


class Server:
    """The live leaderboard in a process of its own."""

    def __init__(self, store: Path, *options: str) -> None:
        self.store, self.options = store, options
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "datacomp.curate.cli", "leaderboard", "serve", self.store,
                   "--port", "0", *self.options]  # fmt: skip
        environment = {
            key: value for key, value in os.environ.items() if "proxy" not in key.lower()
        }
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.process.communicate()
        self.port = int(self.url.rsplit(":", 1)[1].strip("/"))

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self._wait()

    def stop(self) -> str:
        """End it as its owner would; return what it wrote to stderr."""
        self.process.terminate()
        errors = self._wait()
        assert self.process.returncode == 0
        return errors

    def _wait(self) -> str:
        _, errors = self.process.communicate(timeout=30)
        return errors

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def shown(self) -> set[str]:
        """Return the ids of all submissions that are shown."""
        found = json.loads(self.get("api/submissions?limit=1000"))["submissions"]
        return {one["id"] for one in found}


@pytest.fixture(scope="session")
def start_server():
    """Return a starter of servers; all are ended with the tests."""
    started = []

    def start_server(store: Path, *options: str) -> Server:
        started.append(Server(store, *options))
        return started[-1]

    yield start_server
    for server in started:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def serving(tmp_path, start_server):
    """Return a starter of servers on an empty store."""
    return lambda *options: start_server(tmp_path / "store", *options)
