"""Put a submission into a Hugging Face model repository, in the layout DataComp itself uses.

``SCALE_scale/results.jsonl``, ``SCALE_scale/samples/NAME`` and, if it was asked for,
``SCALE_scale/checkpoint.pt``, in one commit; beside them our own record. Further seeds follow as
``results_1.jsonl`` and ``checkpoint_1.pt``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import MissingError, RunError, UsageError
from ...evaluate.leaderboard.layout import RECORD
from ...evaluate.leaderboard.record import Record
from ...pools.hub.listing import is_of_transport

SCHEME = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def hub_paths(record: Record) -> dict[str, str]:
    """Return where each file of a submission stands in the repository."""
    folder = f"{record.scale_name}_scale"
    paths = {RECORD: f"{folder}/{RECORD}"}
    for number, run in enumerate(record.runs):
        more = f"_{number}" if number else ""
        paths[run.results] = f"{folder}/results{more}.jsonl"
        if run.checkpoint is not None:
            paths[run.checkpoint] = f"{folder}/checkpoint{more}{Path(run.checkpoint).suffix}"
    for one in record.samples:
        paths[one.file] = f"{folder}/samples/{Path(one.file).name}"
    return paths


def to_hub(target: str, folder: Path, record: Record, token: str) -> dict[str, Any]:
    """Commit a submission's folder to ``hf://USER/REPOSITORY``; return id and address.

    The repository is made if it is not there. Raises UsageError for what names no repository,
    MissingError without the library, RunError if the Hub refuses or cannot be reached.
    """
    repository = target.removeprefix(SCHEME).strip("/")
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"--to {target}: expected {SCHEME}USER/REPOSITORY")
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingError(
            "the Hub needs huggingface_hub, which is not installed: pip install huggingface_hub"
        ) from None
    api = HfApi(token=token)
    operations = [
        CommitOperationAdd(path_in_repo=there, path_or_fileobj=folder / here)
        for here, there in hub_paths(record).items()
    ]
    try:
        api.create_repo(repository, repo_type="model", exist_ok=True)
        commit = api.create_commit(
            repository, operations, repo_type="model",
            commit_message=f"Upload artifacts ({record.scale_name} scale)",
        )  # fmt: skip
    except Exception as error:
        known = isinstance(error, HfHubHTTPError | OSError | ValueError)
        if not (known or is_of_transport(error)):
            raise
        # The library's messages may quote a request, and with it the token.
        text = str(error).splitlines()[0][:300].replace(token, "…") if str(error) else ""
        raise RunError(f"{target}: {text or type(error).__name__}") from None
    return {"id": record.id, "new": True, "page": commit.commit_url}
