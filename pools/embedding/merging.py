"""Vision transformers made cheaper by merging tokens that are alike.

Source: Bolya et al., "Token Merging: Your ViT But Faster" (arXiv 2210.09461), written from the
paper. In each layer, between attention and MLP, the r most similar pairs of tokens become one:

- tokens are split in turn into two sets, each token of the first proposes the most similar of the
  second, by the cosine of their keys averaged over heads, and the r best proposals are taken
  (bipartite soft matching); the class token merges with none;
- a merged token is the mean of the patches it stands for, so each carries how many these are;
- attention pays a token for its size: the logarithm of the sizes is added to the logits
  (proportional attention).
"""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..clip_model import ClipModel

if TYPE_CHECKING:
    import torch


def merge_tokens(clip: ClipModel, r: int) -> ClipModel:
    """Return the model with ``r`` tokens fewer after each layer of its vision transformer.

    The weights are shared; the model given stays as it is. Raises UsageError for a model whose
    images are not seen by a plain vision transformer of open_clip's with a class token.
    """
    if r < 1:
        raise UsageError(f"--tome {r}: expected how many tokens to merge in each layer, from 1")
    visual = clip.model.visual
    _check(clip, visual)
    seen: Any = _shallow(visual)
    seen.transformer = _module()(seen.transformer, r)
    network: Any = _shallow(clip.model)
    network.visual = seen
    return replace(clip, model=network, identity=clip.identity | {"tome": r})


def _check(clip: ClipModel, visual: Any) -> None:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    plain = (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
    )
    if not plain:
        raise UsageError(
            f"--tome: model {clip.identity['model']} does not see images by a plain vision "
            "transformer with a class token, such as ViT-B-16"
        )


def _shallow(module: Any) -> Any:
    """Return a module with the same parts, of which one can be replaced."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


@functools.cache
def _module() -> type:
    """Make the module's class where torch is needed, not where this module is imported."""
    import torch

    class TokenMerging(torch.nn.Module):
        """The layers of a transformer, each followed by fewer tokens."""

        def __init__(self, transformer: Any, r: int) -> None:
            super().__init__()
            self.resblocks, self.r = transformer.resblocks, r

        def forward(self, x: torch.Tensor, attn_mask: None = None) -> torch.Tensor:
            """Return the tokens that are left, (n, l, d), the class token first."""
            sizes = torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
            for block in self.resblocks:
                attended, keys = attend(block.attn, block.ln_1(x), sizes)
                x = x + block.ls_1(attended)
                x, sizes = merge(x, keys, sizes, self.r)
                x = x + block.ls_2(block.mlp(block.ln_2(x)))
            return x

    return TokenMerging


def attend(
    attention: torch.nn.MultiheadAttention, x: torch.Tensor, sizes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return proportional self-attention, (n, l, d), and the keys averaged over heads, (n, l, k).

    ``sizes`` (n, l) says how many patches each token stands for.
    """
    from torch.nn import functional

    count, length, width = x.shape
    heads = attention.num_heads
    projected = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    shape = (count, length, 3, heads, width // heads)
    queries, keys, values = projected.view(shape).permute(2, 0, 3, 1, 4)
    weight = sizes.log().to(x.dtype)[:, None, None, :]
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=weight)
    joined = found.transpose(1, 2).reshape(count, length, width)
    return attention.out_proj(joined), keys.mean(dim=1)


def merge(
    x: torch.Tensor, keys: torch.Tensor, sizes: torch.Tensor, r: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the ``r`` most similar pairs of tokens; return tokens (n, l - r, d) and their sizes.

    At most half of the tokens can go at once. Token 0, the class token, stays where it is.
    """
    import torch
    from torch.nn import functional

    length = x.shape[1]
    r = min(r, (length - 1) // 2)
    if r <= 0:
        return x, sizes
    unit = functional.normalize(keys.float(), dim=-1)
    likeness = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    likeness[:, 0] = -torch.inf
    best, partner = likeness.max(dim=-1)
    # Stable, so that equal tokens merge the same way wherever it runs.
    order = best.argsort(dim=-1, descending=True, stable=True)
    going, staying = order[:, :r], order[:, r:].sort(dim=-1).values
    target = partner.gather(1, going)
    weighed = x.float() * sizes[..., None]
    first, second = weighed[:, ::2], weighed[:, 1::2].clone()
    size_first, size_second = sizes[:, ::2], sizes[:, 1::2].clone()
    wide = target[..., None].expand(-1, -1, x.shape[-1])
    second.scatter_add_(1, wide, _rows(first, going))
    size_second.scatter_add_(1, target, size_first.gather(1, going))
    left = torch.cat([size_first.gather(1, staying), size_second], dim=1)
    summed = torch.cat([_rows(first, staying), second], dim=1)
    return (summed / left[..., None]).to(x.dtype), left


def _rows(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
