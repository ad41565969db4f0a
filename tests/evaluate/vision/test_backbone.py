import json
import pickle

import numpy as np
import pytest
import torch
from datacomp.errors import DataError, MissingError, RunError, UnsafeInputError, UsageError
from datacomp.evaluate.vision.backbone import VisionSpec, build, fill, spec_of_run
from safetensors.torch import save_file

NAME = "vit_tiny_patch16_224"


@pytest.fixture
def checkpoint(tmp_path, tiny_args):
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    save_file(build(NAME, 3, 16, tiny_args).state_dict(), path)
    return path


def test_an_encoder_embeds_images_without_its_head(checkpoint, square, tiny_args):
    spec = VisionSpec(NAME, checkpoint, 16, tuple(tiny_args.items()), 1.0)
    encoder = spec.load("cpu")
    tensors = [encoder.prepare(square(label, 0)) for label in range(3)]
    features = encoder.encode_tensors(tensors)
    assert (features.shape, features.dtype) == ((3, 16), np.float32)
    assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-6)
    assert encoder.identity == spec.identity()
    assert encoder.identity["model"] == "timm:vit_tiny_patch16_224"


def test_a_full_device_is_one_line(checkpoint, square, tiny_args, monkeypatch):
    """Torch's own error, raised where a GPU raises it: as a batch is moved, as it is embedded."""
    spec = VisionSpec(NAME, checkpoint, 16, tuple(tiny_args.items()), 1.0)
    encoder = spec.load("cpu")
    tensors = [encoder.prepare(square(0, 0))]

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    for owner, name in ((torch.Tensor, "to"), (encoder.network, "forward")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(RunError) as caught:
                encoder.encode_tensors(tensors)
        assert str(caught.value) == "the device is out of memory; use a smaller --batch-size"
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(RunError, match="out of memory; the model needs one with more"):
        spec.load("cpu")


def test_the_identity_follows_weights_and_size(checkpoint, tiny_args):
    first = VisionSpec(NAME, checkpoint, 16, tuple(tiny_args.items()), 1.0).identity()
    assert VisionSpec(NAME, checkpoint, 32, tuple(tiny_args.items()), 1.0).identity() != first
    assert VisionSpec(NAME, checkpoint).identity()["image_size"] == 224


def test_a_checkpoint_must_fit(checkpoint, tmp_path, tiny_args):
    with pytest.raises(DataError, match=r"is not of this architecture: .* is \(1, 5, 16\)"):
        fill(build(NAME, 0, 32, tiny_args), checkpoint, drop_head=True)
    with pytest.raises(DataError, match=r"blocks\.1\.norm1\.weight is missing"):
        fill(build(NAME, 0, 16, {**tiny_args, "depth": 2}), checkpoint, drop_head=True)
    deep = tmp_path / "deep.safetensors"
    save_file(build(NAME, 0, 16, {**tiny_args, "depth": 2}).state_dict(), deep)
    with pytest.raises(DataError, match=r"it has blocks\.1"):
        fill(build(NAME, 0, 16, tiny_args), deep, drop_head=True)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, tiny_args):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnsafeInputError, match="refused, loading it would run code"):
        fill(build(NAME, 0, 16, tiny_args), path, drop_head=True)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "vit_tinny_patch16_224", "../x"])
def test_only_models_that_timm_builds_by_itself(name):
    with pytest.raises(UsageError, match="unknown timm model"):
        build(name, 0, 16, {})


@pytest.mark.parametrize("arguments", [{"depth": 10**9}, {"depth": True}, {"pretrained": 1}])
def test_architectures_are_bounded(arguments):
    with pytest.raises(UsageError, match=r"model_args: .* accepted are patch_size up to 256"):
        build(NAME, 0, 16, arguments)


def test_what_timm_cannot_build_is_one_line():
    with pytest.raises(UsageError, match="timm cannot build resnet18 with"):
        build("resnet18", 0, 32, {"patch_size": 8})


def test_a_run_that_is_not_one(tmp_path):
    with pytest.raises(MissingError, match=r"info\.json is not there"):
        spec_of_run(tmp_path)
    info = tmp_path / "info.json"
    info.write_text("[1]")
    with pytest.raises(DataError, match="expected an object"):
        spec_of_run(tmp_path)
    info.write_text('{"format": "datacomp-run"}')
    with pytest.raises(DataError, match="not a run of 'datacomp pretrain'"):
        spec_of_run(tmp_path)
    begun = {"format": "datacomp-vision-run", "status": "running"}
    info.write_text(json.dumps(begun))
    with pytest.raises(MissingError, match="the run is not finished"):
        spec_of_run(tmp_path)
    recipe = {"model": NAME, "image_size": 10**6, "test_crop": 1.0, "model_args": {}}
    info.write_text(json.dumps({**begun, "status": "done", "recipe": recipe}))
    with pytest.raises(DataError, match="its recipe is not one of this program"):
        spec_of_run(tmp_path)
