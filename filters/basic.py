"""DataComp's cheap rules on captions and image sizes.

Source: "DataComp: In search of the next generation of multimodal datasets" (arXiv
2304.14108), baselines *no filtering* and *basic filtering*; written from the paper and from
the selection semantics of its tools, which ``basic_filter`` keeps to the letter.
"""

from __future__ import annotations

from pydantic import Field

from .contract import Decision, Filter, Scorer, View, sql_number, sql_text
from .language import LanguageScorer, model_file

# What str.split() of Python takes for white space; RE2's \s knows only the ASCII part.
_SPACE = (
    r"\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}"
    r"\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
)
WORDS = f"len(regexp_extract_all(text, '[^{_SPACE}]+'))"


class NoFilter(Filter):
    """Keep every sample."""

    def decide(self, view: View) -> list[Decision]:
        """Decide nothing."""
        return []


class CaptionLength(Filter):
    """Keep captions of more than two words and five characters (DataComp's caption rule)."""

    min_words: int = Field(3, ge=0, description="fewest words, split at white space")
    min_characters: int = Field(6, ge=0, description="fewest characters (code points)")

    def decide(self, view: View) -> list[Decision]:
        """Count words as Python's str.split() does, characters as code points."""
        return [
            Decision("few_words", f"{WORDS} >= {self.min_words}"),
            Decision("few_characters", f"length(text) >= {self.min_characters}"),
        ]


class ImageSize(Filter):
    """Keep images whose shorter side and aspect ratio are reasonable (DataComp's image rule)."""

    min_side: int = Field(200, ge=0, description="shortest side in pixels, at least")
    max_aspect: float = Field(3.0, ge=1, description="longer side over shorter side, at most")

    def decide(self, view: View) -> list[Decision]:
        """Use the original size where the pool knows it, else the size of the image at hand."""
        width, height = size_columns(view)
        least, greatest = f"least({width}, {height})", f"greatest({width}, {height})"
        # least() and greatest() pass over NULL, but a size known by half is not known.
        known = f"{width} IS NOT NULL AND {height} IS NOT NULL"
        aspect = f"{greatest}::DOUBLE / {least}::DOUBLE"
        return [
            Decision("too_small", f"{known} AND {least} >= {self.min_side}"),
            Decision("extreme_aspect", f"{known} AND {aspect} <= {sql_number(self.max_aspect)}"),
        ]


class BasicFilter(Filter):
    """DataComp's basic filtering: English caption of a fair length, image of a fair size."""

    min_words: int = Field(3, ge=0, description="fewest words, split at white space")
    min_characters: int = Field(6, ge=0, description="fewest characters (code points)")
    min_side: int = Field(200, ge=0, description="shortest side in pixels, at least")
    max_aspect: float = Field(3.0, ge=1, description="longer side over shorter side, at most")
    language: str = Field("en", description="language code the caption must have")
    model: str = Field("embedded", description="'embedded', or a fastText model file")

    def files(self) -> dict[str, str]:
        """Name the language model, if it is not the embedded one."""
        return model_file(self.model)

    def scorers(self) -> list[Scorer]:
        """Identify the caption's language."""
        return [LanguageScorer(self.model)]

    def before_scoring(self, view: View) -> list[Decision]:
        """Apply the two cheap rules."""
        caption = CaptionLength(min_words=self.min_words, min_characters=self.min_characters)
        image = ImageSize(min_side=self.min_side, max_aspect=self.max_aspect)
        return [*caption.decide(view), *image.decide(view)]

    def decide(self, view: View) -> list[Decision]:
        """Join the three rules, the dearest last."""
        label = view.score(LanguageScorer(self.model))
        language = Decision("language", f"{label} = {sql_text(self.language)}")
        return [*self.before_scoring(view), language]


def size_columns(view: View) -> tuple[str, str]:
    """Return SQL for width and height: of the original image where the pool knows both."""
    if not (view.has("original_width") and view.has("original_height")):
        return "width", "height"
    known = "original_width IS NOT NULL AND original_height IS NOT NULL"
    return (
        f"(CASE WHEN {known} THEN original_width ELSE width END)",
        f"(CASE WHEN {known} THEN original_height ELSE height END)",
    )
