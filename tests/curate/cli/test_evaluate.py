import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from datacomp.curate.cli import cli
from datacomp.errors import DataError, UsageError
from datacomp.pools.tar import tar_bytes

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip


def call(*arguments: object, expect: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(a) for a in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    code = done.return_value if isinstance(done.return_value, int) else done.exit_code
    assert code == expect, done.output
    return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run with a random checkpoint, and a three-image MNIST beside it."""
    import io

    import open_clip
    import torch
    from PIL import Image

    run = tmp_path / "run"
    run.mkdir()
    torch.manual_seed(0)
    torch.save({"state_dict": open_clip.CLIP(**CONFIG).state_dict()}, run / "w.pt")
    (run / "model.json").write_text(json.dumps(CONFIG))
    (run / "info.json").write_text(
        json.dumps({"model": "t", "model_config": "model.json", "checkpoint": "w.pt"})
    )
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
    call("evaluate", "--model", place / "run/model.json", "--checkpoint", place / "run/w.pt",
         "--data", place / "sets", "--tasks", "mnist", "-o", output)  # fmt: skip
    assert json.loads(output.read_text())["provenance"]["model"] == "model"


def test_a_failed_task_is_exit_code_1(place):
    out = call("evaluate", place / "run", "--data", place / "sets", "--tasks", "mnist,cifar10",
               expect=1)  # fmt: skip
    assert "cifar10 failed: no data of task cifar10: " in out
    assert "mnist" in out


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
