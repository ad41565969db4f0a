"""DataComp's baselines: our command against mlfoundations/datacomp's, each as a whole process.

DATACOMP_BENCH_PEER is the command that runs the peer's baselines.py, such as
``/peer/bin/python /peer/baselines.py`` (its language model, and for image_based a GPU, are the
peer's own affair); DATACOMP_BENCH_METADATA a folder of metadata; DATACOMP_BENCH_ASSETS the assets
for us, as ``NAME=PATH,...``; DATACOMP_BENCH_BASELINES which baselines (default: those that need no
asset). Subsets must be the same to the byte. Wall and CPU time are of the process and its
children, memory is the largest of its processes.
"""

import filecmp
import os
import shlex
import statistics
import sys

import pytest

PEER = os.environ.get("DATACOMP_BENCH_PEER")
METADATA = os.environ.get("DATACOMP_BENCH_METADATA")
ASSETS = [part for part in os.environ.get("DATACOMP_BENCH_ASSETS", "").split(",") if part]
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "2"))

BASELINES = {
    "no_filter": ("no_filter", "--name no_filter"),
    "clip_fraction": (
        "clip_score:arch=l14,fraction=0.3", "--name clip_score --arch l14 --fraction 0.3"
    ),
    "clip_threshold": (
        "clip_score:arch=b32,threshold=0.25", "--name clip_score --arch b32 --threshold 0.25"
    ),
    "basic_filter": ("basic_filter", "--name basic_filter"),
    "laion2b": ("laion2b", "--name laion2b"),
    "text_based": ("text_based", "--name text_based"),
    "image_based": ("image_based", "--name image_based --image_based_scale small"),
    "intersection": (
        "image_based_intersect_clip_score:arch=l14,fraction=0.3",
        "--name image_based_intersect_clip_score --image_based_scale small --arch l14 "
        "--fraction 0.3",
    ),
}  # fmt: skip
CHOSEN = os.environ.get("DATACOMP_BENCH_BASELINES", "no_filter,clip_fraction,clip_threshold").split(
    ","
)

pytestmark = [
    pytest.mark.skipif(PEER is None, reason="DATACOMP_BENCH_PEER names no peer to run"),
    pytest.mark.skipif(METADATA is None, reason="DATACOMP_BENCH_METADATA names no metadata"),
    pytest.mark.timeout(3600),
]


@pytest.mark.parametrize("name", CHOSEN)
def test_a_baseline_is_the_same_and_takes(name, timed, tmp_path, capsys):
    text, options = BASELINES[name]
    ours, theirs = tmp_path / "ours.npy", tmp_path / "theirs.npy"
    assets = [f"--asset={asset}" for asset in ASSETS]
    command = [sys.executable, "-m", "datacomp.curate.cli", "filter", "run", str(METADATA), text]
    peer = [*shlex.split(str(PEER)), *shlex.split(options), "--metadata_dir", str(METADATA)]
    pairs = []
    for _ in range(ROUNDS):
        mine = timed([*command, *assets, "-o", str(ours)], tmp_path / "ours.log")
        other = timed([*peer, "--save_path", str(theirs)], tmp_path / "theirs.log")
        assert filecmp.cmp(ours, theirs, shallow=False)
        pairs.append((mine, other))
    with capsys.disabled():
        print(f"\n{name}: the same {(ours.stat().st_size - 128) // 16:,} uids")
        for place, (what, unit) in enumerate((("wall", "s"), ("CPU", "s"), ("memory", "MB"))):
            mine, other = (
                statistics.median(pair[side][place] for pair in pairs) for side in (0, 1)
            )
            print(f"  {what}: ours {mine:.1f} {unit}, peer {other:.1f} {unit}, {other / mine:.1f}x")
