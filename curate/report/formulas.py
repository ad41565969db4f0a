"""A page of what a formula draws: classes by instances, and one parameter varied at a time."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ...durable import write_text
from ...errors import MissingError, UsageError, suggest
from ...pools.synthetic import KINDS
from ...pools.synthetic.build import ink
from ...pools.synthetic.classes import TABLE, ClassTable
from ...pools.synthetic.contract import ClassRecord, Generator, Picture, Scalar
from ...pools.synthetic.marker import open_set
from ...pools.synthetic.presets import make_generator
from ...progress import Progress
from .markup import Html, decimal, document, el, join, percent, words

_STORED, _SHOWN = 216, 108
"""Sides of a picture in px, as stored and as shown: twice as fine for fine displays."""

_ALWAYS_SAID = ("classes", "instances", "size", "seed", "mode")
"""Options at the head of the page; the others are there where they differ from the default."""

_GOOD_INK = 0.25
"""The picture that is varied is the one whose share of ink comes nearest: neither bare nor full."""


def open_generator(
    what: str, options: dict[str, Any], preset: str | None = None
) -> tuple[Generator, Path | None]:
    """Return the generator of a kind, or of the set in a folder, and that folder."""
    found = open_set(what)
    if found is None and what in KINDS:
        return make_generator(what, preset, options), None
    if found is None:
        raise MissingError(
            f"{what}: neither a kind nor the folder of a synthetic set"
            f"{suggest(what, list(KINDS))}; kinds: {', '.join(KINDS)}"
        )
    if options or preset is not None:
        raise UsageError(f"{what}: options are those of the set; to try others, name the kind")
    return found, Path(what)


def write_formula_page(
    generator: Generator,
    path: Path,
    classes: int = 8,
    instances: int = 6,
    sweep: str | None = None,
    *,
    folder: Path | None = None,
) -> int:
    """Write a page of pictures of a generator, or of the set in ``folder``; return how many.

    ``sweep`` names the one class parameter to vary (None: all that are worth it). Same
    generator and arguments, same bytes.
    """
    sweeps = generator.sweeps()
    if sweep is not None and sweep not in sweeps:
        raise UsageError(
            f"{generator.kind}: no parameter {sweep!r} to vary{suggest(sweep, list(sweeps))}; "
            f"there are: {', '.join(sweeps) or 'none'}"
        )
    varied = sweeps if sweep is None else {sweep: sweeps[sweep]}
    instances = min(instances, generator.instances)
    records = list(_records(generator, folder, min(classes, generator.classes)))
    drawn = [list(_copied(generator, record, 0, instances)) for record in records]
    cards = [_class_section(generator, *one) for one in zip(records, drawn, strict=True)]
    record, instance = _typical(records, drawn)
    rows = [_sweep_section(generator, record, instance, *one) for one in varied.items()]
    body = join(
        _head(generator, folder, len(records), instances),
        el(
            "main",
            el("section", el("h2", "Classes by instances"), cards, id="classes"),
            el("section", el("h2", "One parameter varied"), rows, id="varied") if rows else None,
        ),
    )
    write_text(path, document(f"{generator.kind}: pictures by formula", body))
    return len(records) * instances + sum(len(values) for values in varied.values())


def _records(generator: Generator, folder: Path | None, count: int) -> Iterator[ClassRecord]:
    """Yield the first classes; only these are looked for, since it may take long."""
    first = generator.start_class
    if folder is not None and (folder / TABLE).exists():
        yield from ClassTable(folder, first).records(first, first + count)
        return
    if generator.mode == "fast":  # a class is the same however many there are
        generator = replace(generator, classes=count)
    found = (record for group in generator.groups() for record in generator.find(group))
    with Progress("finding classes", count, "classes") as progress:
        for record in islice(found, count):
            progress.advance(1)
            yield record


def _head(generator: Generator, folder: Path | None, classes: int, instances: int) -> Html:
    facts = {
        "kind": generator.kind, "classes shown": f"{classes:,} of {generator.classes:,}",
        "images of each": f"{instances:,} of {generator.instances:,}",
        "side": f"{generator.size} px", "seed": generator.seed, "mode": generator.mode,
    }  # fmt: skip
    for one in fields(generator):
        value = getattr(generator, one.name)
        if one.name not in _ALWAYS_SAID and value != one.default:
            facts[words(one.name)] = str(value)
    return el(
        "header",
        el("p", folder.name if folder else "datacomp synth", class_="eyebrow"),
        el("h1", f"What {generator.kind} draws"),
        el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in facts.items()],
           class_="figures"),
    )  # fmt: skip


def _typical(records: list[ClassRecord], drawn: list[list[Picture]]) -> tuple[ClassRecord, int]:
    """Return class and instance of the picture to vary."""
    every = [
        (abs(ink(picture) - _GOOD_INK), number, picture.instance)
        for number, pictures in enumerate(drawn)
        for picture in pictures
    ]
    _, number, instance = min(every)
    return records[number], instance


def _class_section(generator: Generator, record: ClassRecord, pictures: list[Picture]) -> Html:
    return el(
        "div",
        el("h3", f"Class {record.class_id} ", el("small", generator.caption(record))),
        el("ul", [_card(one, f"{percent(ink(one))} ink") for one in pictures], class_="gallery"),
        class_="sheet",
    )


def _sweep_section(
    generator: Generator, record: ClassRecord, instance: int, name: str, values: list[Scalar]
) -> Html:
    cards: list[Html] = []
    for value in values:
        changed = replace(record, parameters={**record.parameters, name: value})
        (picture,) = _copied(generator, changed, instance, instance + 1)
        cards.append(_card(picture, _written(value)))
    own = f"of class {record.class_id}, which has {_written(record.parameters.get(name, 1.0))}"
    return el(
        "div",
        el("h3", words(name), " ", el("small", own)),
        el("ul", cards, class_="gallery"),
        class_="sheet",
    )


def _copied(generator: Generator, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
    """Draw pictures of a class; a generator may reuse its buffer."""
    for picture in generator.pictures(record, first, last):
        yield replace(picture, pixels=picture.pixels.copy())


def _written(value: Any) -> str:
    return decimal(value) if isinstance(value, float) else str(value)


def _card(picture: Picture, said: str) -> Html:
    from PIL import Image

    image = Image.fromarray(picture.pixels)
    image.thumbnail((_STORED, _STORED))
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    frame = el(
        "div",
        el("img", src=uri, alt=f"instance {picture.instance}", width=_SHOWN,
           height=_SHOWN, decoding="async"),
        class_="frame",
    )  # fmt: skip
    return el("li", el("figure", frame, el("figcaption", el("span", said, class_="fact"))))
