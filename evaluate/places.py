"""Where evaluation sets lie: a folder here, a web server or an object store, the Hub.

``hub`` is the Hugging Face Hub with the sets of the benchmark's authors: a repository a task,
read as they publish it. ``HF_ENDPOINT`` names another server with the Hub's interface.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DatacompError, DataError, MissingError, UnsafeInputError
from ..pools.hub_access import endpoint
from ..pools.ranges import fetch, join, open_ranges, store
from .tasks import HUB, Task, find_folder, folder_names, is_url

TARS_OWNER, PARQUET_OWNER = "djghosh", "nlphuji"
NSHARDS = "test/nshards.txt"
MAX_NSHARDS_BYTES = 64
MAX_LISTING_BYTES = 1 << 20
MAX_PARQUET_FILES = 1000
MAX_GUESSED = 32
"""Files named ``test-00000-of-000NN.parquet`` are looked for up to this NN."""


class SetFolder(ABC):
    """The folder of one task's data; ``place`` is its path or URL."""

    place: str

    def file(self, name: str) -> str:
        """Return the place of a file in it."""
        return join(self.place, name)

    @abstractmethod
    def fetch(self, name: str, limit: int) -> bytes | None:
        """Return a small file, None if it is not there; over ``limit`` bytes is unsafe."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Tell whether a file is there, or may be: a remote one is missed when it is read."""

    @abstractmethod
    def parquet(self) -> tuple[str, ...]:
        """Return the places of its parquet files in order."""


class LocalFolder(SetFolder):
    """A folder of this machine."""

    def __init__(self, path: Path | str) -> None:
        self.place = str(path)

    def fetch(self, name: str, limit: int) -> bytes | None:
        """Return a small file, None if it is not there."""
        file = Path(self.file(name))
        if not file.is_file():
            return None
        if file.stat().st_size > limit:
            raise UnsafeInputError(f"{file}: over {limit:,} bytes")
        return file.read_bytes()

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return Path(self.file(name)).is_file()

    def parquet(self) -> tuple[str, ...]:
        """Return its parquet files in the order of their names."""
        return tuple(str(file) for file in sorted(Path(self.place).glob("*.parquet")))


class RemoteFolder(SetFolder):
    """A folder on a web server or in an object store, in the layout of a local one."""

    def __init__(self, place: str) -> None:
        self.place = place

    def fetch(self, name: str, limit: int) -> bytes | None:
        """Return a small file, None if it is not there."""
        return fetch(self.file(name), limit)

    def has(self, name: str) -> bool:
        """Leave it to the reader to find out."""
        return True

    def parquet(self) -> tuple[str, ...]:
        """Return its parquet files: listed in a store, found by their usual names on the web."""
        if not self.place.startswith(("http://", "https://")):
            system, path = store(self.place)
            scheme = self.place.partition("://")[0]
            found = sorted(str(name) for name in system.glob(f"{path.rstrip('/')}/*.parquet"))
            return tuple(f"{scheme}://{name.lstrip('/')}" for name in found)
        numbered = tuple(self._while_there(f"{n:04d}.parquet" for n in range(MAX_PARQUET_FILES)))
        if numbered:
            return numbered
        for count in range(1, MAX_GUESSED + 1):
            names = [f"test-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
            if _is_there(self.file(names[0])):
                return tuple(self.file(name) for name in names)
        return ()

    def _while_there(self, names: Iterator[str]) -> Iterator[str]:
        for name in names:
            if not _is_there(self.file(name)):
                return
            yield self.file(name)


class HubFolder(RemoteFolder):
    """A dataset repository of the Hub: files as published, parquet files as the Hub lists them."""

    def __init__(self, owner: str, name: str) -> None:
        super().__init__(f"{endpoint()}/datasets/{owner}/{name}/resolve/main")
        self._listing = f"{endpoint()}/api/datasets/{owner}/{name}/parquet"

    def parquet(self) -> tuple[str, ...]:
        """Return the parquet files of the test split."""
        data = fetch(self._listing, MAX_LISTING_BYTES)
        if data is None:
            return ()
        try:
            splits: dict[str, Any] = next(iter(json.loads(data).values()))
            (name,) = [split for split in splits if split.lower() == "test"] or list(splits)
            urls = splits[name]
            if not all(isinstance(url, str) for url in urls) or len(urls) > MAX_PARQUET_FILES:
                raise TypeError
        except (ValueError, AttributeError, StopIteration, KeyError, TypeError, RecursionError):
            raise DataError(f"{self._listing}: no parquet files of a test split listed") from None
        return tuple(urls)


def find_set(data: Path | str, task: Task) -> SetFolder | None:
    """Return where a task's data lie, None if they do not."""
    if not is_url(data):
        folder = find_folder(data, task)
        return None if folder is None else LocalFolder(folder)
    for name in folder_names(task):
        tars = name.startswith("wds_")
        if data == HUB:
            folder = HubFolder(TARS_OWNER if tars else PARQUET_OWNER, name)
        else:
            folder = RemoteFolder(join(str(data), name))
        found = folder.fetch(NSHARDS, MAX_NSHARDS_BYTES) is not None if tars else folder.parquet()
        if found:
            return folder
    return None


def is_there(data: Path | str, task: Task) -> bool:
    """Tell whether a task's data can be had; what is not open to whoever asks cannot."""
    try:
        return find_set(data, task) is not None
    except DatacompError:
        return False


def first_place(data: Path | str, task: Task) -> str:
    """Return where a task's data are looked for first."""
    name = folder_names(task)[0]
    if data == HUB:
        owner = TARS_OWNER if name.startswith("wds_") else PARQUET_OWNER
        return HubFolder(owner, name).place
    return join(str(data), name)


def _is_there(place: str) -> bool:
    try:
        open_ranges(place).close()
    except MissingError:
        return False
    return True
