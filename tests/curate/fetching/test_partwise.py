"""Fetching a folder of metadata, file by file, without a pool of the whole."""

import contextlib
import json
import os
import random
import shutil
import signal
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.embedding import embed_metadata
from datacomp.curate.fetching import outcome_files, partwise
from datacomp.curate.fetching.job import Job
from datacomp.curate.shards import check_shards
from datacomp.curate.shards.index import load_index
from datacomp.curate.subset import write_subset
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools import Pool
from datacomp.pools.embedding import partwise as partwise_embedding
from datacomp.pools.embedding.recipe import Recipe
from datacomp.pools.engine import Local
from datacomp.pools.sources import open_source
from datacomp.pools.uids import from_hex


@pytest.fixture
def metadata(tmp_path, urls):
    """Return a maker of folders of metadata: the uid of sample i is i, scattered."""

    def metadata(name="metadata", files=None, bad=(), **columns):
        files = {"00ab": 9, "10cd": 5, "20ef": 1} if files is None else files
        total = sum(files.values())
        table = {
            "uid": [uid_of(i) for i in range(total)], "url": urls(total, bad),
            "text": [f"caption {i}" for i in range(total)],
        } | columns  # fmt: skip
        first = 0
        for file, count in files.items():
            rows = slice(first, first + count)
            own = {key: values[rows] for key, values in table.items()}
            write(tmp_path / name / f"{file}.parquet", own)
            first += count
        return tmp_path / name

    return metadata


def uid_of(number):
    return f"{(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}"


def write(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def outcomes(out):
    """Return state, reason and attempts of every URL, by the number of its sample."""
    numbers = {uid_of(i): i for i in range(100)}
    return {
        numbers[row["uid"]]: (row["state"], row["reason"], row["attempts"])
        for path in sorted((out / "outcomes").rglob("*.parquet"))
        for row in pq.read_table(path, partitioning=None).to_pylist()
    }


def images(out):
    """Return image and caption by uid, of all tars."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            data = {member.name: tar.extractfile(member).read() for member in tar}
        for name in [name for name in data if name.endswith(".json")]:
            key, uid = name.removesuffix(".json"), json.loads(data[name])["uid"]
            assert uid not in found
            found[uid] = data[f"{key}.jpg"], data[f"{key}.txt"]
    return found


@pytest.fixture
def linked(tmp_path):
    """Return a maker of pools that link to a folder of metadata."""

    def linked(folder):
        path = tmp_path / f"{folder.name}.duckdb"
        with Pool.create(path) as pool:
            pool.add(open_source("commonpool", folder, link=True))
        return path

    return linked


def test_a_folder_of_one_file_gives_what_a_pool_gives(
    metadata, linked, fetch, made, states, web, tmp_path
):
    folder = metadata(files={"only": 12}, bad=(3, 4))
    report = fetch(folder, tmp_path / "out", per_shard=5)
    assert (report.fetched, report.failed, report.shards) == (10, {"http_404": 2}, 3)
    assert (report.available, report.samples, report.before) == (10, 12, 0)
    pool = linked(folder)
    fetch(pool, tmp_path / "single", per_shard=5)
    ours, theirs = made(tmp_path / "out"), made(tmp_path / "single")
    assert [d.pop("fetch.json")[:1] for d in (ours, theirs)] == [b"{", b"{"]
    assert ours == theirs
    with Pool.open(pool, read_only=True) as opened:
        rows = opened.sql(
            "SELECT printf('%032x', uid), state, reason, attempts FROM fetches"
        ).fetchall()
    assert {uid_of(i): found for i, found in outcomes(tmp_path / "out").items()} == {
        uid: tuple(rest) for uid, *rest in rows
    }


def test_files_have_shards_of_their_own_and_the_sums_are_those_of_a_pool(
    metadata, linked, fetch, web, made, tmp_path, monkeypatch
):
    folder, out = metadata(bad=(2, 10)), tmp_path / "out"
    report = fetch(folder, out, per_shard=4)
    single = fetch(linked(folder), tmp_path / "single", per_shard=4)
    for name in ("fetched", "failed", "available", "samples"):
        assert getattr(report, name) == getattr(single, name)
    assert report.shards == 3 + 2 + 1
    assert images(out) == images(tmp_path / "single")
    # Shards follow the files.
    sizes = [pq.read_metadata(path).num_rows for path in sorted(out.glob("0*.parquet"))]
    assert sizes == [4, 4, 1, 4, 1, 1]
    assert sorted(outcomes(out)) == list(range(15))
    assert load_index(out).samples == 13
    assert check_shards(out, 1).problems == []
    before, web.asked[:] = made(out), []
    monkeypatch.setattr(partwise, "list_part", None)  # footers tell that all is done
    again = fetch(folder, out, per_shard=4)
    assert (again.tried, again.before, again.available, web.asked) == (0, 13, 13, [])
    assert made(out) == before
    assert sorted(p.name for p in out.iterdir() if p.name[0] == ".") == [".lock"]


@pytest.mark.parametrize("wave", [0.1, 16])
def test_the_same_bytes_for_any_number_of_processes(
    metadata, fetch, made, tmp_path, monkeypatch, wave
):
    """Also however many files are listed at a time."""
    folder = metadata(bad=(2, 10))
    fetch(folder, tmp_path / "one", per_shard=4)
    monkeypatch.setattr(partwise, "WAVE", wave)
    fetch(folder, tmp_path / "two", Local(2) if wave == 16 else "local", per_shard=4, processes=2)
    assert made(tmp_path / "one") == made(tmp_path / "two")
    assert outcomes(tmp_path / "one") == outcomes(tmp_path / "two")


def test_killed_at_random_points_it_ends_the_same(metadata, fetch, made, tmp_path, monkeypatch):
    monkeypatch.setattr(partwise, "WAVE", 0.1)  # a file at a time
    folder = metadata(bad=(5, 6))
    options = {"per_shard": 4, "threads": 4}
    fetch(folder, tmp_path / "first", **options)  # imports what a fetch needs
    started = time.monotonic()
    fetch(folder, tmp_path / "whole", **options)
    took = time.monotonic() - started
    whole, states = made(tmp_path / "whole"), outcomes(tmp_path / "whole")
    chance, interrupted = random.Random(0), 0
    for number in range(12):
        out = tmp_path / f"out{number}"
        child = os.fork()
        if not child:
            try:
                fetch(folder, out, **options)
            finally:
                os._exit(0)
        time.sleep(chance.random() * took)
        os.kill(child, signal.SIGKILL)
        killed = os.waitpid(child, 0)[1] == signal.SIGKILL
        interrupted += killed
        took *= 1 if killed else 0.7  # it is faster than the first one was
        fetch(folder, out, **options)
        assert made(out) == whole
        assert outcomes(out) == states
    assert interrupted >= 6


def test_retry_goes_through_all_files_once(metadata, fetch, web, tmp_path, monkeypatch):
    monkeypatch.setattr(partwise, "WAVE", 0.1)
    out = tmp_path / "out"
    web.routes["/gone/0.jpg"] = lambda h: h.answer(500, b"")
    folder = metadata(bad=(0, 2, 10, 14))
    assert fetch(folder, out).failed == {"http_404": 3, "http_500": 1}
    shards = []

    def breaks(job: Job, rows, processes):
        shards.append(job(rows[0]))
        if len(shards) == 2:
            raise KeyboardInterrupt
        yield shards[-1]

    with pytest.raises(KeyboardInterrupt):
        fetch(folder, out, breaks, retry=("404",))
    assert fetch(folder, out, retry=("404",)).tried == 2  # of the second and the third file
    attempts = {number: found[2] for number, found in outcomes(out).items() if found[1]}
    assert attempts == {0: 1, 2: 2, 10: 2, 14: 2}
    web.routes |= {"/gone/14.jpg": lambda h: h.answer(200, b"x")}
    web.asked.clear()
    report = fetch(folder, out, retry=("5xx", "dns"))
    assert (report.failed, web.asked) == ({"http_500": 1}, ["/gone/0.jpg"])
    assert not (out / ".retrying.json").exists()
    # The same retry, asked for again, is another one.
    assert fetch(folder, out, retry=("404",)).failed == {"http_404": 2, "not_an_image": 1}


def test_an_interrupted_retry_does_not_bind_what_is_asked_for_later(
    metadata, fetch, tmp_path, monkeypatch
):
    monkeypatch.setattr(partwise, "WAVE", 0.1)
    folder, out = metadata(bad=(0, 10, 14)), tmp_path / "out"
    fetch(folder, out)

    def breaks(job, rows, processes):
        yield job(rows[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(folder, out, breaks, retry=("404",))
    assert fetch(folder, out).tried == 0
    assert fetch(folder, out, retry=("404",)).tried == 3


def test_a_subset_and_verify(metadata, fetch, jpeg, web, tmp_path):
    import hashlib

    digests = [hashlib.sha256(jpeg(i)).hexdigest() for i in range(15)]
    digests[1], digests[11] = "0" * 64, None
    folder, out = metadata(sha256=digests), tmp_path / "out"
    wanted = [1, 3, 11, 12]
    write_subset(tmp_path / "some.npy", from_hex(sorted(map(uid_of, [*wanted, 77]))), {})
    report = fetch(folder, out, subset=tmp_path / "some.npy", verify="sha256")
    assert (report.fetched, report.failed, report.shards) == (2, {"hash_mismatch": 1}, 2)
    assert sorted(outcomes(out)) == [1, 3, 12]
    report = fetch(folder, out)
    assert (report.fetched, report.before, report.available) == (12, 2, 14)
    other = metadata("other")
    with pytest.raises(UsageError, match="other: records no sha256 to compare with"):
        fetch(other, tmp_path / "o", verify="sha256")


def test_a_file_that_has_changed(metadata, fetch, web, urls, tmp_path):
    folder, out = metadata(bad=(1, 2, 10)), tmp_path / "out"
    fetch(folder, out)
    os.utime(folder / "00ab.parquet")  # touched, or copied: it is the same
    assert fetch(folder, out).tried == 0
    assert outcomes(out)[1] == ("failed", "http_404", 1)
    # Sample 0 is gone, 1 has another URL, 2 is dead as before, 40 is new.
    numbers = [1, 2, 3, 4, 5, 6, 7, 8, 40]
    write(folder / "00ab.parquet", {
        "uid": [uid_of(i) for i in numbers], "text": ["x"] * 9,
        "url": [f"{web.url}/{'gone' if i == 2 else 'img'}/{i}.jpg" for i in numbers],
    })  # fmt: skip
    web.asked.clear()
    report = fetch(folder, out)
    assert (report.fetched, report.failed, report.available) == (2, {"http_404": 1}, 13)
    assert sorted(web.asked) == ["/gone/2.jpg", "/img/1.jpg", "/img/40.jpg"]
    found = outcomes(out)
    assert 0 not in found
    assert found[1] == ("ok", None, 2)
    assert found[2] == ("failed", "http_404", 2)
    assert found[10] == ("failed", "http_404", 1)
    # A file that came is fetched; one that went is no longer counted.
    write(folder / "99.parquet", {"uid": [uid_of(50)], "url": urls(1), "text": ["x"]})
    (folder / "10cd.parquet").unlink()
    report = fetch(folder, out)
    assert (report.fetched, report.samples, report.available) == (1, 11, 10)
    write(folder / "00ab.parquet", {"uid": [uid_of(70)], "url": urls(1), "text": ["x"]})
    with pytest.raises(UsageError, match=r"00ab.parquet: has no sample that .* knows, so"):
        fetch(folder, out)


def test_a_file_that_was_touched_is_read_once(metadata, fetch, tmp_path, monkeypatch):
    folder, out = metadata(bad=(1,)), tmp_path / "out"
    fetch(folder, out)
    before = outcomes(out)
    os.utime(folder / "00ab.parquet")
    looked, original = [], partwise.list_part

    def noted(work):
        looked.append(work.name)
        return original(work)

    monkeypatch.setattr(partwise, "list_part", noted)
    for _ in range(2):
        assert fetch(folder, out).tried == 0
        assert looked == ["00ab.parquet"]
    assert outcomes(out) == before


def test_retry_and_subset_of_a_file_that_has_changed(metadata, fetch, web, tmp_path):
    """They leave failures that nobody asked for as they were, to a fetch of all."""
    web.routes["/gone/3.jpg"] = lambda h: h.answer(500, b"")
    files, bad, out = {"a": 6, "b": 2}, (1, 2, 3), tmp_path / "out"
    fetch(metadata(files=files, bad=bad), out)
    folder = metadata(files=files, bad=bad, text=["another"] * 8)
    columns = pq.read_table(folder / "a.parquet").to_pydict()
    new = {"uid": uid_of(40), "url": f"{web.url}/img/40.jpg", "text": "new"}
    write(folder / "a.parquet", {name: [*old, new[name]] for name, old in columns.items()})
    web.asked.clear()
    write_subset(tmp_path / "some.npy", from_hex(sorted(map(uid_of, [1, 40]))), {})
    report = fetch(folder, out, subset=tmp_path / "some.npy")
    assert (report.fetched, report.failed, web.asked) == (1, {}, ["/img/40.jpg"])
    web.asked.clear()
    assert fetch(folder, out, retry=("404",)).failed == {"http_404": 2}
    assert sorted(web.asked) == ["/gone/1.jpg", "/gone/2.jpg"]
    found = outcomes(out)
    assert found[1] == found[2] == ("failed", "http_404", 2)
    assert found[3] == ("failed", "http_500", 1)
    assert fetch(folder, out).failed == {"http_404": 2, "http_500": 1}
    web.asked.clear()
    assert (fetch(folder, out).tried, web.asked) == (0, [])


def test_a_worker_that_comes_late_changes_nothing(metadata, fetch, made, tmp_path):
    class Late(Local):
        """Does everything again when its results have been taken."""

        def map(self, function, partitions, **hints):
            for partition in partitions:
                yield function(partition)
                before = stamps()
                with contextlib.suppress(FileNotFoundError):  # the folder was taken away
                    function(partition)
                assert stamps() == before

    def stamps():
        return {p: p.stat().st_ino for p in out.glob("outcomes/*")}

    folder, out = metadata(bad=(2, 10)), tmp_path / "usual"
    late = Late(1)
    for own, engine in (("usual", Local(1)), ("late", late)):
        out = tmp_path / own
        fetch(folder, out, engine, per_shard=4)
        (folder / "00ab.parquet").touch()
        assert fetch(folder, out, engine, per_shard=4).tried == 0
    assert made(tmp_path / "late") == made(tmp_path / "usual")
    assert outcomes(tmp_path / "late") == outcomes(tmp_path / "usual")
    assert sorted(p.name for p in out.iterdir() if p.name[0] == ".") == [".lock"]


def test_other_metadata_are_refused_before_anything_is_fetched(metadata, fetch, web, tmp_path):
    folder, out = metadata(), tmp_path / "out"

    def breaks(job, rows, processes):
        yield job(rows[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(folder, out, breaks, per_shard=4)
    assert not (out / "outcomes").exists()  # nothing but the lists tells whose it is
    web.asked.clear()
    other = metadata("other", files={"zz": 2})
    with pytest.raises(UsageError, match=r"interrupted fetch of other metadata \(00ab.parquet\)"):
        fetch(other, out, per_shard=4)
    assert web.asked == []
    assert fetch(folder, out, per_shard=4).available == 15
    # Of the names that are there, one is known; it is another file.
    mixed = metadata("mixed", files={"00ab": 3, "zz": 2})
    web.asked.clear()
    with pytest.raises(UsageError, match=r"holds the images of other metadata \(10cd.parquet\)"):
        fetch(mixed, out)
    shutil.copy(folder / "00ab.parquet", mixed / "00ab.parquet")
    assert fetch(mixed, out).tried == 2


_OF = {"size": 1, "changed": 1, "sha256": "x", "urls": 1}
_SUMMARY = {"of": _OF, "available": 1, "failed": {}, "shards": []}


@pytest.mark.parametrize(
    "footer",
    [
        "str", 5, None, [], {}, _SUMMARY | {"available": "x"}, _SUMMARY | {"failed": []},
        _SUMMARY | {"failed": {"dns": "1"}}, _SUMMARY | {"shards": [["a", "b"]]},
        _SUMMARY | {"shards": [[1]]}, _SUMMARY | {"shards": 1}, _SUMMARY | {"of": [1]},
        _SUMMARY | {"of": _OF | {"urls": "1"}}, _SUMMARY | {"of": {"size": 1}},
    ],
)  # fmt: skip
def test_a_damaged_footer_is_one_line(tmp_path, footer):
    path = tmp_path / "a.parquet"
    for written, fails in ((_SUMMARY, False), (footer, True)):
        pq.write_table(pa.table({"uid": [uid_of(0)]}).replace_schema_metadata(
            {b"datacomp": json.dumps(written).encode()}), path)  # fmt: skip
        if fails:
            with pytest.raises(DataError, match=r"a.parquet: damaged .*its URLs are fetched anew"):
                outcome_files.read_summary(path)
        else:
            assert outcome_files.read_summary(path).available == 1


def test_damaged_notes_of_a_fetch_are_one_line(metadata, fetch, tmp_path):
    folder, out = metadata(bad=(1,)), tmp_path / "out"
    fetch(folder, out)
    note = out / ".retrying.json"
    note.write_text("[1]")
    with pytest.raises(DataError, match=r"\.retrying\.json: damaged; remove it, and"):
        fetch(folder, out, retry=("404",))
    note.unlink()

    def breaks(job, rows, processes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(folder, out, breaks, retry=("404",))
    parts = out / ".pending/parts.json"
    (part,) = json.loads(parts.read_text())
    for found in (
        5, "x", ["x"], [part | {"first": "0"}], [part | {"name": 1}], [part | {"metadata": {}}],
    ):  # fmt: skip
        parts.write_text(json.dumps(found))
        with pytest.raises(DataError, match=r"parts\.json: damaged; choose another folder"):
            fetch(folder, out, retry=("404",))
    parts.write_text(json.dumps([part]))
    assert fetch(folder, out, retry=("404",)).failed == {"http_404": 1}


def test_layouts(metadata, fetch, tmp_path):
    """The folders of the largest pool; and files that DataComp's own download puts deeper."""
    folder, out = metadata(files={"metadata/part_00/a": 2, "metadata/part_01/a": 1}), tmp_path / "o"
    assert fetch(folder, out).fetched == 3
    assert fetch(folder / "metadata", out).tried == 0
    found = sorted(str(p.relative_to(out)) for p in (out / "outcomes").rglob("*.parquet"))
    assert found == ["outcomes/part_00/a.parquet", "outcomes/part_01/a.parquet"]


def test_refusals(metadata, linked, fetch, urls, made, tmp_path):
    folder, out = metadata(), tmp_path / "out"
    fetch(folder, out)

    def refused(kind, message, *words, **options):
        with pytest.raises(kind, match=message):
            fetch(*words, **options)

    pool, other = linked(folder), metadata("other", files={"zz": 2})
    refused(UsageError, "out: holds the images of another pool", pool, out)
    refused(UsageError, r"holds the images of other metadata \(00ab.parquet\)", other, out)
    fetch(pool, tmp_path / "single")
    refused(UsageError, "single: holds the images of a pool; go on", folder, tmp_path / "single")
    refused(UsageError, r"only a pool can take over \(--adopt\)", folder, out, adopt=True)
    refused(UsageError, "was fetched with size 512, not 256", folder, out, size=256)
    refused(UsageError, "no column 'faces' of faces to blur", folder, tmp_path / "f", boxes="faces")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("x")
    refused(UsageError, r"is not empty \(notes.txt\)", folder, tmp_path / "full")
    refused(UsageError, "reads metadata in a folder; copy them", "s3://b/metadata", tmp_path / "s")
    refused(MissingError, "no such pool", tmp_path / "none", tmp_path / "n")
    write(tmp_path / "nouid/a.parquet", {"url": urls(2)})
    refused(DataError, "no metadata found .*a.parquet: no column uid", tmp_path / "nouid", out)
    write(tmp_path / "nourl/a.parquet", {"uid": [uid_of(1)], "text": ["x"]})
    refused(DataError, r"nourl: has no URLs to fetch \(column url\)", tmp_path / "nourl", out)
    place = out / "outcomes/00ab.parquet"
    shutil.copy(folder / "00ab.parquet", place)
    refused(DataError, "00ab.parquet: damaged .*remove it, and its URLs are fetched", folder, out)


def test_a_pool_takes_over_what_was_fetched_for_its_metadata(metadata, linked, fetch, tmp_path):
    folder, out = metadata(bad=(2,)), tmp_path / "out"
    fetch(folder, out)
    report = fetch(linked(folder), out, adopt=True)
    assert (report.tried, report.available) == (0, 14)


def test_captions_may_be_missing(fetch, urls, tmp_path):
    write(tmp_path / "m/a.parquet", {"uid": [uid_of(0)], "url": urls(1)})
    assert fetch(tmp_path / "m", tmp_path / "out").fetched == 1
    assert [text for _, text in images(tmp_path / "out").values()] == [b""]


def test_a_uid_in_two_files_is_fetched_for_each(metadata, fetch, urls, tmp_path):
    folder, out = metadata(), tmp_path / "out"
    write(
        folder / "99.parquet", {"uid": [uid_of(3), uid_of(90)], "url": urls(2), "text": ["x"] * 2}
    )
    report = fetch(folder, out)
    assert (report.fetched, report.available, report.samples) == (17, 17, 17)
    assert load_index(out).samples == 16  # the first of a uid counts


def test_what_was_fetched_is_embedded_without_a_look_at_all_shards(
    metadata, fetch, alive, jpeg, tiny, tmp_path, monkeypatch
):
    folder, out = metadata(bad=(2, 10)), tmp_path / "out"
    fetch(folder, out, per_shard=4)
    alive(15, jpeg)
    fetch(folder, out, retry=("404",))
    looked, original = [], partwise_embedding._list

    def noted(pool, work, tars=()):
        looked.append(tars)
        return original(pool, work, tars)

    monkeypatch.setattr(partwise_embedding, "_list", noted)
    made = []
    for name in ("known", "unknown"):
        embed = {"device": "cpu", "batch_size": 4}
        report = embed_metadata(folder, tmp_path / name, out, Recipe(tiny(0)), "t", **embed)
        assert (report.embedded, report.set_aside, report.without_image) == (15, {}, 0)
        made.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
        shutil.rmtree(out / "outcomes", ignore_errors=True)
    assert made[0] == made[1]
    stretches = [[(0, 2), (6, 6)], [(3, 4), (7, 7)], [(5, 5)]]
    assert looked == [
        *(tuple((f"{a:08d}.tar", f"{b:08d}.tar") for a, b in some) for some in stretches),
        *[()] * 3,
    ]


def test_the_command(command, metadata, web, tmp_path, monkeypatch):
    from datacomp.curate.fetching import spread

    monkeypatch.setattr(spread, "_local", lambda job, rows, processes: map(job, rows))
    folder, out = metadata(bad=(2,)), tmp_path / "out"
    words = ("pool", "fetch", folder, out, "--allow-private", "--threads", 4)
    code, printed, err = command(*words)
    assert code == 3, err
    lines = printed.splitlines()
    assert lines[0].startswith(f"{out}: 14 of 15 URLs fetched into 3 new shards in ")
    assert lines[1:] == ["  failed: 1 http_404", "14 of 15 samples at hand"]
    assert command(*words)[0] == 0
    (folder / "10cd.parquet").write_bytes(b"PAR1")  # had 5 of the images
    write(folder / "99.parquet", {"url": ["http://a"]})
    code, printed, err = command(*words)
    assert code == 3
    warned = err.splitlines()[-1]
    assert warned.startswith(
        f"warning: {folder}: not fetched, for it cannot be read: 10cd.parquet ("
    )
    assert warned.endswith(") and 1 more")
    assert printed.splitlines()[1:] == [
        "  set aside: 1 file of metadata, file_broken",
        "  set aside: 1 file of metadata, file_foreign", "9 of 10 samples at hand",
    ]  # fmt: skip
    code, printed, _ = command(*words, "--json")
    assert (code, json.loads(printed)["set_aside"]) == (3, {"file_broken": 1, "file_foreign": 1})
    code, _, err = command("pool", "fetch", "s3://bucket/metadata", out)
    assert (code, err.count("\n")) == (2, 1)
