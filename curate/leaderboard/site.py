"""Build the leaderboard: a folder of pages that works from a disk, any web server, or IPFS."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...durable import atomic_directory, fsync_directory, storage_errors
from ...errors import UsageError
from ...evaluate.leaderboard.check import Report
from ...evaluate.leaderboard.layout import RECORD
from ...evaluate.leaderboard.standings import Row, by_scale, ranked
from ...evaluate.leaderboard.store import place_of
from ...evaluate.leaderboard.verdicts import Verdicts
from ...pools.parallel import default_workers
from .across import scaling_page
from .board import Board, board_page
from .compare import compare_page, plain_rows
from .entry import entry_page, task_comparison
from .overview import about_page, index_page
from .page import Site, assets
from .tasks_page import tasks_page

MARK = ".datacomp-leaderboard"
"""Stands in a site, so that no folder of anything else is ever replaced by one."""


@dataclass(frozen=True)
class Built:
    """What came of it: where the site is, how many submissions it shows, which were refused."""

    path: Path
    submissions: int
    refused: dict[str, Report]


def build_site(
    store: Path | str,
    out: Path | str,
    title: str = "DataComp leaderboard",
    workers: int | None = None,
) -> Built:
    """Check every submission of ``store`` and write the site of those that hold to ``out``.

    The same store gives the same bytes. A site that stands there is replaced at once, whole.
    Raises UsageError where ``out`` is a folder of something else.
    """
    out = Path(out)
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: holds something that is no leaderboard; choose another folder")
    rows, refused = Verdicts(store).load(workers or default_workers())
    fresh = out.with_name(f"{out.name}.new")
    with storage_errors(out):
        shutil.rmtree(fresh, ignore_errors=True)
    with atomic_directory(fresh) as hidden:
        write_pages(hidden, rows, title)
        _link_files(Path(store), hidden, rows)
        (hidden / MARK).write_text("")
    with storage_errors(out):
        _exchange(fresh, out)
    return Built(out, len(rows), refused)


def _exchange(fresh: Path, out: Path) -> None:
    """Put ``fresh`` in the place of ``out``; for an instant between them nothing stands there."""
    old = out.with_name(f"{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    fsync_directory(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def boards_of(rows: Sequence[Row]) -> list[Board]:
    """Return the ranked table of every scale that has rows, published ones among them."""
    boards: list[Board] = []
    for scale, members in by_scale(rows).items():
        ordered, places = ranked(members)
        boards.append(Board(scale, tuple(ordered), tuple(places)))
    return boards


def pages_of(boards: Sequence[Board], title: str) -> dict[str, Callable[[], str]]:
    """Return what writes each page, script and data file of a site, by its path."""
    site = Site(title, tuple(board.scale for board in boards))
    pages: dict[str, Callable[[], str]] = {
        **{name: partial(str, text) for name, text in assets().items()},
        "index.html": partial(index_page, site, boards),
        "about.html": partial(about_page, site),
        "scaling.html": partial(scaling_page, site, boards),
    }
    for board in boards:
        pages[f"{board.scale}.html"] = partial(board_page, site, board)
        pages[f"{board.scale}-compare.html"] = partial(compare_page, site, board)
        pages[f"data/{board.scale}.js"] = partial(plain_rows, board)
        submissions = board.submissions
        if len(submissions) > 2:
            pages[f"{board.scale}-tasks.html"] = partial(tasks_page, site, board)
        others = task_comparison(submissions)
        for row in submissions:
            pages[f"entries/{row.id}.html"] = partial(entry_page, site, board, row, others)
    return pages


def write_pages(folder: Path, rows: Sequence[Row], title: str) -> None:
    """Write all pages, scripts and data of the site into ``folder``."""
    for name in ("data", "entries", "files"):
        (folder / name).mkdir()
    for name, page in pages_of(boards_of(rows), title).items():
        (folder / name).write_text(page(), "utf-8")


def _link_files(store: Path, folder: Path, rows: Sequence[Row]) -> None:
    """Put every submission's files into the site, without a second copy where links can be made."""
    for row in rows:
        assert row.record is not None
        source, target = store / place_of(row.record), folder / "files" / row.id
        for name in (RECORD, *(file.path for file in row.record.files)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(source / name, target / name)
                continue
            shutil.copyfile(source / name, target / name)
