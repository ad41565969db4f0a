"""A batch file for Slurm: one training run on several machines, evaluated at the end."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ..errors import UsageError
from ..evaluate.scales import Scale

_TIME = re.compile(r"(\d+-)?\d{1,2}:\d{2}:\d{2}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
PORT = 29_500


@dataclass(frozen=True)
class Allocation:
    """What is asked of Slurm. ``time`` is [DAYS-]HH:MM:SS, ``gpus`` those of one node."""

    nodes: int = 1
    gpus: int = 8
    cpus_per_gpu: int = 8
    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    setup: str | None = None


def batch_file(
    scale: Scale, data: str, output: str, evalsets: str | None, seed: int, where: Allocation
) -> str:
    """Return the sbatch file of a run of ``scale`` on ``data``, in bash.

    One torchrun a node, one process a GPU; a run that is put back into the queue goes on where it
    stopped, for that is what the same command does. Raises UsageError for a number of GPUs that
    does not divide the scale's batch, and for what Slurm could not read.
    """
    processes = where.nodes * where.gpus
    if scale.batch_size % processes:
        raise UsageError(
            f"scale {scale.name} has a global batch of {scale.batch_size:,}, which "
            f"{where.nodes} nodes x {where.gpus} GPUs do not divide"
        )
    if not _TIME.fullmatch(where.time):
        raise UsageError(f"time is {where.time!r}, expected [DAYS-]HH:MM:SS")
    for what, name in (("partition", where.partition), ("account", where.account)):
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(f"{what} is {name!r}, expected a plain name")
    asked = {
        "job-name": f"datacomp-{scale.name}-seed{seed}",
        "nodes": where.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": where.gpus,
        "cpus-per-task": where.gpus * where.cpus_per_gpu,
        "time": where.time,
        "partition": where.partition,
        "account": where.account,
        "output": "%x-%j.out",
        "open-mode": "append",
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{name}={value}" for name, value in asked.items() if value is not None]
    lines += [
        "#SBATCH --requeue", "#SBATCH --signal=B:TERM@120", "", "set -euo pipefail",
        *([where.setup] if where.setup else []),
        "# Before the time is up the job goes back into the queue; the run goes on from its",
        "# last checkpoint.",
        "trap 'scontrol requeue \"$SLURM_JOB_ID\"; exit 0' TERM",
        "# Not `| head -n 1`: a reader that leaves early ends the job under pipefail.",
        'nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        "head=${nodes%%$'\\n'*}",
        "",
        "# Since Slurm 22.05 srun does not take over --cpus-per-task by itself.",
        'srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \\',
        f'    torchrun --nnodes "$SLURM_NNODES" --nproc_per_node {where.gpus} \\',
        f'    --rdzv_backend c10d --rdzv_endpoint "$head:{PORT}" --rdzv_id "$SLURM_JOB_ID" \\',
        f"    -m datacomp.curate.cli train {shlex.quote(data)} -o {shlex.quote(output)} \\",
        f"    --scale {scale.name} --seed {seed} --workers {min(4, where.cpus_per_gpu)} &",
        "wait $!",
    ]  # fmt: skip
    if evalsets is not None:
        lines += [
            "",
            "# The tasks are divided among the GPUs of one node.",
            'srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \\',
            f"    torchrun --standalone --nproc_per_node {where.gpus} -m datacomp.curate.cli \\",
            f"    evaluate {shlex.quote(output)} --data {shlex.quote(evalsets)} &",
            "wait $!",
        ]
    return "\n".join(lines) + "\n"
