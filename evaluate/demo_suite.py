"""The demo suite: five real tasks that need no network.

Handwritten digits, and characters in typefaces that no sample of the built-in pool is drawn
in. Class names and templates use the words of the pool's captions, so the suite measures
what a model has learned to see, not whether it knows another way of speaking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..durable import atomic_directory, write_json
from ..errors import DatacompError, DataError, IntegrityError, MissingError
from ..pools import tar
from ..pools.lettering import HELD_OUT_FONTS, Font, characters, describe, draw, to_png
from ..progress import Progress
from .evalsets import CLASSNAMES, TEMPLATES, open_folder
from .tasks import folder_name, load_tasks

VERSION = 1
MARKER = "demo.json"
SIDE = 64
PER_SHARD = 1000

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
GREEK = "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρςστυφχψω"
SYMBOLS = "!#$%&()*+<=>?@[]{}~§©¶±÷¿£€←↑→↓↔↕↖↗↘↙⇐⇒⇔∀∃∅∇∈∉∑√∞∩∪∫∴≈≠≡≤≥⊂⊃⊕⊗■□▲△▼◆○●★☆☺♀♂♠♡♣♥♪♫"
"""Symbols that differ in shape when drawn at one size, and whose names a person would use."""

RETRIEVAL = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkmnopqrtuvxyz!\"#$%&'()*+"
    ",-./:;<=>?@[\\]^`{|}~¡£¥§«®°²»½¿÷ªÃÈÍÒÙßâæêîòöûÿĄĈďĕęĞĢĩĮĲķĻŀņŋŒŖśşţ"
    "ũŰŵŹŽΓΔΘΞΣΥΦΨΩΪΫάέήίΰαβγδεζηκλνξπςστυφχψωБДЖЗЙЛУЦШЩЪЭЮЯвгджзилтцчшъыью"
    "я“⁗←↑→↓↔↕↖↗↘↙↚↛↝↢↣↤↦↧↩↪↬↭↯↰↲↳↴↶↷↸↹↻↼↽⇀⇄⇅⇆⇇⇉⇊⇋⇌⇎⇏⇑⇒⇓⇖⇗⇘⇚⇛⇜⇝⇟⇠⇡⇤⇦⇧⇨⇩⇴⇵⇶⇷"
    "⇹⇺⇻⇼⇾⇿∀∂∄∅∈∊∌∎∓∖∘√∝∞∠∢∦∨∩∫∭∯∱∵∷∹∻∽∿≀≂≄≆≈≉≋≍≏≑≓≔≖≘≚≝≞≠≢≤≥≦≨≩≫≭≯≱≲≴≶≸≺≻≽"
    "≿⊁⊃⊅⊆⊈⊊⊌⊐⊑⊓⊕⊖⊗⊚⊛⊞⊡⊣⊥⊧⊨⊪⊬⊮⊰⊱⊳⊵⊷⊹⊻⊼⊾⋀⋂⋄⋆⋈⋊⋌⋎⋏⋑⋓⋕⋗⋙⋚⋜⋞⋠⋢⋣⋥⋧⋩⋫⋬⋮⋰⋲⋶⋸⋹⋽⋿⌀⌐⌬⏥"
    "■▣▥▧▫▭▯▲▵▷►▼▿◁◄◆◈◊◌◎◐◒◔◖◘◛◝◟◡◣◥◧◩◬◮◴◶◸◺◽☆☌☎☡☺☻☼☽☾☿♀♁♂♃♄♆♇♈♠♡♤♥♧♩♪♫♭♮♯♾⚀⚁"
    "⚆⚠⚥⚬✂✉✠✪✶✽"
)
"""Characters of all scripts and kinds, no two of which are nearly the same picture."""

_STYLES = ("a drawing of {c}", "a picture of {c}", "this is {c}")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGIT_STYLES = tuple(style.replace("{c}", "the digit {c}") for style in _STYLES)


@dataclass(frozen=True)
class _Item:
    """One test sample: its image as PNG, and its label or its captions."""

    png: bytes
    label: int = -1
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """What a task is made of; ``items`` draws its samples."""

    names: tuple[str, ...]
    templates: tuple[str, ...]
    items: Callable[[], Iterator[_Item]]

    @classmethod
    def of(cls, chosen: str, each: int, seed: list[int]) -> _Plan:
        """Plan a classification of characters."""
        names = tuple(describe(character) for character in chosen)
        return cls(names, _STYLES, lambda: _drawn(chosen, each, seed))


def build_demo_suite(data: Path | str, seed: int = 0) -> dict[str, str]:
    """Write the demo tasks into ``data`` and return their folders by task key.

    A task that stands there whole is left alone. Raises MissingError without scikit-learn
    (the handwritten digits come with it) and IntegrityError when a task's folder was built
    otherwise or changed since.
    """
    data = Path(data)
    plans = {
        "demo/digits": _Plan(_DIGITS, _DIGIT_STYLES, _digits),
        "demo/letters": _Plan.of(LETTERS, 20, [seed, 1]),
        "demo/greek": _Plan.of(GREEK, 20, [seed, 2]),
        "demo/symbols": _Plan.of(SYMBOLS, 12, [seed, 3]),
        "demo/glyph_retrieval": _Plan((), (), lambda: _pairs([seed, 4])),
    }
    built: dict[str, str] = {}
    for key, plan in plans.items():
        path = data / folder_name(key)
        if not path.exists():
            _write(path, key, plan, seed)
        _check(path, key, seed)
        built[key] = str(path)
    return built


def held_out_fonts(character: str) -> list[Font]:
    """Return the held-out fonts that have a character."""
    return [font for font in HELD_OUT_FONTS if character in characters(font)]


def _digits() -> Iterator[_Item]:
    from PIL import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingError(
            "the handwritten digits come with scikit-learn, which is not installed: "
            "pip install -e '.[train]'"
        ) from None
    scans, labels = load_digits(return_X_y=True)
    for pixels, label in zip(np.asarray(scans), np.asarray(labels), strict=True):
        grey = 255 - np.rint(pixels.reshape(8, 8) * (255 / 16)).astype(np.uint8)  # ink is 16
        image = Image.fromarray(grey).resize((SIDE - 16, SIDE - 16), Image.Resampling.BICUBIC)
        page = Image.new("L", (SIDE, SIDE), 255)
        page.paste(image, (8, 8))
        yield _Item(to_png(page), label=int(label))


def _drawn(chosen: str, each: int, seed: list[int]) -> Iterator[_Item]:
    """Draw every character ``each`` times, in turn in each font that has it."""
    for label, character in enumerate(chosen):
        for copy in range(each):
            yield _Item(_picture(character, copy, [*seed, label, copy]), label=label)


def _pairs(seed: list[int]) -> Iterator[_Item]:
    for index, character in enumerate(RETRIEVAL):
        captions = tuple(style.replace("{c}", describe(character)) for style in _STYLES[:2])
        yield _Item(_picture(character, index, [*seed, index]), captions=captions)


def _picture(character: str, copy: int, seed: list[int]) -> bytes:
    """Draw one test image: sizes and places as in the pool, another typeface."""
    rng = np.random.default_rng([VERSION, *seed])
    fonts = held_out_fonts(character)
    image = draw(
        character, fonts[copy % len(fonts)], SIDE,
        fill=float(rng.uniform(0.6, 0.85)),
        shift=(float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3))),
        ink=int(rng.integers(0, 60)), paper=int(rng.integers(220, 256)),
    )  # fmt: skip
    if image is None:
        raise DataError(f"{describe(character)} leaves no ink; another version of matplotlib?")
    return to_png(image)


def _write(path: Path, key: str, plan: _Plan, seed: int) -> None:
    task = load_tasks()[key]
    with atomic_directory(path) as folder, Progress(f"building {key}", task.size) as progress:
        test = folder / "test"
        test.mkdir()
        everything = list(plan.items())
        shards = range(0, len(everything), PER_SHARD)
        for number, start in enumerate(shards):
            with (test / f"{number}.tar").open("wb") as file:
                writer = tar.TarWriter(file)
                for index in range(start, min(start + PER_SHARD, len(everything))):
                    _add(writer, f"s{index:07d}", everything[index])
                    progress.advance()
                writer.close()
        (test / "nshards.txt").write_text(f"{len(shards)}\n")
        (folder / "dataset_type.txt").write_text(f"{task.family}\n")
        if task.family == "classification":
            (folder / CLASSNAMES).write_text("".join(f"{name}\n" for name in plan.names))
            (folder / TEMPLATES).write_text("".join(f"{line}\n" for line in plan.templates))
        data = open_folder(folder, task).digest()
        write_json(folder / MARKER, {"version": VERSION, "seed": seed, "data": data})


def _add(writer: tar.TarWriter, key: str, item: _Item) -> None:
    if item.captions:
        writer.add(f"{key}.png", item.png)
        writer.add(f"{key}.txt", "\n".join(item.captions).encode())
    else:
        writer.add(f"{key}.cls", str(item.label).encode())
        writer.add(f"{key}.png", item.png)


def _check(path: Path, key: str, seed: int) -> None:
    """Refuse a folder that is not what this version and seed would build."""
    advice = "remove the folder and build it again"
    try:
        marker = json.loads((path / MARKER).read_bytes())
        found = open_folder(path, load_tasks()[key]).digest()
    except (OSError, ValueError, DatacompError) as error:
        raise IntegrityError(f"{path}: not a whole demo task ({error}); {advice}") from None
    if not isinstance(marker, dict) or (marker.get("version"), marker.get("seed")) != (
        VERSION, seed,
    ):  # fmt: skip
        raise IntegrityError(f"{path}: built with another version or seed; {advice}")
    if marker.get("data") != found:
        raise IntegrityError(f"{path}: changed since it was built; {advice}")
