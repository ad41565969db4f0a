"""Submissions made from runs whose numbers fit each other."""

import json

import numpy as np
import pytest
from datacomp.durable import canonical_json, sha256_file
from datacomp.evaluate.leaderboard.layout import RECORD
from datacomp.evaluate.leaderboard.make import Statement, make_submission
from datacomp.evaluate.leaderboard.record import identifier
from datacomp.pools.uids import from_hex, save_subset


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what is remembered of judged submissions out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def subset(tmp_path):
    """Return a maker of subset files: uids 0, 2, 4, ..."""

    def subset(count=100, name="chosen.npy"):
        save_subset(tmp_path / name, from_hex([f"{2 * i:032x}" for i in range(count)]))
        return tmp_path / name

    return subset


@pytest.fixture
def submission(tmp_path, write_run, subset):
    """Return a maker of submissions; keywords change the statement."""
    made = []

    def submission(scale="small", quality=0.1, seeds=(0,), with_checkpoint=False, **more):
        number = len(made)
        runs = [
            write_run(tmp_path / f"run{number}-{seed}", scale, quality, seed, 100) for seed in seeds
        ]
        values = {
            "track": "filtering", "method": f"Method {number}", "author": "A. Person",
            "pool": {"samples": 1000, "available": 900},
        }  # fmt: skip
        folder = tmp_path / f"submission{number}"
        make_submission(
            runs, [subset()], Statement(**values | more), folder,
            with_checkpoint=with_checkpoint, created="2026-01-02T03:04:05Z",
        )  # fmt: skip
        made.append(folder)
        return folder

    return submission


@pytest.fixture
def forge():
    """Return a forger: change the record and any line of results, then make all digests fit."""

    def forge(folder, record=None, line=None):
        content = json.loads((folder / RECORD).read_bytes())
        if line is not None:
            path = folder / "results" / "0.jsonl"
            lines = [json.loads(text) for text in path.read_text().splitlines()]
            lines = line(lines) or lines
            path.write_text("".join(json.dumps(one) + "\n" for one in lines))
        for file in content["files"]:
            path = folder / file["path"]
            file["size"], file["sha256"] = path.stat().st_size, sha256_file(path)
        if record is not None:
            record(content)
        content["id"] = identifier(content)
        (folder / RECORD).write_bytes(canonical_json(content) + b"\n")
        return folder

    return forge


@pytest.fixture
def unsorted(tmp_path):
    """Return a .npy of uids that are not sorted."""
    path = tmp_path / "unsorted.npy"
    np.save(path, from_hex([f"{i:032x}" for i in (3, 1, 2)]))
    return path
