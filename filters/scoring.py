"""Score what is not scored yet: each value is computed once and written to the pool."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import DatacompError, MissingError, RunError, UsageError
from ..pools.engine import Engine
from ..pools.pool import quote
from ..progress import Progress
from .answers import Answers, Asking, AsWholeError, Share
from .blaming import blaming_scorer
from .contract import Scorer
from .flow import ScoreWriter, read_features, stream_columns
from .images import Scores, score_images, values_of
from .predicates import all_true
from .registry import defined_at
from .relations import Relations
from .sets import (
    SetScorer,
    SpreadScorer,
    copies_in,
    name_of_set,
    refuse_copies,
    set_digest,
    write_set_scores,
)
from .spec import FilterSpec
from .speeds import remember
from .stored import EmbeddedScore
from .together import Scored


@dataclass(frozen=True)
class Unreadable:
    """How many images could not be read, and where the first of them should have been."""

    count: int
    first: str

    def __str__(self) -> str:
        """Say it in one line."""
        what = "image" if self.count == 1 else "images"
        return f"{self.count:,} {what} cannot be read, first {self.first}"


def score_name(name: str, digest: str) -> str:
    """Return the column of the candidates that holds a score."""
    return f"score:{name}:{digest[:16]}"


class Scoring:
    """Computes scores and lets the candidates have them.

    ``used`` names the scores of this run, ``seconds`` how long each took, by digest, whenever
    that was, and ``seconds_now`` how much of it was now. ``missed`` are tables of the uids whose
    images could not be read.
    """

    def __init__(
        self, relations: Relations, answers: Answers, workers: Engine | None = None
    ) -> None:
        self.pool, self.relations, self._answers = relations.pool, relations, answers
        self._workers = workers
        self.used: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.seconds_now = 0.0
        self.missed: list[str] = []
        self._of_sets: dict[str, str] = {}

    def column(self, scorer: Scorer) -> str:
        """Return the quoted column of a score that was computed."""
        digest = scorer.digest()
        name = score_name(scorer.name, self._of_sets.get(digest, digest))
        if not self.relations.has(name):
            raise UsageError(f"scorer {scorer.name} is used in decide(), but not in scorers()")
        return quote(name)

    def ensure(self, spec: FilterSpec, scorer: Scorer, scope: str, alive: list[str]) -> None:
        """Compute and store the scores that are missing in ``scope`` where ``alive`` is true."""
        if isinstance(scorer, SetScorer):
            if not self._answers.whole and not isinstance(scorer, SpreadScorer):
                raise AsWholeError(f"{spec.use} scores the set as a whole")
            self._ensure_set(spec, scorer, scope, alive)
            return
        if isinstance(scorer, EmbeddedScore):
            if not self._answers.whole:
                raise AsWholeError(f"{spec.use} takes what 'pool embed' wrote to the pool")
            self._use_embedded(scorer)
            return
        digest = scorer.digest()
        table = self._table(spec, scorer, digest)
        self._answers.recall(self.pool, table, digest)
        missing = f"FROM {scope} c ANTI JOIN {table} t USING (uid) WHERE {all_true(alive)}"
        if scorer.images or scorer.features:
            self.relations.create("TABLE", "to_score", f"SELECT uid {missing}")
            total = self.pool.scalar("SELECT count(*) FROM to_score")
        else:
            known = self.pool.scalar(f"SELECT count(*) FROM {table}")
            if not known:  # nothing to leave out
                missing = f"FROM {scope} c WHERE {all_true(alive)}"
            total = max(0, self.pool.scalar(f"SELECT count(*) FROM {scope}") - known)
        with blaming_scorer(spec, scorer):
            scorer.expect(total)
        scores = self._scores(spec, scorer, missing)
        self._compute(spec, scorer, table, scores, total)
        self._answers.remember(self.pool, table, digest)
        if scorer.images:
            self._note_missed(scorer, table, scope, total)
        self._use(scorer, digest, table)

    def _scores(self, spec: FilterSpec, scorer: Scorer, rows: str) -> Iterator[Scores]:
        """Score the samples listed, or those of the ``rows`` whose columns are all it takes."""
        if scorer.images:
            return score_images(self.pool, "to_score", spec, scorer, self._workers)
        if scorer.features:
            readers = self._answers.features(self.pool, scorer)
            if readers is None:
                return iter(())
            batches = read_features(self.pool, scorer, readers)
        else:
            batches = stream_columns(self.pool, scorer, rows)
        return ((uids, values_of(scorer, batch)) for uids, batch in batches)

    def _use_embedded(self, scorer: EmbeddedScore) -> None:
        """Let the candidates have what ``pool embed`` wrote."""
        digest, table, provenance = scorer.find(self.pool)
        self._of_sets[scorer.digest()] = digest
        self.relations.join(score_name(scorer.name, digest), table)
        self.used.append({"name": scorer.name, "digest": digest, **provenance})

    def _table(self, spec: FilterSpec, scorer: Scorer, digest: str) -> str:
        with blaming_scorer(spec, scorer):
            parameters = {**scorer.identity(), "type": scorer.type}
            return self.pool.score_table(scorer.name, digest, parameters)

    def _use(self, scorer: Scorer, digest: str, table: str) -> None:
        self.relations.join(score_name(scorer.name, digest), table)
        self.used.append({"name": scorer.name, "digest": digest, **scorer.identity()})

    def _compute(
        self, spec: FilterSpec, scorer: Scorer, table: str,
        scores: Iterator[Scores], total: int,
    ) -> None:  # fmt: skip
        """Write batch after batch; of what cannot be finished, what was scored stays."""
        with (
            Progress(f"scoring {scorer.name}", total) as progress,
            # What a cluster takes says nothing of this machine.
            self._timed(scorer.digest(), progress, scorer if self._workers is None else None),
            ScoreWriter(self.pool, table, spec, scorer) as writer,
        ):
            for uids, values in scores:
                if len(values) != len(uids):
                    raise RunError(
                        f"filter {spec.use}: scorer {scorer.name} ({defined_at(scorer)}) returned "
                        f"{len(values)} values for {len(uids)} samples"
                    )
                writer.write(uids, values)
                progress.advance(len(uids))
            progress.total = progress.done  # some were scored before, or need no score

    def _ensure_set(
        self, spec: FilterSpec, scorer: SetScorer, scope: str, alive: list[str]
    ) -> None:
        """Score a set as a whole; what other filters drop belongs to it."""
        for inner in scorer.scores:
            self.ensure(spec, inner, scope, alive)
        if scorer.scores:
            self.relations.show_candidates()
        own = "".join(f", c.{quote(name)}" for name in scorer.columns)
        theirs = "".join(f", c.{self.column(s)} AS {quote(s.name)}" for s in scorer.scores)
        members = self.relations.create(
            "TABLE",
            "set_members",
            f"SELECT c.uid{own}{theirs} FROM {scope} c WHERE {all_true(alive)} ORDER BY c.uid",
        )
        if isinstance(self._answers, Share):
            digest, table = self._score_apart(spec, scorer, members, self._answers)
        else:
            digest = set_digest(self.pool, members, scorer)
            table = self._table(spec, scorer, digest)
            total = self.pool.scalar(f"SELECT count(*) FROM {members}")
            with (
                Progress(f"scoring {scorer.name}", total) as progress,
                self._timed(digest, progress, scorer),
            ):
                if self.pool.scalar(f"SELECT count(*) FROM {table}") != total:
                    refuse_copies(spec.use, *copies_in(self.pool, members))
                    write_set_scores(self.pool, members, scorer, table)
                    progress.advance(total)
        self._of_sets[scorer.digest()] = digest
        self._use(scorer, digest, table)

    def _score_apart(
        self, spec: FilterSpec, scorer: SetScorer, members: str, share: Share
    ) -> tuple[str, str]:  # fmt: skip
        """Score a partition's samples together with the others; return digest and table.

        Scores are read back only when all partitions have theirs, so that all ask alike.
        """
        uids, everybody, copies, first = share.members(self.pool, scorer.digest(), members)
        refuse_copies(spec.use, copies, first)
        digest = name_of_set(scorer, uids)
        table = self._table(spec, scorer, digest)
        scored = Scored(digest)
        if share.knows(scored):
            share.recall(self.pool, table, digest)
            return digest, table
        opened = share.features(self.pool, scorer) if scorer.features else {}
        total = self.pool.scalar(f"SELECT count(*) FROM {members}")
        asking = Asking(share, self.pool, digest, everybody)
        # Of what was asked before, this pass has only the answers: it says nothing of the speed.
        with (
            Progress(f"scoring {scorer.name}", total) as progress,
            self._timed(digest, progress),
        ):
            write_set_scores(self.pool, members, scorer, table, lambda: opened, asking)
            progress.advance(total)
        share.remember(self.pool, table, digest)
        share.join(scored, lambda: None)
        return digest, table

    def _note_missed(self, scorer: Scorer, table: str, scope: str, total: int) -> None:
        """Set apart what was to be scored and has no score: its image was not there to be seen."""
        name = self.relations.create_next(
            "unreadable", f"SELECT uid FROM to_score ANTI JOIN {table} USING (uid)"
        )
        count = self.pool.scalar(f"SELECT count(*) FROM {name}")
        if not count:
            return
        self.missed.append(name)
        scored = f"SELECT count(*) FROM {scope} SEMI JOIN {table} USING (uid)"
        if count == total and not self.pool.scalar(scored):
            raise MissingError(
                f"scoring {scorer.name}: no image can be read ({total:,} tried), first "
                f"{self._place_of_first(name)}; are the pool's sources where they were?"
            )

    def unreadable(self) -> Unreadable | None:
        """Return how many samples were dropped for images that could not be read."""
        if not self.missed:
            return None
        every = " UNION ".join(f"SELECT uid FROM {name}" for name in self.missed)
        name = self.relations.create("TABLE", "unreadable", every)
        count = self.pool.scalar(f"SELECT count(*) FROM {name}")
        return Unreadable(count, self._place_of_first(name))

    def _place_of_first(self, table: str) -> str:
        """Return where the image of the first sample of a table should be, in file order."""
        row = self.pool.row(
            f"SELECT printf('%032x', s.uid), s.source, s.shard FROM samples s SEMI JOIN {table} "
            'USING (uid) ORDER BY s.source, s.shard, s."offset", s.uid LIMIT 1'
        )
        assert row is not None
        uid, source, shard = row
        if shard is None:
            return f"{uid} (a sample without an image)"
        root = self.pool.source_paths()[source]
        return f"{uid} of {root if root.is_file() else root / shard}"

    @contextlib.contextmanager
    def _timed(
        self, digest: str, progress: Progress, scorer: Scorer | None = None
    ) -> Iterator[None]:
        """Add the time of the block to what a score has cost: kept in the pool, as the score is.

        That of a ``scorer`` is remembered for other pools too.
        """
        key, started = f"seconds:{digest}", time.monotonic()
        before = float(self.pool.scalar("SELECT value FROM pool WHERE key = ?", [key]) or 0)
        self.seconds[digest] = before
        try:
            yield
        finally:
            if progress.done:
                seconds = time.monotonic() - started
                self.seconds[digest] = before + seconds
                self.seconds_now += seconds
                if scorer is not None:
                    remember(scorer, progress.done, seconds)
                with contextlib.suppress(DatacompError):  # it may be the pool that failed
                    self.pool.sql("INSERT OR REPLACE INTO pool VALUES (?, ?)",
                                  [key, f"{before + seconds:.3f}"])  # fmt: skip
