"""What became of every URL of a pool, and how much of the pool is at hand: the effective pool.

Table ``fetches``: one row per URL that was to be fetched. ``state`` is ``pending``, ``ok`` or
``failed``; ``reason`` says why it failed, last time; ``attempts`` counts fetches; ``updated`` is
when the last one ended. A sample is at hand when it was fetched, or came with its image.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .columns import HALVES
from .uids import UID_DTYPE, UidArray, from_halves

if TYPE_CHECKING:
    from .pool import Pool

FOLDER_KEY = "fetch_folder"
"""Key, in the table ``pool``, of the folder that images are fetched to, relative to the pool."""
PENDING, OK, FAILED = "pending", "ok", "failed"
AT_HAND = "(samples.shard IS NOT NULL OR coalesce(fetches.state = 'ok', false))"
WITH_FETCHES = "samples LEFT JOIN fetches USING (uid)"
_PLACE = "split_part(split_part(split_part(authority, '?', 1), '#', 1), '@', -1)"
_HOST = (
    f"lower(CASE WHEN {_PLACE} LIKE '[%' THEN split_part({_PLACE}, ']', 1) || ']' "
    f"ELSE split_part({_PLACE}, ':', 1) END)"
)
MOST_HOSTS = 10_000
"""Hosts that ``effective_pool`` lists: a web-scale pool has millions."""
_BATCH = 1 << 16


@dataclass(frozen=True)
class Coverage:
    """How many of some samples are at hand."""

    samples: int
    available: int

    @property
    def share(self) -> float:
        """The share at hand, 0 to 1."""
        return self.available / self.samples if self.samples else 0.0


@dataclass(frozen=True)
class HostState:
    """What became of the URLs of one host."""

    host: str
    samples: int
    available: int
    failed: int
    most: str | None
    """The most frequent reason."""


@dataclass(frozen=True)
class EffectivePool:
    """How much of a pool is at hand.

    ``digest`` is the SHA-256 over the sorted uids at hand, 16 bytes each: it names this effective
    pool as ``Pool.digest`` names the pool. ``reasons`` counts what is not at hand, by reason of
    failure, ``pending`` and ``no_url`` included. ``host_count`` is how many hosts there are, of
    which ``hosts`` are those with the most samples.
    """

    total: Coverage
    digest: str
    reasons: dict[str, int]
    hosts: list[HostState] = field(default_factory=list)
    subsets: dict[str, Coverage] = field(default_factory=dict)
    host_count: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "samples": self.total.samples,
            "available": self.total.available,
            "coverage": self.total.share,
            "digest": self.digest,
            "reasons": self.reasons,
            "hosts": [asdict(host) for host in self.hosts],
            "host_count": self.host_count,
            "subsets": {
                name: {**asdict(one), "coverage": one.share} for name, one in self.subsets.items()
            },
        }


def was_fetched(pool: Pool) -> bool:
    """Tell whether any of the pool's URLs was to be fetched."""
    return bool(pool.scalar("SELECT 1 FROM fetches LIMIT 1"))


def available_count(pool: Pool) -> int:
    """Return how many samples are at hand."""
    return pool.scalar(f"SELECT count(*) FROM {WITH_FETCHES} WHERE {AT_HAND}")


def available_digest(pool: Pool) -> str:
    """Return the digest of the effective pool, without holding its uids."""
    found = hashlib.sha256()
    rows = pool.connection.sql(
        f"SELECT {HALVES} FROM {WITH_FETCHES} WHERE {AT_HAND} ORDER BY uid"
    ).to_arrow_reader(_BATCH)
    for batch in rows:
        found.update(from_halves(batch["high"].to_numpy(), batch["low"].to_numpy()).tobytes())
    return found.hexdigest()


def available_uids(pool: Pool) -> UidArray:
    """Return the sorted uids of the samples at hand, shape (n,): the effective pool."""
    import numpy as np

    table = pool.table(f"SELECT {HALVES} FROM {WITH_FETCHES} WHERE {AT_HAND} ORDER BY uid")
    if not len(table):
        return np.empty(0, UID_DTYPE)
    return from_halves(table["high"].to_numpy(), table["low"].to_numpy())


def effective_pool(
    pool: Pool, subsets: dict[str, UidArray] | None = None, hosts: int = MOST_HOSTS
) -> EffectivePool:
    """Return how much of a pool is at hand: overall, of each subset, by reason and by host.

    ``hosts`` are listed at most, those with the most samples first.
    """
    total = Coverage(pool.count(), available_count(pool))
    reasons = pool.sql(
        "SELECT CASE WHEN fetches.state = 'failed' THEN reason "
        "WHEN fetches.state IS NULL AND coalesce(url, '') = '' THEN 'no_url' "
        f"ELSE 'pending' END AS why, count(*) AS n FROM {WITH_FETCHES} WHERE NOT {AT_HAND} "
        "GROUP BY why ORDER BY n DESC, why"
    ).fetchall()
    listed, host_count = _hosts(pool, hosts)
    return EffectivePool(
        total,
        available_digest(pool),
        dict(reasons),
        listed,
        {name: _coverage(pool, uids) for name, uids in (subsets or {}).items()},
        host_count,
    )


def _hosts(pool: Pool, most: int) -> tuple[list[HostState], int]:
    # What stands between the slashes is grouped first: of that there is little to take apart.
    rows = pool.sql(
        f"WITH grouped AS (SELECT split_part(url, '/', 3) AS authority, {AT_HAND} AS here, "
        "coalesce(fetches.state = 'failed', false) AS failed, reason, count(*) AS n "
        f"FROM {WITH_FETCHES} WHERE url LIKE '%://%' GROUP BY ALL), "
        f"hosts AS (SELECT {_HOST} AS host, failed, reason, sum(n) AS n, "
        "coalesce(sum(n) FILTER (here), 0) AS here FROM grouped GROUP BY ALL) "
        "SELECT host, sum(n)::BIGINT AS all_of_it, sum(here)::BIGINT, "
        "coalesce(sum(n) FILTER (failed), 0)::BIGINT, "
        "first(reason ORDER BY n DESC, reason) FILTER (failed AND reason IS NOT NULL), "
        "count(*) OVER () FROM hosts GROUP BY host ORDER BY all_of_it DESC, host LIMIT ?",
        [most],
    ).fetchall()
    return [HostState(*row[:-1]) for row in rows], rows[0][-1] if rows else 0


def _coverage(pool: Pool, uids: UidArray) -> Coverage:
    """Return the coverage of a subset; a uid that stands there k times counts k times."""
    wanted = pa.table({"high": uids["f0"], "low": uids["f1"]})
    with pool.registered("wanted_arrow", wanted):
        found = pool.scalar(
            # A linked pool may hold a uid twice, which is still one sample.
            "SELECT count(*) FROM wanted_arrow WHERE (high::UHUGEINT << 64) + low::UHUGEINT IN "
            f"(SELECT uid FROM {WITH_FETCHES} WHERE {AT_HAND})"
        )
    return Coverage(len(uids), found)


def expect(pool: Pool, table: str, retry: bool) -> None:
    """Note that the uids of a table are to be fetched (again, if ``retry``)."""
    with pool.transaction():
        pool.sql(
            f"INSERT INTO fetches SELECT uid, '{PENDING}', NULL, 0, NULL FROM {table} "
            "ANTI JOIN fetches USING (uid)"
        )
        if retry:
            pool.sql(f"UPDATE fetches SET state = '{PENDING}' FROM {table} AS planned "
                     "WHERE fetches.uid = planned.uid")  # fmt: skip


def record(pool: Pool, outcomes: pa.Table, ended: datetime) -> None:
    """Write down what became of some URLs: columns ``uid`` (hex), ``state`` and ``reason``.

    The same outcomes written twice count once: ``ended`` (UTC) is later than what stands there.
    """
    with pool.registered("outcomes_arrow", outcomes), pool.transaction():
        pool.sql(
            "CREATE OR REPLACE TEMP TABLE outcomes AS "
            "SELECT ('0x' || uid)::UHUGEINT AS uid, state, reason FROM outcomes_arrow"
        )
        pool.sql(
            "UPDATE fetches SET state = o.state, reason = o.reason, attempts = attempts + 1, "
            "updated = $1 FROM outcomes AS o WHERE fetches.uid = o.uid "
            "AND (fetches.updated IS NULL OR fetches.updated < $1)", [ended],
        )  # fmt: skip
        pool.sql(
            "INSERT INTO fetches SELECT uid, state, reason, 1, $1 FROM outcomes "
            "ANTI JOIN fetches USING (uid)", [ended],
        )  # fmt: skip
        pool.sql("DROP TABLE temp.outcomes")
