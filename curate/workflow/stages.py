"""The stages of a study, each a function of plain values that a process of its own can run."""

from __future__ import annotations

import contextlib
import functools
import shutil
from pathlib import Path
from typing import Any

from ...durable import digest
from ...errors import IntegrityError, RunError, UsageError
from ...filters.engine import Selection
from ...filters.expression import Node, prepare
from ...filters.images import reads_images
from ...pools.engine import Engine
from ...pools.feature_places import features_folder
from ...pools.parallel import memory_limited
from ...pools.pool import Pool
from ...pools.schema import TRUTH
from ...pools.uids import to_hex
from ...pools.views import METADATA
from ...progress import warn
from ..engine import open_engine
from ..selection import name_of
from ..selection import select as select_dataset
from .config import Study
from .embedding import embedded

CLEAN = "clean"
SET_ASIDE = "set_aside"
"""Key in a result: how many samples could not be used, by reason."""
UNREADABLE = "unreadable"
"""Key in a result of filtering: how many samples dropped out because they could not be read."""
MARK = "study_sources"
"""Key in a pool's table ``pool``: the study made it, from these sources."""


def make_pool(study: Study) -> dict[str, Any]:
    """Fill the pool from its sources; when these have changed, it is made anew."""
    sources = study.sources()
    identity = digest([[s.kind, s.options(), s.signature()] for s in sources])
    if study.pool_path.exists() and not _is_of(study, identity):
        study.pool_path.unlink()
        study.pool_path.with_name(study.pool_path.name + ".wal").unlink(missing_ok=True)
        features = features_folder(study.pool_path)
        if features.exists():  # of the samples that were there before
            shutil.rmtree(features)
    reports = []
    with Pool.open_or_create(study.pool_path, **limits(study)) as pool:
        pool.sql("INSERT OR REPLACE INTO pool VALUES (?, ?)", [MARK, identity])
        for source in sources:
            reports.append(pool.add(source).to_dict())
        set_aside: dict[str, int] = {}
        for report in reports:
            for reason, count in report["set_aside"].items():
                set_aside[reason] = set_aside.get(reason, 0) + count
        if pool.count() == 0:
            listed = ", ".join(f"{count} {reason}" for reason, count in set_aside.items())
            raise RunError(f"the pool is empty: every sample was set aside ({listed})")
        return {
            "samples": pool.count(),
            **name_of(pool),
            "columns": pool.columns(),
            "set_aside": set_aside,
            "defects": _defects(pool, "true"),
            "note": reports,
        }


def limits(study: Study) -> dict[str, Any]:
    """Return what the study lets its database take."""
    return {"memory_limit": study.pool.memory, "threads": study.pool.threads}


def _is_of(study: Study, identity: str) -> bool:
    """Tell whether the pool holds these sources; one that no study made is never touched."""
    with Pool.open(study.pool_path, read_only=True, **limits(study)) as pool:
        found = pool.scalar("SELECT value FROM pool WHERE key = ?", [MARK])
    if found is None:
        raise UsageError(
            f"{study.pool_path}: this pool was not made by a study and would be overwritten; "
            "give pool.path another name"
        )
    return found == identity


def make_evalsets(study: Study) -> dict[str, Any]:
    """Build the demo suite's evaluation sets."""
    from ...evaluate.demo_suite import build_demo_suite

    return {"folders": build_demo_suite(study.eval_data)}


def select(study: Study, name: str) -> dict[str, Any]:
    """Run a dataset's filters and write its subset with sidecar and reasons."""
    dataset = study.get_dataset(name)
    path = study.subset_path(name)
    reasons = path.with_suffix(".reasons.parquet")
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(Pool.open(study.pool_path, **limits(study)))
        cluster = functools.cache(lambda: _cluster(study, stack))
        filters = embedded(study, pool, study.filters_of(dataset), cluster)
        shared = pool.linked or any(map(_scores_images, filters))
        engine = cluster() if shared else None
        found = select_dataset(pool, filters, path, dataset.combine, reasons, engine)
        chosen = found.selection
        if chosen.unreadable is not None:
            warn(f"{chosen.unreadable}; the next run tries again")
        return {
            "digest": found.sidecar["digest"],
            "size": chosen.gathered.count,
            "share": found.share,
            "filters": found.sidecar["pipeline"]["filters"],
            "combine": dataset.combine,
            "funnel": chosen.funnel(),
            "scored_by": chosen.scores,
            "seconds": {"scoring": sum(chosen.scoring.values()), "now": chosen.scoring_now},
            UNREADABLE: 0 if chosen.unreadable is None else chosen.unreadable.count,
            **_judge(pool, chosen),
        }


def hold_against_truth(study: Study) -> dict[str, Any]:
    """Run filters one by one over the pool and hold what they keep against the planted truth."""
    from ...filters import run_filters

    rows: list[dict[str, Any]] = []
    unread = 0
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(Pool.open(study.pool_path, **limits(study)))
        cluster = functools.cache(lambda: _cluster(study, stack))
        for node in embedded(study, pool, study.filters_of(study.truth), cluster):
            workers = cluster() if _scores_images(node) else None
            chosen = run_filters(pool, [node], workers=workers)
            unread = max(unread, chosen.unreadable.count if chosen.unreadable else 0)
            rows.append({
                "filter": node.label(),
                "size": chosen.gathered.count,
                "share": chosen.kept / chosen.total,
                "funnel": chosen.funnel(),
                "seconds": round(chosen.seconds, 2),
                **_judge(pool, chosen),
            })  # fmt: skip
    return {"rows": rows, UNREADABLE: unread}


def _judge(pool: Pool, chosen: Selection) -> dict[str, Any]:
    """Hold a selection against the planted truth; samples without one are not judged."""
    everything = _defects(pool, "true")
    if not everything:
        return {"precision": None, "recall": None, "kept_defects": None}
    import pyarrow as pa

    pool.connection.register("chosen_arrow", pa.table({"uid": to_hex(chosen.uids)}))
    kept = _defects(pool, "uid IN (SELECT ('0x' || uid)::UHUGEINT FROM chosen_arrow)") or {}
    pool.connection.unregister("chosen_arrow")
    clean, judged = kept.get(CLEAN, 0), sum(kept.values())
    return {
        "precision": clean / judged if judged else None,
        "recall": clean / everything[CLEAN] if everything.get(CLEAN) else None,
        "kept_defects": kept,
    }


def _defects(pool: Pool, where: str) -> dict[str, int] | None:
    if pool.columns().get(TRUTH) != "VARCHAR":
        return None
    return dict(
        pool.sql(
            f"SELECT {TRUTH}, count(*) AS n FROM samples WHERE {where} AND {TRUTH} IS NOT NULL "
            f"GROUP BY {TRUTH} ORDER BY n DESC, {TRUTH}"
        ).fetchall()
    )


def build(study: Study, name: str) -> dict[str, Any]:
    """Build a dataset's shards, or its view; those of another subset or size are replaced."""
    from ..shards.build import build_shards
    from ..shards.select import select_shards

    out = study.shards_dir(name)

    def attempt() -> dict[str, Any]:
        with open_engine(study.engine.choice()) as engine:
            return made(engine)

    def made(engine: Engine) -> dict[str, Any]:
        if study.shards.view:
            # The pool takes the first of equal samples too, so two of one uid are no error.
            view = select_shards(
                [source.path for source in study.sources()], study.subset_path(name), out,
                shard_size=study.shards.size, workers=engine, keep_going=True,
            )  # fmt: skip
            return {"digest": view.digest, "samples": view.samples, "shards": view.shards,
                    SET_ASIDE: view.missing}  # fmt: skip
        with memory_limited(study.pool.memory):
            report = build_shards(
                study.pool_path, study.subset_path(name), out,
                shard_size=study.shards.size, workers=engine,
            )  # fmt: skip
        return {"digest": report.digest, "samples": report.samples, "shards": report.shards}

    try:
        return attempt()
    except UsageError:
        if not any((out / mark).exists() for mark in ("build.json", METADATA)):
            raise  # not shards of ours
        _remove(study, out)
        return attempt()


def train(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Train one run; a run begun on other data or settings is replaced."""
    from ...evaluate.training import train as train_run

    out = study.run_dir(name, seed)

    def attempt() -> dict[str, Any]:
        info = train_run(
            [study.shards_dir(name)], out, study.train.resolved(), seed=seed,
            workers=study.train.workers, threads=study.train.threads,
            precision=study.train.precision, device=study.train.device,
            accumulation=study.train.accumulation,
        )  # fmt: skip
        return {"checkpoint_sha256": info["checkpoint_sha256"], "seconds": info["seconds"],
                SET_ASIDE: info.get(SET_ASIDE, {})}  # fmt: skip

    try:
        return attempt()
    except (IntegrityError, UsageError):
        if not (out / "info.json").exists():
            raise
        _remove(study, out)
        return attempt()


def evaluate(study: Study, name: str, seed: int, keys: list[str]) -> dict[str, Any]:
    """Evaluate one run on the study's tasks."""
    import torch

    from ...evaluate.harness import evaluate as evaluate_model
    from ...evaluate.models import load_run
    from ...evaluate.tasks import load_tasks

    if study.train.threads is not None:
        torch.set_num_threads(study.train.threads)
    run = load_run(study.run_dir(name, seed))
    known = load_tasks()
    with contextlib.ExitStack() as stack:
        found = evaluate_model(
            run.spec, study.eval_data, [known[key] for key in keys], run.results,
            device=study.train.device, workers=study.train.threads,
            engine=_cluster(study, stack),
        )  # fmt: skip
    if found.failed:
        key, reason = next(iter(found.failed.items()))
        more = f" (and {len(found.failed) - 1} more tasks)" if len(found.failed) > 1 else ""
        raise RunError(f"{key} failed: {reason}{more}")
    return {"values": {result.key: result.value for result in found.results}}


def _scores_images(node: Node) -> bool:
    """Tell whether workers are of use to filters over a pool that holds its samples."""
    return reads_images(prepare([node], "and"))


def _cluster(study: Study, stack: contextlib.ExitStack) -> Engine | None:
    """Return the study's cluster, to be left with the stack; None where there is none."""
    choice = study.engine.choice()
    return None if choice.kind == "local" else stack.enter_context(open_engine(choice))


def _remove(study: Study, folder: Path) -> None:
    if folder.resolve().is_relative_to(study.output.resolve()):
        shutil.rmtree(folder)
