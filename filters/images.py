"""Score images: batch by batch in threads of this process, or in parts by an engine's workers.

What goes into one batch depends on the files and on the scorer alone, never on who scores it.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import RunError
from ..pools.engine import Engine
from ..pools.parallel import default_workers, map_threads
from ..pools.pool import Pool
from ..pools.reading import PlacedBatch, PlaceReader, iterate_places
from ..pools.uids import UidArray
from .behind import files_behind
from .blaming import blaming
from .contract import Batch, Filter, Scorer
from .expression import Prepared, every_scorer, filters_of
from .needs import require_needs
from .spec import FilterSpec

PART = 16
"""So many batches are one worker's at a time."""

Values = Sequence[Any] | pa.Array
Scores = tuple[UidArray, Values]


@dataclass(frozen=True)
class ImagePart:
    """Batches for a worker; ``digest`` tells which of the filter's scorers is to score them.

    ``total`` is how many samples are to be scored in all parts.
    """

    spec: FilterSpec
    digest: str
    total: int
    batches: list[PlacedBatch]


def reads_images(prepared: Sequence[Prepared]) -> bool:
    """Tell whether any of some filters scores images."""
    return any(
        scorer.images for spec, made in filters_of(prepared) for scorer in every_scorer(spec, made)
    )


def score_images(
    pool: Pool, listed: str, spec: FilterSpec, scorer: Scorer, engine: Engine | None
) -> Iterator[Scores]:
    """Yield the scores of the samples that a relation lists, but of those that cannot be read."""
    batches = iterate_places(pool, listed, scorer.columns, True, scorer.batch_size)
    if engine is None:
        yield from _score_here(pool, scorer, batches)
        return
    _prepare(pool, spec, engine)
    digest, total = scorer.digest(), pool.scalar(f"SELECT count(*) FROM {listed}")
    parts = (
        ImagePart(spec, digest, total, part)
        for part in iter(lambda: list(itertools.islice(batches, PART)), [])
    )
    for part in engine.map(score_part, parts, gpu=scorer.gpu):
        yield from part


def _score_here(pool: Pool, scorer: Scorer, batches: Iterator[PlacedBatch]) -> Iterator[Scores]:
    """Score in as many threads as the pool may have, or in this one."""
    threads = 1
    if scorer.concurrent:  # in others than this one, which may be told to compute alone
        threads = max(2, min(default_workers(), pool.scalar("SELECT current_setting('threads')")))
    try:
        yield from map_threads(functools.partial(_score_batch, scorer), batches, threads)
    finally:
        torch = sys.modules.get("torch")
        if torch is not None:  # what threads say is taken for those to come
            torch.set_num_threads(torch.get_num_threads())


def _prepare(pool: Pool, spec: FilterSpec, engine: Engine) -> None:
    """Make sure that the workers have what the filter needs, and see what it reads."""
    prepared = [Prepared(spec, spec.make())]
    require_needs(engine, prepared)
    engine.reach(*pool.source_paths().values())
    behind = files_behind(prepared)
    engine.reach(*(name for name, path in behind.items() if name == str(path)), contents=True)


def score_part(part: ImagePart) -> list[Scores]:
    """Score a part's batches in a worker."""
    made, scorer = _made_for(part)
    with blaming(part.spec, made):
        return [_score_batch(scorer, batch) for batch in part.batches]


_kept: list[tuple[tuple[FilterSpec, str], tuple[Filter, Scorer]]] = []
"""What this worker made last: the next part is most likely of the same, and models are large."""


def _made_for(part: ImagePart) -> tuple[Filter, Scorer]:
    """Make the filter of a part, unless that is at hand; raise RunError for another's scorer."""
    wanted = (part.spec, part.digest)
    if not _kept or _kept[0][0] != wanted:
        made = part.spec.make()
        found = {scorer.digest(): scorer for scorer in every_scorer(part.spec, made)}
        if part.digest not in found:
            raise RunError(
                f"filter {part.spec.use}: {os.uname().nodename} scores otherwise than the machine "
                "where it was called; see that both have the same files"
            )
        with blaming(part.spec, made):
            found[part.digest].expect(part.total)
        _kept[:] = [(wanted, (made, found[part.digest]))]
    return _kept[0][1]


def _score_batch(scorer: Scorer, batch: PlacedBatch) -> Scores:
    """Score the images of a batch that can be read."""
    with PlaceReader() as reader:
        images = [reader.read(place) for place in batch.places]
    seen = [n for n, image in enumerate(images) if image is not None]
    if not seen:
        return batch.uids[:0], []
    found = [image for image in images if image is not None]
    return batch.uids[seen], values_of(scorer, Batch(batch.columns.take(seen), found))


def values_of(scorer: Scorer, batch: Batch) -> Values:
    """Return the scores of a batch, as a list if they are no Arrow array."""
    values = scorer.score(batch)
    return values if isinstance(values, pa.Array) else list(values)
