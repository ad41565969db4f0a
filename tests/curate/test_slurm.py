"""Batch files for Slurm: bash reads them, and torchrun gets what it should."""

import shlex
import subprocess

import pytest
from datacomp.curate.slurm import Allocation, batch_file
from datacomp.errors import UsageError
from datacomp.evaluate.scales import SCALES, get_scale

NODES = {"demo": 1, "debug": 2, "small": 1, "medium": 4, "large": 8, "xlarge": 16}


@pytest.mark.parametrize("scale", SCALES)
def test_bash_reads_it(scale, tmp_path):
    where = Allocation(
        NODES[scale], 8, 4, "2-12:00:00", "gpu", "team.1", "source venv/bin/activate"
    )
    text = batch_file(get_scale(scale), "a b/shards", "runs/it's", "evalsets", 3, where)
    path = tmp_path / "x.sbatch"
    path.write_text(text)
    subprocess.run(["bash", "-n", path], check=True)
    asked = [line.split("=", 1) for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert dict(pair for pair in asked if len(pair) == 2) == {
        "#SBATCH --job-name": f"datacomp-{scale}-seed3", "#SBATCH --nodes": str(NODES[scale]),
        "#SBATCH --ntasks-per-node": "1", "#SBATCH --gpus-per-node": "8",
        "#SBATCH --cpus-per-task": "32", "#SBATCH --time": "2-12:00:00",
        "#SBATCH --partition": "gpu", "#SBATCH --account": "team.1",
        "#SBATCH --output": "%x-%j.out", "#SBATCH --open-mode": "append",
        "#SBATCH --signal": "B:TERM@120",
    }  # fmt: skip


def test_torchrun_gets_the_run(tmp_path):
    """Run the file with Slurm's own commands replaced by ones that write down what they get."""
    text = batch_file(get_scale("demo"), "a b/shards", "it's", "sets", 0, Allocation(2, 2))
    said = tmp_path / "said"
    for name, answer in (
        ("srun", f'printf "%s\\n" "$@" >> {shlex.quote(str(said))}'),
        # More names than a pipe holds: whoever stops reading after the first kills the job.
        ("scontrol", "seq -f node%.0f 7 20000"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(
        ["bash", "-c", text], check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "12", "SLURM_NNODES": "2",
             "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_PER_TASK": "16"},
    )  # fmt: skip
    assert said.read_text().splitlines() == [
        "--cpus-per-task=16", "torchrun", "--nnodes", "2", "--nproc_per_node", "2",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "node7:29500", "--rdzv_id", "12",
        "-m", "datacomp.curate.cli", "train",
        "a b/shards", "-o", "it's", "--scale", "demo", "--seed", "0", "--workers", "4",
        "--nodes=1", "--ntasks=1", "--cpus-per-task=16", "torchrun", "--standalone",
        "--nproc_per_node", "2", "-m", "datacomp.curate.cli", "evaluate", "it's", "--data", "sets",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (Allocation(3, 8), "scale medium has a global batch of 4,096, which 3 nodes x 8 GPUs do "
                           "not divide"),
        (Allocation(time="1 day"), "time is '1 day', expected [DAYS-]HH:MM:SS"),
        (Allocation(partition="a b"), "partition is 'a b', expected a plain name"),
    ],
)  # fmt: skip
def test_what_slurm_could_not_read_is_refused(where, told):
    with pytest.raises(UsageError) as caught:
        batch_file(get_scale("medium"), "d", "o", None, 0, where)
    assert str(caught.value) == told


def test_the_command_prints_it(command):
    code, out, _ = command("slurm", "small", "shards", "-o", "run", "--gpus", "4")
    assert code == 0
    assert out == batch_file(get_scale("small"), "shards", "run", None, 0, Allocation(gpus=4))
    code, out, _ = command("slurm", "small", "s3://b/a.view", "-o", "run", "--evalsets", "s3://b/e")
    assert code == 0  # what train and evaluate take
    assert "train s3://b/a.view -o run" in out
    assert "evaluate run --data s3://b/e" in out
    assert command("slurm", "smal", "shards", "-o", "run")[2].startswith("error: unknown scale")
