"""Pick the samples that a report shows of a dataset, and make their thumbnails.

Samples are picked by a hash of seed and uid: the same ones on every run, and wherever the same
samples are eligible the same ones are shown, so that the sheets of two datasets can be compared.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ...errors import DataError, MissingError, UsageError
from ...pools.images import decode
from ...pools.interrupts import interruptible
from ...pools.pool import Pool, literal
from ...pools.reading import iterate
from ...pools.schema import TRUTH
from ...pools.uids import load_subset, to_hex
from .markup import Html, el, shorten, words

_SHOWN = ("text", "source", "shard", "width", "height", TRUTH)
"""The columns that a sheet tells of."""

THUMBNAIL = 96
"""Longest side of a thumbnail in px."""

CAPTION = 240
"""Longest caption shown, in characters."""


@dataclass(frozen=True)
class Thumbnail:
    """One sample as it is shown; ``image`` is a data URI, None where the image is unreadable.

    ``width`` and ``height`` are the original image's, of one that cannot be read what the pool
    says of it, or else 0; ``shown`` is the thumbnail's size in px. ``truth`` is the planted
    defect, where the pool knows it.
    """

    uid: str
    caption: str = ""
    truth: str | None = None
    image: str | None = None
    width: int = 0
    height: int = 0
    shown: tuple[int, int] = (0, 0)
    source: str = ""


@dataclass(frozen=True)
class Sheet:
    """Some of a dataset's samples: those kept (``reason`` is None), or dropped for one reason."""

    dataset: str
    filter: str | None
    reason: str | None
    total: int
    samples: tuple[Thumbnail, ...]


def collect_sheets(
    pool: Pool, datasets: list[tuple[str, Path, Path]], per_sheet: int = 24, seed: int = 0
) -> list[Sheet]:
    """Pick samples kept and, by reason, dropped: a sheet for each, per (name, subset, reasons).

    ``reasons`` is a parquet with the columns uid (hex), filter and reason. Sheets of a dataset
    follow one another, kept first, then the reasons by how many samples they dropped. Raises
    MissingError for a file that is not there and DataError for one that cannot be read.
    """
    if per_sheet < 1:
        raise UsageError(f"per_sheet is {per_sheet}; a sheet shows at least one sample")
    picks: list[tuple[str, str | None, str | None, int, list[str]]] = []
    for name, subset, reasons in datasets:
        total, uids = _pick_kept(pool, subset, per_sheet, seed)
        picks.append((name, None, None, total, uids))
        picks += [(name, *found) for found in _pick_dropped(pool, reasons, per_sheet, seed)]
    shown = thumbnails(pool, sorted({uid for pick in picks for uid in pick[4]}))
    return [
        Sheet(name, step, reason, total, tuple(shown[uid] for uid in uids))
        for name, step, reason, total, uids in picks
    ]


def order_by_hash(uid: str, seed: int) -> str:
    """Return SQL that orders rows at random, but always alike; ``uid`` is SQL for a hex uid."""
    return f"md5({literal(f'{seed}:')} || {uid}), {uid}"


def _pick_kept(pool: Pool, subset: Path, limit: int, seed: int) -> tuple[int, list[str]]:
    """Return how many samples a subset holds and the hex uids picked."""
    uids = load_subset(subset)
    table = pa.table({"high": pa.array(uids["f0"]), "low": pa.array(uids["f1"])})
    pool.connection.register("report_kept", table)
    try:
        rows = pool.sql(
            "SELECT uid FROM (SELECT DISTINCT printf('%016x%016x', high, low) AS uid "
            f"FROM report_kept) ORDER BY {order_by_hash('uid', seed)} LIMIT {limit}"
        ).fetchall()
    finally:
        pool.connection.unregister("report_kept")
    return len(uids), [row[0] for row in rows]


def _pick_dropped(
    pool: Pool, reasons: Path, limit: int, seed: int
) -> list[tuple[str, str, int, list[str]]]:
    """Return (filter, reason, how many, hex uids picked), the most frequent reason first."""
    if not reasons.is_file():
        raise MissingError(f"{reasons}: no such list of reasons; run the dataset's filters again")
    query = (
        "SELECT filter, reason, total, list(uid ORDER BY place) FROM ("
        "SELECT uid, filter, reason, count(*) OVER same AS total, row_number() OVER "
        f"(same ORDER BY {order_by_hash('uid', seed)}) AS place "
        f"FROM read_parquet({literal(str(reasons))}) "
        f"WINDOW same AS (PARTITION BY filter, reason)) WHERE place <= {limit} "
        "GROUP BY ALL ORDER BY total DESC, filter, reason"
    )
    try:
        with interruptible():
            rows = pool.connection.execute(query).fetchall()
    except duckdb.Error as error:
        said = " ".join(str(error).split("\n")[0].split())
        raise DataError(f"{reasons}: not a list of reasons: {said}") from error
    return [(str(step), str(reason), total, uids) for step, reason, total, uids in rows]


def thumbnails(pool: Pool, uids: list[str]) -> dict[str, Thumbnail]:
    """Read samples by hex uid; one that the pool lacks is there with nothing but its uid."""
    found = {uid: Thumbnail(uid) for uid in uids}
    known = pool.columns()
    columns = tuple(name for name in _SHOWN if name in known)
    sources = {number: path.name for number, path in pool.source_paths().items()}
    pool.connection.register("report_uids", pa.table({"uid": pa.array(uids, pa.string())}))
    relation = "SELECT TRY_CAST(('0x' || uid) AS UHUGEINT) AS uid FROM report_uids"
    try:
        for batch in iterate(pool, relation, columns, images=True, batch_size=64):
            rows = batch.columns.to_pylist()
            for uid, row, data in zip(to_hex(batch.uids), rows, batch.images, strict=True):
                found[uid] = _thumbnail(uid, row, data, sources)
    finally:
        pool.connection.unregister("report_uids")
    return found


def _thumbnail(
    uid: str, row: dict[str, Any], data: bytes | None, sources: dict[int, str]
) -> Thumbnail:
    truth = row.get(TRUTH)
    place = [sources.get(row["source"], ""), row["shard"] or ""]
    uri, size, shown = _encode(data)
    if uri is None:
        size = (row["width"] or 0, row["height"] or 0)
    return Thumbnail(
        uid,
        shorten(str(row["text"] or ""), CAPTION),
        None if truth is None else str(truth),
        uri,
        *size,
        shown,
        "/".join(part for part in place if part),
    )


def thumbnail_of(uid: str, caption: str, data: bytes | None, source: str) -> Thumbnail:
    """Return how a sample that lies in no pool is shown."""
    uri, size, shown = _encode(data)
    return Thumbnail(uid, shorten(caption, CAPTION), None, uri, *size, shown, source)


def _encode(data: bytes | None) -> tuple[str | None, tuple[int, int], tuple[int, int]]:
    """Return data URI, original size and size shown: PNG or JPEG, whichever is smaller."""
    if data is None:
        return None, (0, 0), (0, 0)
    try:
        image = decode(data)
    except DataError:
        return None, (0, 0), (0, 0)
    size = image.size
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    encoded: list[tuple[int, str]] = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        text = base64.b64encode(buffer.getvalue()).decode()
        encoded.append((len(text), f"data:image/{kind};base64,{text}"))
    return min(encoded)[1], size, image.size


# -- as HTML ---------------------------------------------------------------------------------


def gallery(
    samples: Sequence[Thumbnail], detailed: bool = False, notes: Sequence[str] = ()
) -> Html:
    """Return thumbnails with captions; ``detailed`` adds size, source and uid, ``notes`` a word."""
    told = notes or [""] * len(samples)
    cards = [_card(sample, detailed, note) for sample, note in zip(samples, told, strict=True)]
    return el("ul", cards, class_="gallery")


def _card(sample: Thumbnail, detailed: bool, note: str) -> Html:
    caption: Html = (
        el("span", sample.caption, class_="said", dir="auto")
        if sample.caption.strip()
        else el("span", "no caption", class_="said none")
    )
    details = None
    if detailed:
        size = f"{sample.width} × {sample.height} px" if sample.width else "size unknown"
        details = [
            el("span", size, class_="fact"),
            el("span", sample.source, class_="fact", dir="auto") if sample.source else None,
            el("code", sample.uid, class_="fact"),
        ]
    return el(
        "li",
        el("figure", _image(sample),
           el("figcaption", el("b", note) if note else None, caption, truth_mark(sample.truth),
              details),
           title=f"uid {sample.uid}"),
    )  # fmt: skip


def _image(sample: Thumbnail) -> Html:
    if sample.image is None:
        return el("div", el("span", "no readable image"), class_="frame broken")
    alt = f"sample {sample.uid[:8]}, {sample.width} by {sample.height} pixels"
    width, height = sample.shown
    return el(
        "div",
        el("img", src=sample.image, alt=alt, width=width, height=height, decoding="async"),
        class_="frame",
    )


def truth_mark(truth: str | None) -> Html | None:
    """Return a mark that tells clean from spoiled by shape and word, not by colour alone."""
    if truth is None:
        return None
    clean = truth == "clean"
    sign = el("span", "●" if clean else "▲", aria_hidden="true")
    return el("span", sign, " ", words(truth), class_="truth clean" if clean else "truth spoiled")
