import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError
from datacomp.evaluate.models import load_model, load_run, resolve_model


@pytest.fixture
def run(tiny, tmp_path) -> Path:
    spec = tiny(0)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(spec.checkpoint, folder / "checkpoints" / "epoch_5.pt")
    shutil.copy(spec.model_config, folder / "model_config.json")
    info = {
        "model": "tiny", "model_config": "model_config.json",
        "checkpoint": "checkpoints/epoch_5.pt", "image_size": 32, "seed": 3,
    }  # fmt: skip
    (folder / "info.json").write_text(json.dumps(info))
    return folder


def change(run: Path, **values: object) -> None:
    info = json.loads((run / "info.json").read_text())
    (run / "info.json").write_text(json.dumps({**info, **values}))


def test_a_run_says_its_model(run):
    found = load_run(run)
    assert found.spec.model == "tiny"
    assert found.spec.checkpoint == (run / "checkpoints/epoch_5.pt").resolve()
    assert found.spec.model_config == (run / "model_config.json").resolve()
    assert (found.image_size, found.info["seed"]) == (32, 3)
    assert found.results == run / "eval_results.jsonl"


def test_a_runs_model_is_the_checkpoints_model(run, tiny):
    spec = tiny(0)
    texts = ["one", "two"]
    from_run = load_model(run, device="cpu").encode_texts(texts)
    from_files = load_model(spec.model_config, spec.checkpoint, device="cpu").encode_texts(texts)
    assert np.array_equal(from_run, from_files)


def test_a_name_and_a_checkpoint(tmp_path):
    spec = resolve_model("ViT-B-32", tmp_path / "a.pt")
    assert (spec.model, spec.model_config) == ("ViT-B-32", None)
    spec = resolve_model(str(tmp_path / "my.json"), tmp_path / "a.pt")
    assert (spec.model, spec.model_config) == ("my", tmp_path / "my.json")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"checkpoint": "../x.pt"}, UnsafeInputError, "checkpoint '../x.pt' leaves the run's"),
        ({"checkpoint": "/etc/passwd"}, UnsafeInputError, "checkpoint '/etc/passwd' leaves"),
        ({"model_config": "../c.json"}, UnsafeInputError, "model_config '../c.json' leaves"),
        ({"checkpoint": 3}, DataError, "checkpoint is 3, expected a path inside the run"),
        ({"checkpoint": None}, MissingError, "names no checkpoint; finish the training first"),
        ({"model": None}, DataError, "model is None, expected a name"),
    ],
)
def test_a_wrong_run_is_refused(run, values, kind, message):
    change(run, **values)
    with pytest.raises(kind, match=re.escape(f"{run / 'info.json'}: {message}")):
        load_run(run)


def test_a_link_out_of_the_run_is_refused(run, tmp_path):
    (tmp_path / "secret.pt").write_bytes(b"x")
    (run / "link.pt").symlink_to(tmp_path / "secret.pt")
    change(run, checkpoint="link.pt")
    with pytest.raises(UnsafeInputError, match=r"'link\.pt' leaves the run's directory"):
        load_run(run)


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "[" * 100_000])
def test_a_damaged_info_is_refused(run, content):
    (run / "info.json").write_text(content)
    with pytest.raises(DataError, match=r"info\.json: (not JSON|expected an object)"):
        load_run(run)


def test_no_run_there(tmp_path):
    with pytest.raises(MissingError, match=re.escape(f"no run at {tmp_path}: info.json is not")):
        load_run(tmp_path)
    with pytest.raises(MissingError, match="give a run's directory, or --model with --checkpoint"):
        resolve_model(tmp_path / "nothing")
