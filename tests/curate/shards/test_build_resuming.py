"""The folder of a build: whose it is, what is there already, every interruption survived."""

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
from datacomp.curate.shards import folder, index_shards
from datacomp.curate.shards.build import build_shards
from datacomp.errors import (
    DataError,
    StorageError,
    UsageError,
)

ALL = tuple(range(21))


def test_a_folder_that_holds_another_build_is_refused(shards, select, out):
    build_shards(shards, select(1, 2, 3), out, shard_size=2, workers=1)
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(1, 2, 3), out, shard_size=3, workers=1)
    assert str(caught.value) == (
        f"{out}: holds another build (shard_size: 2 instead of 3); "
        "choose another folder or remove this one"
    )
    with pytest.raises(UsageError, match=r"holds another build \(subset: count 3, digest "):
        build_shards(shards, select(1, 2), out, shard_size=2, workers=1)
    with pytest.raises(UsageError, match=r"holds another build \(shuffle: None instead of 5\)"):
        build_shards(shards, select(1, 2, 3), out, shard_size=2, workers=1, shuffle=5)


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_built_of_tars_that_changed_since_is_made_anew(
    shards, select, out, tmp_path, whole, capsys
):
    """An edit that moves nothing leaves the index's rows as they are, but not the build."""
    subset = select(*ALL)
    build_shards(shards, subset, out, shard_size=2, workers=1)
    if not whole:
        (out / "manifest.json").unlink()
        (out / "00000003.tar").unlink()
    first = min(shards.glob("*.tar"))
    data = first.read_bytes()
    assert b"caption" in data
    first.write_bytes(data.replace(b"caption", b"CAPTION"))
    report = build_shards(shards, subset, out, shard_size=2, workers=1)
    assert report.reused == 0
    assert "its source has changed; its shards are deleted and made anew" in capsys.readouterr().err
    build_shards(shards, subset, tmp_path / "fresh", shard_size=2, workers=1)
    for path in (tmp_path / "fresh").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    again = build_shards(shards, subset, out, shard_size=2, workers=1)
    assert again.reused == again.shards


def test_a_folder_that_holds_something_else_is_refused(shards, select, out):
    out.mkdir()
    (out / "00000077.tar").write_bytes(b"stale")
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(1), out)
    assert str(caught.value) == (
        f"{out}: is not empty (00000077.tar) and was not made by 'datacomp shards build'; "
        "choose another folder"
    )
    with pytest.raises(UsageError, match="is not empty"):
        build_shards(shards, select(1), shards)


@pytest.mark.parametrize("unusable", [None, [["zz", "x"]], [["0" * 32]], [[["0" * 32], "x"]], 7])
def test_a_damaged_build_json_is_refused(shards, select, out, unusable):
    if unusable is None:
        out.mkdir()
        (out / "build.json").write_text("{")
    else:
        build_shards(shards, select(1), out, workers=1)
        found = json.loads((out / "build.json").read_text())
        (out / "build.json").write_text(json.dumps({**found, "unusable": unusable}))
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(1), out, workers=1)
    assert str(caught.value) == (
        f"{out / 'build.json'}: damaged; remove the folder {out} and build again"
    )


def test_an_out_that_is_a_file_is_refused(shards, select, out):
    out.write_text("")
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(1), out)
    assert str(caught.value) == f"{out}: a file, but shards need a folder"


def test_an_out_that_cannot_be_written_is_refused(shards, select):
    with pytest.raises(StorageError) as caught:
        build_shards(shards, select(1), "/proc/nowhere", workers=1)
    assert str(caught.value) == "cannot write /proc/nowhere: No such file or directory"


def test_one_build_at_a_time(shards, select, out):
    with folder.locked(out), pytest.raises(StorageError) as caught:
        build_shards(shards, select(1), out, workers=1)
    assert str(caught.value) == f"{out}: another build is writing there; wait for it"


def test_a_finished_build_is_left_alone(shards, select, out, make):
    first = build_shards(shards, select(*ALL), out, shard_size=5, workers=1)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    again = build_shards(shards, select(*ALL), out, shard_size=5, workers=2)
    assert (again.reused, again.shards) == (5, 5)
    assert again.digest == first.digest
    assert stamps == {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "00000001.tar").unlink(),
        lambda out: os.truncate(out / "00000001.tar", 512),
        lambda out: (out / "00000001_stats.json").write_text("{}"),
        lambda out: (out / "manifest.json").unlink(),
        lambda out: (out / "sample_ids.npy").unlink(),
        lambda out: [path.unlink() for path in out.iterdir() if path.name != "build.json"],
        lambda out: [path.unlink() for path in out.iterdir()],
    ],
)
def test_what_is_lost_is_built_again(shards, select, out, make, damage):
    build_shards(shards, select(*ALL), out, shard_size=5, workers=1)
    whole = make.files_of(out)
    damage(out)
    build_shards(shards, select(*ALL), out, shard_size=5, workers=1)
    assert make.files_of(out) == whole


def python(script, *arguments, **options):
    """Start a Python that runs a script."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


# as so many files are there, a moment later each time.
KILLER = """
    import os, random, signal, sys, time
    from pathlib import Path
    from datacomp.curate.shards import build_shards
    import pyarrow.parquet
    source, subset, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    workers, kills = map(int, sys.argv[4:])
    chance = random.Random(0)
    most = 28 if workers < 5 else 16  # many processes are fast
    for wanted in sorted(chance.randrange(1, most) for _ in range(kills)):
        delay = chance.random() * 0.005
        child = os.fork()
        if not child:
            build_shards(source, subset, out, shard_size=2, workers=workers)
            os._exit(0)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if out.exists() and len(list(out.iterdir())) >= wanted:
                time.sleep(delay)
                os.kill(child, signal.SIGKILL)
                print("killed with", len(list(out.iterdir())), "files")
                os.waitpid(child, 0)
                break
        else:
            sys.exit("it was finished before it could be killed")
"""


@pytest.mark.parametrize(("workers", "kills"), [(1, 20), (2, 20), (5, 5)])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(
    shards, select, tmp_path, make, workers, kills
):
    subset = select(*ALL, *ALL)
    index_shards(shards, 1)
    build_shards(shards, subset, tmp_path / "whole", shard_size=2, workers=1)
    whole = make.files_of(tmp_path / "whole")
    out = tmp_path / "out"
    process = python(KILLER, shards, subset, out, workers, kills)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("killed with") == kills
    time.sleep(0.2)  # workers whose parent was killed are gone by then
    settled = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert settled
    assert not (out / "manifest.json").exists()
    for name in settled:
        assert (out / name).read_bytes() == whole[name]
    report = build_shards(shards, subset, out, shard_size=2, workers=1)
    assert report.reused > 0
    assert make.files_of(out) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_clear_line_and_nothing_half_written(shards, select, out, make, workers):
    index_shards(shards, 1)
    script = """
        import resource, sys
        import datacomp.curate.shards
        from datacomp.curate.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        main()
    """  # Python ignores SIGXFSZ, so a write beyond the limit fails with EFBIG
    subset = select(*ALL)
    command = ["shards", "build", shards, subset, "-o", out, "--workers", workers]
    process = python(script, *command)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors == (
        f"error: cannot write {out / '00000000.tar'}: "
        "the file would exceed the largest size allowed here\n"
    )
    assert sorted(make.files_of(out)) == ["build.json"]
    assert build_shards(shards, subset, out, workers=1).samples == 21
