"""Files in object stores: asked patiently, copied whole, and proved when they are written.

A store that throttles or drops connections is asked again a few times, with longer and longer
pauses; then it is one clear error. An object appears at once with all its bytes or not at all, so
what is made here is written to the disk first and put there when it is whole. Of a folder, what
says that it is whole goes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..durable import atomic_path, in_turn
from ..errors import DataError, MissingError, StorageError
from .engine import Engine
from .parallel import map_threads
from .patience import patiently
from .ranges import Stamp, changed, is_remote, join, open_ranges, store, version_in
from .views import METADATA, SAMPLES

PIECE = 8 << 20
"""How many bytes are read at a time."""
REQUESTS = 16
"""So many files are removed at a time."""


def require_stores(engine: Engine, *places: Path | str) -> None:
    """Raise MissingError, by machine, unless every worker can read the stores of these places."""
    schemes = {str(place).partition("://")[0] for place in places if is_remote(str(place))}
    if not schemes:
        return
    from fsspec.registry import known_implementations

    for scheme in sorted(schemes):
        module = known_implementations.get(scheme, {}).get("class", "").partition(".")[0]
        if module not in ("", "fsspec"):
            engine.require("s3" if module == "s3fs" else module, module)


def exists(place: str) -> bool:
    """Tell whether there is such a file."""
    try:
        open_ranges(place).close()
    except MissingError:
        return False
    return True


def sizes_below(place: str) -> dict[str, int]:
    """Return the sizes of all files in a folder of a store by their paths, from it on."""
    return {name: stamp.size for name, stamp in stamps_below(place).items()}


def stamps_below(place: str) -> dict[str, Stamp]:
    """Return all files in a folder of a store, as it lists them, by their paths, from it on."""
    system, path = store(place)

    def find() -> dict[str, Any]:
        system.invalidate_cache(path)
        return system.find(path, detail=True)

    try:
        found = patiently(place, find, "listed")
    except FileNotFoundError:
        return {}
    root = path.rstrip("/") + "/"
    return {
        name[len(root) :]: Stamp(
            join(place, name[len(root) :]), int(info["size"] or 0), version_in(info)
        )
        for name, info in found.items()
        if name.startswith(root)
    }


def download(place: str, path: Path, stamp: Stamp | None = None) -> None:
    """Copy a file of a store to ``path``.

    One that changes meanwhile, or is not as it was stamped, is a DataError.
    """
    file = open_ranges(place)
    try:
        if stamp is not None and _key(stamp) != _key(Stamp(place, file.size, file.version)):
            raise changed(place)
        with atomic_path(path) as partial, partial.open("wb") as out:
            for start in range(0, file.size, PIECE):
                out.write(file.read(start, min(PIECE, file.size - start)))
        if file.is_changed():
            path.unlink()
            raise changed(place)
    finally:
        file.close()


def _key(stamp: Stamp) -> tuple[int, str]:
    """Return what tells a file from a later one, in a listing or asked for by itself."""
    return stamp.size, stamp.version.strip('"')


def upload(path: Path, place: str) -> None:
    """Put a file into a store, where it appears whole, and make sure that it is what was sent.

    Its size is compared, and its MD5 where the store tells it (of files sent in one piece).
    """
    system, remote = store(place)
    size = path.stat().st_size

    def put() -> None:
        system.put_file(str(path), remote)
        system.invalidate_cache(remote)
        info = system.info(remote)
        etag = str(info.get("ETag") or "").strip('"')
        plain = len(etag) == 32 and not etag.strip("0123456789abcdef")
        if int(info["size"]) != size or (plain and etag != _md5(path)):
            raise ConnectionError("the store has other bytes than were sent")

    try:
        patiently(place, put, "written")
    except FileNotFoundError as error:
        raise StorageError(f"{place}: cannot be written: no such bucket ({error})") from None
    except DataError as error:
        raise StorageError(str(error)) from None


def remove(places: Iterable[str]) -> None:
    """Remove files of a store, several at a time; one that is not there is none."""

    def remove_one(place: str) -> None:
        system, path = store(place)
        with contextlib.suppress(FileNotFoundError):
            patiently(place, lambda: system.rm_file(path), "removed")

    try:
        for _ in map_threads(remove_one, places, REQUESTS):
            pass
    except DataError as error:
        raise StorageError(str(error)) from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def staged(place: Path | str, known: Sequence[str] = ()) -> Iterator[Path]:
    """Yield where to write what is to be at a place, a file or a folder.

    What is to go to a store is written to a temporary folder; all that is new there in the end
    goes to the store, ``.json`` after the rest.
    The files ``known`` of a folder are there from the beginning, if the store has them.
    """
    text = str(place)
    if not is_remote(text):
        yield Path(place)
        return
    root, _, name = text.rstrip("/").rpartition("/")
    store(text)  # what is no store is told before the work
    with tempfile.TemporaryDirectory(prefix="datacomp-") as home:
        out = Path(home) / name
        for file in known:
            if exists(join(text, file)):
                download(join(text, file), out / file)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        yield out
        made = [
            path
            for path in sorted(Path(home).rglob("*"))
            if path.is_file() and path.name[0] != "." and not _same(path, before)
        ]
        for path in sorted(made, key=lambda path: path.suffix == ".json"):
            upload(path, join(root, path.relative_to(home).as_posix()))


def _same(path: Path, before: dict[Path, int]) -> bool:
    return before.get(path) == path.stat().st_mtime_ns


@contextlib.contextmanager
def copied(place: Path | str, *beside: str) -> Iterator[Path]:
    """Yield a local copy of a file of a store, or the path of a local one.

    Files of other endings ``beside`` it are there too, if there are such.
    """
    text = str(place)
    if not is_remote(text):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="datacomp-") as home:
        path = Path(home) / text.rpartition("/")[2]
        download(text, path)
        for suffix in beside:
            other = text.removesuffix(path.suffix) + suffix
            if exists(other):
                download(other, path.with_suffix(suffix))
        yield path


@contextlib.contextmanager
def copied_folder(place: Path | str, names: Sequence[str], what: str) -> Iterator[Path]:
    """Yield a folder with copies of these files of a store's folder, or the path of a local one.

    ``what`` says what is missing where the first is not there.
    """
    text = str(place)
    if not is_remote(text):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="datacomp-") as home:
        for name in names:
            try:
                download(join(text, name), Path(home) / name)
            except MissingError:
                raise MissingError(f"{text}: {what}") from None
        yield Path(home)


def copied_view(place: str, folder: Path) -> Path:
    """Copy the two small files of a view to a folder, unless they are there; return it.

    The tars that it names stay where they are. Of several processes that do so at once, as those
    of torchrun do, one copies and the others wait. Raises MissingError where there is no view.
    """
    if not exists(join(place, METADATA)):
        raise MissingError(f"{place}: no such view; make one with 'datacomp shards select'")
    lacking = [name for name in (SAMPLES, METADATA) if not (folder / name).is_file()]
    if lacking:
        with in_turn(folder / ".copying"):
            for name in lacking:
                if not (folder / name).is_file():
                    download(join(place, name), folder / name)
    return folder
