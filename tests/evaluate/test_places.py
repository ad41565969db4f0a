"""Evaluation sets on a web server and on the Hub, streamed."""

import hashlib
import json
import os
import re

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.evaluate import harness, stream
from datacomp.evaluate.digests import record_folder, recorded
from datacomp.evaluate.evalsets import open_evalset
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.parquet_sets import rows_of
from datacomp.evaluate.stream import sha256_of, streamed
from datacomp.evaluate.tasks import select_tasks


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tasks(sets):
    sets.write("colours", size=13)
    sets.write("wild", "wilds", size=7)
    sets.write("pairs", "retrieval", size=5)
    sets.parquet("winogavil", sets.puzzles(4), files=2)
    return [
        sets.task("colours", size=13), sets.task("wild", "wilds", size=7),
        sets.task("pairs", "retrieval", size=5),
        sets.task("misc/winogavil", "winogavil", size=4),
    ]  # fmt: skip


def publish(server, folder, prefix="/sets"):
    """Put the files of a folder on the server."""
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{prefix}/{path.relative_to(folder)}"
            server.files[name] = (path.read_bytes(), f'"{path.stat().st_mtime_ns}"')
    return f"{server.url}{prefix}"


def test_streamed_sets_give_the_same_bytes(sets, tasks, tiny, tmp_path, server, capsys):
    url = publish(server, sets.data)
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert evaluate(tiny(0), sets.data, tasks, here, device="cpu").failed == {}
    assert evaluate(tiny(0), url, tasks, there, device="cpu").failed == {}
    assert there.read_bytes() == here.read_bytes()
    assert recorded(url) == recorded(sets.data)
    assert not list(tmp_path.rglob("*.tar.part*"))
    assert capsys.readouterr().err == ""


def test_every_tar_is_fetched_once_and_not_at_all_by_a_rerun(sets, tasks, tiny, tmp_path, server):
    url = publish(server, sets.data)
    evaluate(tiny(0), url, tasks[:2], tmp_path / "r.jsonl", device="cpu")
    fetched = [where for place, where in server.asked if place.endswith(".tar")]
    whole = [where for where in fetched if where != "bytes=0-0"]  # that asks for size and version
    assert sorted(whole) == sorted(
        f"bytes=0-{len(data) - 1}"
        for name, (data, _) in server.files.items()
        if name.endswith(".tar") and ("colours" in name or "wild" in name)
    )
    server.asked.clear()
    again = evaluate(tiny(0), url, tasks[:2], tmp_path / "r.jsonl", device="cpu")
    assert again.skipped == ["colours", "wild"]
    assert {where for place, where in server.asked if place.endswith(".tar")} == {"bytes=0-0"}


def test_a_local_tar_is_read_once(sets, tasks, tiny, tmp_path, monkeypatch):
    read: list[tuple[str, int, int]] = []
    real = stream.open_ranges

    def counting(place):
        file = real(place)
        inner = file.read
        file.read = lambda offset, size: read.append((place, offset, size)) or inner(offset, size)
        return file

    monkeypatch.setattr(stream, "open_ranges", counting)
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "r.jsonl", device="cpu")
    folder = sets.data / "wds_colours_test/test"
    assert read == [(str(folder / f"{n}.tar"), 0, (folder / f"{n}.tar").stat().st_size)
                    for n in range(2)]  # fmt: skip


@pytest.mark.parametrize("rerun", [False, True])
def test_a_cache_where_nobody_can_write_is_a_warning(
    sets, tasks, tiny, tmp_path, server, monkeypatch, capsys, rerun
):
    url = publish(server, sets.data)
    (tmp_path / "no_folder").write_text("a file, whoever runs this")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no_folder"))
    for _ in range(1 + rerun):
        found = evaluate(tiny(0), url, tasks[:1], tmp_path / "r.jsonl", device="cpu")
        assert (found.failed, len(found.results)) == ({}, 1)
        (said,) = [x for x in capsys.readouterr().err.splitlines() if "warning:" in x]
        assert said.startswith(f"warning: cannot write {record_folder(url)}: ")
        assert said.endswith("the digest of 1 set is not recorded, so nothing will notice if they "
                             "change")  # fmt: skip


def test_a_result_is_not_lost_when_its_set_cannot_be_pinned_again(
    sets, tasks, tiny, tmp_path, server, monkeypatch
):
    url = publish(server, sets.data)
    measure = harness.measure

    def measured(*arguments):
        found = measure(*arguments)
        server.files.clear()  # from now on the server knows nothing
        return found

    monkeypatch.setattr(harness, "measure", measured)
    found = evaluate(tiny(0), url, tasks[:1], tmp_path / "r.jsonl", device="cpu")
    assert (found.failed, len(found.results)) == ({}, 1)
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def test_a_local_parquet_file_that_changes_while_it_is_read_is_refused(sets):
    file = next(sets.parquet("pairs", sets.pairs(40)).glob("*.parquet"))
    digests: dict[str, str] = {}
    rows = rows_of([str(file)], ("caption",), digests)
    next(rows)
    assert digests == {str(file): sha256_of(str(file))}
    os.utime(file, ns=(1, 1))
    with pytest.raises(DataError, match="changed"):
        list(rows)


def test_a_set_that_changes_on_the_server_is_refused(sets, tasks, tiny, tmp_path, server):
    url = publish(server, sets.data)
    evaluate(tiny(0), url, tasks[:1], tmp_path / "r.jsonl", device="cpu")
    names = "/sets/wds_colours_test/classnames.txt"
    server.files[names] = (b"a\nb\nc\nd\ne\nf\n", "x")
    found = evaluate(tiny(0), url, tasks[:1], tmp_path / "other.jsonl", device="cpu")
    record = record_folder(url) / "digests.jsonl"
    assert found.failed["colours"].startswith(
        f"colours: the evaluation set is not what {record} recorded ("
    )
    assert not (tmp_path / "other.jsonl").exists()


def test_the_digests_that_a_mirror_publishes_count(sets, tasks, tiny, tmp_path, server):
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "here.jsonl", device="cpu")
    url = publish(server, sets.data)
    templates = "/sets/wds_colours_test/zeroshot_classification_templates.txt"
    server.files[templates] = (b"{c}\n", "x")
    found = evaluate(tiny(0), url, tasks[:1], tmp_path / "r.jsonl", device="cpu")
    assert f"is not what {url}/digests.jsonl recorded (" in found.failed["colours"]
    assert recorded(url) == {}


def test_a_set_cut_short_on_the_server_is_an_error(sets, tiny, tmp_path, server):
    sets.write("colours", size=11)
    url = publish(server, sets.data)
    found = evaluate(tiny(0), url, [sets.task("colours")], tmp_path / "r.jsonl", device="cpu")
    assert found.failed["colours"].endswith("11 samples, task colours has 12; its score would be "
                                            "another; fetch the evaluation set again")  # fmt: skip
    assert recorded(url) == {}
    del server.files["/sets/wds_colours_test/test/1.tar"]
    found = evaluate(tiny(0), url, [sets.task("colours")], tmp_path / "r.jsonl", device="cpu")
    assert found.failed["colours"] == f"{url}/wds_colours_test/test/1.tar: no such file (404)"


def test_a_connection_that_breaks_is_taken_up_again(sets, tasks, tiny, tmp_path, server):
    url = publish(server, sets.data)
    server.breaks = 2
    assert evaluate(tiny(0), url, tasks[:1], tmp_path / "r.jsonl", device="cpu").failed == {}


def test_the_hub_is_read_as_published(sets, tasks, tiny, tmp_path, server, monkeypatch):
    publish(server, sets.data / "wds_colours_test",
            "/datasets/djghosh/wds_colours_test/resolve/main")  # fmt: skip
    publish(server, sets.data / "winogavil", "/parquet")
    urls = [f"{server.url}/parquet/test-{n:05d}-of-00002.parquet" for n in range(2)]
    listing = json.dumps({"TEST": {"test": urls}}).encode()
    server.files["/api/datasets/nlphuji/winogavil/parquet"] = (listing, "x")
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    chosen = [tasks[0], tasks[3]]
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    evaluate(tiny(0), sets.data, chosen, here, device="cpu")
    assert evaluate(tiny(0), "hub", chosen, there, device="cpu").failed == {}
    assert there.read_bytes() == here.read_bytes()
    server.files["/api/datasets/nlphuji/winogavil/parquet"] = (b'{"error": "gated"}', "x")
    with pytest.raises(DataError, match=r"winogavil/parquet: no parquet files of a test split li"):
        open_evalset("hub", tasks[3])
    with pytest.raises(MissingError) as caught:
        open_evalset("hub", tasks[1])
    place = f"{server.url}/datasets/djghosh/wds_wild_test/resolve/main"
    assert str(caught.value) == (
        f"no data of task wild: there is no folder {place}; is that the right place?"
    )


def test_a_gate_that_is_shut_does_not_stop_the_others(
    sets, tasks, tiny, tmp_path, server, monkeypatch
):
    publish(server, sets.data / "wds_colours_test",
            "/datasets/djghosh/wds_colours_test/resolve/main")  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    answer = server.do_GET

    def do_GET(self):
        gated = "winogavil" in self.path
        return self.answer(403, b"no") if gated else answer(self)

    monkeypatch.setattr(server, "do_GET", do_GET)
    output = tmp_path / "r.jsonl"
    found = evaluate(tiny(0), "hub", [tasks[0], tasks[3]], output, device="cpu")
    assert [result.key for result in found.results] == ["colours"]
    assert found.failed == {
        "misc/winogavil": f"{server.url}/api/datasets/nlphuji/winogavil/parquet: not open to you: "
        f"if it is gated, accept its terms at {server.url}/datasets/nlphuji/winogavil with the "
        "account of the token (403)"
    }
    assert "hf_secret" not in output.read_text()


def test_parquet_files_on_the_web_are_found_by_their_usual_names(sets, tasks, server):
    url = publish(server, sets.data)
    assert [s.rpartition("/")[2] for s in open_evalset(url, tasks[3]).shards] == [
        "test-00000-of-00002.parquet", "test-00001-of-00002.parquet"
    ]  # fmt: skip
    for name in list(server.files):
        if name.endswith(".parquet"):
            number = name.rpartition("/")[2][6:10]
            server.files[f"/converted/winogavil/{number}.parquet"] = server.files[name]
    found = open_evalset(f"{server.url}/converted", tasks[3])
    assert [s.rpartition("/")[2] for s in found.shards] == ["0000.parquet", "0001.parquet"]
    assert len(list(found.puzzles())) == 4


def test_what_lies_at_a_url_must_be_named(server):
    with pytest.raises(UsageError, match=r"cannot be listed; name tasks with --tasks or --suite"):
        select_tasks(data=server.url)
    with pytest.raises(UsageError, match=r"^hub: what lies there cannot be listed"):
        select_tasks(data="hub")


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_a_stream_is_the_file(tmp_path, monkeypatch, block):
    monkeypatch.setattr(stream, "BLOCK", block)
    data = b"\0\0" + np.random.default_rng(block).bytes(497) + b"\1"
    (tmp_path / "f").write_bytes(data)
    with streamed(str(tmp_path / "f")) as found:
        assert found.total == 500
        assert found(3, 5) == data[3:8]
        assert found(0, 2) == data[:2]
        assert found(100, 150) == data[100:250]
        found.release(200)
        assert found(200, 60) == data[200:260]
        assert found(10, 20) == data[10:30]  # released: read again
        assert found(490, 50) == data[490:]
        assert found.digest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_zeros_at_the_end_are_not_hashed(tmp_path, monkeypatch, block):
    """A release pads tars with zeros; they stay the same evaluation set."""
    monkeypatch.setattr(stream, "BLOCK", block)
    data = b"\0" * 9 + b"a" + b"\0" * 100 + b"b"
    for zeros in (0, 1, 500):
        (tmp_path / "f").write_bytes(data + bytes(zeros))
        assert stream.sha256_of(str(tmp_path / "f")) == hashlib.sha256(data).hexdigest()
    (tmp_path / "f").write_bytes(bytes(70_000))
    assert stream.sha256_of(str(tmp_path / "f")) == hashlib.sha256().hexdigest()


def test_a_stream_keeps_little(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK", 10)
    monkeypatch.setattr(stream, "MAX_KEPT", 100)
    (tmp_path / "f").write_bytes(bytes(range(250)) * 8)
    with streamed(str(tmp_path / "f")) as found:
        found(1990, 10)
        assert sum(map(len, found._blocks)) <= 110
        assert found(0, 3) == bytes(range(3))


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    (tmp_path / "f").write_bytes(b"a" * 100)
    with streamed(str(tmp_path / "f")) as found:
        found(0, 10)
        (tmp_path / "f").write_bytes(b"b" * 100)
        with pytest.raises(DataError, match=re.escape("f: changed while it was read; run the sa")):
            found.digest()
