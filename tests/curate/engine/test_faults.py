"""Workers, machines and drivers die, and machines that cannot do the work join: on real raylets."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datacomp.curate.shards import build_shards

pytestmark = pytest.mark.timeout(600)
SCRIPT = Path(__file__).with_name("cluster_script.py")
ISOLATED = ("unshare", "-n", "-m", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""A network of its own that has only loopback, and mounts of its own."""
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_prestart_worker_first_driver": "0"}
"""Every driver would have a worker started for each processor, though few of them are needed."""


def _why_not():
    if importlib.util.find_spec("ray") is None:
        return "the extra ray is not installed"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "unshare and ip are needed for a network of its own"
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode:
        return "no rights to make a network of its own (unshare -n -m)"
    return None


@pytest.fixture(scope="module")
def seen(tmp_path_factory, write_shards, write_subset):
    """Run the script once; return what was seen in each case."""
    if why := _why_not():
        pytest.skip(why)
    home = tmp_path_factory.mktemp("faults")
    write_shards(home / "shards")
    write_subset(home / "subset.npy", range(20))
    done = subprocess.run(
        [*ISOLATED, sys.executable, str(SCRIPT), str(home)], capture_output=True, text=True,
        check=False, env={**os.environ, **SETTINGS},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.pop("case"): line for line in lines} | {"home": home}


def test_the_machines_are_counted(seen):
    assert seen["nodes"] == {"count": 3, "workers": 2}  # the head works on nothing


def test_a_cluster_that_could_never_do_the_work_is_refused(seen):
    """Ray would wait for a machine that can, without a word."""
    assert seen["processors"] == {
        "told": "no machine of the cluster offers processors for work; start Ray with --num-cpus "
                "above 0 on some", "kind": "RunError",
    }  # fmt: skip
    assert seen["gpu"] == {  # the head has one, and no processor
        "told": "no machine of the cluster offers a GPU and a processor for work; start Ray with "
                "--num-cpus and --num-gpus above 0 on some", "kind": "RunError",
    }  # fmt: skip
    assert seen["memory"]["kind"] == "UsageError"
    assert re.fullmatch(
        r"each worker would have 10,000\.0 GB of memory, but \S+ \(127\.0\.0\.1\), the largest of "
        r"the machines of the cluster, has \d+\.\d GB for them; give the engine's workers less "
        r"memory", seen["memory"]["told"],
    )  # fmt: skip


def test_a_machine_may_say_itself_what_its_workers_take(seen):
    assert seen["limit"] == {"found": ["333MB"]}


def test_a_killed_worker_costs_one_attempt(seen):
    assert seen["worker"] == {"found": [0, 1, 4, 9, 16, 25], "attempts": 7}


def test_a_killed_machine_costs_one_attempt(seen):
    assert seen["raylet"] == {"found": [0, 1, 4, 9, 16, 25], "attempts": 7}


def test_a_killed_driver_goes_on_at_the_partition(seen, tmp_path):
    found, home = seen["driver"], seen["home"]
    assert (found["samples"], found["shards"]) == (20, 20)
    # What two workers were at may have to be done again: a shard is whole with its stats.
    assert max(1, found["before"] - 2) <= found["reused"] <= 20
    whole = tmp_path / "whole"
    report = build_shards(home / "shards", home / "subset.npy", whole, shard_size=1, workers=1)
    assert found["digest"] == report.digest
    built = {path.name: path.read_bytes() for path in (home / "built").iterdir()}
    assert built == {path.name: path.read_bytes() for path in whole.iterdir()}


def test_machines_with_another_version_or_none_are_refused_by_name(seen):
    from datacomp import __version__

    old, none = seen["names"]["names"]
    told = seen["machines"]
    assert told["kind"] == "RunError"
    assert told["told"].startswith("machines of the cluster that cannot do this work: ")
    assert f"{old} has datacomp 0.0.9, but this machine {__version__}" in told["told"]
    assert (
        f"{none} cannot import datacomp (ImportError: not installed); install "
        f"datacomp[ray]=={__version__} there"
    ) in told["told"]


def test_a_path_that_a_machine_does_not_see_is_told(seen):
    name, home = seen["names"]["names"][0], seen["home"]
    assert seen["seen"]["told"] is None
    rest = (
        "; the machines of a cluster need a file system that they share, or an object store "
        "(s3://...)"
    )
    assert seen["unseen"] == {
        "told": f"{name} does not see {home}/shards/00000000.tar{rest}", "kind": "MissingError",
    }  # fmt: skip
    assert seen["other"]["told"] == f"{name} sees something else at {home}/shards{rest}"


def test_reasons_come_to_a_folder_that_the_worker_does_not_share(seen):
    assert seen["image_size:min_side=205"] == {"kept": 15, "reasons": ["why.parquet"]}


def test_a_machine_with_other_code_of_a_filter_is_refused(seen):
    own = seen["home"] / "own" / "mine.py"
    found = seen["code"]
    assert found["kind"] == "MissingError"
    assert found["told"].endswith(
        f" sees something else at {own}; the machines of a cluster need the same file there"
    )


def test_a_machine_without_what_the_work_needs_is_refused(seen):
    name = seen["code"]["told"].partition(" sees")[0]
    for case, module, extra in (
        ("needs", "faiss", "clusters"), ("store", "s3fs", "s3"), ("index", "s3fs", "s3"),
        ("built", "s3fs", "s3"),
    ):  # fmt: skip
        told = f"{name} lacks {module}; install 'datacomp[{extra}]' there"
        assert seen[case] == {"told": told, "kind": "MissingError"}
