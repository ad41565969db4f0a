import json

import numpy as np
import pytest
import torch
from datacomp.errors import UsageError
from datacomp.pools.clip_model import ClipModel
from datacomp.pools.embedding.drift import measure_drift
from datacomp.pools.embedding.embed import embed_pool
from datacomp.pools.embedding.merging import attend, merge, merge_tokens
from datacomp.pools.embedding.recipe import Recipe
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def clip(tiny):
    return tiny(0).load("cpu")


def tokens(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_the_most_similar_pair_becomes_its_mean():
    # Even places propose, odd ones are proposed to; place 0 is the class token.
    x = tokens([9, 9], [1, 0], [0, 1], [4, 4], [3, 0], [0, 8])
    keys = tokens([1, 0], [1, 0.1], [0, 1], [1, 1], [1, 0], [0, 1])
    merged, sizes = merge(x, keys, torch.ones(1, 6), 1)
    # Token 2 is exactly like token 5; token 4 is nearly like token 1; the class token would be
    # exactly like it, and is let alone.
    assert merged.tolist() == [[[9, 9], [3, 0], [1, 0], [4, 4], [0, 4.5]]]
    assert sizes.tolist() == [[1, 1, 1, 1, 2]]
    merged, sizes = merge(x, keys, torch.tensor([[1.0, 3, 1, 1, 1, 2]]), 2)
    assert merged.tolist() == [[[9, 9], [1.5, 0], [4, 4], [0, pytest.approx(17 / 3)]]]
    assert sizes.tolist() == [[1, 4, 1, 3]]
    same, sizes = merge(x[:, :2], keys[:, :2], torch.ones(1, 2), 5)
    assert same.tolist() == x[:, :2].tolist()


def test_merging_is_that_of_the_papers_authors():
    """Values from bipartite_soft_matching and merge_wavg of facebookresearch/ToMe at af95e4b."""
    numbers = torch.arange(27, dtype=torch.float32)
    x = (torch.sin(numbers * 1.7) * 4).round().reshape(1, 9, 3)
    keys = torch.cos(numbers[:18] * 2.3).reshape(1, 9, 2)
    merged, sizes = merge(x, keys, torch.tensor([[1.0, 1, 2, 1, 3, 1, 1, 2, 1]]), 3)
    assert sizes.tolist() == [[1, 1, 1, 1, 4, 5]]
    expected = tokens([0, 4, -1], [0, -4, 1], [-4, 2, 3], [2, -4, -1], [-2, 0.75, 1.5],
                      [0.8, -0.4, -0.8])  # fmt: skip
    assert torch.allclose(merged, expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 12), r=st.integers(1, 9), seed=st.integers(0, 1000))
def test_merging_keeps_every_patch(length, r, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, length, 4, generator=generator, dtype=torch.float64).float()
    sizes = torch.randint(1, 5, (3, length), generator=generator).float()
    sizes[:, 0] = 1
    merged, left = merge(x, torch.randn(3, length, 2, generator=generator), sizes, r)
    assert merged.shape == (3, length - min(r, (length - 1) // 2), 4)
    assert left.sum(1).tolist() == sizes.sum(1).tolist()
    total = (x * sizes[..., None]).sum(1)
    assert torch.allclose((merged * left[..., None]).sum(1), total, atol=1e-4)
    assert torch.equal(merged[:, 0], x[:, 0])
    assert left[:, 0].tolist() == sizes[:, 0].tolist()


def test_attention_is_the_models_own_and_pays_a_token_for_its_size(clip):
    block = clip.model.visual.transformer.resblocks[0]
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain, keys = attend(block.attn, x, torch.ones(2, 5))
        assert torch.allclose(plain, block.attention(x), atol=1e-6)
        assert keys.shape == (2, 5, 16)
        # A token that stands for two counts as if it stood there twice.
        twice = torch.cat([x, x[:, 3:4]], dim=1)
        expected = block.attention(twice)[:, :5]
        found, _ = attend(block.attn, x, torch.tensor([[1.0, 1, 1, 2, 1]] * 2))
    assert torch.allclose(found, expected, atol=1e-6)


def test_merged_models_see_fewer_tokens_and_share_weights(clip, picture):
    merged = merge_tokens(clip, 1)
    lengths = []
    merged.model.visual.ln_post.register_forward_hook(lambda _, x, y: lengths.append(x[0].shape[1]))
    images = [clip.prepare(picture(n)) for n in range(4)]
    before = clip.encode_tensors(images)
    after = merged.encode_tensors(images)
    assert lengths == [5, 4]
    assert not np.array_equal(before, after)
    assert np.einsum("nd,nd->n", before, after).min() > 0.9
    assert np.array_equal(clip.encode_tensors(images), before)
    assert np.array_equal(merged.encode_texts(["a"]), clip.encode_texts(["a"]))
    assert merged.identity == {**clip.identity, "tome": 1}
    same = merge_tokens(clip, 1)
    assert np.array_equal(same.encode_tensors(images), after)


def test_alike_patches_merge_without_a_trace(clip):
    """With no positions and one colour, all patches are alike: merging changes nothing."""
    with torch.no_grad():
        clip.model.visual.positional_embedding.zero_()
    image = [torch.full((3, 32, 32), 0.5)]
    merged = merge_tokens(clip, 2)
    assert np.allclose(merged.encode_tensors(image), clip.encode_tensors(image), atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_merges_too(tiny, picture, precision):
    low = merge_tokens(tiny(0).load("cpu", precision), 1)
    high = merge_tokens(tiny(0).load("cpu"), 1)
    images = [high.prepare(picture(n)) for n in range(3)]
    assert np.allclose(low.encode_tensors(images), high.encode_tensors(images), atol=0.1)


def test_models_without_plain_transformers_are_refused(clip, clip_config, tmp_path):
    import open_clip

    config = clip_config | {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}}
    (tmp_path / "resnet.json").write_text(json.dumps(config))
    torch.save(open_clip.CLIP(**config).state_dict(), tmp_path / "r.pt")
    model = ClipModel.load("resnet", tmp_path / "r.pt", tmp_path / "resnet.json", "cpu")
    with pytest.raises(UsageError) as caught:
        merge_tokens(model, 4)
    assert str(caught.value) == (
        "--tome: model resnet does not see images by a plain vision transformer with a class "
        "token, such as ViT-B-16"
    )
    with pytest.raises(UsageError, match="--tome 0: expected how many tokens"):
        merge_tokens(clip, 0)


def test_drift_is_measured_against_the_model_that_merges_nothing(clip, picture):
    images = [clip.prepare(picture(n)) for n in range(40)]
    texts = [f"number {n}" for n in range(40)]
    none = measure_drift(clip, clip, images, texts)
    assert (none.samples, none.largest_change, none.same_best) == (40, 0, 1)
    assert none.least_cosine == pytest.approx(1)
    merged = merge_tokens(clip, 2)
    drift = measure_drift(clip, merged, images, texts)
    captions = clip.encode_texts(texts)
    change = np.einsum(
        "nd,nd->n", merged.encode_tensors(images) - clip.encode_tensors(images), captions
    )
    assert drift.mean_change == pytest.approx(change.mean(), abs=1e-6)
    assert drift.largest_change == pytest.approx(np.abs(change).max(), abs=1e-6)
    assert 0 < drift.mean_absolute_change <= drift.largest_change
    assert drift.least_cosine < 1
    assert measure_drift(clip, merged, [], []) is None


def test_embedding_with_merged_tokens_says_what_it_costs(pictures, recipe, contents):
    pool = pictures(8)
    embed_pool(pool, recipe, device="cpu")
    merged = Recipe(recipe.model, tome=1)
    report = embed_pool(pool, merged, device="cpu")
    assert (report.name, report.embedded, report.drift.samples) == ("tiny_tome1", 8, 8)
    line = report.drift.line(1)
    assert line.startswith("token merging, 1 a layer, on 8 images: ")
    assert "of the best 30% by score" in line
    assert pool.scalar("SELECT count(*) FROM scores") == 2
    assert (
        pool.scalar("SELECT parameters->>'tome' FROM features WHERE name = 'tiny_tome1_img'") == "1"
    )
