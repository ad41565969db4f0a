"""What a pool of any size takes: time, memory, disk and money, from rates measured on one machine.

    python docs/scale_model.py measure METADATA_DIR SHARDS_DIR    # writes scale_rates.json
    python docs/scale_model.py check LARGER_DIR                   # predicts, runs, compares
    python docs/scale_model.py                                    # the table of scale.md

METADATA_DIR holds DataComp's parquet files, SHARDS_DIR tars. A filter takes, with w workers,

    seconds = start + (files * per_file + rows * per_row) / w

where ``per_file`` is what opening a file costs in all rounds together, and ``per_row`` the rest.
Indexing takes the longer of two: workers read headers, one process writes what all of them found.
Building takes both: one process looks up what is wanted, then workers copy.
The rates of filters are fitted on METADATA_DIR, and on files of a hundred rows; ``check`` runs
another folder, ten times as large or so. Seconds are those of all processors of the machine, which
must do nothing else: the command runs as a process, with as many workers as there are processors,
and its files are dropped from memory before. (One worker alone takes fewer seconds: two that share
a core hinder each other.) Assets that a filter needs are named in DATACOMP_BENCH_ASSETS, as
``NAME=PATH,...``.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RATES = Path(__file__).with_name("scale_rates.json")
FILTERS = {
    "no_filter": "no_filter",
    "basic_filter": "basic_filter",
    "clip_score": "clip_score:arch=l14,fraction=0.3",
}
SCALES = {"small": 12.8e6, "medium": 128e6, "large": 1.28e9, "xlarge": 12.8e9}
ROW_BYTES, FEATURE_BYTES, IMAGE_BYTES = 235, 5120, 35_000
"""Of a sample in DataComp's own pools: metadata, all four features, image at most 512 px wide."""
FILE_ROWS = 512_000
LOOKED_UP = 2e6
"""Rows of an index a second that a build looks through before workers begin, alone.

``shards select`` took 32 s for 30 % of 64 million rows, with 19 parts of the subset.
"""
HOUR = 0.04
"""Dollars of a virtual processor with 4 GB for an hour, as the large clouds rent them."""

TRAINED = {"small": 850, "medium": 850, "large": 390, "xlarge": 77}
"""Samples a second and A100 when training the model of a scale: ViT-B/32 twice, B/16, L/14.

As LAION reports for its runs on JUWELS Booster (trained_models_info.csv).
"""
EMBEDDED = {"ViT-B/32": 3 * 850, "ViT-L/14": 3 * 77}
"""Embedding is the forward pass alone: a third of the work of training."""


def run_filter(folder: Path, name: str) -> float:
    """Run a filter over a folder in partitions; return the seconds of all processors it took."""
    assets = [part for part in os.environ.get("DATACOMP_BENCH_ASSETS", "").split(",") if part]
    for file in folder.glob("*.parquet"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as out:
        command = [
            sys.executable,
            "-m",
            "datacomp.curate.cli",
            "-q",
            "filter",
            "run",
            str(folder),
            FILTERS[name],
            "-o",
            f"{out}/s.npy",
            "--workers",
            str(os.cpu_count() or 1),
        ]
        if name == "basic_filter":
            command += [f"--asset={asset}" for asset in assets]
        started = busy()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return busy() - started


def busy() -> float:
    """Return how many seconds the processors of this machine have worked, by Linux's count."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def count_rows(folder: Path) -> int:
    """Return the number of rows of all files."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))


def measure(metadata: Path, shards: Path) -> dict[str, Any]:
    """Return the rates of this machine."""
    from datacomp.curate.shards import build_shards, index_shards
    from datacomp.curate.shards.reading import read_tar
    from datacomp.distribution.release.digests import read_digests
    from datacomp.pools.engine import ALL, Engine, Local
    from datacomp.pools.uids import save_subset

    class Told(Engine):
        """Other machines, that have read all tars and tell it."""

        distributed, workers = False, None

        def map(self, function, partitions, **hints):
            """Yield what was found, as it arrives."""
            return (pickle.loads(found) for _, found in zip(partitions, pickled, strict=True))

    rates: dict[str, Any] = {
        "machine": f"{os.cpu_count()} processors, {platform.machine()}", "filters": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        empty = empty_files(metadata, 16, home / "empty")
        rows, files = count_rows(metadata), len(list(metadata.glob("*.parquet")))
        rates["fitted_on"] = rows
        for name in FILTERS:
            run_filter(empty[0], name)  # compilers
            two, many = run_filter(empty[0], name), run_filter(empty[1], name)
            per_file = (many - two) / 14
            start = max(0.0, two - 2 * per_file)
            per_row = (run_filter(metadata, name) - start - files * per_file) / rows
            rates["filters"][name] = {"start": start, "per_file": per_file, "per_row": per_row}
        tars = sorted(shards.glob("*.tar"))
        size = sum(tar.stat().st_size for tar in tars)
        forget_index(shards)
        rates["index"] = size / timed(lambda: index_shards(shards, 1))
        forget_index(shards)
        pickled = [pickle.dumps(read_tar(str(tar))) for tar in tars]
        driver = timed(lambda: index_shards(shards, Told()))
        uids = subset_of(shards)
        rates["index_rows"] = len(uids) / driver
        save_subset(home / "all.npy", uids)
        build = functools.partial(
            build_shards, shards, home / "all.npy", home / "built", workers=1, shard_size=len(uids)
        )
        rates["build"] = size / timed(build)
        rates["hash"] = size / timed(lambda: list(Local(1).map(read_digests, tars, threads=ALL)))
    return rates


def empty_files(metadata: Path, many: int, into: Path) -> tuple[Path, Path]:
    """Return folders of 2 and of many files that have a hundred rows each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = min(metadata.glob("*.parquet"))
    rows = next(pq.ParquetFile(first).iter_batches(100 * many))
    folders = []
    for count in (2, many):
        folder = into / str(count)
        folder.mkdir(parents=True)
        for number in range(count):
            pq.write_table(
                pa.Table.from_batches([rows.slice(number * 100, 100)]),
                folder / f"{number:04d}.parquet",
            )
        folders.append(folder)
    return folders[0], folders[1]


def forget_index(shards: Path) -> None:
    """Let the shards be indexed anew."""
    for name in ("index.parquet", "index.json"):
        (shards / name).unlink(missing_ok=True)


def subset_of(shards: Path) -> Any:
    """Return the uids of indexed shards."""
    import pyarrow.parquet as pq
    from datacomp.pools.uids import from_hex

    return from_hex(pq.read_table(shards / "index.parquet", columns=["uid"])["uid"].to_pylist())


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def seconds_of(rates: dict[str, Any], name: str, rows: float, files: float, workers: int) -> float:
    """Return how long a filter takes."""
    rate = rates["filters"][name]
    return rate["start"] + (files * rate["per_file"] + rows * rate["per_row"]) / workers


def shard_seconds(rates: dict[str, Any], name: str, rows: float, workers: int) -> float:
    """Return how long indexing, building or hashing of all images takes."""
    seconds = rows * IMAGE_BYTES / rates[name] / workers
    if name == "index":
        return max(seconds, rows / rates["index_rows"])
    return seconds + rows / LOOKED_UP if name == "build" else seconds


def check(rates: dict[str, Any], metadata: Path, names: list[str]) -> list[str]:
    """Run filters over all files; return lines of what was predicted and seen."""
    rows, files = count_rows(metadata), len(list(metadata.glob("*.parquet")))
    lines = [f"{rows:,} rows in {files} files; fitted on {rates['fitted_on']:,}"]
    for name in names:
        said = seconds_of(rates, name, rows, files, 1)
        seen = run_filter(metadata, name)
        lines.append(f"{name}: predicted {said:.1f} s, took {seen:.1f} s ({said / seen - 1:+.0%})")
    return lines


def table(rates: dict[str, Any], workers: int = 64) -> str:
    """Return the predictions for DataComp's four pools, as Markdown."""
    lines = [
        f"| {workers} workers | " + " | ".join(SCALES) + " |",
        "|---" * (len(SCALES) + 1) + "|",
    ]
    rows: list[tuple[str, Callable[[float], str]]] = [
        ("samples", lambda n: f"{n:,.0f}"),
        ("metadata on disk", lambda n: size(n * ROW_BYTES)),
        ("features on disk", lambda n: size(n * FEATURE_BYTES)),
        ("images on disk", lambda n: size(n * IMAGE_BYTES)),
    ]
    for name in FILTERS:
        rows.append((
            f"`{name}`",
            lambda n, name=name: duration(
                seconds_of(rates, name, n, max(1, n / FILE_ROWS), workers)
            ),
        ))  # fmt: skip
    for name, what in (("index", "indexing"), ("build", "building"), ("hash", "hashing")):
        rows.append((
            f"{what} all images",
            lambda n, name=name: duration(shard_seconds(rates, name, n, workers)),
        ))  # fmt: skip
    rows += [
        ("subset of 30 %", lambda n: size(0.3 * n * 16)),
        ("dollars for all of these", lambda n: f"{dollars(rates, n):,.2f}"),
    ]
    for model, rate in EMBEDDED.items():
        rows.append((f"embedding with {model}, A100 hours", lambda n, r=rate: hours(n / r)))
    trained = {count: TRAINED[scale] for scale, count in SCALES.items()}
    rows.append(("training, A100 hours", lambda n: hours(n / trained[n])))
    for what, value in rows:
        lines.append(f"| {what} | " + " | ".join(value(n) for n in SCALES.values()) + " |")
    return "\n".join(lines)


def dollars(rates: dict[str, Any], rows: float) -> float:
    """Return what the processors cost: what takes one worker an hour costs the same with many."""
    files = max(1, rows / FILE_ROWS)
    seconds = sum(seconds_of(rates, name, rows, files, 1) for name in FILTERS)
    seconds += sum(rows * IMAGE_BYTES / rates[name] for name in ("index", "build", "hash"))
    return seconds / 3600 * HOUR


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 1000 else f"{count:,.0f} TB"


def hours(seconds: float) -> str:
    """Write the hours of one machine."""
    return f"{float(f'{seconds / 3600:.2g}'):,g}"


def duration(seconds: float) -> str:
    """Write a time."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def main() -> None:
    """Measure, check, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=("measure", "check"))
    parser.add_argument("folders", nargs="*", type=Path)
    given = parser.parse_args()
    if given.what == "measure":
        RATES.write_text(json.dumps(measure(*given.folders), indent=2) + "\n")
        return
    rates = json.loads(RATES.read_text())
    if given.what is None:
        print(table(rates))
    else:
        print(*check(rates, given.folders[0], list(FILTERS)), sep="\n")


if __name__ == "__main__":
    main()
