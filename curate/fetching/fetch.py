"""Fetch the images of a pool into shards, and write down what became of every URL."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...durable import read_json, storage_errors, write_json
from ...errors import DataError, MissingError, RunError, StorageError, UsageError
from ...pools import fetches
from ...pools.parallel import default_workers, map_ordered
from ...pools.pool import Pool
from ...progress import Progress, say, warn
from ..shards.index import index_shards
from .job import FetchOptions, Job, Reporting, Row, be_quiet
from .lists import Lists, Request, list_columns
from .reasons import retry_pattern

STATE = "fetch.json"
FORMAT, VERSION = "datacomp-fetch", 1
FOLDER_KEY = "fetch_folder"
"""Key in the pool's table ``pool``: where its images are fetched to."""
HELD_SECONDS = 600.0
"""How long what was fetched waits for a pool that another process holds."""
_LOCK = ".lock"
_POLL_SECONDS = 0.5

Distributor = Callable[[Job, Iterable[Row], int], Generator[int, None, None]]
"""Runs a job over lists with so many processes; yields the numbers of shards as they are whole."""


@dataclass
class FetchReport:
    """What one fetch did: URLs that gave an image, and those that failed by reason."""

    out: str
    fetched: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    seconds: float = 0.0
    available: int = 0
    samples: int = 0

    @property
    def tried(self) -> int:
        """How many URLs were tried."""
        return self.fetched + sum(self.failed.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def fetch_pool(
    pool: Path | str, out: Path | str, options: FetchOptions | None = None,
    distributor: str | Distributor = "local",
) -> FetchReport:  # fmt: skip
    """Fetch what is pending of a pool into shards in the folder ``out``, and index them.

    With ``options.retry`` only those are fetched that failed for these reasons. What an
    interrupted fetch left is done first. ``distributor`` is ``local``, ``multiprocessing`` or
    ``ray`` (the latter two img2dataset's own), or a function. The pool is open only while states
    are read or written, so that it can be asked meanwhile.

    Raises UsageError for a folder or a pool that belongs to another fetch, StorageError if
    something cannot be written or another process fetches, RunError for shards that failed.
    """
    pool, out, options = Path(pool), Path(out), options or FetchOptions()
    retry_pattern(options.retry)
    if pool.is_dir():
        raise UsageError(
            f"{pool}: a folder, which cannot remember what became of its URLs; make a pool that "
            f"links to it: datacomp pool add pool.duckdb {pool} --link"
        )
    if not pool.is_file():
        raise MissingError(f"{pool}: no such pool; make one with 'datacomp pool add {pool} ...'")
    run = _distributor(distributor)
    with _locked(out):
        return _Fetch(pool, out, options, run).run()


class _Fetch:
    def __init__(
        self, pool: Path, out: Path, options: FetchOptions, distributor: Distributor
    ) -> None:
        self.pool, self.out, self.options, self.distribute = pool, out, options, distributor
        self.processes = options.processes or default_workers()
        self.lists = Lists(out)
        self.report = FetchReport(str(out))
        self._failed: Counter[str] = Counter()
        self._warned = False

    def run(self) -> FetchReport:
        started = time.monotonic()
        request = Request.of(self.options)
        with Pool.open(self.pool) as pool:
            _bind(pool, self.out, self.options)
        left, asked = self.lists.rows(), self.lists.request()
        if left:
            say(f"going on with what an interrupted fetch left: {len(left):,} shards")
            self._work()
        if not (left and request.retry and asked == request.to_dict()):
            with Pool.open(self.pool) as pool:
                self._tell_about_boxes(pool)
                planned = self.lists.lay_down(pool, self.options)
            if planned:
                self._work()
        if any(self.out.glob("*.tar")):
            index_shards(self.out)
        with Pool.open(self.pool, read_only=True) as pool:
            self.report.samples = pool.count()
            self.report.available = fetches.available_count(pool)
        self.report.failed = dict(sorted(self._failed.items(), key=lambda kv: (-kv[1], kv[0])))
        self.report.seconds = time.monotonic() - started
        return self.report

    def _work(self) -> None:
        """Fetch every list that is there, and write down what became of it."""
        be_quiet()
        self.lists.let_go()
        self._write_down(self.lists.finished())
        rows = self.lists.rows()
        if rows:
            processes = min(self.processes, len(rows))
            job = Job(self.out.absolute(), self.options, self.lists.columns(), processes)
            done = self.distribute(job, rows, processes)
            with _Watch(self.lists):
                for _ in done:
                    self._write_down(self.lists.finished())
        self._write_down(self.lists.finished(), patience=HELD_SECONDS)
        failed = self.lists.rows()
        if failed:
            raise RunError(
                f"{self.out}: {len(failed):,} shards could not be fetched "
                f"({self._why(failed[0])}); run the same command again"
            )
        self.lists.clear()

    def _why(self, row: Row) -> str:
        place = Path(row[1]).with_suffix(".error")
        return place.read_text()[:300] if place.exists() else "no word of why"

    def _write_down(self, rows: list[Row], patience: float = 0.0) -> None:
        """Put what became of finished shards into the pool; if it is held, later."""
        if not rows:
            return
        until = time.monotonic() + patience
        while True:
            try:
                with Pool.open(self.pool) as pool:
                    for row in rows:
                        self._write_one(pool, row)
                return
            except StorageError as error:
                if "held" not in str(error):
                    raise
                if not self._warned:
                    self._warned = True
                    warn(f"{error}; what is fetched meanwhile waits beside the shards")
                if time.monotonic() >= until:
                    if patience:
                        raise
                    return
                time.sleep(_POLL_SECONDS)

    def _write_one(self, pool: Pool, row: Row) -> None:
        outcomes, ended = self.lists.outcomes(row)
        fetches.record(pool, outcomes, ended)
        self.lists.remove(row)
        self.report.shards += 1
        self.report.fetched += outcomes["state"].to_pylist().count(fetches.OK)
        self._failed.update(why for why in outcomes["reason"].to_pylist() if why is not None)

    def _tell_about_boxes(self, pool: Pool) -> None:
        boxes = self.options.boxes
        if boxes is None or boxes in list_columns(pool, self.options):
            return
        if boxes != FetchOptions.boxes:
            raise UsageError(f"{self.pool}: no column {boxes!r} of faces to blur")
        say(f"the pool has no column {boxes}: no faces are blurred")


class _Watch:
    """Draws progress from what workers leave in files, wherever they run."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._counts = lists.counts()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _draw(self) -> None:
        with Progress("fetching", sum(self._counts.values()), "URLs") as progress:
            while True:
                ended = self._over.wait(_POLL_SECONDS)
                open_now = {number for number, _ in self._lists.rows()}
                whole = {number for number, _ in self._lists.finished()}
                done = sum(
                    count if number in whole or number not in open_now
                    else min(self._lists.progress(number), count)
                    for number, count in self._counts.items()
                )  # fmt: skip
                progress.advance(max(done - progress.done, 0))
                if ended:
                    return


# -- whose folder it is ------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder for one fetch at a time; make it if need be."""
    made = not out.exists()
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            raise StorageError(
                f"{out}: process {holder or '?'} is fetching there; wait for it or stop it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
        if made and os.listdir(out) == [_LOCK]:
            (out / _LOCK).unlink()
            out.rmdir()


def _bind(pool: Pool, out: Path, options: FetchOptions) -> None:
    """Make sure that this folder is where this pool is fetched to, with these settings."""
    before = pool.scalar("SELECT value FROM pool WHERE key = ?", [FOLDER_KEY])
    state = out / STATE
    identity = {"format": FORMAT, "version": VERSION, "settings": options.lasting()}
    if not state.exists():
        others = sorted(name for name in os.listdir(out) if not name.startswith("."))
        if others:
            raise UsageError(
                f"{out}: is not empty ({others[0]}) and was not made by 'datacomp pool fetch'; "
                "choose another folder"
            )
        if before is not None and (pool.path.parent / before / STATE).exists():
            raise UsageError(
                f"{pool.path}: its images are in {pool.path.parent / before} already; fetch there"
            )
    else:
        found = read_json(state, 1 << 20)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DataError(f"{state}: damaged; choose another folder")
        if before is None or found.get("pool") != _name(pool):
            raise UsageError(f"{out}: holds the images of another pool; choose another folder")
        for name, value in options.lasting().items():
            kept = (found.get("settings") or {}).get(name)
            if kept != value:
                raise UsageError(
                    f"{out}: was fetched with {name} {kept}, not {value}; keep it, or choose "
                    "another folder and another pool"
                )
    place = os.path.relpath(out.resolve(), pool.path.parent.resolve())
    if before != place:
        if before is None:
            name = pool.scalar(
                "SELECT printf('%032x-%d', coalesce(bit_xor(uid), 0), count(*)) FROM samples"
            )
            pool.sql("INSERT INTO pool VALUES ('fetch_name', ?)", [name])
        pool.sql("DELETE FROM pool WHERE key = ?", [FOLDER_KEY])
        pool.sql("INSERT INTO pool VALUES (?, ?)", [FOLDER_KEY, place])
    if not state.exists():
        write_json(state, {**identity, "pool": _name(pool)})


def _name(pool: Pool) -> str | None:
    """Return what names the pool to its folder: its uids when it was first fetched."""
    return pool.scalar("SELECT value FROM pool WHERE key = 'fetch_name'")


# -- how the work is spread --------------------------------------------------------------------


def _distributor(given: str | Distributor) -> Distributor:
    if callable(given):
        return given
    known = {"local": _local, "multiprocessing": _theirs("multiprocessing"), "ray": _theirs("ray")}
    if given not in known:
        raise UsageError(f"distributor {given!r}: expected one of {', '.join(known)}")
    _need_img2dataset()
    return known[given]


def _need_img2dataset() -> None:
    from importlib.util import find_spec

    if find_spec("img2dataset") is None:
        raise MissingError("fetching needs img2dataset: pip install 'datacomp[download]'")


def _local(job: Job, rows: Iterable[Row], processes: int) -> Generator[int, None, None]:
    """Spread over processes of this machine; they end when this one is killed."""
    preload = f"{__package__}.worker"
    lists = Lists(job.out)
    yield from map_ordered(job, rows, processes, apart=True, preload=preload, give_up=lists.stop)


def _theirs(name: str) -> Distributor:
    """Spread with a distributor of img2dataset."""

    def distribute(job: Job, rows: Iterable[Row], processes: int) -> Generator[int, None, None]:
        from . import worker  # noqa: F401  first, since it keeps img2dataset's imports quiet

        if name == "ray":
            from importlib.util import find_spec

            if find_spec("ray") is None:
                raise MissingError("the distributor ray needs Ray: pip install ray")
        from img2dataset import distributor

        run = getattr(distributor, f"{name}_distributor")
        run(processes, Reporting(job), list(rows), 1000, 1)
        yield from (number for number, _ in rows)

    return distribute
