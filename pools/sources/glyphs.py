"""The embedded pool: every character of several real fonts, spoiled as a crawl would be.

Each mapped character is drawn at least once; common ones more often, in several fonts and
sizes. A seeded share of the samples is spoiled, and the truth about each stands in the column
``truth``, which no filter can read, so that a filter's precision and recall can be shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...durable import atomic_path, digest, sha256_file, write_json
from ...errors import DataError, UsageError
from ...progress import Progress
from .. import tar
from ..lettering import POOL_FONTS, Font, characters, describe, draw, font_path, to_png
from ..uids import uid_of_bytes
from .base import Record, SetAside
from .webdataset import WebDatasetSource

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 2
CLEAN = "clean"
_TRIES = 64
PER_SHARD = 2000

DEFECTS = {
    "mismatched": 0.44,
    "foreign": 0.14,
    "boilerplate": 0.16,
    "tiny": 0.08,
    "extreme_aspect": 0.08,
    "near_duplicate": 0.05,
    "duplicate": 0.05,
}
"""What a spoiled sample suffers, as shares of the spoiled ones."""

_STYLES = ("a drawing of {what}", "a picture of {what}", "{what} in {style} type",
           "{what} printed in a {style} typeface", "this is {what}")  # fmt: skip

_BOILERPLATE = (
    "IMG_{n:04d}.jpg", "DSC{n:05d}", "click here to see the full size image",
    "image not available at this time", "free download, high resolution vector clip art",
    "photo {n} of our holiday gallery", "buy now at the best price with free shipping",
    "sign up to our newsletter and get ten percent off", "stock photo, royalty free image",
    "loading, please wait a moment", "share this page with your friends", "untitled document",
)  # fmt: skip

_FOREIGN = {
    "de": ("ein Zeichen, gedruckt in einer {s} Schrift", "das Bild zeigt den Buchstaben oder das "
           "Symbol {c}", "Zeichnung eines Schriftzeichens auf hellem Grund"),
    "fr": ("un caractère imprimé dans une police {s}", "cette image montre la lettre ou le "
           "symbole {c}", "dessin d'un caractère typographique sur fond clair"),
    "es": ("un carácter impreso en una fuente {s}", "esta imagen muestra la letra o el símbolo "
           "{c}", "dibujo de un carácter tipográfico sobre fondo claro"),
    "it": ("un carattere stampato con un font {s}", "questa immagine mostra la lettera o il "
           "simbolo {c}", "disegno di un carattere tipografico su sfondo chiaro"),
    "pl": ("znak wydrukowany czcionką {s}", "ten obrazek przedstawia literę lub symbol {c}",
           "rysunek znaku typograficznego na jasnym tle"),
    "ru": ("символ, напечатанный шрифтом {s}", "на этой картинке изображена буква или знак {c}",
           "рисунок типографского знака на светлом фоне"),
}  # fmt: skip


@dataclass(frozen=True)
class _Glyph:
    """One planned sample: what is drawn, how, and the caption it deserves."""

    character: str
    font: Font
    side: int
    fill: float
    shift: tuple[float, float]
    angle: float
    ink: int
    paper: int
    caption: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class GlyphSource(WebDatasetSource):
    """Characters of real fonts as images. ``path`` is the folder the tars are drawn into."""

    kind: ClassVar[str] = "glyphs"
    verify: bool = False
    samples: int = 20_000
    seed: int = 0
    spoiled: float = 0.5

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"source glyphs: samples is {self.samples}, expected at least 1")
        if not 0 <= self.spoiled <= 1:
            raise UsageError(f"source glyphs: spoiled is {self.spoiled}, expected 0 to 1")

    def estimate(self) -> int | None:
        """Return the number of samples asked for."""
        return self.samples

    def signature(self) -> str:
        """Return a digest of what is drawn: the fonts' outlines and the way of drawing."""
        fonts = [[font.file, sha256_file(font_path(font))] for font in POOL_FONTS]
        return digest({"version": VERSION, "fonts": fonts})

    def records(self) -> Iterator[Record | SetAside]:
        """Draw what is not drawn yet, then read the tars."""
        self.render()
        yield from super().records()

    def render(self) -> None:
        """Draw the tars into ``path``; a rerun draws only the missing ones."""
        identity = {"kind": self.kind, "version": VERSION, "samples": self.samples,
                    "seed": self.seed, "spoiled": self.spoiled}  # fmt: skip
        marker = self.path / "glyphs.json"
        if marker.exists():
            if _settings(marker) != identity:
                raise DataError(
                    f"{self.path}: holds glyphs drawn with other settings; "
                    "choose another folder or remove this one"
                )
        else:
            write_json(marker, identity)
        missing = [n for n in range(self._shards()) if not self._shard(n).exists()]
        if not missing:
            return
        plan = plan_glyphs(self.samples, self.seed)
        kept = first_copies(plan, self.seed, self.spoiled)
        total = sum(min(PER_SHARD, self.samples - shard * PER_SHARD) for shard in missing)
        with Progress("drawing glyphs", total) as progress:
            for shard in missing:
                with atomic_path(self._shard(shard)) as partial, partial.open("wb") as file:
                    writer = tar.TarWriter(file)
                    first = shard * PER_SHARD
                    for index in range(first, min(first + PER_SHARD, self.samples)):
                        self._write(writer, index, plan, kept)
                        progress.advance()
                    writer.close()

    def tars(self) -> list[str]:
        """Return the names of the tars drawn; any other tar in the folder is not ours."""
        return [self._shard(number).name for number in range(self._shards())]

    def _shards(self) -> int:
        return math.ceil(self.samples / PER_SHARD)

    def _shard(self, number: int) -> Path:
        return self.path / f"{number:05d}.tar"

    def _write(
        self, writer: tar.TarWriter, index: int, plan: list[_Glyph], kept: dict[int, bool]
    ) -> None:
        image, caption, truth = spoil(index, plan, self.seed, self.spoiled)
        if index in kept:
            truth = CLEAN if kept[index] else "duplicate"
        key = f"{index // PER_SHARD:05d}{index % PER_SHARD:04d}"
        uid = uid_of_bytes(image, caption.encode())
        values = {
            "uid": uid,
            "url": f"glyph://{uid}",  # says nothing of what is drawn: filters read it
            "font": plan[index].font.file.removesuffix(".ttf"),
            "truth": truth,
        }
        writer.add(f"{key}.json", json.dumps(values, ensure_ascii=False).encode())
        writer.add(f"{key}.png", image)
        writer.add(f"{key}.txt", caption.encode())


def _settings(marker: Path) -> object:
    try:
        return json.loads(marker.read_bytes())
    except (ValueError, RecursionError):
        return None


def plan_glyphs(samples: int, seed: int) -> list[_Glyph]:
    """Plan what is drawn: every character once, then common ones again in other fonts."""
    fonts_of: dict[str, list[Font]] = {}
    for font in POOL_FONTS:
        for character in characters(font):
            fonts_of.setdefault(character, []).append(font)
    known = sorted(fonts_of)
    rng = np.random.default_rng([seed, VERSION])
    weights = np.array([_commonness(character) for character in known], float)
    drawn = [known[i] for i in rng.permutation(len(known))[:samples]]
    extra = samples - len(drawn)
    drawn += [known[i] for i in rng.choice(len(known), extra, p=weights / weights.sum())]
    drawn = [drawn[i] for i in rng.permutation(samples)]
    return [_plan_one(i, character, fonts_of[character], seed) for i, character in enumerate(drawn)]


def _commonness(character: str) -> float:
    """Return how often a character is met, relative to a rare one: a long tail, as in a crawl."""
    code = ord(character)
    if character.isascii() and character.isalnum():
        return 300.0 if character.isdigit() else 200.0
    if 0x391 <= code <= 0x3C9:  # Greek
        return 40.0
    if code < 0x80 or 0x410 <= code <= 0x44F:  # ASCII punctuation, Cyrillic
        return 20.0
    if 0x2190 <= code <= 0x22FF or 0x25A0 <= code <= 0x26FF:  # arrows, mathematics, shapes
        return 5.0
    return 1.0


def _plan_one(index: int, character: str, fonts: list[Font], seed: int) -> _Glyph:
    rng = np.random.default_rng([seed, VERSION, index])
    font = fonts[int(rng.integers(len(fonts)))]
    what = describe(character)
    captions = [style.format(what=what, style=font.style) for style in _STYLES]
    first = int(rng.choice(len(captions), p=[0.3, 0.25, 0.2, 0.1, 0.15]))
    return _Glyph(
        character, font,
        side=int(rng.integers(36, 65)),
        fill=float(rng.uniform(0.6, 0.85)),
        shift=(float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3))),
        angle=float(rng.uniform(-8, 8)) if rng.random() < 0.25 else 0.0,
        ink=int(rng.integers(0, 60)), paper=int(rng.integers(220, 256)), caption=captions[first],
        others=tuple(c for i, c in enumerate(captions) if i != first),
    )  # fmt: skip


def _draw(glyph: _Glyph) -> Image | None:
    return draw(glyph.character, glyph.font, glyph.side, fill=glyph.fill, shift=glyph.shift,
                angle=glyph.angle, ink=glyph.ink, paper=glyph.paper)  # fmt: skip


def spoil(index: int, plan: list[_Glyph], seed: int, share: float) -> tuple[bytes, str, str]:
    """Return image bytes, caption and truth of a sample: ``"clean"`` or the defect's name."""
    from PIL import Image

    glyph = plan[index]
    defect, rng = _fate(index, seed, share)
    drawn = _draw(glyph)
    if drawn is None:  # a mapped character without ink is a blank page, as some crawls bring
        return to_png(Image.new("L", (glyph.side, glyph.side), glyph.paper)), glyph.caption, "blank"
    if defect == CLEAN:
        return to_png(drawn), glyph.caption, defect
    if defect in ("duplicate", "near_duplicate"):
        original, caption = _twin(index, plan, seed, share, rng)
        return _copy(plan[original], defect, rng), caption, defect
    if defect == "mismatched":
        other = plan[int(rng.integers(len(plan)))]
        if other.character == glyph.character:
            return to_png(drawn), glyph.caption, CLEAN
        return to_png(drawn), other.caption, defect
    if defect == "foreign":
        sentences = _FOREIGN[str(rng.choice(list(_FOREIGN)))]
        sentence = sentences[int(rng.integers(len(sentences)))]
        name = glyph.font.file.split("-")[0].removesuffix(".ttf")
        return to_png(drawn), sentence.format(c=glyph.character, s=name), defect
    if defect == "boilerplate":
        text = _BOILERPLATE[int(rng.integers(len(_BOILERPLATE)))]
        return to_png(drawn), text.format(n=int(rng.integers(1, 9999))), defect
    if defect == "tiny":
        side = int(rng.integers(5, 12))
        small = drawn.resize((side, side), Image.Resampling.BILINEAR)
        return to_png(small), glyph.caption, defect
    wide, tall = int(rng.integers(5, 9)), 1
    if rng.random() < 0.5:
        wide, tall = tall, wide
    page = Image.new("L", (glyph.side * wide, glyph.side * tall), glyph.paper)
    left = int(rng.integers(page.width - glyph.side + 1))
    top = int(rng.integers(page.height - glyph.side + 1))
    page.paste(drawn, (left, top))
    return to_png(page), glyph.caption, defect


def first_copies(plan: list[_Glyph], seed: int, share: float) -> dict[int, bool]:
    """Tell of every sample whose image stands more than once whether it is the one to keep.

    That is the one of the smallest uid, whichever was drawn first: a filter that keeps it and
    drops the others makes no mistake.
    """
    groups: dict[int, list[tuple[str, int]]] = {}
    for index in range(len(plan)):
        defect, rng = _fate(index, seed, share)
        if defect != "duplicate" or _draw(plan[index]) is None:
            continue
        original, caption = _twin(index, plan, seed, share, rng)
        if _fate(original, seed, share)[0] != CLEAN:
            continue  # nothing unspoiled was found to copy
        image = _copy(plan[original], defect, rng)
        first = uid_of_bytes(image, plan[original].caption.encode()), original
        groups.setdefault(original, [first]).append((uid_of_bytes(image, caption.encode()), index))
    return {index: (uid, index) == min(group) for group in groups.values() for uid, index in group}


def _fate(index: int, seed: int, share: float) -> tuple[str, np.random.Generator]:
    """Return what becomes of a sample, and the generator for the rest of its making."""
    rng = np.random.default_rng([seed, VERSION, index, 1])
    if rng.random() >= share:
        return CLEAN, rng
    return str(rng.choice(list(DEFECTS), p=list(DEFECTS.values()))), rng


def _twin(
    index: int, plan: list[_Glyph], seed: int, share: float, rng: np.random.Generator
) -> tuple[int, str]:
    """Choose an unspoiled sample to copy, and another caption that fits it."""
    original = index
    for _ in range(_TRIES):
        original = int(rng.integers(len(plan)))
        clean = original != index and _fate(original, seed, share)[0] == CLEAN
        if clean and _draw(plan[original]) is not None:
            break
    others = plan[original].others
    return original, others[int(rng.integers(len(others)))]


def _copy(glyph: _Glyph, defect: str, rng: np.random.Generator) -> bytes:
    from PIL import Image

    picture = _draw(glyph)
    if picture is None:
        picture = Image.new("L", (glyph.side, glyph.side), glyph.paper)
    if defect == "near_duplicate":
        noise = rng.integers(-3, 4, (picture.height, picture.width))
        grey = np.asarray(picture).astype(int) + noise
        picture = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return to_png(picture)
