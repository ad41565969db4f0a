"""Getting a release over HTTP: whole, verified, resumed and repaired; and what the command says."""

import json
import os

import pytest
from datacomp.distribution.getting import get

from .conftest import HTTP, contents, options


@pytest.mark.parametrize("path", ["", "latest.json", "versions/1/manifest.json"])
def test_a_version_arrives_whole(publish, serving, files, tmp_path, path):
    server = serving(publish(files))
    report = get(server.url + path, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files
    total = sum(map(len, files.values()))
    assert (report.whole, report.signed, report.version) == (True, True, "1")
    assert (report.files, report.fetched_files, report.bytes) == (5, 5, total)
    assert report.channels == {"http": total}
    assert report.to_dict()["sources"][0]["standing"] == "used"


def test_what_is_there_is_not_fetched_again(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    before = server.given
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.reused_files, report.fetched, report.sources) == (5, 0, [])
    assert server.given - before < 10_000
    assert not list((tmp_path / "got/.datacomp/partial").iterdir())


def test_copies_made_by_others_are_checked_and_kept(publish, serving, files, tmp_path):
    server = serving(publish(files))
    (tmp_path / "got").mkdir()
    (tmp_path / "got/00000.tar").write_bytes(files["00000.tar"])
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.reused_files, report.fetched_files) == (1, 4)
    assert contents(tmp_path / "got") == files


def test_only_the_wrong_blocks_of_a_damaged_file_are_fetched(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    with (tmp_path / "got/00002.tar").open("r+b") as file:
        file.seek((1 << 20) + 5)
        file.write(b"wrong")
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.fetched, report.reused_files) == (1 << 20, 4)
    assert contents(tmp_path / "got") == files


def test_rehash_finds_what_the_clock_hides(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    place = tmp_path / "got/00002.tar"
    status = place.stat()
    with place.open("r+b") as file:
        file.write(b"wrong")
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert get(server.url, tmp_path / "got", HTTP).fetched == 0
    assert get(server.url, tmp_path / "got", options(rehash=True)).fetched == 1 << 20
    assert contents(tmp_path / "got") == files


def test_an_unfinished_file_goes_on_where_it_stopped(publish, serving, files, tmp_path):
    server = serving(publish(files))
    partial = tmp_path / "got/.datacomp/partial"
    partial.mkdir(parents=True)
    manifest = json.loads((tmp_path / "releases/versions/1/manifest.json").read_text())
    digest = next(f["sha256"] for f in manifest["files"] if f["path"] == "00003.tar")
    (partial / digest).write_bytes(files["00003.tar"][: 2 << 20])
    report = get(server.url, tmp_path / "got", options(connections=1))
    assert contents(tmp_path / "got") == files
    assert report.fetched == report.bytes - (2 << 20)
    assert ("/versions/1/birds/00003.tar", f"bytes={2 << 20}-") in server.asked


def test_a_wrong_beginning_costs_its_blocks_only(publish, serving, files, tmp_path):
    server = serving(publish({"00000.tar": files["00000.tar"]}))
    partial = tmp_path / "got/.datacomp/partial"
    partial.mkdir(parents=True)
    manifest = json.loads((tmp_path / "releases/versions/1/manifest.json").read_text())
    (partial / manifest["files"][0]["sha256"]).write_bytes(
        bytes(100) + files["00000.tar"][100 : 2**21]
    )
    report = get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == {"00000.tar": files["00000.tar"]}
    assert report.fetched == (1 << 20) + len(files["00000.tar"]) - 2**21
    assert report.sources[0]["reasons"] == []  # nobody is blamed for what was there before


def test_equal_and_empty_files_and_folders(publish, serving, tmp_path):
    files = {"a/one.txt": b"same", "a/b/two.txt": b"same", "empty": b"", "none": b""}
    server = serving(publish(files))
    report = get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files
    assert (report.fetched_files, report.fetched) == (4, 4)


def test_names_that_urls_must_quote(publish, serving, tmp_path):
    files = {"a b/ü#?%41&.txt": b"one", "{1..2}.txt": b"two"}
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files


def test_the_command_tells_what_it_did(publish, serving, files, tmp_path, command):
    server = serving(publish(files))
    code, out, _ = command("get", server.url, tmp_path / "got", "--no-bittorrent")
    *_, row, last = out.splitlines()
    total = sum(map(len, files.values()))
    assert code == 0
    assert row.split() == [f"{server.url}versions/1/birds/", "http", "5", str(total), "used"]
    start = f"{tmp_path}/got: birds 1, 5 of 5 files there and verified, 0 of them before; fetched "
    assert last.startswith(f"{start}{total:,} bytes in ")
    code, out, _ = command("get", server.url, tmp_path / "got", "--no-bittorrent", "--json")
    assert (code, json.loads(out)["fetched_bytes"]) == (0, 0)


def test_the_command_names_what_is_missing(publish, serving, files, flip, tmp_path, command):
    server = serving(publish(files), flip(5))
    code, out, err = command("get", server.url, tmp_path / "got", "--no-bittorrent")
    assert code == 1
    assert f"missing: 00001.tar: {server.url}versions/1/birds/ gave 1 wrong block" in out
    assert "not whole: run the same command again, or name another --mirror" in out
    assert "warning: " in err


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, command):
    code, out, err = command("get", "nowhere", tmp_path / "got")
    assert (code, out) == (2, "")
    assert err == (
        "error: nowhere: not a source; expected the URL of a manifest, a .torrent, a .meta4, "
        "magnet:, ipfs:// or ipns://\n"
    )
