"""Sets on disk: the same bytes whoever makes them, whole or not there, never two in one folder."""

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError, StorageError, UsageError
from datacomp.pools import tar
from datacomp.pools.synthetic import build as module
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.exfractaldb import ExFractalDB
from datacomp.pools.synthetic.fractaldb import FractalDB
from datacomp.pools.synthetic.marker import open_set
from datacomp.pools.synthetic.rcdb import RCDB
from datacomp.pools.synthetic.visualatom import VisualAtom
from datacomp.pools.uids import uid_of_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

SMALL = {"classes": 6, "instances": 5, "size": 48}


def small(**more):
    return VisualAtom(**{**SMALL, **more})


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(path):
    found = {}
    with path.open("rb") as file:
        for sample in tar.samples(path):
            found[sample.key] = {e: tar.read_member(file, m) for e, m in sample.members.items()}
    return found


def test_a_shard_tells_all_about_its_images(tmp_path):
    report = build(Plan(small(start_class=40), tmp_path / "set", per_shard=12), workers=1)
    assert (report.images, report.drawn) == (30, 30)
    assert [path.name for path in sorted((tmp_path / "set").glob("*.tar"))] == [
        "00000.tar", "00001.tar", "00002.tar",
    ]  # fmt: skip
    samples = {}
    for path in sorted((tmp_path / "set").glob("*.tar")):
        samples |= read(path)
    assert len(samples) == 30
    assert list(samples)[:7] == [*(f"0000{c}_000000" for c in range(40, 46)), "000040_000001"]
    generator = small(start_class=40)
    for sample in samples.values():
        values = json.loads(sample["json"])
        assert values["uid"] == uid_of_bytes(sample["png"], sample["txt"])
        assert values["class"] == int(sample["cls"])
        assert (values["kind"], values["seed"], values["mode"]) == ("visualatom", 0, "fast")
        pixels = np.asarray(Image.open(io.BytesIO(sample["png"])))
        picture = generator.picture(values["class"], values["instance"])
        assert np.array_equal(pixels, picture.pixels)
        assert values["ink"] == round(np.count_nonzero(pixels) / 48**2, 6)
        assert {"vertices", "orbits", "frequency1", "x", "y"} <= values.keys()


def test_the_table_of_classes(tmp_path):
    build(Plan(small(start_class=40), tmp_path / "set"), workers=1)
    table = pq.read_table(tmp_path / "set" / "classes.parquet").to_pylist()
    assert [row["class"] for row in table] == list(range(40, 46))
    generator = small(start_class=40)
    for record, row in zip(
        (one for group in generator.groups() for one in generator.find(group)), table, strict=True
    ):
        assert row == {
            "class": record.class_id, "caption": generator.caption(record), **record.parameters,
        }  # fmt: skip


@pytest.mark.parametrize(("kind", "mode"), [(VisualAtom, "fast"), (RCDB, "exact")])
def test_bytes_do_not_depend_on_workers(tmp_path, kind, mode):
    generator = kind(**SMALL, mode=mode, processes=2 if mode == "exact" else 1)
    for workers in (1, 2):
        build(Plan(generator, tmp_path / str(workers), per_shard=7), workers)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert len(list((tmp_path / "1").glob("*.tar"))) == 5


def test_exact_shards_hold_the_stream_of_each_class(tmp_path):
    """A shard begins in the middle of a class; the pixels are those of the whole stream."""
    generator = VisualAtom(classes=2, instances=6, size=48, mode="exact")
    build(Plan(generator, tmp_path / "set", per_shard=5), 1)
    for path in (tmp_path / "set").glob("*.tar"):
        for key, sample in read(path).items():
            class_id, instance = (int(part) for part in key.split("_"))
            pixels = np.asarray(Image.open(io.BytesIO(sample["png"])))
            assert np.array_equal(pixels, generator.picture(class_id, instance).pixels)


def test_a_rerun_makes_what_is_missing(tmp_path):
    plan = Plan(small(), tmp_path / "set", per_shard=7)
    assert build(plan, 1).drawn == 30
    before = digests(plan.out)
    assert build(plan, 1).drawn == 0
    (plan.out / "00002.tar").unlink()
    assert build(plan, 1).drawn == 7
    assert digests(plan.out) == before


KILLED = """
import sys
from pathlib import Path
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.visualatom import VisualAtom
if __name__ == "__main__":
    build(Plan(VisualAtom(classes=40, instances=30, size=256), Path(sys.argv[1]), sys.argv[2], 60),
          int(sys.argv[3]))
"""


@pytest.mark.parametrize(("format", "workers"), [("shards", 2), ("folder", 1)])
def test_killed_and_run_again_the_bytes_are_the_same(tmp_path, format, workers):
    plan = Plan(VisualAtom(classes=40, instances=30, size=256), tmp_path / "set", format, 60)
    script = tmp_path / "make.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(plan.out), format, str(workers)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(module.made_units(plan)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    made = len(module.made_units(plan))
    assert 3 <= made < plan.units
    for _ in range(100):  # workers die with the parent, a moment later
        report = _build_when_free(plan)
        if report is not None:
            break
        time.sleep(0.1)
    assert report.drawn == (plan.units - made) * 60
    whole = Plan(plan.generator, tmp_path / "whole", format, 60)
    build(whole, 1)
    assert digests(plan.out) == digests(whole.out)


def _build_when_free(plan):
    try:
        return build(plan, 1)
    except StorageError:
        return None


def test_the_authors_folders(tmp_path):
    generator = RCDB(**SMALL)
    build(Plan(generator, tmp_path / "set", "folder", per_shard=4), 1)
    found = [name for name in digests(tmp_path / "set") if not name.startswith(".")]
    images = [f"image/{c:05d}/{c:05d}_{i:04d}.png" for c in range(6) for i in range(5)]
    assert found == sorted(
        [*images, *(f"param/{c:05d}.csv" for c in range(6)), "classes.parquet", "synth.json"]
    )
    rows = (tmp_path / "set/param/00003.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == [
        "Vertex", "Perlin_noise", "line_width", "Center_rad", "Line_num", "Oval_rate_x",
        "Oval_rate_y", "start_pos_h", "start_pos_w",
    ]  # fmt: skip
    pixels = np.asarray(Image.open(tmp_path / "set/image/00003/00003_0004.png"))
    assert np.array_equal(pixels, generator.picture(3, 4).pixels)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 7))
def test_units_hold_every_image_once(classes, instances, per_shard, block):
    class Blocked(VisualAtom):
        @property
        def block(self):
            return block

    generator = Blocked(classes=classes, instances=instances, start_class=3)
    plan = Plan(generator, module.Path("set"), "shards", per_shard)
    seen = []
    for unit in range(plan.units):
        images = [(c, i) for c, first, last in plan.runs(unit) for i in range(first, last)]
        assert len(images) == plan.size(unit)
        seen += images
    assert sorted(seen) == [(c, i) for c in generator.class_ids for i in range(instances)]


# -- what is refused -------------------------------------------------------------------------


def refusal(error, plan, workers=1):
    with pytest.raises(error) as caught:
        build(plan, workers)
    return str(caught.value)


def test_two_configurations_never_share_a_folder(tmp_path):
    out = tmp_path / "set"
    build(Plan(small(), out), 1)
    before = digests(out)
    end = "choose another folder or remove this one"
    for plan, difference in [
        (Plan(small(seed=1), out), "seed is 0 there, 1 was asked for"),
        (Plan(RCDB(**SMALL), out), "kind is 'visualatom' there, 'rcdb' was asked for"),
        (Plan(small(), out, "folder"), "format is 'shards' there, 'folder' was asked for"),
        (Plan(small(), out, per_shard=5), "per_shard is 1000 there, 5 was asked for"),
        (Plan(small(drift=0.2), out), "drift is 0.1 there, 0.2 was asked for"),
    ]:
        assert refusal(UsageError, plan) == f"{out}: holds another set ({difference}); {end}"
    assert digests(out) == before


def test_half_a_set_of_other_settings_is_refused(tmp_path):
    out = tmp_path / "set"
    build(Plan(small(), out, per_shard=5), 1)
    (out / "00003.tar").unlink()
    assert "instances is 5 there, 6 was asked for" in refusal(
        UsageError, Plan(small(instances=6), out, per_shard=5)
    )


def test_a_set_packed_by_another_version_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "set"
    build(Plan(small(), out), 1)
    packer = module.png.PACKER
    monkeypatch.setattr(module.png, "PACKER", "deflate 0")
    assert f"packer is {packer!r} there, 'deflate 0' was asked for" in refusal(
        UsageError, Plan(small(), out)
    )


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert refusal(UsageError, Plan(small(), tmp_path)) == (
        f"{tmp_path}: not empty, and no synthetic set (synth.json is missing); choose another "
        "folder"
    )
    assert refusal(StorageError, Plan(small(), tmp_path / "thesis.txt")) == (
        f"cannot write {tmp_path}/thesis.txt: a file stands where a folder is needed"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_a_corrupt_configuration_is_refused(tmp_path, raw):
    (tmp_path / "synth.json").write_bytes(raw)
    assert refusal(DataError, Plan(small(), tmp_path)) == (
        f"{tmp_path}/synth.json: not the configuration of a synthetic set; remove {tmp_path}"
    )


def test_a_corrupt_table_of_classes_is_named(tmp_path):
    plan = Plan(small(), tmp_path / "set")
    build(plan, 1)
    (plan.out / "classes.parquet").write_bytes(b"PAR1nonsense")
    (plan.out / "00000.tar").unlink()
    assert refusal(DataError, plan).startswith(
        f"{plan.out}/classes.parquet: not a table of classes"
    )


def test_what_the_disk_cannot_hold_is_not_begun(tmp_path):
    plan = Plan(VisualAtom(classes=1_000_000, instances=1_000_000), tmp_path / "set")
    said = refusal(StorageError, plan)
    assert said.startswith(f"{plan.out}: needs about 69,596,000.0 GB and 67.1 MB to spare, but ")
    assert said.endswith(" are free; make fewer images or choose another disk")
    assert list(tmp_path.iterdir()) == []


def with_free(monkeypatch, size):
    usage = shutil.disk_usage(".")._replace(free=size)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)


def test_what_must_be_free_depends_on_the_set(tmp_path, monkeypatch):
    plan = Plan(small(), tmp_path / "set")
    need = plan.bytes_estimate() + (1 << 20)
    with_free(monkeypatch, need - 1)
    needed, free = f"{plan.bytes_estimate() / 1e6:.1f} MB", f"{need / 1e6:.1f} MB"
    assert refusal(StorageError, plan) == (
        f"{plan.out}: needs about {needed} and 1.0 MB to spare, but {free} are free; make fewer "
        "images or choose another disk"
    )
    assert not plan.out.exists()
    with_free(monkeypatch, need)
    assert build(plan, 1).drawn == 30
    with_free(monkeypatch, 0)
    assert build(plan, 1).drawn == 0  # nothing is written any more


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody may write to")
def test_a_place_that_cannot_be_written_is_named_before_its_room():
    assert refusal(StorageError, Plan(small(), module.Path("/proc/set"))) == (
        "cannot write /proc/set: No such file or directory; choose another place"
    )


# -- classes that cannot be had --------------------------------------------------------------

TRIANGLE = "".join(f"0.5,0,0,0.5,{e},{f},{1 / 3}\n" for e, f in [(0, 0), (0.5, 0), (0.25, 0.5)])


def csvs(folder, *texts):
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:05d}.csv").write_text(text)
    return str(folder)


def test_a_search_in_vain_leaves_the_place_free(tmp_path, monkeypatch):
    monkeypatch.setattr("datacomp.pools.synthetic.exfractaldb._TRIES", 50)
    out = tmp_path / "set"
    vain = ExFractalDB(classes=2, instances=1, size=48, variance=0.9)
    assert refusal(DataError, Plan(vain, out)).startswith("exfractaldb: none of 50 ")
    assert list(tmp_path.iterdir()) == []
    assert build(Plan(small(), out), 1).drawn == 30


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_csvs_leave_an_empty_folder_empty(tmp_path, workers):
    out = tmp_path / "set"
    out.mkdir()
    folder = csvs(tmp_path / "csv", TRIANGLE, TRIANGLE + "1,2\n")
    broken = FractalDB(classes=2, instances=1, size=48, parameters=folder)
    assert refusal(DataError, Plan(broken, out), workers) == (
        f"{folder}/00001.csv: line 4: expected 7 numbers, found 2"
    )
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("format", ["shards", "folder"])
def test_a_drawing_that_fails_at_the_first_image_leaves_the_place_free(
    tmp_path, monkeypatch, format
):
    out = tmp_path / "set"
    out.mkdir()
    monkeypatch.setattr(module.png, "encode", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(Plan(RCDB(**SMALL), out, format), 1)
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    assert build(Plan(small(), out), 1).drawn == 30


def test_a_drawing_that_fails_later_goes_on_later(tmp_path, monkeypatch):
    plan = Plan(small(), tmp_path / "set", per_shard=7)
    encode, drawn = module.png.encode, []

    def fails(picture):
        drawn.append(picture.instance)
        return encode(picture) if len(drawn) <= 10 else 1 / 0

    monkeypatch.setattr(module.png, "encode", fails)
    with pytest.raises(ZeroDivisionError):
        build(plan, 1)
    monkeypatch.undo()
    assert "seed is 0 there" in refusal(UsageError, Plan(small(seed=1), plan.out))
    assert build(plan, 1).drawn == 23


def test_a_set_that_was_begun_keeps_its_configuration(tmp_path, monkeypatch):
    """Only the call that wrote ``synth.json`` takes it away."""
    plan = Plan(small(), tmp_path / "set")
    build(plan, 1)
    (plan.out / "classes.parquet").unlink()
    before = digests(plan.out)

    def fail(*_):
        raise MissingError("no numba")

    monkeypatch.setattr(VisualAtom, "find", fail)
    assert refusal(MissingError, plan) == "no numba"
    assert digests(plan.out) == before


def test_files_count_by_what_is_in_them(tmp_path, monkeypatch):
    """The same CSVs by another path are the same set; other CSVs by the same path are not."""
    monkeypatch.chdir(tmp_path)
    folder, out = csvs(tmp_path / "csv", TRIANGLE), tmp_path / "set"
    csvs(tmp_path / "other", TRIANGLE.replace("0.25", "0.125"))

    def plan(path, **more):
        return Plan(
            FractalDB(classes=1, instances=2, size=48, points=500, parameters=path, **more), out
        )

    first = build(plan("csv"), 1)
    again = build(plan(folder), 1)
    assert (first.drawn, again.drawn, again.digest) == (2, 0, first.digest)
    end = "; choose another folder or remove this one"
    held = f"{out}: holds another set ("
    assert refusal(UsageError, plan("other")) == (
        f"{held}00000.csv of other is not the one it was made with){end}"
    )
    assert refusal(UsageError, plan("")) == (
        f"{held}parameters is 'csv' there, '' was asked for){end}"
    )
    (tmp_path / "rows.csv").write_text("1,1,1,1,1,1\n1,1,1,1,1,0.5\n")
    assert refusal(UsageError, plan("csv", weights="rows.csv")) == (
        f"{held}weights is '' there, 'rows.csv' was asked for){end}"
    )
    (tmp_path / "csv/00000.csv").write_text(TRIANGLE.replace("0.25", "0.125"))
    assert refusal(UsageError, plan("csv")) == (
        f"{held}00000.csv of csv is not the one it was made with){end}"
    )


def test_a_set_keeps_the_multipliers_it_was_made_with(tmp_path, monkeypatch):
    """Made with paths relative to one folder, it is read from another, without those files."""
    monkeypatch.chdir(tmp_path)
    csvs(tmp_path / "csv", TRIANGLE)
    (tmp_path / "rows.csv").write_text("1,1,1,1,1,1\n1,1,1,1,1,0.5\n")
    generator = FractalDB(
        classes=1, instances=2, size=48, points=500, parameters="csv", weights="rows.csv"
    )
    build(Plan(generator, module.Path("set")), 1)
    (tmp_path / "rows.csv").write_text("1,1,1,1,1,1\n1,1,1,1,1,0.25\n")
    assert refusal(UsageError, Plan(replace(generator), module.Path("set"))) == (
        "set: holds another set (what is in rows.csv has changed); choose another folder or "
        "remove this one"
    )
    (tmp_path / "rows.csv").unlink()
    monkeypatch.chdir("/")
    found = open_set(tmp_path / "set")
    assert found is not None
    assert found.rows == generator.rows
    assert open_set(tmp_path) is None


FULL = """
import resource, sys
from pathlib import Path
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.visualatom import VisualAtom
from datacomp.errors import StorageError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    build(Plan(VisualAtom(classes=9, instances=9, size=256), Path(sys.argv[1])), 1)
except StorageError as error:
    print(error)
"""


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path):
    out = tmp_path / "set"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(out)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        f"cannot write {out}/00000.tar: the file would exceed the largest size allowed here"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_cannot_be_written_leaves_no_part_of_it(tmp_path, monkeypatch):
    plan = Plan(RCDB(**SMALL), tmp_path / "set", "folder")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        real = module.Path.write_bytes
        patch.setattr(
            module.Path,
            "write_bytes",
            lambda self, data: (full if ".png" in self.name else real)(self, data),
        )
        assert refusal(StorageError, plan) == (
            f"cannot write {plan.out}: the disk is full; free some space and run the same command "
            "again"
        )
    assert [name for name in digests(plan.out) if "png" in name] == []
    assert build(plan, 1).drawn == 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path):
    tmp_path.chmod(0o555)
    assert "no permission to write there" in refusal(StorageError, Plan(small(), tmp_path / "set"))


def test_a_set_that_another_made_meanwhile_is_not_mixed(tmp_path, monkeypatch):
    plan, other = Plan(small(), tmp_path / "set"), Plan(small(seed=7), tmp_path / "set")
    check = module._check_room

    def meanwhile(*args):
        monkeypatch.setattr(module, "_check_room", check)
        build(other, 1)

    monkeypatch.setattr(module, "_check_room", meanwhile)
    with pytest.raises(UsageError, match="seed is 7 there, 0 was asked for"):
        build(plan, 1)


def test_two_processes_never_make_one_set(tmp_path):
    plan = Plan(small(), tmp_path / "set")
    build(plan, 1)
    with module._locked(plan.out):
        assert refusal(StorageError, plan) == (
            f"{plan.out}: another process is making this set; wait for it to end"
        )


def test_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="format is 'zip', expected shards or folder"):
        Plan(small(), tmp_path, "zip")
    with pytest.raises(UsageError, match="per_shard is 0, expected 1 to 100,000"):
        Plan(small(), tmp_path, per_shard=0)
    assert refusal(UsageError, Plan(small(), tmp_path / "set"), 0) == (
        "workers is 0, expected at least 1"
    )
    assert not (tmp_path / "set").exists()


def test_memory_does_not_grow_with_instances(tmp_path):
    peaks = []
    for instances in (20, 200):
        plan = Plan(VisualAtom(classes=2, instances=instances, size=256), tmp_path / str(instances))
        tracemalloc.start()
        build(plan, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    written = (plan.out / "00000.tar").stat().st_size
    assert written > 2_000_000
    assert peaks[1] < peaks[0] + written / 10


def test_the_estimate_is_near_the_truth(tmp_path):
    plan = Plan(VisualAtom(classes=100, instances=2), tmp_path / "set")
    build(plan, 1)
    written = sum(path.stat().st_size for path in plan.out.glob("*.tar"))
    assert 0.5 < plan.bytes_estimate() / written < 2
