"""The authors' CSVs: floats come back as they were, and what is no such file is refused."""

import re

import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools.synthetic.ifs_csv import (
    format_system,
    read_system,
    read_weights,
    system_files,
)
from hypothesis import given
from hypothesis import strategies as st

GOOD = "0.1,0.2,0.3,0.4,0.5,0.6,0.25\n-1e-3,0,1,-1,2,3,0.75\n"


@pytest.fixture
def saved(tmp_path):
    def saved(data, name="00003.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return saved


@pytest.mark.parametrize(
    "text", [GOOD, GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n"), "\ufeff" + GOOD]
)
def test_reading(saved, text):
    assert read_system(saved(text), 6) == [
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.25],
        [-0.001, 0.0, 1.0, -1.0, 2.0, 3.0, 0.75],
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6).filter(any))
def test_floats_come_back_as_they_were(tmp_path_factory, row):
    path = tmp_path_factory.mktemp("csv") / "00000.csv"
    path.write_bytes(format_system([[*row, 1.0]]))
    assert read_system(path, 6) == [[*row, 1.0]]


def test_lines_are_written_as_numpy_does():
    assert format_system([[0.1, -2.0]]) == (b"1.000000000000000056e-01,-2.000000000000000000e+00\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; expected lines of 7 numbers"),
        (" \n\n", "empty; expected lines of 7 numbers"),
        ("1,2,3\n", "line 1: expected 7 numbers, found 3"),
        (GOOD + "\n" + GOOD, "line 3: expected 7 numbers, found 1"),
        (GOOD + "0,0,0,0,0,0,0\n", "line 3: all 6 parameters of the map are 0"),
        (GOOD.replace("1e-3", "x"), "line 2: '-x' is no number within 1,000,000 of 0"),
        (GOOD.replace("0.6", "nan"), "line 1: 'nan' is no number within 1,000,000 of 0"),
        (GOOD.replace("0.6", "inf"), "line 1: 'inf' is no number within 1,000,000 of 0"),
        (GOOD.replace("0.6", "1e9"), "line 1: '1e9' is no number within 1,000,000 of 0"),
        (GOOD.replace("0.6", "1_0"), "line 1: '1_0' is no number within 1,000,000 of 0"),
        (GOOD.replace("0.6", ""), "line 1: '' is no number within 1,000,000 of 0"),
        (
            b"\xff\xfe" + GOOD.encode(),
            "line 1: '\ufffd\ufffd0.1' is no number within 1,000,000 of 0",
        ),
        (GOOD.replace("0.75", "-0.75"), "line 2: the chance -0.75 is not within 0 to 1"),
        (GOOD.replace("0.75", "0.5"), "the chances of the 2 maps sum to 0.75, not to 1"),
        ("0,0,0,0,0,0,0\n" * 1001, "1,001 lines, more than 1,000"),
        (b"0" * (1 << 21), "over 1,048,576 bytes, no CSV of a fractal's parameters"),
    ],
)
def test_what_is_no_system_is_refused_by_file_and_line(saved, text, said):
    path = saved(text)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {said}')}$"):
        read_system(path, 6)


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "no.csv"
    with pytest.raises(MissingError, match=f"^cannot read {re.escape(str(path))}: No such file"):
        read_system(path, 6)


def test_multipliers(saved):
    path = saved("1,1,1,1,1,1\n0.2,1,1,1,1,1\n", "weights.csv")
    assert read_weights(path, 6) == ((1.0,) * 6, (0.2, 1.0, 1.0, 1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="line 1: expected 12 numbers, found 6"):
        read_weights(path, 12)


def test_files_are_found_by_number_in_a_folder_and_the_folders_in_it(saved, tmp_path):
    wanted = {7: saved(GOOD, "csv0/00007.csv"), 3: saved(GOOD), 25: saved(GOOD, "csv1/000025.csv")}
    saved("", "readme.csv")
    saved("", "00001.txt")
    saved("", "a/b/00002.csv")
    (tmp_path / "00009.csv").symlink_to(wanted[3])
    (tmp_path / "csv9").symlink_to(tmp_path / "csv0")
    assert system_files(tmp_path) == wanted


def test_two_files_of_a_class_are_refused(saved, tmp_path):
    saved(GOOD, "csv0/00003.csv")
    saved(GOOD, "csv1/00003.csv")
    with pytest.raises(DataError, match=r"class 3 has two files, .*csv0/00003.csv and .*csv1"):
        system_files(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(MissingError, match="there is no such folder of parameter CSVs"):
        system_files(tmp_path / "no")
