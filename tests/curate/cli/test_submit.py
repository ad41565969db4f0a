"""``datacomp submit``: what is gathered, what is refused, where it goes."""

import json
from pathlib import Path

import pytest
from datacomp.curate.subset import write_subset
from datacomp.pools.uids import digest_of_uids, from_hex


@pytest.fixture
def subset(tmp_path):
    """A subset with a sidecar that says how it was chosen."""
    funnel = [{"filter": "clip_score:fraction=0.3", "before": 300, "after": 100,
               "reasons": {"below_threshold": 200}}]  # fmt: skip
    write_subset(
        tmp_path / "my subset.npy", from_hex([f"{i:032x}" for i in range(100)]),
        {"pool": {"digest": "a" * 64, "samples": 300}, "funnel": funnel,
         "pipeline": {"filters": ["clip_score:fraction=0.3"], "combine": "and", "scores": []}},
    )  # fmt: skip
    return tmp_path / "my subset.npy"


@pytest.fixture
def words(write_run, subset, tmp_path):
    run = write_run(tmp_path / "run", samples=100)
    return ["submit", run, "--method", "Mine & yours", "--author", "A. Person",
            "--samples", subset, "--to", tmp_path / "board"]  # fmt: skip


def test_submit_to_a_folder(command, words, tmp_path):
    code, out, err = command(*words, "--hardware", "4 x A100", "--energy", "1.5", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["new"] is True
    assert answer["id"].startswith("mine-yours-")
    record = json.loads((tmp_path / "board/small/filtering" / answer["id"] / "submission.json")
                        .read_bytes())  # fmt: skip
    assert record["pool"] == {"digest": "a" * 64, "samples": 300, "available": None}
    assert record["pipeline"] == ["clip_score:fraction=0.3"]
    assert record["funnel"][0]["reasons"] == {"below_threshold": 200}
    assert record["samples"][0]["file"] == "samples/my-subset.npy"
    assert (record["hardware"], record["energy_kwh"]) == ("4 x A100", 1.5)
    again = command(*words, "--hardware", "4 x A100", "--energy", "1.5")[1]
    assert again.splitlines()[0] == f"{answer['id']}: was there already"


def test_a_repository_is_told_what_is_next(command, words, tmp_path):
    (tmp_path / ".git").mkdir()
    out = command(*words)[1].splitlines()
    inside = Path(out[1][7:]).resolve().relative_to(tmp_path.resolve())
    assert out[2] == (
        f"next:  git -C {tmp_path.resolve()} add {inside} && git -C {tmp_path.resolve()} "
        f"commit -m 'Submit {inside.name}', then open a pull request"
    )
    assert sorted(p.name for p in (tmp_path / "board").iterdir()) == ["small"]


def test_the_effective_pool(command, words, pool_of, tmp_path):
    pool = pool_of(uid=[f"{i:032x}" for i in range(100)])
    pool.close()
    out = command(*words, "--pool", pool.path, "--available", "90", "--json")[1]
    record = json.loads(
        (
            tmp_path / "board/small/filtering" / json.loads(out)["id"] / "submission.json"
        ).read_bytes()
    )
    assert (record["pool"]["samples"], record["pool"]["available"]) == (100, 90)


@pytest.mark.parametrize("more", [[], ["--available", "40"], ["--available", "41"]])
def test_the_effective_pool_of_a_pool_that_was_fetched(command, words, pool_of, more):
    pool = pool_of(uid=[f"{i:032x}" for i in range(100)])
    pool.sql("INSERT INTO fetches SELECT uid, CASE WHEN uid < 40 THEN 'ok' ELSE 'failed' END, "
             "CASE WHEN uid >= 40 THEN 'dns' END, 1, now()::TIMESTAMP FROM samples")  # fmt: skip
    pool.close()
    place = json.loads(command(*words, "--pool", pool.path, *more, "--json")[1])["place"]
    told = json.loads((Path(place) / "submission.json").read_bytes())["pool"]
    effective = digest_of_uids(from_hex([f"{i:032x}" for i in range(40)]))
    assert {key: told[key] for key in told if key.startswith("avail")} == (
        {"available": 41} if "41" in more else {"available": 40, "available_digest": effective}
    )


def test_of_a_pool_of_metadata_the_effective_pool_is_not_known(command, words, pool_of, tmp_path):
    pool = pool_of(uid=[f"{i:032x}" for i in range(100)])
    pool.close()
    place = json.loads(command(*words, "--pool", pool.path, "--json")[1])["place"]
    record = json.loads((Path(place) / "submission.json").read_bytes())
    assert (record["pool"]["samples"], record["pool"]["available"]) == (100, None)


@pytest.mark.parametrize(
    ("option", "value", "code", "what"),
    [
        ("--author", "A. Person <a@example.org>", 1, "author: holds an e-mail address"),
        ("--writeup", "ftp://x", 1, "writeup: expected an http:// or https:// address"),
        ("--to", "s3://bucket", 2, "expected a folder, https:// or hf://"),
        ("--to", "http://board.example.org", 1, "holds no token"),
        ("--samples", "nothing.npy", 1, "no such file"),
        ("--samples", ",", 2, "names no file"),
    ],
)
def test_refusals(command, words, tmp_path, monkeypatch, option, value, code, what):
    monkeypatch.delenv("DATACOMP_TOKEN", raising=False)
    if option in words:
        words[words.index(option) + 1] = value
    else:
        words += [option, value]
    found, _, err = command(*words)
    assert (found, what in err) == (code, True), err
    assert not (tmp_path / "board" / "small").exists()


def test_a_trial_is_no_run_of_the_scale(command, words, tmp_path):
    path = tmp_path / "run" / "info.json"
    info = json.loads(path.read_text())
    info["scale"]["samples_seen"] = 640_000
    path.write_text(json.dumps(info))
    code, _, err = command(*words)
    assert code == 1
    assert "[scale] submission.json: scale small has samples_seen 12800000" in err
