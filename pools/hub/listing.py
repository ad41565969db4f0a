"""What a repository of the Hub holds, as its own library tells: sizes, digests, the commit.

``HF_ENDPOINT`` names another server with the Hub's interface, ``HF_TOKEN`` whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from ...errors import DataError, MissingError, StorageError, UnsafeInputError

T = TypeVar("T")

SHA256, GIT = "sha256", "git"
"""Kinds of digests: of the bytes of a large file, or of a small one as git names it (SHA-1)."""
_HEX = {SHA256: re.compile(r"[0-9a-f]{64}"), GIT: re.compile(r"[0-9a-f]{40}")}
_COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_PATH = 1024


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its path there, its size in bytes and its digest."""

    path: str
    size: int
    kind: str
    digest: str


@dataclass(frozen=True)
class Repository:
    """A dataset's repository at one commit."""

    name: str
    commit: str
    licence: str
    files: tuple[RemoteFile, ...]

    def url(self, file: RemoteFile) -> str:
        """Return where a file of this commit is."""
        from huggingface_hub import constants, hf_hub_url

        return hf_hub_url(
            self.name, file.path, repo_type="dataset", revision=self.commit,
            endpoint=constants.ENDPOINT,
        )  # fmt: skip


def list_repository(name: str, revision: str = "main") -> Repository:
    """Return what a dataset's repository holds at a revision, its files sorted by path.

    Raises MissingError for one that is not there or not open to whoever asks, StorageError where
    the Hub cannot be reached, DataError for an answer that is none.
    """
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.hf_api import RepoFile
    except ImportError:
        raise MissingError(
            "the Hub needs huggingface_hub, which is not installed: pip install -e '.[download]'"
        ) from None
    api = HfApi(endpoint=constants.ENDPOINT)
    info = asking(name, lambda: api.dataset_info(name, revision=revision, timeout=60))
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise DataError(f"{name}: the Hub names no commit for {revision!r}")
    found = asking(
        name,
        lambda: [
            item
            for item in api.list_repo_tree(
                name, recursive=True, revision=commit, repo_type="dataset"
            )
            if isinstance(item, RepoFile)
        ],
    )
    files = sorted((_file(name, item) for item in found), key=lambda file: file.path)
    return Repository(name, commit, _licence(info), tuple(files))


def asking(name: str, question: Callable[[], T]) -> T:
    """Return the Hub's answer; what goes wrong is one clear line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return question()
    except GatedRepoError:
        raise MissingError(
            f"{name}: its owners ask for agreement first: give it on the page of {name} on the "
            "Hub, then set HF_TOKEN"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        raise MissingError(
            f"{name}: no such dataset on the Hub, or not open to you; HF_TOKEN says who you are"
        ) from None
    except (HfHubHTTPError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreachable(name, error) from None
    except Exception as error:
        if is_of_transport(error):
            raise _unreachable(name, error) from None
        raise


def is_of_transport(error: Exception) -> bool:
    """Tell whether an error is the library's transport's, which it does not wrap."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore")


def _unreachable(name: str, error: Exception) -> StorageError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return StorageError(f"{name}: the Hub cannot be asked: {text}; try again later")


def _file(name: str, item: Any) -> RemoteFile:
    """Return a listed file; its path must stay below the folder it will be put into."""
    path = item.path
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    plain = (
        parts
        and len(path) <= MAX_PATH
        and path.isprintable()
        and "\\" not in path
        and not path.startswith("/")
        and "/".join(parts) == path
        and not any(part in (".", "..") for part in parts)
    )
    if not plain:
        raise UnsafeInputError(f"{name}: the Hub lists a file named {str(path)[:80]!r}; refused")
    lfs = item.lfs
    kind, digest = (SHA256, lfs.sha256) if lfs is not None else (GIT, item.blob_id)
    if type(item.size) is not int or item.size < 0 or not _HEX[kind].fullmatch(str(digest)):
        raise DataError(f"{name}: {path}: the Hub tells no size or digest")
    return RemoteFile(path, item.size, kind, digest)


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    found = getattr(card, "license", None) or next(
        (tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")), None
    )
    return str(found)[:80] if found else "not stated"
