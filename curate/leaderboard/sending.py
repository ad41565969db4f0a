"""Submit runs: gather what is known of the samples, make the submission, check it, send it."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...evaluate.leaderboard.check import check
from ...evaluate.leaderboard.layout import pack
from ...evaluate.leaderboard.make import Statement, make_submission
from ...evaluate.leaderboard.store import RefusedError, admit, incoming, place_of
from ...pools.fetches import available_count, available_digest, was_fetched
from ...pools.pool import Pool
from ...pools.uids import UidArray, digest_of_uids, load_subset
from ..subset import read_sidecar
from .client import TOKEN_VARIABLE, read_token, upload
from .hub import SCHEME, to_hub


def describe_samples(files: Sequence[Path], pool: Path | None) -> dict[str, Any]:
    """Return what sidecars and the pool tell: ``pool``, ``pipeline`` and ``funnel``.

    The funnel is that of the only subset; several have none together.
    """
    told: dict[str, Any] = {"pool": {}, "pipeline": [], "funnel": []}
    beside = [read_sidecar(path) for path in files if path.suffix == ".npy"]
    if len(files) == 1 and beside and beside[0] is not None:
        sidecar = beside[0]
        pipeline = sidecar.get("pipeline")
        filters = pipeline.get("filters") if isinstance(pipeline, dict) else None
        told["pipeline"] = list(filters) if isinstance(filters, list) else []
        told["funnel"] = sidecar.get("funnel") or []
        told["pool"] = {key: (sidecar.get("pool") or {}).get(key) for key in ("digest", "samples")}
    if pool is not None:
        with Pool.open(pool, read_only=True) as opened:
            told["pool"] = {"digest": opened.digest(), "samples": opened.count()}
            available = available_count(opened)
            # Of metadata that were not fetched here nobody knows how much could be.
            if available or was_fetched(opened):
                told["pool"] |= {
                    "available": available, "available_digest": available_digest(opened)
                }  # fmt: skip
    return told


def pool_uids(path: Path) -> tuple[UidArray, str]:
    """Return the sorted uids of a pool, or of a ``.npy`` of them, and their digest."""
    if path.suffix == ".npy":
        uids = load_subset(path)
        return uids, digest_of_uids(uids)
    with Pool.open(path, read_only=True) as pool:
        uids = pool.uids()
        return uids, pool.digest()


def to_folder(
    store: Path, runs: Sequence[Path], files: Sequence[Path], statement: Statement,
    with_checkpoint: bool,
) -> dict[str, Any]:  # fmt: skip
    """Submit to a leaderboard's folder; return id, place, whether it is new, and what is next."""
    with incoming(store) as scratch:
        folder = scratch / "submission"
        made = make_submission(runs, files, statement, folder, with_checkpoint=with_checkpoint)
        report, fresh = admit(store, folder, made.id)
    assert report.record is not None
    place = store / place_of(report.record)
    answer: dict[str, Any] = {"id": made.id, "new": fresh, "place": str(place)}
    repository = next(
        (p for p in (store.resolve(), *store.resolve().parents) if (p / ".git").exists()), None
    )
    if fresh and repository is not None:
        git, inside = f"git -C {shlex.quote(str(repository))}", place.resolve()
        answer["next"] = (
            f"{git} add {shlex.quote(str(inside.relative_to(repository)))} && "
            f"{git} commit -m {shlex.quote(f'Submit {made.id}')}, then open a pull request"
        )
    return answer


def send(
    url: str, runs: Sequence[Path], files: Sequence[Path], statement: Statement,
    with_checkpoint: bool, token_file: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Submit to a server or to the Hub; return the answer.

    Raises what :mod:`.client` or :mod:`.hub` raises.
    """
    hub = url.startswith(SCHEME)
    token = read_token(token_file, "HF_TOKEN" if hub else TOKEN_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="datacomp-") as scratch:
        folder = Path(scratch) / "submission"
        made = make_submission(runs, files, statement, folder, with_checkpoint=with_checkpoint)
        report = check(folder)
        if not report.accepted:
            raise RefusedError(made.id, report)
        if hub:
            return to_hub(url, folder, made, token)
        archive = Path(scratch) / "submission.tar"
        pack(folder, archive)
        answer = upload(url, archive, token)
    if answer.get("id") != made.id:
        raise DataError(f"{url}: answered for another submission; nothing is known of this one")
    return answer
