"""The text tower of a CLIP model, run on no more positions than a text has.

A text is padded to the context, mostly 77 positions, of which a class name or a caption fills
ten or twenty. A causal tower looks back only and is read at the end of the text, so what stands
behind changes nothing but the time: cut off there, the embedding differs by rounding alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

STEP = 8
"""Lengths are rounded up to a multiple of it, so that a batch falls into a few groups."""


class TextTower:
    """Embeds tokens (n, context) as ``network.encode_text`` does, each group of lengths apart.

    The positions that a text is run on follow from that text alone. A tower that is not causal,
    or is not read at the end of the text, gets all positions.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._network: Any = network
        self._tower = _causal_tower(network)
        self._eos: int | None = None
        if self._tower is not None and _pooling(self._tower) == "eos":
            name = "text_eos_id" if hasattr(self._tower, "text_eos_id") else "eos_id"
            self._eos = getattr(self._tower, name)
        self._cut: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, d), not normalised, on the device of the network."""
        import torch

        if self._tower is None or not len(tokens):
            return self._network.encode_text(tokens)
        lengths = self._lengths(tokens)
        parts: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        for length in torch.unique(lengths).tolist():
            rows = torch.nonzero(lengths == length).squeeze(1)
            places.append(rows)
            parts.append(self._cut_at(length)(tokens[rows, :length]))
        return torch.cat(parts)[torch.argsort(torch.cat(places))]

    def _lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return how many positions each text needs, int64 (n,)."""
        marks = tokens if self._eos is None else (tokens == self._eos).int()
        ends = marks.argmax(dim=-1)  # where open_clip reads the embedding
        return ((ends // STEP + 1) * STEP).clamp(max=tokens.shape[1])

    def _cut_at(self, length: int) -> Callable[[torch.Tensor], torch.Tensor]:
        if length not in self._cut:
            tower = copy.copy(self._tower)  # shares every weight; its own are views of them
            positions, mask = tower.positional_embedding, tower.attn_mask
            tower._parameters = dict(tower._parameters)
            tower._buffers = dict(tower._buffers)
            tower._parameters["positional_embedding"] = type(positions)(
                positions[:length], requires_grad=False
            )
            tower._buffers["attn_mask"] = mask[:length, :length].contiguous()
            self._cut[length] = getattr(tower, "encode_text", tower)
        return self._cut[length]


def _causal_tower(network: Any) -> Any:
    """Return the module with positions and mask of a tower that may be cut, else None."""
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    if type(network) is CLIP:
        tower = network
    elif type(network) is CustomTextCLIP and type(network.text) is TextTransformer:
        tower = network.text
        if tower.cls_emb is not None or tower.use_pad_mask or tower.output_tokens:
            return None
    else:
        return None
    causal = getattr(tower, "attn_mask", None) is not None
    return tower if causal and _pooling(tower) in ("argmax", "eos") else None


def _pooling(tower: Any) -> str:
    return getattr(tower, "text_pool_type" if hasattr(tower, "text_pool_type") else "pool_type")
