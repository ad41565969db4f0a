"""Look a pool over: what linking does not look at, since it reads no rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingError
from .feature_places import Computed
from .features import feature_names, open_features
from .pool import Pool
from .sources import LinkableSource, SetAside, source_class
from .sources.base import Scan

MOST = 100
"""At most this many examples of each reason are listed."""


@dataclass
class CheckReport:
    """What is wrong with a pool: how many rows or files, by reason, and examples.

    ``duplicate_uid`` counts the rows beyond the first of each uid; ``uid_broken`` and
    ``caption_too_long`` rows that would be set aside if they were copied; ``features_broken``
    files of features that cannot be read or do not fit their metadata. Files of metadata that
    cannot be read are counted by why: ``file_broken``, ``file_foreign``, ...
    """

    samples: int
    problems: dict[str, int] = field(default_factory=dict)
    examples: list[SetAside] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


def check_pool(pool: Pool) -> CheckReport:
    """Check that uids are uids and unique, and that features have as many rows as metadata."""
    report = CheckReport(pool.count())
    counts: Counter[str] = Counter()
    telling = not pool.path.is_dir()  # opening a folder told it already
    sources: list[tuple[LinkableSource, list[Path]]] = []
    for source in _linkable(pool):
        files, aside = source.files(telling)
        sources.append((source, files))
        counts.update(one.reason for one in aside)
        report.examples += aside[:MOST]
    usable = "SELECT uid FROM samples"
    if pool.linked:
        scans = [source.scan(pool.connection, files) for source, files in sources]
        for scan in scans:
            _unusable(pool, scan, counts, report.examples)
        usable = " UNION ALL ".join(f"SELECT uid FROM ({scan.usable()})" for scan in scans)
    _duplicates(pool, usable, counts, report.examples)
    for _, files in sources:
        for file in files:
            _features(file, counts, report.examples)
    _computed(pool, counts, report.examples)
    report.problems = dict(sorted(counts.items()))
    return report


def _linkable(pool: Pool) -> list[LinkableSource]:
    """Return the sources whose files can be read again, if they are still there."""
    rows = pool.sql("SELECT id, kind, options FROM sources ORDER BY id").fetchall()
    paths = pool.source_paths()
    found = []
    for number, kind, options in rows:
        source = source_class(kind).with_options(paths[number], json.loads(options))
        if isinstance(source, LinkableSource):
            found.append(source)
    return found


def _unusable(pool: Pool, scan: Scan, counts: Counter[str], examples: list[SetAside]) -> None:
    pool.sql(f"CREATE OR REPLACE TEMP TABLE check_unusable AS {scan.unusable()}")
    try:
        counts.update(dict(pool.sql(
            "SELECT reason, count(*) FROM check_unusable GROUP BY reason"
        ).fetchall()))  # fmt: skip
        rows = pool.sql(f"FROM check_unusable ORDER BY rowid LIMIT {MOST}").fetchall()
        examples += [SetAside(*row) for row in rows]
    finally:
        pool.sql("DROP TABLE IF EXISTS check_unusable")


def _duplicates(pool: Pool, usable: str, counts: Counter[str], examples: list[SetAside]) -> None:
    # Counting is much less work than finding, and seldom is there anything to find.
    rows, uids = pool.sql(f"SELECT count(*), count(DISTINCT uid) FROM ({usable})").fetchall()[0]
    if rows == uids:
        return
    counts["duplicate_uid"] += rows - uids
    twice = pool.sql(
        f"SELECT printf('%032x', uid), count(*) FROM ({usable}) GROUP BY uid "
        f"HAVING count(*) > 1 ORDER BY uid LIMIT {MOST}"
    ).fetchall()
    examples += [SetAside(uid, "duplicate_uid", f"{count:,} rows") for uid, count in twice]


def _computed(pool: Pool, counts: Counter[str], examples: list[SetAside]) -> None:
    """Look whether the features that ``pool embed`` wrote are there, as many as the pool knows."""
    for name, folder, rows in pool.sql(
        "SELECT name, file, rows_table FROM features ORDER BY name"
    ).fetchall():
        places = Computed(pool.path.parent / folder, rows)
        for file, known in pool.sql(
            f"SELECT file, max(row) + 1 FROM ({places.listing}) GROUP BY file ORDER BY file"
        ).fetchall():
            try:
                with open_features(places.locate(0, file), name) as array:
                    if array.rows < known:
                        raise DataError(f"{array.rows:,} rows, but the pool knows {known:,}")
            except (DataError, MissingError) as error:
                counts["features_broken"] += 1
                if counts["features_broken"] <= MOST:
                    examples.append(SetAside(f"{folder}/{file}", "features_broken", str(error)))


def _features(metadata: Path, counts: Counter[str], examples: list[SetAside]) -> None:
    path = metadata.with_suffix(".npz")
    if not path.exists():
        return
    try:
        for name in feature_names(path):
            open_features(metadata, name).close()
    except (DataError, MissingError) as error:
        counts["features_broken"] += 1
        if counts["features_broken"] <= MOST:
            examples.append(SetAside(path.name, "features_broken", str(error)))
