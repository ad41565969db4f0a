"""Tars on a web server and in an object store: index, select, read and build without a copy."""

import json

import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import build_shards, index_shards, load_index, select_shards
from datacomp.curate.shards.tars import find_tars
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError
from datacomp.pools.views import View


@pytest.fixture
def served(shards, server):
    """The three tars on a web server; return where."""
    for path in shards.glob("*.tar"):
        server.files[f"/pool/{path.name}"] = (path.read_bytes(), f'"{path.name}"')
    return f"{server.url}/pool"


@pytest.fixture
def stored(shards):
    """The three tars in a store in memory; return where."""
    import fsspec

    system = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        system.pipe_file(f"/bucket/pool/{path.name}", path.read_bytes())
    yield "memory://bucket/pool"
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize("kind", ["pattern", "listing", "store"])
def test_remote_tars_are_indexed_viewed_and_built_as_local_ones(
    request, shards, select, tmp_path, make, kind
):
    if kind == "store":
        source = request.getfixturevalue("stored")
    else:
        source = request.getfixturevalue("served")
        if kind == "pattern":
            source += "/{00000000..00000002}.tar"
        else:
            server = request.getfixturevalue("server")
            sizes = {f"{number:08d}.tar": 7 for number in range(3)}
            server.files["/pool/sizes.json"] = (json.dumps(sizes).encode(), "")
    index_shards(shards, 1)
    report = index_shards(source, out=tmp_path / "index")
    assert (report.samples, report.shards, report.read) == (21, 3, 3)
    here, there = (pq.read_table(p / "index.parquet") for p in (shards, tmp_path / "index"))
    assert here.equals(there)
    again = index_shards(source, out=tmp_path / "index")
    assert (again.read, again.unchanged, again.bytes_read) == (0, 3, 0)

    subset = select(*range(0, 21, 2), 4)
    select_shards([tmp_path / "index"], subset, tmp_path / "view", shard_size=5)
    build_shards(shards, subset, tmp_path / "built", shard_size=5, workers=1)
    view = View.open(tmp_path / "view")
    view.verify()
    for number in range(len(view)):
        whole = (tmp_path / "built" / f"{number:08d}.tar").read_bytes()
        assert view.stream(number).read() == whole
    if kind != "store":  # a store in memory is not seen by the workers' processes
        build_shards(tmp_path / "index", subset, tmp_path / "b2", shard_size=5, workers=2)
    else:
        build_shards(tmp_path / "index", subset, tmp_path / "b2", shard_size=5, workers=1)
    assert make.files_of(tmp_path / "b2") == make.files_of(tmp_path / "built")


def test_a_tar_that_changes_on_the_server_is_told(served, server, select, tmp_path):
    source = f"{served}/{{00000000..00000002}}.tar"
    index_shards(source, out=tmp_path / "index")
    select_shards([tmp_path / "index"], select(*range(21)), tmp_path / "view")
    data, _ = server.files["/pool/00000001.tar"]
    server.files["/pool/00000001.tar"] = (data, '"new"')
    with pytest.raises(DataError, match=r"00000001.tar: has changed since it was indexed"):
        list(View.open(tmp_path / "view").samples())
    assert index_shards(source, out=tmp_path / "index").read == 1
    select_shards([tmp_path / "index"], select(*range(21)), tmp_path / "view")
    assert len(list(View.open(tmp_path / "view").samples())) == 21


@pytest.mark.parametrize(
    ("samples", "size", "most_requests", "most_read"), [(20, 600_000, 22, 0.2), (600, 8_000, 9, 1)]
)
def test_a_request_reads_many_samples_or_passes_over_a_large_one(
    tmp_path, make, server, samples, size, most_requests, most_read
):
    path = make.write_shard(
        tmp_path, 0, [m for n in range(samples) for m in make.members(n, jpg=bytes(size))]
    )
    server.files["/00000000.tar"] = (path.read_bytes(), "x")
    report = index_shards(f"{server.url}/00000000.tar", out=tmp_path / "index")
    assert report.samples == samples
    assert report.requests == len(server.asked) - 1 <= most_requests
    assert report.bytes_read <= path.stat().st_size * most_read
    assert index_shards(tmp_path, 1).samples == samples
    assert (tmp_path / "index.parquet").read_bytes() == (
        tmp_path / "index" / "index.parquet"
    ).read_bytes()


def test_sources_that_make_no_sense(served, shards, server, tmp_path):
    with pytest.raises(UsageError, match=r"the index of a URL needs a folder to stand in"):
        index_shards(served)
    with pytest.raises(UsageError, match="the index of a folder stands in it"):
        index_shards(shards, out=tmp_path)
    with pytest.raises(MissingError) as caught:
        find_tars(served)
    assert str(caught.value) == (
        f"{served}: has none of manifest.json, sizes.json, listing.txt to say which tars there "
        "are; give a pattern as {00000..00009}.tar"
    )
    for pattern in ("{1..x}.tar", "{9..1}.tar"):
        with pytest.raises(UsageError):
            find_tars(f"{served}/{pattern}")
    with pytest.raises(MissingError, match=r"00000003.tar: no such file \(404\)"):
        index_shards(f"{served}/{{00000002..00000003}}.tar", out=tmp_path / "i")
    with pytest.raises(MissingError, match="no such folder"):
        find_tars("memory://none/none")


def test_listings(served, server):
    server.files["/pool/listing.txt"] = (b"b.tar\na.tar\nnotes.md\n", "")
    assert find_tars(served).names == ("a.tar", "b.tar")
    server.files["/pool/sizes.json"] = (b"[1", "")
    with pytest.raises(DataError, match=r"sizes.json: not a listing of tars"):
        find_tars(served)
    manifest = {"files": [{"path": "x.tar"}, {"path": "meta.json"}]}
    server.files["/pool/manifest.json"] = (json.dumps(manifest).encode(), "")
    assert find_tars(served).names == ("x.tar",)
    for name in ("../x.tar", "a/b.tar", ".x.tar"):
        server.files["/pool/manifest.json"] = (
            json.dumps({"files": [{"path": name}]}).encode(), "",
        )  # fmt: skip
        with pytest.raises(UnsafeInputError, match="is not a plain name; refused"):
            find_tars(served)


def test_a_tar_that_is_not_there_can_be_gone_without(served, select, tmp_path):
    pattern = f"{served}/{{00000001..00000003}}.tar"
    with pytest.raises(MissingError):
        index_shards(pattern, out=tmp_path / "index")
    assert not (tmp_path / "index").exists()
    report = index_shards(pattern, out=tmp_path / "index", keep_going=True)
    assert (report.shards, report.samples, report.set_aside) == (2, 14, {"shard_missing": 1})
    assert report.examples == [f"{served}/00000003.tar: no such file (404)"]
    assert load_index(tmp_path / "index").set_aside == {"shard_missing": 1}
    select_shards([tmp_path / "index"], select(8, 20), tmp_path / "view")
    view = View.open(tmp_path / "view")
    view.verify()
    assert len(list(view.samples())) == 2


def test_a_hole_in_a_listing_is_a_missing_shard(served, server, tmp_path):
    server.files["/pool/listing.txt"] = (b"00000000.tar\n00000002.tar\n", "")
    with pytest.raises(DataError) as caught:
        index_shards(served, out=tmp_path / "index")
    assert str(caught.value) == (
        f"{served}: 00000001.tar is missing (a hole in the numbering); --keep-going goes on without"
    )
    report = index_shards(served, out=tmp_path / "index", keep_going=True)
    assert (report.shards, report.set_aside) == (2, {"shard_missing": 1})
    assert load_index(tmp_path / "index").set_aside == {"shard_missing": 1}


def test_a_damaged_index_of_a_url_says_so(served, select, tmp_path):
    index_shards(f"{served}/{{00000000..00000002}}.tar", out=tmp_path / "index")
    (tmp_path / "index" / "index.parquet").write_bytes(b"junk")
    with pytest.raises(DataError) as caught:
        select_shards([tmp_path / "index"], select(1), tmp_path / "view")
    assert str(caught.value) == (
        f"{tmp_path / 'index'}: has no tars, and its index is damaged, of another version, or of "
        "tars that are gone; run 'datacomp shards index' again (of a URL with -o)"
    )


def test_answers_that_break_off_are_asked_for_again(served, shards, server, select, tmp_path):
    index_shards(f"{served}/{{00000000..00000002}}.tar", out=tmp_path / "index")
    subset = select(*range(21))
    build_shards(shards, subset, tmp_path / "built", workers=1)
    select_shards([tmp_path / "index"], subset, tmp_path / "view")
    server.breaks = 2
    with View.open(tmp_path / "view").stream(0) as file:
        assert file.read() == (tmp_path / "built" / "00000000.tar").read_bytes()
    assert server.breaks == 0


def test_patterns_are_padded_as_they_are():
    assert find_tars("http://h/p-{008..011}.tar").names == (
        "p-008.tar", "p-009.tar", "p-010.tar", "p-011.tar",
    )  # fmt: skip
    assert find_tars("http://h/{9..10}.tar").names == ("10.tar", "9.tar")


@pytest.mark.parametrize("moved", ["http://[x", "ftp://h/a", "http://h:99999/"])
def test_a_server_that_sends_us_to_no_address(server, tmp_path, moved):
    server.moves["/0.tar"] = moved
    with pytest.raises(UnsafeInputError) as caught:
        index_shards(f"{server.url}/0.tar", out=tmp_path / "index")
    assert str(caught.value) == (
        f"{server.url}/0.tar: the server sends us to {moved!r}, which is no HTTP address; refused"
    )


def test_letters_of_other_alphabets_in_an_address(shards, server, tmp_path):
    data = (shards / "00000000.tar").read_bytes()
    server.files["/%C3%A9%20x/0.tar"] = (data, "x")
    # As many servers send it: the bytes of UTF-8, which Python's library takes for latin-1.
    server.moves["/moved.tar"] = "/é%20x/0.tar".encode().decode("latin-1")
    for number, place in enumerate(("é x/0.tar", "moved.tar")):
        report = index_shards(f"{server.url}/{place}", out=tmp_path / f"index{number}")
        assert report.samples == 7


@pytest.mark.parametrize("root", ["http://[x", "http://[::1", "http://h..h"])
def test_what_is_no_address_is_told_in_one_line(tmp_path, command, root):
    place = f"{root}/{{0..1}}.tar"
    code, _, err = command("shards", "index", place, "--output", tmp_path / "index")
    assert code == 1
    assert err.splitlines()[-1].endswith(f"{root}/0.tar': not an HTTP address; refused")
    assert "Traceback" not in err
