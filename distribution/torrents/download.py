"""A torrent being downloaded into a folder of its own, piece by piece as pieces are wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...durable import write_bytes
from ...errors import DatacompError
from ..getting.folder import RESUME
from ..getting.spans import Spans, joined
from .session import Net, listening, load_torrent, open_session, wait_for

FLUSH_SECONDS = 60.0
STOP_SECONDS = 5.0
WANTED, UNWANTED = 4, 0


@dataclass(frozen=True)
class Part:
    """A file of the torrent: where it is written, and where among all bytes it lies."""

    number: int
    place: Path
    offset: int
    size: int


class Download:
    """A session with one torrent, of which nothing is fetched but the pieces wanted.

    ``listen`` is called with every alert that is not its own. Peers may have at once what is here.
    """

    def __init__(
        self,
        data: bytes,
        name: str,
        folder: Path,
        net: Net,
        peers: Iterable[tuple[str, int]],
        seeds: Iterable[str],
        listen: Callable[[Any], None],
    ) -> None:
        import libtorrent as lt

        self._folder, self._listen = folder, listen
        params = load_torrent(data, name)
        self._restore(params, lt)
        files = params.ti.layout()
        self._length, self._pieces = params.ti.piece_length(), params.ti.num_pieces()
        self._parts = _parts(params.ti, folder)
        self._wanted: dict[int, set[int]] = {}
        params.save_path = str(folder)
        # Files that hold nothing are not made, and links are not followed.
        params.file_priorities = [
            WANTED if files.file_size(number) else UNWANTED for number in range(files.num_files())
        ]
        params.piece_priorities = [UNWANTED] * self._pieces
        # Web seeds whose files can be told to be right are mirrors, and asked as such.
        params.url_seeds = list(seeds)
        params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        folder.mkdir(parents=True, exist_ok=True)
        self.session = open_session(net)
        if not net.anywhere:
            listening(self.session, net)
        self._handle = self.session.add_torrent(params)
        self._handle.prioritize_pieces([UNWANTED] * self._pieces)
        for peer in peers:
            self._handle.connect_peer(peer)

    def part(self, path: str) -> Part | None:
        """Return the file of a path below the torrent's folder."""
        return self._parts.get(path)

    def status(self) -> Any:
        """Return libtorrent's status, after what it has to say was heard."""
        for alert in self.session.pop_alerts():
            self._hear(alert)
        return self._handle.status()

    # -- pieces -----------------------------------------------------------------------------

    def want(self, part: Part, spans: Spans) -> None:
        """Fetch the pieces that hold some spans of a file."""
        pieces = {piece for start, end in spans for piece in self._touched(part, start, end)}
        self._wanted[part.number] = pieces
        self._handle.prioritize_pieces([(piece, WANTED) for piece in sorted(pieces)])

    def finish_begun(self, part: Part) -> bool:
        """Begin no more pieces of a file; return whether some are under way still."""
        wanted = self._wanted.get(part.number, set())
        begun = {item["piece_index"] for item in self._handle.get_download_queue()} & wanted
        self._unwant(part, wanted - begun)
        return bool(begun)

    def leave(self, part: Part) -> None:
        """Fetch nothing more of a file."""
        self._unwant(part, self._wanted.get(part.number, set()))
        self._wanted.pop(part.number, None)

    def there(self, part: Part, pieces: list[bool]) -> Spans:
        """Return the spans of a file that are there and right; ``pieces`` is of the status."""
        found = (
            (piece * self._length - part.offset, (piece + 1) * self._length - part.offset)
            for piece in self._touched(part, 0, part.size)
            if piece < len(pieces) and pieces[piece]
        )
        return joined((max(start, 0), min(end, part.size)) for start, end in found)

    def flush(self) -> bool:
        """Wait until what libtorrent calls done is in the files: it says so before."""
        for alert in self.session.pop_alerts():  # one of an earlier flush would mislead us
            self._hear(alert)
        self._handle.flush_cache()
        found = wait_for(self.session, "cache_flushed_alert", FLUSH_SECONDS, self._hear)
        return found is not None

    def _touched(self, part: Part, start: int, end: int) -> range:
        first, last = part.offset + start, part.offset + end - 1
        return range(first // self._length, last // self._length + 1) if start < end else range(0)

    def _unwant(self, part: Part, pieces: set[int]) -> None:
        mine = self._wanted.get(part.number, set())
        mine -= pieces
        # Where files are not aligned, a piece may be wanted for its neighbour, too.
        others = set().union(*self._wanted.values()) if pieces else set()
        self._handle.prioritize_pieces([(piece, UNWANTED) for piece in sorted(pieces - others)])

    # -- what outlives the process ----------------------------------------------------------

    def save(self) -> None:
        """Have it written down, soon, which pieces are there."""
        self._handle.save_resume_data()

    def close(self, keep: bool) -> None:
        """End; ``keep`` says whether another run will go on."""
        self.session.pause()
        if keep:
            self.save()
            self._keep(wait_for(self.session, "save_resume_data_alert", STOP_SECONDS, self._listen))
        self.session.remove_torrent(self._handle)

    def _hear(self, alert: Any) -> None:
        if type(alert).__name__ == "save_resume_data_alert":
            self._keep(alert)
        else:
            self._listen(alert)

    def _keep(self, alert: Any) -> None:
        import libtorrent as lt

        if alert is not None:
            with contextlib.suppress(DatacompError):
                write_bytes(self._folder / RESUME, lt.write_resume_data_buf(alert.params))

    def _restore(self, params: Any, lt: Any) -> None:
        """Take up which pieces an earlier run had; libtorrent checks where it has none."""
        with contextlib.suppress(OSError, RuntimeError):
            before = lt.read_resume_data((self._folder / RESUME).read_bytes())
            if before.info_hashes == params.ti.info_hashes():
                params.have_pieces = before.have_pieces
                params.unfinished_pieces = before.unfinished_pieces
                params.peers = before.peers


def _parts(info: Any, folder: Path) -> dict[str, Part]:
    """Return the files of a torrent by their paths below its folder."""
    files = info.layout()
    single = files.num_files() == 1 and str(files.file_path(0)) == info.name()
    cut = 0 if single else len(f"{info.name()}/")
    return {
        str(files.file_path(number))[cut:]: Part(
            number,
            folder / str(files.file_path(number)),
            files.file_offset(number),
            files.file_size(number),
        )
        for number in range(files.num_files())
        if not files.file_flags(number) & files.flag_pad_file
    }
