"""The classes of a set on disk: states beside the table, known by their digest."""

import tracemalloc

import pyarrow.parquet as pq
import pytest
from datacomp.errors import IntegrityError, MissingError
from datacomp.pools.synthetic.classes import ClassTable, find_classes
from datacomp.pools.synthetic.fractaldb import FractalDB
from datacomp.pools.synthetic.rcdb import RCDB
from datacomp.pools.synthetic.visualatom import VisualAtom

EXACT = RCDB(classes=6, instances=3, size=16, mode="exact", processes=3, start_class=40)


def found(generator):
    return [record for group in generator.groups() for record in generator.find(group)]


@pytest.mark.parametrize("workers", [1, 2])
def test_classes_come_back_as_they_were_found(tmp_path, workers):
    find_classes(EXACT, tmp_path, workers)
    records = found(EXACT)
    assert list(ClassTable(tmp_path, 40).records(40, 46)) == records
    assert list(ClassTable(tmp_path, 40).records(43, 45)) == records[3:5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".states", "classes.parquet"]


def test_the_same_bytes_come_out_after_an_interruption(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    find_classes(EXACT, whole, 1)
    find_classes(EXACT, broken, 1)
    (broken / "classes.parquet").unlink()
    parts = broken / ".classes"
    parts.mkdir()
    (parts / "00001.states").write_bytes(b"killed before the table of the group")
    find_classes(EXACT, broken, 1)
    for name in (".states", "classes.parquet"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert not parts.exists()


@pytest.mark.parametrize(
    "generator",
    [VisualAtom(classes=3, instances=2, size=16), FractalDB(classes=2, instances=2, rate=0.05)],
)
def test_without_states_there_is_no_file_and_none_is_needed(tmp_path, generator):
    find_classes(generator, tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["classes.parquet"]
    table = ClassTable(tmp_path, 0)
    assert list(table.records(0, generator.classes)) == found(generator)
    assert b"states_sha256" not in (pq.read_schema(tmp_path / "classes.parquet").metadata or {})


def test_other_states_are_never_drawn_from(tmp_path):
    find_classes(EXACT, tmp_path, 1)
    states, remedy = tmp_path / ".states", "run the same 'datacomp synth' command again"
    good = states.read_bytes()
    for bad in (b"", good[:-1], good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]):
        states.write_bytes(bad)
        with pytest.raises(IntegrityError) as caught:
            list(ClassTable(tmp_path, 40).records(40, 41))
        assert str(caught.value) == (
            f"{states}: not what was written with the classes; remove {tmp_path}/classes.parquet "
            f"and {remedy}"
        )
    states.write_bytes(good)
    table = pq.read_table(tmp_path / "classes.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "classes.parquet")
    with pytest.raises(IntegrityError, match="not what was written with the classes"):
        list(ClassTable(tmp_path, 40).records(40, 41))
    pq.write_table(table, tmp_path / "classes.parquet")
    states.unlink()
    with pytest.raises(MissingError) as missing:
        list(ClassTable(tmp_path, 40).records(40, 41))
    assert str(missing.value) == (
        f"{states}: missing; copy it along with the set, or remove {tmp_path}/classes.parquet "
        f"and {remedy}"
    )
    (tmp_path / "classes.parquet").unlink()
    find_classes(EXACT, tmp_path, 1)
    assert states.read_bytes() == good


def test_states_are_held_once(tmp_path):
    generator = RCDB(classes=1, instances=2000, size=16, mode="exact")
    find_classes(RCDB(classes=1, instances=1, size=16, mode="exact"), tmp_path / "warm", 1)
    tracemalloc.start()
    find_classes(generator, tmp_path / "set", 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "set" / ".states").stat().st_size
    assert size == 2000 * (4 * 625 + 8 * 5)
    assert peak < 1.5 * size
