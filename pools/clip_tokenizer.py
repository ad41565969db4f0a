"""The tokenizer of a CLIP model: open_clip's own, or one of the Hub that its configuration names.

Those of the Hub (SigLIP, XLM-RoBERTa, NLLB and others) are the one thing about a model that may be
fetched: ``transformers`` reads them, from the Hub the first time, from its cache ever after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import MissingError
from .checkpoints import first_line


def load_tokenizer(open_clip: Any, name: str, model: str) -> Any:
    """Return the tokenizer of the architecture ``name``; ``model`` is what messages call it.

    Raises MissingError where one of the Hub, or what reads it, is not here.
    """
    text = (open_clip.get_model_config(name) or {}).get("text_cfg")
    source = text.get("hf_tokenizer_name") if isinstance(text, Mapping) else None
    if not source:
        return open_clip.get_tokenizer(name)
    try:
        return open_clip.get_tokenizer(name)
    except ImportError:
        raise MissingError(
            f"model {model} has the tokenizer {source}, which needs transformers: "
            "pip install transformers sentencepiece"
        ) from None
    except Exception as error:  # noqa: BLE001  whatever the Hub's libraries raise
        raise MissingError(
            f"model {model} has the tokenizer {source}, which is neither in the Hub's cache nor to "
            f"be had ({first_line(error)}); run this once where the Hub can be reached, or let "
            "HF_HOME name a cache that has it"
        ) from None
