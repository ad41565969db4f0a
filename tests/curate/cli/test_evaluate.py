import json
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


@pytest.fixture
def place(tmp_path: Path, tiny_run) -> Path:
    """A run with a random checkpoint, and a three-image MNIST beside it."""
    import io

    from PIL import Image

    tiny_run(tmp_path / "run")
    path = tmp_path / "sets" / "wds_mnist_test"
    (path / "test").mkdir(parents=True)
    members = []
    for i in range(3):
        buffer = io.BytesIO()
        Image.new("L", (28, 28), 80 * i).save(buffer, "PNG")
        members += [(f"s{i}.cls", str(i).encode()), (f"s{i}.png", buffer.getvalue())]
    (path / "test" / "0.tar").write_bytes(tar_bytes(members))
    (path / "test" / "nshards.txt").write_text("1")
    (path / "classnames.txt").write_text("".join(f"{i}\n" for i in range(10)))
    (path / "zeroshot_classification_templates.txt").write_text("the digit {c}\n")
    return tmp_path


def test_a_run_is_evaluated_then_shown(place):
    out = call("evaluate", place / "run", "--data", place / "sets", "--device", "cpu")
    assert out.splitlines()[2].startswith("mnist  ")
    again = call("evaluate", place / "run", "--data", place / "sets", "--json")
    found = json.loads(again)
    assert found["skipped"] == ["mnist"]
    assert found["output"] == str(place / "run" / "eval_results.jsonl")
    shown = call("results", "show", place / "run")
    value = found["results"][0]["metrics"]["main_metric"]
    assert f"mnist  {value:.4f} (" in shown
    assert "Average                - (1 of 38 tasks)" in shown
    partial = call("results", "show", place / "run", "--partial")
    assert f"{value:.4f} (1 of 38 tasks)" in partial
    machine = json.loads(call("results", "show", place / "run", "--json"))
    average = machine[str(place / "run")]["groups"]["datacomp"]["Average"]
    assert average["value"] is None
    assert len(average["missing"]) == 37


def test_a_model_and_a_checkpoint(place):
    output = place / "out.jsonl"
    call("evaluate", "--model", place / "run/model_config.json",
         "--checkpoint", place / "run/checkpoints/epoch_5.pt", "--data", place / "sets",
         "--tasks", "mnist", "-o", output)  # fmt: skip
    assert json.loads(output.read_text())["provenance"]["model"] == "model_config"


def test_failed_tasks_are_exit_code_3_beside_done_ones_and_1_alone(place, command):
    arguments = ["evaluate", place / "run", "--data", place / "sets", "--device", "cpu", "--tasks"]
    code, out, err = command(*arguments, "mnist,cifar10")
    folder = place / "sets/wds_cifar10_test"
    reason = f"no data of task cifar10: there is no folder {folder}"
    assert code == 3
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[2:]] == ["mnist", "cifar10"]
    assert rows[3] == ["cifar10", "-", "-", "-", "-", "failed"]
    assert f"warning: cifar10 failed: {reason}\n" in err
    code, out, _ = command(*arguments, "cifar10", "--json")
    assert code == 1
    assert json.loads(out)["failed"] == {"cifar10": reason}


def test_what_is_not_there_is_one_clear_line(place, command, tiny_run):
    code, _, err = command("evaluate", place / "run", "--data", place / "none", "--suite", "demo")
    assert (code, err) == (1, f"error: no evaluation sets at {place / 'none'}: no such folder\n")
    tiny_run(place / "run", status="running")
    code, _, err = command("evaluate", place / "run", "--data", place / "sets")
    assert code == 1
    assert err == (
        f"error: {place / 'run'}: the run is not finished; give the same 'datacomp train' "
        "command again first\n"
    )


def test_samples_set_aside_are_exit_code_3(place):
    shard = place / "sets/wds_mnist_test/test/0.tar"
    shard.write_bytes(tar_bytes([("a.cls", b"1"), ("a.png", b"?")])[:-1024] + shard.read_bytes())
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


def test_every_task_is_listed():
    found = json.loads(call("evalsets", "list", "--json"))
    assert len(found) == 37
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
