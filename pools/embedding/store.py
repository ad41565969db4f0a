"""Where computed features lie: whole parts on disk in DataComp's layout, and the pool's tables.

``POOL.features/NAME/00000000.npz`` holds ``NAME_img`` and ``NAME_txt``, row-aligned with
``00000000.parquet`` beside it: uid and similarity. So the folder by itself is metadata that
DataComp's own tools, and ``pool add --kind commonpool``, read. A part is first whole on disk, and
then, in one transaction, the pool's: a crash in between leaves files that the next run replaces.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...durable import atomic_path
from ...errors import DataError, MissingError, UsageError
from ..feature_places import features_folder
from ..features import Features
from ..pool import Pool
from ..uids import to_hex
from .embedded import Embedded
from .journal import FOLDER as UNFINISHED
from .recipe import check_name
from .score import SCORE, SCORE_TYPE, score_column, score_digest

IMAGE, TEXT = "img", "txt"
_PART = re.compile(r"\d{8}\.(npz|parquet)")


@dataclass(frozen=True)
class State:
    """How many samples have features, and how many have none for which reason."""

    embedded: int
    set_aside: dict[str, int]


class FeatureStore:
    """The features of one name in a pool; all of them have one provenance."""

    def __init__(self, pool: Pool, name: str) -> None:
        self.pool, self.name = pool, check_name(name)
        self.folder = features_folder(pool.path) / name
        self.rows = ""
        self._scores = ""

    def check(self, identity: dict[str, Any]) -> bool:
        """Tell whether there are features of this name; they must be of this provenance.

        Raises UsageError where they are of another one.
        """
        found = self.pool.row(
            "SELECT parameters, rows_table FROM features WHERE name = ?", [self._array(IMAGE)]
        )
        if found is None:
            self._check_published()
            return False
        expect_same(self.pool.path, self.name, json.loads(found[0]), identity)
        self.rows = found[1]
        return True

    def _check_published(self) -> None:
        """Refuse the name of features that came with the pool's metadata."""
        try:
            Features(self.pool, self._array(IMAGE))
        except (MissingError, DataError):
            return
        raise UsageError(
            f"{self.pool.path}: features {self.name!r} came with its metadata, and features of "
            "two kinds are not mixed; give these another --name"
        )

    def declare(
        self, identity: dict[str, Any], preparation: dict[str, Any], dimension: int
    ) -> None:
        """Make room for the features in the pool, if there is none yet."""
        self._scores = self.pool.score_table(
            SCORE, score_digest(identity), {**identity, "type": SCORE_TYPE}
        )
        if self.rows:
            return
        self._sweep()
        with self.pool.transaction():
            number = self.pool.scalar("SELECT count(DISTINCT rows_table) + 1 FROM features")
            self.rows = f"feature_rows_{number}"
            self.pool.sql(
                f"CREATE TABLE {self.rows} (uid UHUGEINT, part INTEGER, row INTEGER, "
                "reason VARCHAR)"
            )
            for array in (IMAGE, TEXT):
                self.pool.sql(
                    "INSERT INTO features (name, model, weights, preprocessing, dimension, dtype, "
                    'file, "precision", parameters, rows_table) '
                    "VALUES (?, ?, ?, ?, ?, 'float16', ?, ?, ?, ?)",
                    [self._array(array), identity["model"], identity["weights_sha256"],
                     json.dumps(preparation, sort_keys=True), dimension,
                     str(self.folder.relative_to(self.pool.path.parent)), identity["precision"],
                     json.dumps(identity, sort_keys=True), self.rows],
                )  # fmt: skip

    def _sweep(self) -> None:
        """Remove what a pool of this name that is no more has left in the folder."""
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
        for left in self.folder.glob("*"):
            if _PART.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def next_part(self) -> int:
        """Return the number of the first part that is not there."""
        if not self.rows:
            return 0
        return self.pool.scalar(f"SELECT coalesce(max(part) + 1, 0) FROM {self.rows}")

    def state(self) -> State:
        """Return how far the features are."""
        if not self.rows:
            return State(0, {})
        counts = dict(
            self.pool.sql(
                f"SELECT reason, count(*) FROM {self.rows} GROUP BY reason ORDER BY reason"
            ).fetchall()
        )
        return State(counts.pop(None, 0), counts)

    def commit(self, number: int, part: Embedded) -> None:
        """Bring a whole part in; samples that were set aside before are now what they are here."""
        if len(part.scores):
            self._write(number, part)
        used = part.used
        rows = np.cumsum(used) - 1
        table = pa.table({
            "high": part.uids["f0"], "low": part.uids["f1"],
            "row": pa.array(rows, pa.int32(), mask=~used),
            "reason": pa.array([reason.decode() or None for reason in part.reasons.tolist()],
                               pa.string()),
        })  # fmt: skip
        scores = pa.table(
            {"high": part.uids["f0"][used], "low": part.uids["f1"][used], "value": part.scores}
        )
        uid = "(high::UHUGEINT << 64) + low::UHUGEINT"
        with (
            self.pool.registered("embedded_rows", table),
            self.pool.registered("embedded_scores", scores),
            self.pool.transaction(),
        ):
            self.pool.sql(
                f"DELETE FROM {self.rows} WHERE reason IS NOT NULL AND uid IN "
                f"(SELECT {uid} FROM embedded_rows)"
            )
            self.pool.sql(
                f"INSERT INTO {self.rows} SELECT {uid}, {number}, row, reason FROM embedded_rows"
            )
            # The filter clip_score may have scored some with the same model.
            self.pool.sql(
                f"INSERT INTO {self._scores} SELECT uid, value FROM "
                f"(SELECT {uid} AS uid, value FROM embedded_scores) "
                f"ANTI JOIN {self._scores} USING (uid)"
            )

    def _write(self, number: int, part: Embedded) -> None:
        stem = self.folder / f"{number:08d}"
        arrays = {self._array(IMAGE): part.images, self._array(TEXT): part.texts}
        with atomic_path(stem.with_suffix(".npz")) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        columns = {
            "uid": to_hex(part.uids[part.used]),
            score_column(self.name): part.scores,
        }
        with atomic_path(stem.with_suffix(".parquet")) as partial:
            pq.write_table(pa.table(columns), partial)

    def _array(self, what: str) -> str:
        return f"{self.name}_{what}"


def expect_same(place: Path, name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UsageError where features of a name were made with something else than is at hand."""
    for key in sorted(set(before) | set(now)):
        if before.get(key) != now.get(key):
            raise UsageError(
                f"{place}: its features {name!r} were made with "
                f"{key} {_shown(before.get(key))}, now it is {_shown(now.get(key))}; "
                "features of two kinds are not mixed, give these another --name"
            )


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:16]
