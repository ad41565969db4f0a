"""Manifests: one name for the data, every kind of damage found, hostile names refused."""

import hashlib
import json
import os

import pytest
from datacomp.distribution import manifest
from datacomp.distribution.manifest import FileEntry, Problem
from datacomp.durable import digest
from datacomp.errors import DataError, IntegrityError, MissingError, UnsafeInputError
from hypothesis import given
from hypothesis import strategies as st

HASH = "0" * 64


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.bin").write_bytes(b"bb")
    (folder / "a.bin").write_bytes(b"a")
    (folder / "sub" / "c.bin").write_bytes(b"")
    return folder


def entry(path, content):
    return {
        "path": path,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def of_paths(*paths):
    """Return the JSON of a manifest that fits in all but its names."""
    files = [{"path": path, "size": 1, "sha256": HASH} for path in paths]
    return {
        "format": "datacomp-manifest",
        "version": 1,
        "files": files,
        "total_bytes": len(files),
        "digest": digest(files),
    }


def refusal(path, value, kind=DataError):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(kind) as caught:
        manifest.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


# -- building --------------------------------------------------------------------------------


def test_a_manifest_lists_every_file_sorted(data):
    files = [entry("a.bin", b"a"), entry("b.bin", b"bb"), entry("sub/c.bin", b"")]
    assert manifest.build_manifest(data) == {
        "format": "datacomp-manifest",
        "version": 1,
        "files": files,
        "total_bytes": 3,
        "digest": digest(files),
    }


def test_hidden_files_and_the_manifest_itself_are_left_out(data):
    before = manifest.build_manifest(data)
    (data / ".a.partial").write_text("x")
    (data / ".git").mkdir()
    (data / ".git" / "x").write_text("x")
    manifest.write(data / "manifest.json", before)
    assert manifest.build_manifest(data) == before


def test_only_the_files_asked_for(data):
    found = manifest.build_manifest(data, ["sub/c.bin", "a.bin"])
    assert [item["path"] for item in found["files"]] == ["a.bin", "sub/c.bin"]
    with pytest.raises(MissingError, match=r"none.bin: no such file$"):
        manifest.build_manifest(data, ["none.bin"])
    with pytest.raises(UnsafeInputError, match="is not a plain relative path; refused"):
        manifest.build_manifest(data, ["../data/a.bin"])


def test_workers_change_nothing(data):
    assert manifest.build_manifest(data, workers=4) == manifest.build_manifest(data)


def test_a_link_that_leaves_the_folder_is_refused(data, tmp_path):
    (tmp_path / "secret").write_text("x")
    (data / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeInputError, match=r"link: a link that leaves the folder$"):
        manifest.build_manifest(data)


def test_a_missing_folder_is_missing(tmp_path):
    with pytest.raises(MissingError, match="no such folder"):
        manifest.build_manifest(tmp_path / "none")


@given(st.permutations(["a", "b", "c/d", "é"]))
def test_the_order_given_does_not_matter(names):
    found = manifest.manifest_of(FileEntry(name, 1, HASH) for name in names)
    assert found == manifest.manifest_of(FileEntry(n, 1, HASH) for n in ["a", "b", "c/d", "é"])


def test_the_digest_names_the_data(data):
    before = manifest.build_manifest(data)["digest"]
    (data / "a.bin").write_bytes(b"A")
    assert manifest.build_manifest(data)["digest"] != before
    (data / "a.bin").write_bytes(b"a")
    assert manifest.build_manifest(data)["digest"] == before
    (data / "a.bin").rename(data / "z.bin")
    assert manifest.build_manifest(data)["digest"] != before


# -- writing and loading ---------------------------------------------------------------------


def test_what_is_written_is_loaded(data, tmp_path):
    path = tmp_path / "m.json"
    found = manifest.build_manifest(data)
    manifest.write(path, found)
    assert manifest.load(path) == found
    assert path.read_bytes().startswith(b'{"digest":"')
    assert path.read_bytes().endswith(b',"version":1}\n')


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:/x", "is absolute"),
        ("../x", "is not a plain relative path"),
        ("a/../../x", "is not a plain relative path"),
        ("./x", "is not a plain relative path"),
        ("a//b", "is not a plain relative path"),
        ("a/", "is not a plain relative path"),
        ("a\\b", "has a backslash"),
        ("a\0b", "has control characters"),
        ("a\nb", "has control characters"),
        ("", "is empty or too long"),
        ("x" * 1025, "is empty or too long"),
        ("\ud800", "is not UTF-8"),
    ],
)
def test_unsafe_names_are_refused(tmp_path, name, reason):
    files = [{"path": name, "size": 1, "sha256": HASH}]
    value = {"format": "datacomp-manifest", "version": 1, "files": files}
    message = refusal(tmp_path / "m.json", value, UnsafeInputError)
    assert message == f"file name {name[:80]!r} {reason}; refused"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "a"), "file name 'a' stands there twice; refused"),
        (("A.tar", "a.tar"), "file name 'a.tar' collides with 'A.tar'; refused"),
        (("e\u0301", "\u00e9"), "file name 'é' collides with 'e\u0301'; refused"),
        (("a", "a/b"), "file name 'a/b' needs a folder where 'a' is a file; refused"),
        (("A/b", "a"), "file name 'A/b' needs a folder where 'a' is a file; refused"),
    ],
)
def test_names_that_collide_are_refused(tmp_path, names, message):
    assert refusal(tmp_path / "m.json", of_paths(*names), UnsafeInputError) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "not a manifest (format is not 'datacomp-manifest')"),
        ({"version": 2}, "manifest of version 2, but this datacomp knows 1; update datacomp"),
        ({"files": {}}, "'files' must be a list of {path, size, sha256}"),
        ({"files": [{"path": "a"}]}, "'files' must be a list of {path, size, sha256}"),
        ({"total_bytes": 3}, "total_bytes is not the sum of the sizes"),
        ({"digest": HASH}, "its digest does not fit its list of files; it was altered"),
    ],
)
def test_malformed_manifests_are_refused(tmp_path, change, message):
    assert refusal(tmp_path / "m.json", {**of_paths("a", "b"), **change}) == message


@pytest.mark.parametrize(
    "bad", [{"size": -1}, {"size": True}, {"size": 1.0}, {"sha256": "A" * 64}, {"sha256": ""},
            {"path": 1}, {"more": 1}],
)  # fmt: skip
def test_malformed_entries_are_refused(tmp_path, bad):
    value = of_paths("a")
    value["files"][0] |= bad
    message = refusal(tmp_path / "m.json", value)
    assert message == "'files' must be a list of {path, size, sha256}"


def test_an_unsorted_list_is_refused(tmp_path):
    assert refusal(tmp_path / "m.json", of_paths("b", "a")) == "the files are not sorted by path"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_what_is_no_json_is_refused(tmp_path, text):
    assert refusal(tmp_path / "m.json", text).startswith("not JSON: ")


def test_altered_sizes_are_noticed(tmp_path):
    value = of_paths("a", "b")
    value["files"][0]["size"], value["files"][1]["size"] = 2, 0
    assert refusal(tmp_path / "m.json", value, IntegrityError).startswith("its digest does not fit")


def test_a_huge_manifest_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    message = refusal(tmp_path / "m.json", of_paths("a"), UnsafeInputError)
    assert message == "larger than 10 bytes; refused"


def test_a_missing_manifest_is_missing(tmp_path):
    with pytest.raises(MissingError, match="no such manifest"):
        manifest.load(tmp_path / "none.json")


# -- verifying -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_sound_data_has_no_problems(data, workers):
    assert manifest.verify(data, manifest.build_manifest(data), workers) == []


def test_every_kind_of_damage_is_found_in_order(data, tmp_path):
    (data / "d.bin").write_bytes(b"dddd")
    found = manifest.build_manifest(data)
    (data / "a.bin").unlink()
    (data / "b.bin").write_bytes(b"bbb")
    (data / "d.bin").unlink()
    (data / "d.bin").symlink_to(tmp_path / "elsewhere")
    (data / "new.bin").write_text("not its business")
    assert manifest.verify(data, found) == [
        Problem("a.bin", "missing", "no such file"),
        Problem("b.bin", "size", "3 bytes instead of 2"),
        Problem("d.bin", "unsafe", "a link that leaves the folder"),
    ]


def test_changed_bytes_of_the_same_size_are_found(data):
    found = manifest.build_manifest(data)
    (data / "b.bin").write_bytes(b"bB")
    was, now = (hashlib.sha256(content).hexdigest() for content in (b"bb", b"bB"))
    assert manifest.verify(data, found) == [
        Problem("b.bin", "digest", f"SHA-256 {now} instead of {was}")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_a_problem_not_an_end(data):
    found = manifest.build_manifest(data)
    (data / "a.bin").chmod(0)
    assert manifest.verify(data, found) == [Problem("a.bin", "unreadable", "Permission denied")]
