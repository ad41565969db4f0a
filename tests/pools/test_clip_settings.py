import json
import shutil

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools.clip_identity import model_identity
from datacomp.pools.clip_model import ClipModel
from datacomp.pools.clip_runs import model_of
from datacomp.pools.clip_settings import FILE, own_settings

PREPARED = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear"}


@pytest.fixture
def hub_folder(tmp_path, tiny, clip_config):
    """A folder as the Hub has it: weights and their configuration."""

    def hub_folder(config=None, prepared=None):
        folder = tmp_path / "from-hub"
        folder.mkdir(exist_ok=True)
        shutil.copy(tiny(0).checkpoint, folder / "open_clip_pytorch_model.bin")
        found = {"model_cfg": clip_config if config is None else config}
        (folder / FILE).write_text(
            json.dumps(found | ({"preprocess_cfg": prepared} if prepared else {}))
        )
        return folder

    return hub_folder


def test_a_folder_of_the_hub_needs_no_other_word(hub_folder, tiny, picture):
    folder = hub_folder(prepared=PREPARED)
    spec = model_of(folder)
    assert (spec.model, spec.checkpoint) == ("from-hub", folder / "open_clip_pytorch_model.bin")
    clip = spec.load("cpu")
    plain = tiny(0).load("cpu")
    assert np.array_equal(clip.encode_texts(["a cat"]), plain.encode_texts(["a cat"]))
    assert clip.preparation()["mean"] == [0.5, 0.5, 0.5]
    assert clip.preparation()["interpolation"] == "bilinear"
    pixels = clip.prepare(picture(0, width=32, height=32)) * 0.5 + 0.5
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1.00001
    assert set(clip.identity) - set(plain.identity) == {"preprocessing"}
    assert clip.identity == spec.identity()


def test_a_file_without_configuration_needs_its_model(tiny, tmp_path):
    path = shutil.copy(tiny(0).checkpoint, tmp_path / "a.pt")
    with pytest.raises(UsageError) as caught:
        model_of(path)
    assert str(caught.value) == (
        f"the architecture of {path} is not known: name its model (no open_clip_config.json lies "
        "beside it)"
    )
    with pytest.raises(MissingError, match="no checkpoint at"):
        model_of(tmp_path / "none.pt")
    spec = model_of(path, str(tiny(0).model_config))
    assert (spec.model, spec.model_config) == ("tiny", tiny(0).model_config)
    assert model_of(path, "ViT-B-32").model_config is None


def test_quickgelu_that_does_not_match_is_refused(hub_folder, clip_config, tiny):
    folder = hub_folder(clip_config | {"quick_gelu": True})
    checkpoint = folder / "open_clip_pytorch_model.bin"
    with pytest.raises(DataError) as caught:
        model_identity("tiny", checkpoint, tiny(0).model_config)
    assert str(caught.value) == (
        f"{checkpoint}: trained with quick_gelu true, as open_clip_config.json says, but tiny has "
        f"false; use the configuration in {folder / FILE}"
    )
    assert model_of(folder).load("cpu").identity["model"] == "from-hub"


@pytest.mark.parametrize(
    ("part", "key", "theirs", "shown"),
    [
        ("vision_cfg", "image_size", 64, "64, as open_clip_config.json says, but tiny has 32"),
        ("text_cfg", "hf_tokenizer_name", "google/siglip",
         "'google/siglip', as open_clip_config.json says, but tiny has None"),
    ],
)  # fmt: skip
def test_what_leaves_no_trace_in_weights_is_compared(
    hub_folder, clip_config, tiny, part, key, theirs, shown
):
    """The size of images and the tokenizer: with the wrong one a model embeds, and badly."""
    folder = hub_folder({**clip_config, part: {**clip_config[part], key: theirs}})
    checkpoint = folder / "open_clip_pytorch_model.bin"
    with pytest.raises(DataError) as caught:
        model_identity("tiny", checkpoint, tiny(0).model_config)
    assert str(caught.value) == (
        f"{checkpoint}: trained with {part}.{key} {shown}; use the configuration in {folder / FILE}"
    )


def test_the_name_of_the_right_architecture_is_told(tmp_path, tiny):
    import open_clip

    checkpoint = tmp_path / "b32.pt"
    checkpoint.write_bytes(b"weights")
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    (tmp_path / FILE).write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(DataError) as caught:
        model_identity("ViT-B-32", checkpoint)
    assert str(caught.value) == (
        f"{checkpoint}: trained with quick_gelu true, as open_clip_config.json says, but ViT-B-32 "
        "has false; use --model ViT-B-32-quickgelu"
    )
    assert model_identity("ViT-B-32-quickgelu", checkpoint)["image_size"] == 224
    # What a configuration leaves out is its default, so saying it is no difference.
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"patch_dropout": 0.5, "mlp_ratio": 4.0}
    (tmp_path / FILE).write_text(json.dumps({"model_cfg": config}))
    assert model_identity("ViT-B-32", checkpoint)["model"] == "ViT-B-32"


def test_a_runs_checkpoint_is_known_by_its_run(tiny_run, tmp_path, clip_config):
    run = tiny_run(tmp_path / "run")
    checkpoint = run / "checkpoints" / "epoch_5.pt"
    assert own_settings(checkpoint).file == run / "info.json"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(clip_config | {"quick_gelu": True}))
    with pytest.raises(
        DataError, match=r"trained with quick_gelu false, as info\.json says, but other"
    ):
        model_identity("other", checkpoint, other)
    shutil.copy(checkpoint, run / "checkpoints" / "epoch_4.pt")
    assert own_settings(run / "checkpoints" / "epoch_4.pt") is None


@pytest.mark.parametrize(
    ("prepared", "why"),
    [
        ({"mean": [1, 2]}, r"preprocess_cfg.mean is \[1, 2\], expected 3 numbers"),
        ({"std": [0, 1, 1]}, r"preprocess_cfg.std is \[0, 1, 1\], expected 3 numbers"),
        ({"interpolation": "magic"}, "interpolation is 'magic', expected one of bicubic, bilinear"),
        ({"resize_mode": 3}, "resize_mode is 3, expected one of shortest, longest, squash"),
        ({"mode": "CMYK"}, "preprocess_cfg.mode is 'CMYK', expected 'RGB'"),
        ([1], "preprocess_cfg is no object"),
    ],
)
def test_preparations_that_cannot_be_are_refused(hub_folder, prepared, why):
    with pytest.raises(DataError, match=why):
        own_settings(hub_folder(prepared=prepared) / "open_clip_pytorch_model.bin")


def test_broken_configurations_are_one_line(hub_folder, tiny):
    folder = hub_folder(prepared={"size": 64})
    with pytest.raises(DataError) as caught:
        ClipModel.load("tiny", folder / "open_clip_pytorch_model.bin", tiny(0).model_config, "cpu")
    assert str(caught.value) == (
        f"{folder / 'open_clip_pytorch_model.bin'}: takes images of 64 px, as {FILE} says, but "
        "tiny of 32 px"
    )
    (folder / FILE).write_text("{}")
    with pytest.raises(DataError) as caught:
        own_settings(folder / "x.pt")
    assert str(caught.value) == f"{folder / FILE}: not open_clip's (no object model_cfg)"
    (folder / FILE).write_text(json.dumps({"model_cfg": {"vision_cfg": 3}}))
    with pytest.raises(DataError, match="not a model's configuration"):
        model_identity("tiny", folder / "open_clip_pytorch_model.bin", tiny(0).model_config)


def test_a_configuration_given_brings_its_preparation(hub_folder, tiny, tmp_path, clip_config):
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"model_cfg": clip_config, "preprocess_cfg": PREPARED}))
    checkpoint = tmp_path / "a.pt"
    shutil.copy(tiny(0).checkpoint, checkpoint)
    clip = ClipModel.load("tiny", checkpoint, given, "cpu")
    assert clip.preparation()["mean"] == [0.5, 0.5, 0.5]
    assert "preprocessing" in clip.identity
    beside = hub_folder(prepared=PREPARED | {"mean": [0.1, 0.2, 0.3]})
    with pytest.raises(DataError) as caught:
        model_identity("tiny", beside / "open_clip_pytorch_model.bin", given)
    assert str(caught.value) == (
        f"{given}: preprocess_cfg.mean is [0.5, 0.5, 0.5], but the checkpoint wants "
        "[0.1, 0.2, 0.3], as open_clip_config.json says"
    )
