import io
import json
import logging
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datacomp.errors import DataError, MissingError, RunError, UnsafeInputError, UsageError
from datacomp.pools.checkpoints import read_checkpoint
from datacomp.pools.clip_config import read_config
from datacomp.pools.clip_identity import model_identity
from datacomp.pools.clip_model import MAX_TEXT, ClipModel
from datacomp.pools.clip_runs import model_of_run


@pytest.fixture
def state(tiny):
    return read_checkpoint(tiny(0).checkpoint)


@pytest.fixture
def config(tmp_path, clip_config) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(clip_config))
    return path


@pytest.fixture
def checkpoint(tmp_path, tiny) -> Path:
    return Path(shutil.copy(tiny(0).checkpoint, tmp_path))


@pytest.fixture
def model(checkpoint, config) -> ClipModel:
    return ClipModel.load("tiny", checkpoint, config, device="cpu")


def embedded(model: ClipModel, pictures) -> np.ndarray:
    return model.encode_tensors([model.prepare(picture) for picture in pictures])


@pytest.fixture
def photo(picture):
    from PIL import Image

    return lambda number: Image.open(io.BytesIO(picture(number, width=40, height=30)))


def test_embeddings_are_open_clips_own(clip_config, model, state, photo):
    import open_clip
    import torch

    reference = open_clip.CLIP(**clip_config)
    reference.load_state_dict(state)
    reference.eval()
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a cat", "two dogs"])
    with torch.no_grad():
        expected = reference.encode_text(tokens, normalize=True).numpy()
        pixels = torch.stack([model.preprocess(photo(i).convert("RGB")) for i in range(3)])
        expected_images = reference.encode_image(pixels, normalize=True).numpy()
    assert np.allclose(model.encode_texts(["a cat", "two dogs"]), expected, atol=1e-6)
    assert np.allclose(embedded(model, map(photo, range(3))), expected_images, atol=1e-6)


def test_bytes_and_pictures_embed_alike_and_batches_do_not_matter(model, picture, photo):
    whole = embedded(model, map(photo, range(5)))
    assert whole.dtype == np.float32
    assert whole.shape == (5, 16)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    encoded = [picture(number, width=40, height=30) for number in range(5)]
    parts = [embedded(model, encoded[:2]), embedded(model, encoded[2:])]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-6)
    assert model.encode_texts([]).shape[0] == 0


def test_a_full_device_is_one_line(model, photo, checkpoint, config, monkeypatch):
    """Torch's own error, raised where a GPU raises it: as a batch is moved, as it is embedded."""
    tensors = [model.prepare(photo(0))]

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    for owner, name, embed in (
        (torch.Tensor, "to", lambda: model.encode_tensors(tensors)),
        (torch.Tensor, "to", lambda: model.encode_texts(["a cat"])),
        (model.model, "encode_image", lambda: model.encode_tensors(tensors)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(RunError) as caught:
                embed()
        assert str(caught.value) == "the device is out of memory; use a smaller --batch-size"
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(RunError, match="out of memory; the model needs one with more"):
        ClipModel.load("tiny", checkpoint, config, "cpu")


def test_a_long_word_costs_no_more_than_its_beginning(model):
    word = "".join("abcdefghij"[number * number % 97 % 10] for number in range(1 << 20))
    long, short = model.encode_texts([word]), model.encode_texts([word[:MAX_TEXT]])
    assert np.array_equal(long, short)


def test_plain_and_safetensors_weights_load_too(model, state, config, tmp_path):
    import torch
    from safetensors.torch import save_file

    torch.save(dict(state), tmp_path / "plain.pt")
    save_file({name: tensor.contiguous() for name, tensor in state.items()},
              tmp_path / "w.safetensors")  # fmt: skip
    expected = model.encode_texts(["a cat"])
    for name in ("plain.pt", "w.safetensors"):
        loaded = ClipModel.load("tiny", tmp_path / name, config, device="cpu")
        assert np.array_equal(loaded.encode_texts(["a cat"]), expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_near(model, checkpoint, config, precision, photo):
    low = ClipModel.load("tiny", checkpoint, config, device="cpu", precision=precision)
    assert np.allclose(embedded(low, [photo(1)]), embedded(model, [photo(1)]), atol=0.05)
    assert low.encode_texts(["a"]).dtype == np.float32


def test_identity_names_config_and_weights(clip_config, model, checkpoint, config, tmp_path):
    assert set(model.identity) == {"model", "config", "weights_sha256", "precision", "image_size"}
    assert model.identity == model_identity("tiny", checkpoint, config)
    assert model.identity["image_size"] == model.image_size == 32
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps({**clip_config, "quick_gelu": True}))
    other = model_identity("tiny", checkpoint, quick)
    assert other["weights_sha256"] == model.identity["weights_sha256"]
    assert other["config"] != model.identity["config"]


def test_two_configurations_of_one_name_stay_apart(
    clip_config, model, checkpoint, config, tmp_path
):
    (tmp_path / "other").mkdir()
    quick = tmp_path / "other" / "tiny.json"
    quick.write_text(json.dumps({**clip_config, "quick_gelu": True}))
    other = ClipModel.load("tiny", checkpoint, quick, device="cpu")
    again = ClipModel.load("tiny", checkpoint, config, device="cpu")
    assert not np.array_equal(other.encode_texts(["a cat"]), model.encode_texts(["a cat"]))
    assert np.array_equal(again.encode_texts(["a cat"]), model.encode_texts(["a cat"]))


def test_loading_leaves_random_numbers_and_logging_as_they_were(checkpoint, config):
    import torch

    before, level = torch.random.get_rng_state(), logging.root.manager.disable
    ClipModel.load("tiny", checkpoint, config, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert logging.root.manager.disable == level


class Evil:
    def __reduce__(self):
        return (os.system, (f"touch {Evil.mark}",))

    mark = ""


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_checkpoint_that_carries_code_is_refused(tmp_path, form):
    import torch

    path = tmp_path / "evil.pt"
    Evil.mark = str(tmp_path / "ran")
    if form == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    else:
        torch.save({"state_dict": Evil()}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UnsafeInputError, match="refused, loading it would run code"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_torchscript_is_refused(tmp_path):
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are still around
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "s.pt")
    with pytest.raises(UnsafeInputError, match="a TorchScript archive carries code"):
        read_checkpoint(tmp_path / "s.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip", b'{"a": 1}\n'])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: not a checkpoint, or a dam"):
        read_checkpoint(path)


def test_a_torn_checkpoint_is_refused(checkpoint):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a checkpoint, or a damaged one"):
        read_checkpoint(checkpoint)


def test_a_broken_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(DataError, match="not a safetensors file: "):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "not a checkpoint (no state_dict of tensors in it)"),
        ({"state_dict": {}}, "not a checkpoint (no state_dict of tensors in it)"),
        ({"epoch": 3}, "not a checkpoint ('epoch' is not a tensor)"),
    ],
)
def test_other_content_is_refused(tmp_path, value, message):
    import torch

    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(DataError, match=re.escape(message)):
        read_checkpoint(tmp_path / "x.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path, state, config):
    import torch

    broken = {**state, "visual.proj": torch.full_like(state["visual.proj"], float("nan"))}
    torch.save(broken, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"tensor 'visual\.proj' holds values that are not finite"):
        ClipModel.load("tiny", tmp_path / "x.pt", config, device="cpu")


def test_a_checkpoint_of_another_architecture_names_the_first_tensor(
    clip_config, checkpoint, tmp_path
):
    wide = tmp_path / "wide.json"
    wide.write_text(json.dumps({**clip_config, "embed_dim": 24}))
    with pytest.raises(DataError, match=re.escape(
        f"{checkpoint}: not a checkpoint of wide: tensor 'text_projection' has shape (32, 16), "
        "the model has (32, 24)"
    )):  # fmt: skip
        ClipModel.load("wide", checkpoint, wide, device="cpu")


def test_a_missing_and_a_surplus_tensor_are_named(state, config, tmp_path):
    import torch

    less = {name: tensor for name, tensor in state.items() if name != "ln_final.bias"}
    torch.save(less, tmp_path / "less.pt")
    with pytest.raises(DataError, match=r"tensor 'ln_final.bias' is missing, the model has \(32,"):
        ClipModel.load("tiny", tmp_path / "less.pt", config, device="cpu")
    torch.save({**state, "extra": torch.zeros(2)}, tmp_path / "more.pt")
    with pytest.raises(DataError, match=r"'extra' with shape \(2,\) is not in the model"):
        ClipModel.load("tiny", tmp_path / "more.pt", config, device="cpu")


def test_unknown_names_are_answered(checkpoint, tmp_path, config):
    with pytest.raises(UsageError, match=r"unknown model 'ViT-B-3' \(did you mean 'ViT-B-32'\?\)"):
        ClipModel.load("ViT-B-3", checkpoint)
    with pytest.raises(UsageError, match="unknown model 'hf-hub:a/b'"):
        ClipModel.load("hf-hub:a/b", checkpoint)
    with pytest.raises(UsageError, match="unknown device 'gpu'; there are: auto, cpu, cuda"):
        ClipModel.load("tiny", checkpoint, config, device="gpu")
    with pytest.raises(MissingError, match="no checkpoint at"):
        ClipModel.load("tiny", tmp_path / "no.pt", config)
    with pytest.raises(MissingError, match="no model configuration at"):
        ClipModel.load("tiny", checkpoint, tmp_path / "no.json")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"text_cfg": {"hf_model_name": "a/b"}}, UnsafeInputError,
         "text_cfg.hf_model_name would need a download"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:a/b"}}, UnsafeInputError,
         "vision_cfg.timm_model_name 'hf-hub:a/b' would need a download"),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}}, UnsafeInputError,
         "text_cfg.tokenizer_kwargs.bpe_path would open another file"),
        ({"vision_cfg": {"width": 10**9}}, UnsafeInputError,
         "vision_cfg.width is 1000000000, at most 1,000,000"),
        ({"vision_cfg": {"width": float("inf")}}, UnsafeInputError, "vision_cfg.width is inf"),
        ({"vision_cfg": 3}, DataError, "no usable 'vision_cfg'"),
        ({"embed_dim": "x"}, DataError, "no usable 'embed_dim'"),
    ],
)  # fmt: skip
def test_a_configuration_that_reaches_out_is_refused(clip_config, config, change, kind, message):
    config.write_text(json.dumps({**clip_config, **change}))
    with pytest.raises(kind, match=re.escape(message)):
        read_config(config)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 50_000])
def test_what_is_no_configuration_is_refused(config, text):
    config.write_text(text)
    with pytest.raises(DataError, match=r"tiny\.json: not (JSON|an open_clip)"):
        read_config(config)


def test_a_configuration_that_open_clip_cannot_build_is_named(clip_config, checkpoint, config):
    config.write_text(json.dumps({**clip_config, "vision_cfg": {"heigth": 3}}))
    with pytest.raises(DataError, match=r"model tiny cannot be built: TypeError: .*heigth"):
        ClipModel.load("tiny", checkpoint, config, device="cpu")


def test_broken_and_needle_images_are_refused(model):
    from PIL import Image

    with pytest.raises(DataError, match="not an image of a known format"):
        model.prepare(b"nothing")
    with pytest.raises(UnsafeInputError, match="1 x 60000 pixels: too narrow to resize"):
        model.prepare(Image.new("RGB", (1, 60_000)))


# -- runs ------------------------------------------------------------------------------------


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return tiny_run(tmp_path / "run")


def test_a_run_says_its_model(run):
    found = model_of_run(run)
    assert found.model == "tiny"
    assert found.checkpoint == (run / "checkpoints/epoch_5.pt").resolve()
    assert found.model_config == (run / "model_config.json").resolve()


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"checkpoint": "../x.pt"}, UnsafeInputError, "checkpoint '../x.pt' leaves the run's"),
        ({"checkpoint": "/etc/passwd"}, UnsafeInputError, "checkpoint '/etc/passwd' leaves"),
        ({"model_config": "../c.json"}, UnsafeInputError, "model_config '../c.json' leaves"),
        ({"checkpoint": 3}, DataError, "checkpoint is 3, expected a path inside the run"),
        ({"checkpoint": None}, DataError, "checkpoint is None, expected a path inside the run"),
        ({"model": None}, DataError, "model is None, expected a name"),
    ],
)
def test_a_wrong_run_is_refused(tiny_run, run, values, kind, message):
    tiny_run(run, **values)
    with pytest.raises(kind, match="^" + re.escape(f"{run / 'info.json'}: {message}")):
        model_of_run(run)


def test_an_unfinished_run_is_one_clear_line(tiny_run, run):
    tiny_run(run, status="running")
    with pytest.raises(MissingError) as caught:
        model_of_run(run)
    assert str(caught.value) == (
        f"{run}: the run is not finished; give the same 'datacomp train' command again first"
    )


def test_a_link_out_of_the_run_is_refused(tiny_run, run, tmp_path):
    (tmp_path / "secret.pt").write_bytes(b"x")
    (run / "link.pt").symlink_to(tmp_path / "secret.pt")
    tiny_run(run, checkpoint="link.pt")
    with pytest.raises(UnsafeInputError, match=r"'link\.pt' leaves the run's directory"):
        model_of_run(run)


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "[" * 100_000])
def test_a_damaged_info_is_refused(run, content):
    (run / "info.json").write_text(content)
    with pytest.raises(DataError, match=r"info\.json: (not JSON|expected an object)"):
        model_of_run(run)


def test_no_run_there(tmp_path):
    with pytest.raises(MissingError) as caught:
        model_of_run(tmp_path)
    assert str(caught.value) == f"no run at {tmp_path}: info.json is not there"
    (tmp_path / "info.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(MissingError, match=r"DataComp's info\.pkl is a pickle and is not opened"):
        model_of_run(tmp_path)
