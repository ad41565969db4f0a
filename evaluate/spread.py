"""One evaluation by several processes (torchrun): each takes tasks of its own, balanced by size.

Every process appends to the same results file, whole lines only, so that whatever becomes of the
others nothing that was measured is lost. When all are through, the first puts the lines in the
order in which a single process writes them.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..durable import write_bytes
from ..errors import DatacompError, RunError
from ..pools.clip_model import ModelSpec
from ..progress import set_verbosity
from .harness import Evaluation, evaluate, measurable
from .places import is_there
from .results import read_results
from .tasks import Task
from .vision.backbone import VisionSpec

PATIENCE = timedelta(days=7)
"""How long processes that are through wait for the others."""


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and which of its machine."""

    rank: int
    world: int
    local: int

    @classmethod
    def of_torchrun(cls) -> Processes | None:
        """Return what torchrun says of this process; None without it, or for a single one."""
        if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
            return None
        rank, world, local = (int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank, world, local)


def shares(tasks: Sequence[Task], world: int) -> list[list[Task]]:
    """Divide tasks among processes: the largest first, each to who has least so far."""
    place = {task.key: number for number, task in enumerate(tasks)}
    heap = [(0, rank) for rank in range(world)]
    given: list[list[Task]] = [[] for _ in range(world)]
    for task in sorted(tasks, key=lambda task: (-task.size, place[task.key])):
        load, rank = heapq.heappop(heap)
        given[rank].append(task)
        heapq.heappush(heap, (load + task.size, rank))
    return [sorted(share, key=lambda task: place[task.key]) for share in given]


def evaluate_together(
    processes: Processes,
    model: ModelSpec | VisionSpec,
    data: Path | str,
    tasks: Sequence[Task],
    output: Path | str,
    *,
    device: str = "auto",
    **options: Any,
) -> Evaluation:
    """Evaluate as :func:`~datacomp.evaluate.harness.evaluate` does; every process calls this.

    Each returns what came of all tasks. A process that fails as a whole makes all raise.
    """
    import torch
    import torch.distributed as dist

    if device == "auto" and torch.cuda.is_available():
        device = f"cuda:{processes.local}"
    if processes.rank:
        set_verbosity(-1)  # the first process tells how far it is
    tasks = measurable(model, tasks, options.get("probe"), tell=processes.rank == 0)
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        mine, trouble = Evaluation(), ""
        try:
            # One decides: where a server fails now and then, each would find other tasks there.
            there: list[list[str]] = [[]]
            if processes.rank == 0:
                there = [[task.key for task in tasks if is_there(data, task)]]
            dist.broadcast_object_list(there)
            share = _share(processes, there[0], tasks)
            if share or processes.rank == 0:
                mine = evaluate(model, data, share, output, device=device, **options)
        except DatacompError as error:
            trouble = str(error)
        said: list[Any] = [None] * processes.world
        dist.all_gather_object(said, (mine.skipped, mine.failed, mine.absent, trouble))
        for rank, (_, _, _, text) in enumerate(said):
            if text:
                raise RunError(f"process {rank}: {text}")
        if processes.rank == 0:
            put_in_order(Path(output), tasks)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    skipped = [key for keys, _, _, _ in said for key in keys]
    failed = {key: reason for _, reasons, _, _ in said for key, reason in reasons.items()}
    absent = [key for _, _, keys, _ in said for key in keys]
    results = read_results(output) if Path(output).is_file() else {}
    order = [task.key for task in tasks]
    for key in order:
        if key not in results:
            lost = f"no process left its result in {output}; do all of them write to the same file?"
            failed.setdefault(key, lost)
    return Evaluation(
        [results[key] for key in order if key in results and key not in failed],
        [key for key in order if key in skipped],
        {key: failed[key] for key in order if key in failed},
        absent=[key for key in order if key in absent],
    )


def _share(processes: Processes, there: Collection[str], tasks: Sequence[Task]) -> list[Task]:
    """Return this process's tasks; those whose data are not ``there`` are told by the first."""
    share = shares([task for task in tasks if task.key in there], processes.world)
    mine = {task.key for task in share[processes.rank]}
    absent = {task.key for task in tasks} - set(there) if processes.rank == 0 else set()
    return [task for task in tasks if task.key in mine | absent]


def put_in_order(output: Path, tasks: Sequence[Task]) -> None:
    """Sort the lines of a results file by task, those of other tasks before; nothing is lost."""
    if not output.is_file():
        return
    order = {task.key: number for number, task in enumerate(tasks)}
    lines = output.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n") and line.strip()]

    def place(line: bytes) -> int:
        return order.get(json.loads(line)["key"], -1)

    write_bytes(output, b"".join(sorted(whole, key=place)))
