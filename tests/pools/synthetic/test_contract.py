"""Parameters are checked when a generator is made; a digest names them."""

import errno
import importlib
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.pools.synthetic import generator_class
from datacomp.pools.synthetic.rcdb import RCDB
from datacomp.pools.synthetic.visualatom import VisualAtom

REFUSED = [
    (VisualAtom, {"classes": 0}, "visualatom: classes is 0, expected 1 to 10,000,000"),
    (VisualAtom, {"instances": -1}, "visualatom: instances is -1, expected 1 to 100,000,000"),
    (VisualAtom, {"size": 100_000}, "visualatom: size is 100000, expected 1 to 8,192"),
    (VisualAtom, {"size": 2.5}, "visualatom: size is 2.5, expected int"),
    (VisualAtom, {"size": True}, "visualatom: size is True, expected int"),
    (VisualAtom, {"drift": float("nan")}, "visualatom: drift is nan, expected 0 to 100"),
    (VisualAtom, {"drift": float("inf")}, "visualatom: drift is inf, expected 0 to 100"),
    (VisualAtom, {"mode": "slow"}, "visualatom: mode is 'slow', expected one of fast, exact"),
    (VisualAtom, {"vertices_min": 900, "vertices_max": 800},
     "visualatom: vertices_min is 900, more than vertices_max 800"),
    (VisualAtom, {"orbits_min": 201}, "visualatom: orbits_min is 201, more than orbits_max 200"),
    (VisualAtom, {"vertices_min": 2}, "visualatom: vertices_min is 2, expected 3 to 20,000"),
    (VisualAtom,
     {"frequency1_min": 5, "frequency1_max": 5, "frequency2_min": 5, "frequency2_max": 5},
     "visualatom: frequency2 is always 5, which frequency1 may be too, but the two must differ; "
     "widen the range of frequency2"),
    (VisualAtom, {"mode": "exact", "classes": 10, "processes": 3},
     "visualatom: 10 classes cannot be split over 3 processes; in exact mode classes must be a "
     "multiple of processes"),
    (VisualAtom, {"mode": "exact", "size": 224, "canvas": 512},
     "visualatom: canvas is 512; in exact mode it is the image's size (224), since the authors' "
     "code does not scale"),
    (VisualAtom, {"processes": 4},
     "visualatom: processes is 4, but only exact mode depends on it; use --workers to run several"),
    (RCDB, {"orbits_min": 9, "orbits_max": 8},
     "rcdb: orbits_min is 9, more than orbits_max 8"),
    (RCDB, {"vertices_min": 5000, "vertices_max": 6000},
     "rcdb: 5000 to 6000 vertices is next to impossible with a mean of 100; widen the range, or "
     "move the mean"),
    (RCDB, {"vertices_min": 400, "vertices_max": 600, "vertices_mean": 25.0},
     "rcdb: 400 to 600 vertices is next to impossible with a mean of 25; widen the range, or move "
     "the mean"),
    (RCDB, {"vertices_min": 3, "vertices_max": 3, "vertices_mean": 20000.0},
     "rcdb: 3 to 3 vertices is next to impossible with a mean of 20000; widen the range, or move "
     "the mean"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "said"), REFUSED, ids=[row[2][:60] for row in REFUSED])
def test_what_cannot_be_drawn_is_refused_in_one_line(kind, options, said):
    with pytest.raises(UsageError) as caught:
        kind.with_options(options)
    assert str(caught.value) == said


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"unknown option 'vertexes_min' \(did you mean 'vertices"):
        VisualAtom.with_options({"vertexes_min": 3})
    with pytest.raises(UsageError) as caught:
        generator_class("visualatoms")
    assert str(caught.value) == (
        "unknown kind of generator 'visualatoms' (did you mean 'visualatom'?); there are: "
        "visualatom, rcdb, fractaldb, exfractaldb"
    )


def test_an_image_that_is_not_in_the_set_is_refused():
    with pytest.raises(UsageError) as caught:
        VisualAtom(classes=3, instances=2, start_class=5).picture(8, 0)
    assert str(caught.value) == (
        "visualatom: no image of class 8, instance 0; there are classes 5 to 7 of 2 each"
    )


def test_every_parameter_is_part_of_the_name():
    plain = VisualAtom()
    digests = {plain.digest()}
    for name, value in plain.options().items():
        changed = {"mode": "exact", "size": 511, "canvas": 511}.get(name)
        if changed is None:
            step = -1 if name.endswith("_max") else 1
            changed = 500 if name == "processes" else value + step
        more = {"mode": "exact"} if name == "processes" else {}
        digests.add(replace(plain, **{name: changed}, **more).digest())
    assert len(digests) == 1 + len(plain.options())
    assert plain.digest() == VisualAtom.with_options(plain.options()).digest()
    assert RCDB().digest() not in digests


def test_groups_hold_every_class_once():
    for classes in (1, 3, 64, 65, 1000, 21_000):
        generator = VisualAtom(classes=classes, start_class=7)
        found = [one for group in generator.groups() for one in group]
        assert found == list(range(7, 7 + classes))


def test_generators_travel_to_other_processes():
    generator = RCDB(classes=5, mode="exact")
    assert pickle.loads(pickle.dumps(generator)) == generator


LIGHT = """
import sys
from datacomp.pools.synthetic import generator_class
from datacomp.pools.synthetic.build import Plan
generator_class("visualatom")().digest()
print(*(set(sys.modules) & {"numpy", "numba", "pyarrow", "duckdb", "PIL", "torch"}))
"""


def test_importing_compiles_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


READ_ONLY = """
import os, sys, pathlib
os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = "/proc/nowhere"
import numba.core.caching as caching
for locator in caching.CacheImpl._locator_classes:
    locator.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError("read-only"))
from datacomp.pools.synthetic import draws
import numpy as np
print(type(draws.bits._cache).__name__, int(draws.bits(np.uint64(0), 0)))
"""


def test_kernels_work_where_nothing_can_be_written():
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "NullCache 16294208416658607535"


def test_numba_is_needed(monkeypatch):
    name = "datacomp.pools.synthetic.jit"
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingError) as caught:
        importlib.import_module(name)
    assert str(caught.value) == (
        "synthetic images need numba; install it with: pip install -e '.[synth]'"
    )


def test_machine_code_is_kept_under_the_name_of_what_it_is(tmp_path, monkeypatch):
    """Others that compile at the same time, and those that die, leave nothing wrong behind."""
    from datacomp.pools.synthetic import jit

    files, others = (jit._Files(str(tmp_path), "twice-1.py311", None) for _ in range(2))
    assert files.load(("int64", "x86")) is None
    files.save(("int64", "x86"), "of integers")
    others.save(("float64", "x86"), "of floats")
    assert files.load(("float64", "x86")) == "of floats"
    assert others.load(("int64", "x86")) == "of integers"
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    assert files.load(("int64", "x86")) is None
    monkeypatch.setattr(jit._Files, "_open_for_write", _full)
    files.save(("int64", "arm"), "of no disk")
    assert files.load(("int64", "arm")) is None


def _full(self, path):
    raise OSError(errno.ENOSPC, "full")


def test_a_change_of_a_kernel_that_is_called_is_noticed(monkeypatch):
    from datacomp.pools.synthetic import contour_kernels, deflate, jit

    def found():
        jit._digest_of_kernels.cache_clear()
        return [jit._digest_of_kernels(one.__file__) for one in (contour_kernels, deflate)]

    before, read = found(), jit.Path.read_bytes
    assert contour_kernels.draw_fast._cache._sources == before[0] != before[1]
    changed = lambda path: read(path) + b"#" * (path.name == "lines.py")  # noqa: E731
    monkeypatch.setattr(jit.Path, "read_bytes", changed)
    after = found()
    assert (after[0] != before[0], after[1]) == (True, before[1])
    jit._digest_of_kernels.cache_clear()
