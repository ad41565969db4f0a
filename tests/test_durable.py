import errno
import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
import threading

import pytest
from datacomp import durable
from datacomp.errors import DataError, MissingError, StorageError, UnsafeInputError
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
)  # fmt: skip


def limited(body, limit):
    """Run Python in a process whose files may not grow beyond ``limit`` bytes."""
    return subprocess.run(
        [sys.executable, "-c", body],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def test_a_file_appears_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with durable.atomic_path(path) as partial:
        partial.write_text("one")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.name == ".a.txt.partial"
    durable.write_text(path, "zwei – 二")
    assert path.read_bytes() == "zwei – 二".encode()
    assert os.listdir(path.parent) == ["a.txt"]


def test_what_fails_leaves_the_old_file_and_no_partial(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with durable.atomic_path(path) as partial:
            partial.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_stale_partial_never_gets_into_the_file(tmp_path):
    path = tmp_path / "a.txt"
    durable.partial_path(path).write_text("stale and long")
    with durable.atomic_path(path) as partial, partial.open("a") as file:
        file.write("new")
    assert path.read_text() == "new"


def test_a_file_that_may_not_be_written_can_still_be_published(tmp_path):
    with durable.atomic_path(tmp_path / "a") as partial:
        partial.write_text("x")
        partial.chmod(stat.S_IRUSR)
    assert (tmp_path / "a").read_text() == "x"


def test_a_folder_appears_whole(tmp_path):
    durable.partial_path(tmp_path / "d").mkdir()
    (durable.partial_path(tmp_path / "d") / "stale").touch()
    with durable.atomic_directory(tmp_path / "d") as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "f").write_text("x")
        assert not (tmp_path / "d").exists()
    assert [p.name for p in (tmp_path / "d").rglob("*")] == ["sub", "f"]
    assert os.listdir(tmp_path) == ["d"]


def test_a_folder_never_replaces_a_full_one(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").touch()
    with pytest.raises(StorageError) as caught, durable.atomic_directory(tmp_path / "d") as partial:
        (partial / "f").touch()
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'd'}: a folder that is not empty stands there; "
        "remove it or choose another place"
    )
    assert os.listdir(tmp_path) == ["d"]
    assert os.listdir(tmp_path / "d") == ["mine"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
        (errno.EROFS, "the file system is read-only; choose another place"),
        (errno.EACCES, "no permission to write there; choose another place"),
    ],
)
def test_failures_of_the_disk_are_one_line(code, advice):
    with pytest.raises(StorageError) as caught, durable.storage_errors("x/y"):
        raise OSError(code, os.strerror(code))
    assert str(caught.value) == f"cannot write x/y: {advice}"


def test_other_failures_pass_as_they_are():
    with pytest.raises(FileNotFoundError), durable.storage_errors("x"):
        raise FileNotFoundError(errno.ENOENT, "gone", "y")


@pytest.mark.parametrize("path", ["/proc/x.html", "/proc/none/x.html"])
def test_a_place_where_nothing_can_be_made_is_one_line(path):
    with pytest.raises(StorageError) as caught:
        durable.write_text(path, "x")
    assert str(caught.value) == (
        f"cannot write {path}: no file can be made there; choose another place"
    )


def test_a_file_where_a_folder_is_needed_is_one_line(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(StorageError) as caught:
        durable.write_text(tmp_path / "f" / "g", "x")
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'f' / 'g'}: a file stands where")


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path):
    body = (
        "from datacomp.durable import write_bytes\nfrom datacomp.errors import StorageError\n"
        f"try: write_bytes({str(tmp_path / 'big')!r}, b'x' * 100_000)\n"
        "except StorageError as error: print(error)"
    )
    done = limited(body, 10_000)
    assert done.stdout == (
        f"cannot write {tmp_path / 'big'}: the file would exceed the largest size allowed here\n"
    ), done.stderr
    assert os.listdir(tmp_path) == []


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "log"
    durable.append_line(path, "first")
    body = (
        "from datacomp.durable import append_line\nfrom datacomp.errors import StorageError\n"
        f"try: append_line({str(path)!r}, 'x' * 5000)\n"
        "except StorageError: print('refused')\n"
        f"append_line({str(path)!r}, 'short')"
    )
    done = limited(body, 1000)
    assert done.stdout == "refused\n", done.stderr
    assert path.read_text() == "first\nshort\n"


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"whole\n" + b"torn" * 3000)
    durable.append_line(path, "next")
    assert path.read_text() == "whole\nnext\n"
    path.write_bytes(b"torn from the start")
    durable.append_line(path, "é")
    assert path.read_bytes() == "é\n".encode()


def test_two_lines_are_not_a_line(tmp_path):
    with pytest.raises(ValueError, match="a line cannot hold a line break"):
        durable.append_line(tmp_path / "log", "a\nb")
    assert not (tmp_path / "log").exists()


def test_several_writers_lose_no_line(tmp_path):
    path = tmp_path / "log"

    def write(writer):
        for i in range(40):
            durable.append_line(path, f"{writer}-{i}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_text().split()) == sorted(
        f"{w}-{i}" for w in range(4) for i in range(40)
    )


@given(VALUES)
def test_canonical_json_reads_back_and_does_not_depend_on_order(value):
    data = durable.canonical_json(value)
    assert json.loads(data) == value
    assert durable.digest(value) == hashlib.sha256(data).hexdigest()
    if isinstance(value, dict):
        turned = dict(reversed(value.items()))
        assert durable.canonical_json(turned) == data


def test_json_files_are_sorted_and_hold_no_nan(tmp_path):
    durable.write_json(tmp_path / "a", {"b": 1, "a": [1.5]})
    assert (tmp_path / "a").read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    for write in (lambda: durable.write_json(tmp_path / "b", [float("nan")]),
                  lambda: durable.canonical_json(float("inf"))):  # fmt: skip
        with pytest.raises(ValueError, match="not JSON compliant"):
            write()
    assert os.listdir(tmp_path) == ["a"]


def test_json_of_a_stranger_is_read_with_bounds(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1]}')
    assert durable.read_json(path, 10) == {"a": [1]}
    with pytest.raises(UnsafeInputError) as large:
        durable.read_json(path, 9)
    assert str(large.value) == f"{path}: larger than 9 bytes; refused"
    for text in ("", "{", "[" * 100_000, "\0", "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(DataError) as broken:
            durable.read_json(path, 1 << 20)
        assert str(broken.value).startswith(f"{path}: not JSON: ")
    for missing in (tmp_path / "none", tmp_path, path / "below"):
        with pytest.raises(MissingError, match="no such file"):
            durable.read_json(missing, 10)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(data)
    assert durable.sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_what_dead_workers_of_a_cluster_left_is_swept(tmp_path):
    left = [".0.tar.0badcafe-12.partial", ".view.12345678-9.partial"]
    (tmp_path / left[0]).touch()
    (tmp_path / left[1] / "inside").mkdir(parents=True)
    others = ["0.tar", ".0.tar.partial", ".0.tar.badcafe-1.partial", ".0badcafe-12.partial"]
    for name in others:
        (tmp_path / name).touch()
    durable.sweep_attempts(tmp_path, "1.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*left, *others])
    durable.sweep_attempts(tmp_path, "0.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([left[1], *others])
    durable.sweep_attempts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    durable.sweep_attempts(tmp_path / "nowhere")


def test_a_folder_is_held_by_one_process_however_it_ends(tmp_path):
    folder = tmp_path / "new" / "folder"
    code = (
        "import time\n"
        "from datacomp.durable import alone\n"
        f"with alone({str(folder)!r}, 'never said'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StorageError) as caught, durable.alone(folder, "held by another"):
            pass
        assert str(caught.value) == "held by another"
        other.kill()
    with durable.alone(folder, "never said"):
        assert not list(folder.iterdir())
