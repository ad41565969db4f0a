import json

import pytest

SMALL = "mlfoundations/datacomp_small"


@pytest.fixture
def small(dataset_hub, commonpool, tmp_path):
    made = commonpool(tmp_path / "made", files=2, rows=3)
    dataset_hub.repositories[SMALL] = {
        "main": {path.name: path.read_bytes() for path in made.iterdir()}
    }
    return dataset_hub


def test_a_pool_is_downloaded_and_linked(small, command, tmp_path):
    folder = tmp_path / "small"
    code, out, err = command("pool", "download", "small", folder)
    assert code == 2
    assert "2 files, " in out
    assert err.startswith("error: 2 files, ")
    assert err.endswith(" at 1,000 Mbit/s; there is no terminal to ask: add --yes to start\n")
    assert not folder.exists()
    code, out, err = command("pool", "download", "small", folder, "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"{SMALL} at ")
    assert out.splitlines()[-1] == f"{folder}/pool.duckdb: 6 samples, linked"
    code, out, _ = command(
        "pool", "query", folder / "pool.duckdb", "SELECT count(*) AS n FROM samples"
    )
    assert "6" in out
    # All of it is here: nothing is asked, nothing needs a yes.
    code, out, err = command("pool", "download", "small", folder, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["files"], found["samples"], found["repository"]) == (2, 6, SMALL)


def test_size_time_and_what_is_missing_are_told_beside_json(small, command, tmp_path):
    del small.repositories[SMALL]["main"]["01ab.npz"]
    words = ["pool", "download", "small", tmp_path / "small", "--yes", "--features", "--json"]
    code, out, err = command(*words, "--metadata-only")
    assert (code, json.loads(out)["files"]) == (0, 3)
    warning, told = err.splitlines()
    assert warning == (
        f"warning: {SMALL}: the Hub has no features (.npz) of 1 of 2 files of metadata"
    )
    assert told.startswith(f"{SMALL} at ")
    assert told.endswith(" at 1,000 Mbit/s")


def test_metadata_only(small, command, tmp_path):
    folder = tmp_path / "small"
    words = ["pool", "download", "small", folder, "--yes", "--metadata-only", "--features"]
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"{folder}/metadata: 4 files, ")
    assert not (folder / "pool.duckdb").exists()
    code, _, err = command("pool", "download", "huge", folder)
    assert code == 2
    assert err.startswith("error: unknown pool 'huge'")


def test_an_evaluation_set_that_is_cut_short_is_told(dataset_hub, command, tmp_path, picture):
    from datacomp.pools.tar import tar_bytes

    digits = "\n".join(f"digit {number}" for number in range(10))
    dataset_hub.repositories["djghosh/wds_mnist_test"] = {"main": {
        "classnames.txt": digits.encode(), "test/nshards.txt": b"1",
        "zeroshot_classification_templates.txt": b"the number {c}",
        "test/0.tar": tar_bytes([("s0.cls", b"0"), ("s0.png", picture(0))]),
    }}  # fmt: skip
    code, out, err = command("evalsets", "download", tmp_path, "--tasks", "mnist,cifar10", "--yes")
    assert code == 1
    assert "djghosh/wds_mnist_test" in out
    assert "error: cifar10: djghosh/wds_cifar10_test: no such dataset on the Hub" in err
    assert "1 samples, task mnist has 10,000" in err
    assert not (tmp_path / "digests.jsonl").exists()
    code, _, err = command("evalsets", "download", tmp_path, "--suite", "demo")
    assert (code, err) == (
        2, "error: the demo suite is built, not brought: 'datacomp evalsets demo DIR'\n"
    )  # fmt: skip
