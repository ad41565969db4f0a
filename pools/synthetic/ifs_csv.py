"""The CSV files of FractalDB's and ExFractalDB's authors, read with suspicion and written alike.

A class is a file named by its number, such as ``00012.csv``, with a line per map: the
parameters and the map's chance, ``%.18e``, so that floats come back as they were. A file of
multipliers has a line per variant.
"""

from __future__ import annotations

import codecs
import math
import os
from pathlib import Path

from ...errors import DataError, MissingError

MAX_BYTES = 1 << 20
MAX_LINES = 1000
_LARGEST = 1e6
_CHANCES_OFF = 1e-6


def read_system(path: Path | str, parameters: int) -> list[list[float]]:
    """Return the maps of a class: ``parameters`` numbers and a chance for each.

    Raises DataError, naming file and line, for anything else, for a map of zeros, and for
    chances that do not sum to 1.
    """
    rows = _read(Path(path), parameters + 1)
    for number, row in enumerate(rows, 1):
        if not any(row[:-1]):
            raise DataError(f"{path}: line {number}: all {parameters} parameters of the map are 0")
        if not 0.0 <= row[-1] <= 1.0:
            raise DataError(f"{path}: line {number}: the chance {row[-1]:g} is not within 0 to 1")
    total = math.fsum(row[-1] for row in rows)
    if abs(total - 1.0) > _CHANCES_OFF:
        raise DataError(f"{path}: the chances of the {len(rows)} maps sum to {total:g}, not to 1")
    return rows


def read_weights(path: Path | str, parameters: int) -> tuple[tuple[float, ...], ...]:
    """Return the rows of a file of multipliers, ``parameters`` in each, not all of them 0."""
    rows = _read(Path(path), parameters)
    for number, row in enumerate(rows, 1):
        if not any(row):
            raise DataError(f"{path}: line {number}: all {parameters} multipliers are 0")
    return tuple(tuple(row) for row in rows)


def format_system(rows: list[list[float]]) -> bytes:
    """Return a class's file as the authors' search writes it."""
    return "".join(",".join(f"{value:.18e}" for value in row) + "\n" for row in rows).encode()


def system_files(folder: Path | str) -> dict[int, Path]:
    """Return the files of a folder and of the folders in it, by the number of the class.

    Other files, and links, are passed over. Raises MissingError where there is no folder and
    DataError for two files of one class.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingError(f"{folder}: there is no such folder of parameter CSVs")
    found: dict[int, Path] = {}
    for inside in (folder, *sorted(_folders(folder))):
        for path in sorted(_files(inside)):
            number = int(path.stem)
            if number in found:
                raise DataError(
                    f"{folder}: class {number} has two files, {found[number]} and {path}"
                )
            found[number] = path
    return found


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        paths = [Path(one.path) for one in entries if one.is_file(follow_symlinks=False)]
    return [one for one in paths if one.suffix == ".csv" and _is_number(one.stem)]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 8


def _read(path: Path, columns: int) -> list[list[float]]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MissingError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: over {MAX_BYTES:,} bytes, no CSV of a fractal's parameters")
    data = data.removeprefix(codecs.BOM_UTF8)  # spreadsheets write one
    if not data.strip():
        raise DataError(f"{path}: empty; expected lines of {columns} numbers")
    lines = data.rstrip(b"\r\n").split(b"\n")
    if len(lines) > MAX_LINES:
        raise DataError(f"{path}: {len(lines):,} lines, more than {MAX_LINES:,}")
    return [_numbers(path, number, line, columns) for number, line in enumerate(lines, 1)]


def _numbers(path: Path, number: int, line: bytes, columns: int) -> list[float]:
    fields = line.strip(b"\r").split(b",")
    if len(fields) != columns:
        raise DataError(f"{path}: line {number}: expected {columns} numbers, found {len(fields)}")
    return [_number(path, number, field) for field in fields]


def _number(path: Path, number: int, field: bytes) -> float:
    try:
        value = math.nan if b"_" in field else float(field)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        shown = field[:40].decode("ascii", "replace")
        raise DataError(
            f"{path}: line {number}: {shown!r} is no number within {_LARGEST:,.0f} of 0"
        )
    return value
