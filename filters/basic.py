"""DataComp's cheap rules on captions and image sizes.

Source: "DataComp: In search of the next generation of multimodal datasets" (arXiv
2304.14108), baselines *no filtering* and *basic filtering*; written from the paper and from
the selection semantics of its tools, which ``basic_filter`` keeps to the letter.
"""

from __future__ import annotations

from pydantic import Field

from .assets import asset_field, given_assets
from .contract import Decision, Filter, Scorer, View, sql_number
from .language import EMBEDDED, HAS_CAPTION, LanguageScorer, is_language
from .published import Published

# What str.split() of Python takes for white space; RE2's \s knows only the ASCII part.
_SPACE = (
    r"\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}"
    r"\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
)
_REPEATED = 100
"""Regular expressions that repeat more often are slow to make."""

_STRIPPED = f"regexp_replace(text, '^[{_SPACE}]+|[{_SPACE}]+$', '', 'g')"
_EXACT = "as DataComp's tools do; false is the sane form (see above)"


class NoFilter(Filter):
    """Keep every sample."""

    published = (
        Published("", "small", 0.025, 0.132, "12.8M", note="Table 25 has the average .133"),
        Published("", "medium", 0.176, 0.258, "128M"),
        Published("", "large", 0.459, 0.437, "1.28B"),
        Published("", "xlarge", 0.723, 0.621, "12.8B"),
    )

    def decide(self, view: View) -> list[Decision]:
        """Decide nothing."""
        return []


class CaptionLength(Filter):
    """Keep captions of more than two words and five characters (DataComp's caption rule).

    DataComp counts white space at both ends among the characters; the sane form does not.
    """

    published = (
        Published("", "small", 0.034, 0.143),
        Published("", "medium", 0.199, 0.275),
    )

    min_words: int = Field(3, ge=0, description="fewest words, split at white space")
    min_characters: int = Field(6, ge=0, description="fewest characters (code points)")
    exact: bool = Field(True, description=_EXACT)

    def decide(self, view: View) -> list[Decision]:
        """Count words as Python's str.split() does, characters as code points."""
        text = "text" if self.exact else _STRIPPED
        return [
            HAS_CAPTION,
            Decision("few_words", has_words(self.min_words)),
            Decision("few_characters", f"length({text}) >= {self.min_characters}"),
        ]


class ImageSize(Filter):
    """Keep images whose shorter side and aspect ratio are reasonable (DataComp's image rule)."""

    published = (
        Published("", "small", 0.027, 0.138),
        Published("", "medium", 0.189, 0.259),
    )

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
            Decision("size_unknown", known),
            Decision("too_small", f"{least} >= {self.min_side}"),
            Decision("extreme_aspect", f"{aspect} <= {sql_number(self.max_aspect)}"),
        ]


class BasicFilter(Filter):
    """DataComp's basic filtering: English caption of a fair length, image of a fair size.

    Subsets are DataComp's to the byte with its language model (asset fasttext_lid). DataComp
    counts white space at both ends among the characters; the sane form does not.
    """

    published = (
        Published("", "small", 0.038, 0.142, "3M"),
        Published("", "medium", 0.226, 0.294, "29.8M",
                  note="Table 26; Table 3 has the average .285, of another row"),
        Published("", "large", 0.516, 0.458, "298M"),
    )  # fmt: skip

    min_words: int = Field(3, ge=0, description="fewest words, split at white space")
    min_characters: int = Field(6, ge=0, description="fewest characters (code points)")
    min_side: int = Field(200, ge=0, description="shortest side in pixels, at least")
    max_aspect: float = Field(3.0, ge=1, description="longer side over shorter side, at most")
    language: str = Field("en", description="language code the caption must have")
    model: str = asset_field("fasttext_lid", EMBEDDED)
    exact: bool = Field(True, description=_EXACT)

    def files(self) -> dict[str, str]:
        """Name the language model, if it is not the embedded one."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Identify the caption's language."""
        return [LanguageScorer(self.model)]

    def before_scoring(self, view: View) -> list[Decision]:
        """Apply the two cheap rules."""
        caption = CaptionLength(
            min_words=self.min_words, min_characters=self.min_characters, exact=self.exact
        )
        image = ImageSize(min_side=self.min_side, max_aspect=self.max_aspect)
        return [*caption.decide(view), *image.decide(view)]

    def decide(self, view: View) -> list[Decision]:
        """Join the three rules, the dearest last."""
        language = is_language(view, LanguageScorer(self.model), self.language)
        return [*self.before_scoring(view), language]


def has_words(least: int) -> str:
    """Return SQL that is true for captions of at least so many words, split at white space."""
    if least <= _REPEATED:  # a match ends at the last word that matters
        return f"regexp_matches(text, '^[{_SPACE}]*([^{_SPACE}]+([{_SPACE}]+|$)){{{least}}}')"
    return f"len(regexp_extract_all(text, '[^{_SPACE}]+')) >= {least}"


def size_columns(view: View) -> tuple[str, str]:
    """Return SQL for width and height: of the original image where the pool knows both."""
    if not (view.has("original_width") and view.has("original_height")):
        return "width", "height"
    known = "original_width IS NOT NULL AND original_height IS NOT NULL"
    return (
        f"(CASE WHEN {known} THEN original_width ELSE width END)",
        f"(CASE WHEN {known} THEN original_height ELSE height END)",
    )
