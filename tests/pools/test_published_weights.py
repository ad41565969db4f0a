"""Published weights are recognised where no configuration lies beside them."""

import json

import pytest
from datacomp.errors import DataError
from datacomp.pools.clip_identity import model_identity
from datacomp.pools.published_weights import recognise

QUICK = "vit_b_32-quickgelu-laion400m_e32-46683a32.pt"


def known(path, sha256="0" * 64):
    found = recognise(path, lambda: sha256)
    return found and (found.name, found.quick_gelu, found.known_by)


@pytest.mark.parametrize(
    ("name", "sha256", "expected"),
    [
        (QUICK, "0" * 64, ("ViT-B-32", True, "file name")),
        ("mine.pt", "46683a32" + "0" * 56, ("ViT-B-32", True, "digest")),
        ("mine.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
         ("ViT-B-32", True, "digest")),
        ("mine.pt", "46683a33" + "0" * 56, None),
        ("vit_b_32-laion2b_e16-af8dbd0c.pth", "0" * 64, ("ViT-B-32", False, "file name")),
        ("b16_400m.pt", "0" * 64, ("ViT-B-16", True, "file name")),
        ("ViT-B-32.pt", "0" * 64, None),  # anyone may call a file so
        ("open_clip_pytorch_model.bin", "0" * 64, None),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_pytorch_model.bin", "0" * 64,
         ("ViT-B-32", False, "folder")),
        ("models--timm--vit_base_patch32_clip_224.openai/snapshots/abc/open_clip_model.safetensors",
         "0" * 64, ("ViT-B-32", True, "folder")),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K/mine.pt", "0" * 64, None),
    ],
)  # fmt: skip
def test_by_digest_name_or_folder(tmp_path, name, sha256, expected):
    assert known(tmp_path / name, sha256) == expected


def test_quickgelu_that_does_not_match_is_refused(tmp_path):
    checkpoint = tmp_path / QUICK
    checkpoint.write_bytes(b"weights")
    with pytest.raises(DataError) as caught:
        model_identity("ViT-B-32", checkpoint)
    assert str(caught.value) == (
        f"{checkpoint}: trained with quick_gelu true, as open_clip's list (ViT-B-32 laion400m_e32, "
        "known by its file name) says, but ViT-B-32 has false; use --model ViT-B-32-quickgelu"
    )
    assert model_identity("ViT-B-32-quickgelu", checkpoint)["model"] == "ViT-B-32-quickgelu"


def test_what_lies_beside_counts_more(tmp_path):
    import open_clip

    checkpoint = tmp_path / QUICK
    checkpoint.write_bytes(b"weights")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32")}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert model_identity("ViT-B-32", checkpoint)["model"] == "ViT-B-32"


def test_its_images_are_prepared_as_listed(tmp_path):
    found = recognise(tmp_path / "timm/ViT-B-16-SigLIP/open_clip_model.safetensors", lambda: "0")
    assert found.preparation == {
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic",
        "resize_mode": "squash",
    }  # fmt: skip
