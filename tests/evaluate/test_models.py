import pytest
from datacomp.errors import MissingError
from datacomp.evaluate.models import load_run, resolve_model
from datacomp.pools.clip_model import model_of_run


def test_a_run_has_a_model_and_a_file_of_results(tiny_run, tmp_path):
    run = tiny_run(tmp_path / "run")
    found = load_run(run)
    assert found.spec == model_of_run(run) == resolve_model(run)
    assert found.results == run / "eval_results.jsonl"


def test_a_name_and_a_checkpoint(tmp_path):
    spec = resolve_model("ViT-B-32", tmp_path / "a.pt")
    assert (spec.model, spec.model_config) == ("ViT-B-32", None)
    spec = resolve_model(str(tmp_path / "my.json"), tmp_path / "a.pt")
    assert (spec.model, spec.model_config) == ("my", tmp_path / "my.json")


def test_no_run_there(tmp_path):
    with pytest.raises(MissingError, match="give a run's directory, or --model with --checkpoint"):
        resolve_model(tmp_path / "nothing")
