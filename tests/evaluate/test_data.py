import json
import os
import shutil

import pytest
from datacomp.durable import sha256_file
from datacomp.errors import DataError, MissingError, UnsafeInputError
from datacomp.evaluate import data
from datacomp.evaluate.data import find_shards, pin


@pytest.fixture
def shards(tmp_path):
    """Three files that stand for shards, one of them in a subfolder."""
    folder = tmp_path / "shards"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("0.tar", "1.tar", "more/2.tar")):
        (folder / name).write_bytes(bytes([number]) * 2000)
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """Names of the shards whose content was read."""
    read = []
    monkeypatch.setattr(data, "sha256_file", lambda path: read.append(path.name) or
                        sha256_file(path))  # fmt: skip
    return read


@pytest.fixture
def large(monkeypatch):
    """Let any data count as too large to be read every time."""
    monkeypatch.setattr(data, "FULL_HASH_LIMIT", 0)


def test_the_fingerprint_follows_content_not_place(shards, tmp_path):
    before = pin(find_shards(shards))
    copy = shutil.copytree(shards, tmp_path / "elsewhere")
    assert pin(find_shards(copy)).fingerprint == before.fingerprint
    stat = (copy / "1.tar").stat()
    (copy / "1.tar").write_bytes(b"x" * 2000)
    os.utime(copy / "1.tar", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert pin(find_shards(copy)).fingerprint != before.fingerprint
    (copy / "1.tar").unlink()
    assert pin(find_shards(copy)).fingerprint != before.fingerprint


def test_what_a_run_records(shards):
    for tar in shards.rglob("*.tar"):
        tar.with_name(f"{tar.stem}_stats.json").write_text('{"successes": 50}')
    found = pin(find_shards(shards))
    assert found.to_dict() == {
        "path": str(shards), "shards": 3, "samples": 150,
        "fingerprint": found.fingerprint, "fingerprint_kind": "content",
    }  # fmt: skip


def test_large_data_are_read_once_by_a_run(shards, tmp_path, hashed, large):
    run = tmp_path / "run"
    first = pin(find_shards(shards), run)
    assert sorted(hashed) == ["0.tar", "1.tar", "2.tar"]
    hashed.clear()
    assert pin(find_shards(shards), run) == first
    assert hashed == []
    os.utime(shards / "1.tar", ns=(0, 0))
    assert pin(find_shards(shards), run) == first
    assert hashed == ["1.tar"]  # touched, but not changed
    assert len((run / "shard_digests.jsonl").read_text().splitlines()) == 4


def test_small_data_are_read_every_time(shards, tmp_path, hashed):
    run = tmp_path / "run"
    assert pin(find_shards(shards), run) == pin(find_shards(shards), run)
    assert len(hashed) == 6
    assert not run.exists()


def test_a_killed_attempt_goes_on(shards, tmp_path, hashed, large):
    run = tmp_path / "run"
    whole = pin(find_shards(shards), tmp_path / "other")
    hashed.clear()
    pin(find_shards(shards), run)
    kept = (run / "shard_digests.jsonl").read_bytes().splitlines(keepends=True)
    (run / "shard_digests.jsonl").write_bytes(kept[0] + kept[1][:30])
    hashed.clear()
    assert pin(find_shards(shards), run) == whole
    assert len(hashed) == 2


def test_kept_digests_are_of_one_folder(shards, tmp_path, hashed, large):
    other = tmp_path / "other"
    shutil.copytree(shards, other, copy_function=shutil.copy2)
    (other / "0.tar").write_bytes(b"y" * 2000)
    os.utime(other / "0.tar", ns=(0, 0))
    os.utime(shards / "0.tar", ns=(0, 0))
    run = tmp_path / "run"
    assert pin(find_shards(shards), run).fingerprint != pin(find_shards(other), run).fingerprint


def test_digests_of_large_data_come_from_the_manifest(shards, tmp_path, hashed, large):
    expected = pin(find_shards(shards), tmp_path / "run").fingerprint
    files = [
        {"path": name, "size": 2000, "sha256": sha256_file(shards / name)}
        for name in ("0.tar", "1.tar")
    ]
    (shards / "manifest.json").write_text(json.dumps({"files": files}))
    hashed.clear()
    found = pin(find_shards(shards))
    assert (found.fingerprint, found.fingerprint_kind) == (expected, "manifest")
    assert hashed == ["2.tar"]
    (shards / "0.tar").write_bytes(b"longer" * 2000)  # of another size than the manifest says
    assert pin(find_shards(shards)).fingerprint != expected


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": [{"path": "0.tar"}]}', "[" * 50_000,
             '{"files": [{"path": "0.tar", "size": 1, "sha256": "no"}]}']
)  # fmt: skip
def test_what_is_no_manifest_is_named(shards, large, text):
    (shards / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: not (JSON|a manifest): "):
        pin(find_shards(shards))


def test_folders_without_shards_are_refused(tmp_path):
    with pytest.raises(MissingError, match="no such folder of shards"):
        find_shards(tmp_path / "none")
    with pytest.raises(DataError, match=r"no \.tar shards found"):
        find_shards(tmp_path)
    (tmp_path / "0.tar").touch()
    with pytest.raises(DataError, match="the shard is empty"):
        find_shards(tmp_path)


def test_a_link_out_of_the_folder_is_refused(shards, tmp_path):
    (tmp_path / "secret.tar").write_bytes(b"x" * 512)
    (shards / "3.tar").symlink_to(tmp_path / "secret.tar")
    with pytest.raises(UnsafeInputError, match=r"3\.tar: a link that leaves the folder"):
        find_shards(shards)


@pytest.mark.parametrize("text", ["{", "{}", '{"successes": Infinity}', '{"successes": "5"}'])
def test_a_number_of_samples_that_is_not_known_is_none(tmp_path, text):
    (tmp_path / "0.tar").write_bytes(b"x" * 512)
    (tmp_path / "0_stats.json").write_text(text)
    assert find_shards(tmp_path).samples is None
