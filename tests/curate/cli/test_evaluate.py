import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from datacomp.curate.cli import cli
from datacomp.errors import DataError, UsageError
from datacomp.pools.tar import tar_bytes


def call(*arguments: object, expect: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(a) for a in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    code = done.return_value if isinstance(done.return_value, int) else done.exit_code
    assert code == expect, done.output
    return done.stdout


KITTI = "vtab/kitti_closest_vehicle_distance"
"""The smallest of DataComp's sets."""
FOLDER = "sets/wds_vtab-kitti_closest_vehicle_distance_test"


def members(count: int = 711) -> list[tuple[str, bytes]]:
    import io

    from PIL import Image

    found = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), i % 256).save(buffer, "PNG")
        found += [(f"s{i}.cls", str(i % 4).encode()), (f"s{i}.png", buffer.getvalue())]
    return found


@pytest.fixture
def place(tmp_path: Path, tiny_run) -> Path:
    """A run with a random checkpoint, and a stand-in for KITTI beside it."""
    tiny_run(tmp_path / "run")
    path = tmp_path / FOLDER
    (path / "test").mkdir(parents=True)
    (path / "test" / "0.tar").write_bytes(tar_bytes(members()))
    (path / "test" / "nshards.txt").write_text("1")
    (path / "classnames.txt").write_text("a car\na van\na truck\nno vehicle\n")
    (path / "zeroshot_classification_templates.txt").write_text("a photo of {c}\n")
    return tmp_path


def test_a_run_is_evaluated_then_shown(place):
    out = call("evaluate", place / "run", "--data", place / "sets", "--device", "cpu")
    assert out.splitlines()[2].startswith(f"{KITTI}  ")
    again = call("evaluate", place / "run", "--data", place / "sets", "--json")
    found = json.loads(again)
    assert found["skipped"] == [KITTI]
    assert found["output"] == str(place / "run" / "eval_results.jsonl")
    shown = call("results", "show", place / "run")
    value = found["results"][0]["metrics"]["main_metric"]
    assert f"{KITTI} (near chance)  {value:.4f} (" in shown
    assert re.search(r"^Average +- \(1 of 38 tasks\)$", shown, re.MULTILINE)
    assert re.search(r"^Average without near-chance tasks +- \(0 of 33 tasks\)$", shown, re.M)
    partial = call("results", "show", place / "run", "--partial")
    low, high = found["results"][0]["uncertainty"]["interval"]
    assert re.search(rf"^VTAB +{value:.4f} \(0.* to 0.*\) \(1 of 13 tasks\)$", partial, re.M)
    assert low < value < high
    left_out = partial.splitlines()[-1]
    assert left_out.startswith("run: without vtab/caltech101, cifar10, ")
    assert left_out.count(",") == 36
    machine = json.loads(call("results", "show", place / "run", "--json"))
    average = machine[str(place / "run")]["groups"]["datacomp"]["Average"]
    assert average["value"] is None
    assert len(average["missing"]) == 37


def test_a_model_and_a_checkpoint(place):
    output = place / "out.jsonl"
    call("evaluate", "--model", place / "run/model_config.json",
         "--checkpoint", place / "run/checkpoints/epoch_5.pt", "--data", place / "sets",
         "--tasks", KITTI, "-o", output)  # fmt: skip
    assert json.loads(output.read_text())["provenance"]["model"] == "model_config"


def test_failed_tasks_are_exit_code_3_beside_done_ones_and_1_alone(place, command):
    arguments = ["evaluate", place / "run", "--data", place / "sets", "--device", "cpu", "--tasks"]
    code, out, err = command(*arguments, f"{KITTI},cifar10")
    folder = place / "sets/wds_cifar10_test"
    reason = (
        f"no data of task cifar10: there is no folder {folder}; 'datacomp evalsets download "
        f"{place / 'sets'} --tasks cifar10' fetches evaluation sets"
    )
    assert code == 3
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[2:]] == [KITTI, "cifar10"]
    assert rows[3] == ["cifar10", "-", "-", "-", "-", "absent"]
    assert f"warning: cifar10 failed: {reason}\n" in err
    code, out, _ = command(*arguments, "cifar10", "--json")
    assert code == 1
    assert json.loads(out)["failed"] == {"cifar10": reason}
    assert json.loads(out)["absent"] == ["cifar10"]
    (place / FOLDER / "classnames.txt").write_text("one\n")
    code, out, _ = command(*arguments, KITTI)
    assert (code, out.split()[-6:]) == (1, [KITTI, "-", "-", "-", "-", "failed"])


def test_what_is_not_there_is_one_clear_line(place, command, tiny_run):
    code, _, err = command("evaluate", place / "run", "--data", place / "none", "--suite", "demo")
    assert (code, err) == (
        1,
        f"error: no evaluation sets at {place / 'none'}: no such folder; 'datacomp evalsets demo "
        f"{place / 'none'}' builds the demo suite\n",
    )
    tiny_run(place / "run", status="running")
    code, _, err = command("evaluate", place / "run", "--data", place / "sets")
    assert code == 1
    assert err == (
        f"error: {place / 'run'}: the run is not finished; give the same 'datacomp train' "
        "command again first\n"
    )


def test_samples_set_aside_are_exit_code_3(place):
    shard = place / FOLDER / "test/0.tar"
    shard.write_bytes(tar_bytes([*members(710), ("a.cls", b"1"), ("a.png", b"?")]))
    call("evaluate", place / "run", "--data", place / "sets", expect=3)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--model", "ViT-B-32"], ["RUN", "--checkpoint", "x"], ["RUN", "--model", "m"]],
)
def test_a_run_or_a_model_and_a_checkpoint(place, arguments):
    with pytest.raises(UsageError, match="give a RUN, or --model and --checkpoint"):
        call("evaluate", *arguments, "--data", place)


def test_runs_on_other_data_are_not_shown_side_by_side(place):
    call("evaluate", place / "run", "--data", place / "sets")
    line = json.loads((place / "run/eval_results.jsonl").read_text())
    line["provenance"]["data"] = "0" * 64
    other = place / "other.jsonl"
    other.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match="evaluated on other data"):
        call("results", "show", place / "run", other)


def test_a_suite_without_its_data_is_one_line(place, command):
    (place / FOLDER).rename(place / "away")
    for arguments in (
        ("evaluate", place / "run", "--data", place / "sets", "--suite", "datacomp"),
        ("evalsets", "check", place / "sets", "--suite", "datacomp"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        assert err == (
            f"error: none of the 40 tasks' folders are in {place / 'sets'}: "
            "wds_vtab-caltech101_test, wds_cifar10_test, wds_vtab-cifar100_test, "
            "wds_vtab-clevr_count_all_test, wds_vtab-clevr_closest_object_distance_test and "
            f"35 more; 'datacomp evalsets download {place / 'sets'}' fetches evaluation sets\n"
        )


def test_two_runs_are_compared(place, tiny_run, command):
    tiny_run(place / "other", seed=1)
    for run in ("run", "other"):
        call("evaluate", place / run, "--data", place / "sets")
    arguments = ["results", "compare", place / "run", place / "other"]
    out = call(*arguments)
    header, _, row, *rest = out.splitlines()
    assert header.split() == ["task", "run", "other", "difference", "95", "%", "interval", "higher"]
    found = json.loads(call(*arguments, "--json"))
    (one,) = found["tasks"]
    assert (one["name"], one["near_chance"]) == (KITTI, True)
    assert row.startswith(f"{KITTI} (near chance)  ")
    assert row.split()[-1] == ("tie" if one["tie"] else "other" if one["second"] > one["first"]
                               else "run")  # fmt: skip
    assert rest == ["", "Suite datacomp", "no group has all its tasks in both runs; see --partial"]
    assert found["groups"] == {"datacomp": []}
    partial = json.loads(call(*arguments, "--partial", "--json"))["groups"]["datacomp"]
    assert [group["name"] for group in partial] == ["VTAB", "Average", "Average above chance"]
    assert partial[0]["interval"] == one["interval"]
    assert call(*arguments, "--partial").splitlines()[-1].startswith("both: without vtab/caltech")


def test_sets_are_checked(place, command):
    code, out, err = command("evalsets", "check", place / "sets")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{KITTI} +711 +0 +[0-9a-f]{{12}}  recorded now", out.splitlines()[2])
    (found,) = json.loads(call("evalsets", "check", place / "sets", "--json"))
    assert (found["known"], found["error"]) == (True, None)
    shard = place / FOLDER / "test/0.tar"
    shard.write_bytes(tar_bytes([*members(710), ("a.cls", b"1"), ("a.txt", b"?")]))
    code, out, err = command("evalsets", "check", place / "sets", "--tasks", f"{KITTI},mnist")
    assert (code, out) == (1, "")
    first, second = err.splitlines()
    assert first == (f"error: {place / 'sets'}: 1 of 2 tasks have no folder there: wds_mnist_test; "
                     f"'datacomp evalsets download {place / 'sets'} --tasks mnist' fetches "
                     "evaluation sets")  # fmt: skip
    assert second.startswith(f"error: {KITTI}: the evaluation set is not what ")
    (place / "sets/digests.jsonl").unlink()
    code, out, err = command("evalsets", "check", place / "sets")
    assert (code, err) == (3, f"warning: {KITTI}: 1 flawed, first 0.tar:a: no image\n")


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/x", "s3://bucket/sets", "hub"])
@pytest.mark.parametrize("more", [(), ("--tasks", "mnist")])
def test_only_a_folder_can_be_checked(command, tmp_path, monkeypatch, where, more):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("evalsets", "check", where, *more)
    assert (code, err) == (
        2,
        f"error: {where}: check reads a folder; use 'datacomp evaluate --data', which checks what "
        "it streams, or 'datacomp evalsets download'\n",
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [("--suite", "demo"), ("--pages", "p"), ("--corrupt", "fog:1"), ("--keep-embeddings", "k"),
     ("--data", "d"), ("--device", "cpu"), ("--batch-size", "64")],
)  # fmt: skip
def test_options_of_a_model_are_refused_beside_embeddings(command, tmp_path, option, value):
    arguments = ["evaluate", "--embeddings", tmp_path, "-o", tmp_path / "r.jsonl"]
    code, _, err = command(*arguments, option, value)
    assert (code, err) == (
        2,
        f"error: {option} does not go with --embeddings, which has neither model nor images; "
        "leave it out (--tasks chooses among what is kept)\n",
    )


def scored(path: Path, key: str, value: float = 0.5) -> Path:
    """Write a run with one score, and return its folder."""
    path.mkdir(parents=True)
    line = {"key": key, "dataset": key, "metrics": {"main_metric": value}}
    (path / "eval_results.jsonl").write_text(json.dumps(line) + "\n")
    return path


def test_runs_without_a_task_in_common_are_not_compared(command, tmp_path):
    one, other = scored(tmp_path / "a", "mnist"), scored(tmp_path / "b", "cifar10")
    code, out, err = command("results", "compare", one, other)
    assert (code, out) == (1, "")
    assert err == "error: no task in common: the runs were evaluated on other tasks\n"


@pytest.mark.parametrize("what", ["show", "aggregate"])
@pytest.mark.parametrize("form", ["text", "csv"])
def test_runs_of_one_name_go_by_their_paths(command, tmp_path, monkeypatch, what, form):
    monkeypatch.chdir(tmp_path)
    runs = [scored(Path(run), "mnist") for run in ("x/r", "y/r", "y/s")]
    code, out, _ = command("results", what, *runs, "--partial", "--format", form)
    assert code == 0
    if form == "csv":
        assert {line.split(",")[0] for line in out.splitlines()[1:]} == {"x/r", "y/r", "s"}
    else:
        headers = [line.split()[1:] for line in out.splitlines() if line.startswith("group ")]
        assert headers == [["x/r", "y/r", "s"]]
        assert [line.split(":")[0] for line in out.splitlines() if ": without" in line] == [
            "x/r", "y/r", "s"
        ]  # fmt: skip


def test_folders_without_results_are_left_out_of_several(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scored(Path("runs/a"), "mnist")
    Path("runs/b").mkdir()
    Path("runs/b/knn_results.jsonl").touch()
    code, out, err = command("results", "show", "runs/a", "runs/b", "--partial")
    assert code == 0
    assert out.splitlines()[0].split() == ["task", "a"]
    left = "no results at runs/b/eval_results.jsonl; name what is there: runs/b/knn_results.jsonl"
    assert err == f"warning: left out: {left}\n"
    assert command("results", "show", "runs/b") == (1, "", f"error: {left}\n")
    assert command("results", "show", "runs") == (
        1, "", "error: no results at runs/eval_results.jsonl; name what is there: runs/a\n",
    )  # fmt: skip
    code, _, err = command("results", "show", "runs/a", "runs/c")
    assert (code, err) == (1, "error: no results at runs/c; run 'datacomp evaluate' first\n")


def test_every_task_is_listed():
    found = json.loads(call("evalsets", "list", "--json"))
    assert len(found) == 45
    assert found[0]["folder"] == "wds_vtab-caltech101_test"
    text = call("evalsets", "list", "--suite", "demo")
    assert len(text.splitlines()) == 7
    assert "demo/digits" in text


def test_the_demo_suite_is_built(tmp_path):
    out = call("evalsets", "demo", tmp_path, "--json")
    assert list(json.loads(out)["tasks"]) == [
        "demo/digits", "demo/letters", "demo/greek", "demo/symbols", "demo/glyph_retrieval",
    ]  # fmt: skip
    assert (tmp_path / "wds_demo-digits_test" / "test" / "1.tar").is_file()


def test_pages_and_kept_embeddings(place, command, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    (place / "sets").rename(place / "evalsets")  # the default of --data
    pages, kept, again = tmp_path / "pages", tmp_path / "kept", tmp_path / "again.jsonl"
    arguments = ["evaluate", "run", "--device", "cpu", "--pages", pages]
    code, _, errors = command(*arguments, "--keep-embeddings", kept)
    assert code == 0
    page = pages / "wds_vtab-kitti_closest_vehicle_distance_test.html"
    assert f"{KITTI}: {page}\n" in errors
    assert "KITTI Vehicle Distance: mistakes" in page.read_text()
    assert "done before" in command(*arguments, "--keep-embeddings", kept)[1]
    code, _, errors = command("evaluate", "--embeddings", kept)
    assert (code, errors) == (2, "error: name the results file with --output\n")
    assert command("evaluate", "--embeddings", kept, "-o", again)[0] == 0
    assert again.read_bytes() == (place / "run" / "eval_results.jsonl").read_bytes()
    code, _, errors = command(*arguments, "--probe", "knn")
    assert (code, errors) == (2, "error: a probe has no confusions to show; leave out the pages "
                                 "or the probe\n")  # fmt: skip


def test_corrupted_images_have_a_results_file_of_their_own(place):
    arguments = ["evaluate", place / "run", "--data", place / "sets", "--device", "cpu"]
    call(*arguments, "--probe", "knn", "--corrupt", "contrast:5")
    (found,) = (place / "run" / "contrast-5_knn_results.jsonl").read_text().splitlines()
    assert json.loads(found)["provenance"]["corruption"] == "contrast:5"
