"""Go on where another stopped: shards of img2dataset, or of a pool that is lost, become a fetch's.

Of each shard that is whole (its stats are written last) the pool learns what became of its URLs,
by the column ``uid`` of the parquet file beside it. A shard that is not whole is put aside as
``NAME.unfinished``; its URLs stay pending. No image is removed. Of img2dataset's own nothing can
tell how they were made: size, quality and blurring are the user's word.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import storage_errors
from ...errors import DataError, UsageError
from ...pools import fetches
from ...pools.pool import Pool
from ...pools.uids import is_uid
from ...progress import say
from .job import PENDING
from .outcomes import outcomes_of

if TYPE_CHECKING:
    import pyarrow as pa

UNFINISHED = ".unfinished"
_STATS = re.compile(r"(\d+)_stats\.json")
_PART = re.compile(r"(\d+)\.(tar|parquet)")


def is_img2datasets(out: Path) -> bool:
    """Tell whether img2dataset has written shards there."""
    return any(_STATS.fullmatch(path.name) for path in out.iterdir())


def adopt(pool: Pool, out: Path) -> None:
    """Take over the shards that img2dataset or another pool's fetch wrote to ``out``.

    Interrupted and called again, it goes on: the same outcomes count once. Raises UsageError for
    shards that do not say which samples of this pool they hold, before anything is changed.
    """
    whole = sorted(found[1] for path in out.iterdir() if (found := _STATS.fullmatch(path.name)))
    known = 0
    for name in whole:  # all are looked at before the first is taken over
        known += len(_of_pool(pool, out, name)[0])
    if not known:
        raise UsageError(f"{out}: none of its images is of {pool.path}; choose another folder")
    strangers, before = 0, datetime.min
    for name in whole:
        table, others = _of_pool(pool, out, name)
        strangers += others
        # Of what was fetched twice the later shard tells, though copying may have changed times.
        before = max(outcomes_of(out, name)[1], before + timedelta(microseconds=1))
        fetches.record(pool, table, before)
    shutil.rmtree(out / PENDING, ignore_errors=True)  # another pool's lists: laid down anew
    left = list(_put_aside(out, set(whole)))
    said = f"took over {len(whole):,} shards with {known:,} URLs"
    if strangers:
        said += f"; {strangers:,} of other samples stay there, too"
    if left:
        said += f"; put aside what was not whole: {', '.join(left[:3])}{', ...' * (len(left) > 3)}"
    say(said)


def _of_pool(pool: Pool, out: Path, name: str) -> tuple[pa.Table, int]:
    """Return what became of the URLs of a shard that are the pool's, and how many are not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tar, listed = out / f"{name}.tar", out / f"{name}.parquet"
    if not tar.is_file() or not listed.is_file():
        lacks = tar if listed.is_file() else listed
        raise UsageError(
            f"{out}: {lacks.name} is missing beside {name}_stats.json; only what img2dataset wrote "
            "with output_format webdataset can be taken over"
        )
    try:
        columns = pq.read_schema(listed).names
        if "uid" not in columns:
            raise UsageError(
                f"{listed}: no column uid (img2dataset's save_additional_columns), so nobody can "
                "say whose images these are; fetch to another folder, or add them as samples: "
                f"datacomp pool add POOL {out} --kind webdataset"
            )
        table, _ = outcomes_of(out, name)
    except (pa.ArrowException, KeyError) as error:
        raise DataError(f"{listed}: {' '.join(str(error).split())}") from error
    sound = [isinstance(uid, str) and is_uid(uid) for uid in table["uid"].to_pylist()]
    named = table.filter(pa.array(sound, pa.bool_()))
    with pool.registered("adopted_arrow", named):
        ours = pool.table(
            "SELECT * FROM adopted_arrow WHERE ('0x' || uid)::UHUGEINT IN (SELECT uid FROM "
            "samples) "
            # One URL twice: the image counts.
            "QUALIFY row_number() OVER (PARTITION BY uid ORDER BY state DESC) = 1 ORDER BY uid"
        )
    return ours, len(table) - len(ours)


def _put_aside(out: Path, whole: set[str]) -> Iterator[str]:
    """Rename what belongs to shards that are not whole; yield their names."""
    for path in sorted(out.iterdir()):
        found = _PART.fullmatch(path.name)
        if found and found[1] not in whole:
            with storage_errors(path):
                path.rename(path.with_name(path.name + UNFINISHED))
            yield path.name
