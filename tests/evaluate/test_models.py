import json
import shutil

import pytest
from datacomp.errors import DataError, MissingError
from datacomp.evaluate.models import load_run, resolve_model
from datacomp.pools.clip_runs import model_of_run


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


def test_a_checkpoint_that_was_trained_as_something_else_is_refused(tiny, tmp_path):
    """QuickGELU changes no tensor's shape, only every score."""
    spec = tiny(0)
    checkpoint = tmp_path / "open_clip_pytorch_model.bin"
    shutil.copy(spec.checkpoint, checkpoint)
    trained = json.loads(spec.model_config.read_text())
    beside = tmp_path / "open_clip_config.json"
    beside.write_text(json.dumps({"model_cfg": {**trained, "quick_gelu": False}}))
    assert resolve_model(spec.model_config, checkpoint).identity()["model"] == "tiny"
    beside.write_text(json.dumps({"model_cfg": {**trained, "quick_gelu": True}}))
    with pytest.raises(DataError, match="trained with quick_gelu true, as open_clip_config"):
        resolve_model(spec.model_config, checkpoint).identity()
    with pytest.raises(DataError, match="but ViT-B-32 has"):
        resolve_model("ViT-B-32", checkpoint).identity()
    beside.write_text("[]")
    with pytest.raises(DataError, match=r"not open_clip's \(no object model_cfg\)$"):
        resolve_model("ViT-B-32", checkpoint).identity()


def test_vitamin_is_built_from_its_configuration(clip_config, tmp_path, picture):
    """ViTamin's tower comes from timm; the configuration names it."""
    import open_clip
    import torch

    config = {
        **clip_config,
        "vision_cfg": {"timm_model_name": "vitamin_small_224", "timm_model_pretrained": False,
                       "timm_pool": "", "timm_proj": "linear", "image_size": 224},
        "custom_text": True,
    }  # fmt: skip
    (tmp_path / "vitamin.json").write_text(json.dumps(config))
    settings = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    state = open_clip.CustomTextCLIP(**settings).state_dict()
    torch.save(state, tmp_path / "v.pt")
    model = resolve_model(tmp_path / "vitamin.json", tmp_path / "v.pt").load("cpu")
    assert model.image_size == 224
    assert model.encode_tensors([model.prepare(picture(0))]).shape == (1, 16)
    assert model.encode_texts(["a"]).shape == (1, 16)
