"""The folder of a run: whose it is, what was begun there, and how far it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...durable import sha256_file, storage_errors, write_json
from ...errors import DataError, IntegrityError, UsageError
from .. import set_aside
from ..data import DIGESTS
from ..set_aside import SetAsideLog
from .backbone import CHECKPOINT
from .labelled import LabelledImages

INFO, STATE, LOG = "info.json", "state.pt", "log.jsonl"


def claim_folder(output: Path) -> Path | None:
    """Make the run's folder, once for all processes; refuse one that holds something else."""
    if os.environ.get("RANK", "0") != "0":
        return None
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in output.iterdir()} - {DIGESTS, set_aside.FILE}
    if names and INFO not in names:
        raise UsageError(f"{output}: is not empty and holds no run; choose another folder")
    return output


def finished_before(output: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Return the info of a finished run; refuse one begun with other data or settings."""
    path = output / INFO
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_bytes())
        before = info["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: not the description of a run") from None
    if before != plan["data"]["fingerprint"]:
        raise IntegrityError(
            f"{output}: this run was begun on other data (fingerprint {str(before)[:12]}, now "
            f"{plan['data']['fingerprint'][:12]}); restore them or train into another folder"
        )
    for key, value in json.loads(json.dumps(plan)).items():
        if key != "data" and info.get(key) != value:
            raise UsageError(
                f"{output}: this run was begun with {_difference(key, info.get(key), value)}; "
                "train into another folder"
            )
    if info.get("status") != "done":
        return None
    checkpoint = output / CHECKPOINT
    if not checkpoint.is_file() or sha256_file(checkpoint) != info.get("checkpoint_sha256"):
        raise IntegrityError(
            f"{checkpoint}: is not the checkpoint this run ended with; restore it, or delete "
            f"{output} to train again"
        )
    return info


def _difference(key: str, before: Any, now: Any) -> str:
    """Say in which of its entries a setting differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = next(name for name in {**now, **before} if before.get(name) != now.get(name))
        return _difference(f"{key}.{inner}", before.get(inner), now.get(inner))
    return f"{key} = {before!r}, now {now!r}"


def read_finished(output: Path) -> dict[str, Any] | None:
    """Return the info of a finished run; the first process has checked that it fits."""
    try:
        info = json.loads((output / INFO).read_bytes())
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) and info.get("status") == "done" else None


def saved_state(path: Path) -> dict[str, Any] | None:
    """Return what an interrupted run has saved, None for nothing; raises DataError if broken."""
    import torch

    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch raises whatever its zip reader does
        text = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a saved state ({text}); delete it to start again") from None


@contextmanager
def begins(output: Path, plan: dict[str, Any], images: LabelledImages, rank: int) -> Iterator[None]:
    """Say in the run's folder what is going on; no longer, if it fails before a state is saved."""
    new = rank == 0 and not (output / INFO).exists()
    if new:
        entries = ((0, *entry) for entry in images.set_aside)
        SetAsideLog(output / set_aside.FILE).begin(entries)
        write_json(output / INFO, {**plan, "status": "running"})
    try:
        yield
    except Exception:
        if new and not (output / STATE).exists():
            for name in (LOG, set_aside.FILE, INFO):
                (output / name).unlink(missing_ok=True)
        raise
