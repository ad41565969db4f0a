"""Finished runs with results whose numbers fit each other, in milliseconds and without a model."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
from datacomp.evaluate.leaderboard.check import MODEL_CONFIGS
from datacomp.evaluate.metrics import RESAMPLES, interval, pack, wilson
from datacomp.evaluate.scales import SCALES
from datacomp.evaluate.tasks import load_suites, load_tasks


def write_run(folder, scale="small", quality=0.2, seed=0, samples=1000, weights=b"weights"):
    """Write a run of a scale whose scores rise with ``quality``; return its folder."""
    folder = Path(folder)
    recipe = SCALES[scale]
    checkpoint = folder / "checkpoints" / "epoch_5.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(weights + str((str(folder), seed)).encode())
    info = {
        "format": "datacomp-run", "version": 1, "status": "done", "scale": recipe.to_dict(),
        "model": recipe.model, "model_config": None, "seed": seed, "precision": "amp",
        "device": "cuda", "world_size": 4, "seconds": 3600.5,
        "checkpoint": "checkpoints/epoch_5.pt",
        "data": [{"path": "/home/someone/shards", "samples": samples, "shards": 1,
                  "fingerprint": "f" * 64, "fingerprint_kind": "content"}],
    }  # fmt: skip
    (folder / "info.json").write_text(json.dumps(info))
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    suite = load_suites()["demo" if scale == "demo" else "datacomp"]
    rng = np.random.default_rng([seed, int(quality * 1e6)])
    lines = [
        json.dumps(result_line(load_tasks()[key], suite, recipe.model, digest, quality, rng))
        for key in suite.groups["Average"]
    ]
    (folder / "eval_results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def result_line(task, suite, model, checkpoint, quality, rng):
    """Return one line of results, as ``datacomp evaluate`` would write it."""
    n, chance = task.size, task.chance or 0.01
    gain = 0.1 if task.near_chance else 1.0
    value = chance + (1 - chance) * gain * quality * (0.6 + 0.4 * math.sin(len(task.name)))
    value = min(max(value + rng.normal(0, 0.01), 0.001), 0.99)
    hits = round(value * n)
    metrics = {"acc1": hits / n, "acc5": None, "mean_per_class_recall": value * 0.999}
    if task.main_metric not in metrics:
        metrics = {task.main_metric: value} if task.family in ("retrieval", "winogavil") else {
            **metrics, task.main_metric: value
        }  # fmt: skip
    main = metrics[task.main_metric]
    spread = math.sqrt(main * (1 - main) / n)
    shared = np.random.default_rng(task.seed).normal(size=RESAMPLES)
    drawn = main + spread * (0.7 * shared + 0.71 * rng.normal(size=RESAMPLES))
    drawn = np.clip(drawn, 0, 1).astype("<f4").astype(float)
    if task.main_metric == "acc1":
        method, found = "wilson", wilson(hits, n)
        low, high, error = *found.interval, found.standard_error
    else:
        method, (low, high), error = "bootstrap", interval(drawn), float(np.std(drawn, ddof=1))
    config, size = MODEL_CONFIGS[model]
    return {
        "key": task.key, "dataset": task.name, "metrics": {**metrics, "main_metric": main},
        "provenance": {
            "suite": suite.name, "suite_version": suite.version, "task_version": task.version,
            "data": "d" * 64, "model": model, "model_config": config, "checkpoint": checkpoint,
            "precision": "fp32", "image_size": size, "versions": {}, "n": n, "set_aside": 0,
            "set_aside_samples": [],
        },
        "uncertainty": {
            "interval": [low, high], "standard_error": error, "method": method, "level": 0.95,
            "replicates": pack(tuple(drawn.tolist())),
        },
    }  # fmt: skip
