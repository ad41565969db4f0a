"""Files of a release that cannot be seeded: taken back, gone, or of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import DatacompError, MissingError
from ...progress import say, warn

if TYPE_CHECKING:
    from ..release import Release


def missing_files(release: Release, info: Any) -> list[int]:
    """Return the numbers of the torrent's files that are taken back, gone or of another size."""
    files = info.layout()
    top = f"{release.manifest.name}/"
    gone = []
    for number in range(files.num_files()):
        if files.file_flags(number) & files.flag_pad_file:
            continue
        path = str(files.file_path(number)).removeprefix(top)
        try:
            release.locate(path)
        except MissingError as error:
            say(str(error), 1)
            gone.append(number)
        except DatacompError as error:
            warn(f"not seeded: {error}")
            gone.append(number)
    return gone


def leave_out(params: Any, gone: list[int]) -> None:
    """Leave out files that are not there: neither checked, nor fetched, nor given.

    Nor is a piece that they share with a file that is there.
    """
    import libtorrent as lt

    info = params.ti
    have = [True] * info.num_pieces()
    files = info.layout()
    priorities = [4] * files.num_files()
    for number in gone:
        priorities[number] = 0
        size = files.file_size(number)
        if size:
            offset, length = files.file_offset(number), info.piece_length()
            first, last = offset // length, (offset + size - 1) // length
            have[first : last + 1] = [False] * (last + 1 - first)
    params.have_pieces = have
    params.piece_priorities = [4 if here else 0 for here in have]
    params.file_priorities = priorities
    params.flags |= lt.torrent_flags.no_verify_files
