"""A whole small study, in processes of its own, as a user runs it."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datacomp.durable import alone

pytestmark = pytest.mark.slow

STUDY = """\
[study]
name = "small"
output = "out"

[[pool.source]]
kind = "glyphs"
samples = 400

[[pool.source]]
kind = "folder"
path = "photos"

[[dataset]]
name = "all"
filters = [{ use = "no_filter" }]

[[dataset]]
name = "scored"
filters = [{ use = "clip_score", checkpoint = "run:all", fraction = 0.5 }]

[truth]
filters = [
    { use = "exact_dedup" },
    { use = "dfn", checkpoint = "run:all", fraction = 0.5 },
    { use = "neg_clip_loss", arch = "run:all", fraction = 0.5 },
    { use = "vas_d", features = "run:all", fraction = 0.5 },
    { combine = "minus", filters = [{ use = "no_filter" }, { use = "image_size" }] },
]

[shards]
size = 150

[train]
scale = "demo"
samples_seen = 640
seeds = [0]
threads = 1
workers = 0
parallel = 2

[evaluate]
suite = "demo"
tasks = ["demo/digits", "demo/letters"]
"""


def prepare(folder: Path) -> Path:
    from PIL import Image

    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 40), (number * 50, 90, 30)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"a plain colour, number {number}")
    (photos / "2.png").write_bytes(b"no image")
    config = folder / "datacomp.toml"
    config.write_text(STUDY)
    return config


def datacomp(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "datacomp.curate.cli", *map(str, arguments)]


def run(config: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        datacomp("run", "-c", config, *more), capture_output=True, text=True, timeout=280
    )


def outputs(folder: Path) -> dict[str, str]:
    """Return the digests of all that must be the same whenever the study is the same."""
    out = folder / "out"
    kept = {}
    patterns = ("subsets/*", "shards/*/*", "runs/*/checkpoints/epoch_5.pt", "glyphs/*.tar",
                "evalsets/**/*.tar", "runs/*/eval_results.jsonl")  # fmt: skip
    for pattern in patterns:
        for path in sorted(out.glob(pattern)):
            if path.is_file() and not path.name.startswith("."):
                data = path.read_bytes()
                kept[str(path.relative_to(out))] = hashlib.sha256(data).hexdigest()
    return kept


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = prepare(folder)
    result = run(config)
    assert result.returncode == 3, result.stderr  # one photo was set aside
    return folder, config, result


def test_a_cluster_gives_the_same_bytes(finished, tmp_path, monkeypatch):
    """A cluster cuts the shards and evaluates: for one dataset, on sets that are there already."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray makes a token in the home
    folder, _, _ = finished
    config = prepare(tmp_path / "ray")
    text = STUDY[: STUDY.index('[[dataset]]\nname = "scored"')] + STUDY[STUDY.index("[shards]") :]
    evalsets = shutil.copytree(folder / "out/evalsets", tmp_path / "evalsets")
    text += f'data = "{evalsets}"\n'
    config.write_text(f'{text}\n[engine]\nkind = "ray"\naddress = "local"\nworkers = 2\n')
    result = run(config)
    assert result.returncode == 3, result.stderr
    expected = outputs(folder)
    wanted = {name for name in expected if "scored" not in name and name[:9] != "evalsets/"}
    for kind in ("subsets/all.npy", "shards/all/", "runs/all-seed0/eval_results.jsonl"):
        assert any(name.startswith(kind) for name in wanted)
    assert outputs(tmp_path / "ray") == {name: expected[name] for name in wanted}


def test_it_writes_results_and_a_report(finished):
    folder, _, result = finished
    assert "1 sample was set aside" in result.stderr
    results = json.loads((folder / "out/results.json").read_bytes())
    assert [task["key"] for task in results["tasks"]] == ["demo/digits", "demo/letters"]
    assert results["study"]["pool"]["samples"] == 402
    assert results["study"]["pool"]["set_aside"] == {"image_broken": 1}
    rows = {row["name"]: row for row in results["datasets"]}
    assert rows["all"]["size"] == 402
    assert rows["all"]["recall"] == 1.0
    assert rows["scored"]["size"] == 202  # n * fraction + 1, as DataComp selects
    assert rows["scored"]["tied_with"] == ["all"]  # one seed tells no difference
    assert rows["scored"]["filters"] == ["clip_score:checkpoint=run:all,fraction=0.5"]
    assert set(rows["all"]["seconds"]) == {
        "scoring", "filter", "shards", "train", "evaluate", "total"
    }  # fmt: skip
    assert rows["all"]["seconds"]["scoring"] == 0
    assert rows["scored"]["seconds"]["scoring"] > 0
    assert rows["scored"]["used"]["runs"] == ["all-seed0"]
    assert rows["scored"]["used"]["seconds"] >= rows["all"]["seconds"]["train"]
    page = (folder / "out/report.html").read_text()
    assert "<title>small</title>" in page
    truth = {row["filter"]: row for row in results["truth"]}
    assert {name: row["size"] for name, row in truth.items()} == {
        "exact_dedup": truth["exact_dedup"]["size"],
        "dfn:checkpoint=run:all,fraction=0.5": 201,
        "neg_clip_loss:arch=run:all,fraction=0.5": 201,
        "vas_d:features=run:all,fraction=0.5": 201,
        "(no_filter minus image_size)": 402,  # all are drawn smaller than the rule asks for
    }
    assert 390 < truth["exact_dedup"]["size"] < 402
    assert truth["(no_filter minus image_size)"]["recall"] == 1.0
    assert sum(truth["exact_dedup"]["kept_defects"].values()) + 2 == truth["exact_dedup"]["size"]
    assert "Filters against the truth" in page
    assert "http" + "://" not in page.replace("http://www.w3.org", "")


def test_the_truth_never_reaches_the_shards(finished):
    folder, _, _ = finished
    for shard in (folder / "out/shards/all").glob("*.tar"):
        assert b'"truth"' not in shard.read_bytes()


def test_a_second_run_starts_nothing(finished):
    folder, config, _ = finished
    before = outputs(folder)
    started = time.monotonic()
    result = run(config, "--json")
    assert json.loads(result.stdout)["format"] == "datacomp-results"
    assert time.monotonic() - started < 30
    assert "train" not in result.stderr
    assert outputs(folder) == before
    dry = run(config, "--dry-run", "--json")
    states = {row["task"]: row["state"] for row in json.loads(dry.stdout)}
    assert set(states.values()) == {"done already", "to run"}
    assert [task for task, state in states.items() if state == "to run"] == ["report"]


def test_a_second_study_at_work_there_is_refused(finished):
    folder, config, _ = finished
    with alone(folder / "out", "free"):
        result = run(config, "--only", "shards")
    assert result.returncode != 0
    told = "another 'datacomp run' is at work there; wait for it or stop it"
    assert result.stderr == f"error: {folder / 'out'}: {told}\n"


def test_only_and_from(finished):
    folder, config, _ = finished
    before = outputs(folder)
    result = run(config, "--only", "shards")
    assert "done: shards" in result.stdout
    assert "evaluate" not in result.stderr
    assert outputs(folder) == before
    assert "unknown stage 'shard' (did you mean 'shards'?)" in run(config, "--from", "shard").stderr


def test_a_change_of_the_pool_s_files_runs_what_depends_on_it(finished, tmp_path):
    _, config, _ = finished
    dry = tmp_path / "datacomp.toml"
    dry.write_text(config.read_text().replace('output = "out"', f'output = "{config.parent}/out"')
                   .replace('path = "photos"', f'path = "{config.parent}/photos"')
                   .replace("fraction = 0.5", "fraction = 0.4"))  # fmt: skip
    states = {row["task"]: row["state"] for row in
              json.loads(run(dry, "--dry-run", "--json").stdout)}  # fmt: skip
    assert states["filter-all"] == "done already"
    assert states["filter-scored"] == "to run"
    assert states["train-scored-seed0"] == "to run"
    assert states["train-all-seed0"] == "done already"


def test_killed_at_any_point_it_ends_with_the_same_bytes(finished, tmp_path):
    expected = outputs(finished[0])
    config = prepare(tmp_path)
    rng = random.Random(int(os.environ.get("KILL_SEED", "1")))
    kills = 0
    for _ in range(int(os.environ.get("KILLS", "4"))):
        with subprocess.Popen(
            datacomp("-q", "run", "-c", config), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            done = len(list((tmp_path / "out/stages").glob("*.json")))
            # Wait for some progress, then strike at a moment of the next stages' work.
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if len(list((tmp_path / "out/stages").glob("*.json"))) >= done + rng.randint(0, 3):
                    break
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 4))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills >= 1
    result = run(config)
    assert result.returncode == 3, result.stderr
    assert outputs(tmp_path) == expected
    # No file that is handed on tells in which folder the study lay.
    kinds = {Path(name).name.partition(".")[2] for name in expected if name[:8] == "subsets/"}
    assert kinds == {"npy", "json", "reasons.parquet"}


def of_session(leader: int) -> list[str]:
    """Return the commands of the processes of a session that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("sent", "servers", "wait"),
    [
        (signal.SIGINT, 1, 0), (signal.SIGINT, 1, 0.2), (signal.SIGINT, 1, 2),
        (signal.SIGINT, 2, 0.5), (signal.SIGTERM, 1, 2), (signal.SIGKILL, 1, 2),
        (signal.SIGKILL, 2, 0.5),
    ],
)  # fmt: skip
def test_nothing_goes_on_once_it_was_stopped(tmp_path, sent, servers, wait):
    """After two seconds the fork server still imports; once it has forked a stage is under way."""
    config = prepare(tmp_path)
    with (tmp_path / "errors").open("wb") as told, subprocess.Popen(
        datacomp("run", "-c", config), stdout=subprocess.DEVNULL, stderr=told,
        start_new_session=True,
    ) as process:  # fmt: skip
        while sum("forkserver" in command for command in of_session(process.pid)) < servers:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(wait)
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.send_signal(sent)
        process.wait(60)
        deadline = time.monotonic() + 3
        while left := of_session(process.pid):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert process.returncode == expected[sent]
    errors = (tmp_path / "errors").read_text()
    assert "Traceback" not in errors
    if sent == signal.SIGINT:
        assert errors.endswith("interrupted; run the same command again to go on\n")
