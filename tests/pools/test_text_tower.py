"""A text is run on as many positions as it has, and embedded as open_clip embeds it."""

import open_clip
import pytest
import torch
from datacomp.pools.text_tower import STEP, TextTower

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TEXTS = ["a cat", "", " ".join(["two dogs and a house by the sea"] * 3), "wolf", "word " * 200]


def run_on(network, tokens):
    """Return the embeddings, and how many texts were run on how many positions."""
    seen = []
    tower = getattr(network, "text", network)
    handle = tower.transformer.register_forward_pre_hook(
        lambda _, args: seen.append((args[0].shape[1], args[0].shape[0]))
    )
    with torch.inference_mode():
        found = TextTower(network)(tokens)
    handle.remove()
    return found, sorted(seen)


def built(kind, **text):
    torch.manual_seed(0)
    return kind(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT | text).eval()


@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
@pytest.mark.parametrize("text", [{}, {"pool_type": "eos", "eos_id": 49407}])
def test_a_causal_tower_is_run_on_the_text_alone(kind, text):
    network = built(kind, **text)
    tokens = open_clip.SimpleTokenizer()(TEXTS)
    found, seen = run_on(network, tokens)
    with torch.inference_mode():
        expected = network.encode_text(tokens)
    assert torch.allclose(found, expected, atol=1e-6)
    assert seen == [(STEP, 3), (4 * STEP, 1), (77, 1)]
    assert network.encode_text(tokens).shape == (len(TEXTS), 16)  # the network is as it was


def test_of_a_text_without_an_end_the_first_position_counts_as_in_open_clip():
    network = built(open_clip.CLIP, pool_type="eos", eos_id=49407)
    tokens = torch.tensor([[5, 6] + [0] * 75])
    found, seen = run_on(network, tokens)
    assert torch.allclose(found, network.encode_text(tokens), atol=1e-6)
    assert seen == [(STEP, 1)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (open_clip.CustomTextCLIP, {"no_causal_mask": True, "pool_type": "last"}),  # SigLIP
        (open_clip.CLIP, {"pool_type": "last"}),
        (open_clip.CustomTextCLIP, {"embed_cls": True}),
    ],
)
def test_a_tower_that_sees_the_padding_gets_it(kind, text):
    network = built(kind, **text)
    tokens = open_clip.SimpleTokenizer()(TEXTS)
    found, seen = run_on(network, tokens)
    with torch.inference_mode():
        assert torch.equal(found, network.encode_text(tokens))
    assert [count for _, count in seen] == [len(TEXTS)]
