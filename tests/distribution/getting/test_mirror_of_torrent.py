"""A torrent or Metalink at hand, and mirrors that its addresses do not name."""

import pytest
from datacomp.distribution.getting import get

from .conftest import by_source, contents, options

KINDS = ["birds-1.torrent", "birds-1.hybrid.torrent", "birds-1.meta4"]


@pytest.fixture
def many(files):
    """Shards, and small files that share the last pieces of a v1 torrent."""
    return files | {f"notes/{n}.txt": bytes([n]) * 300_000 for n in range(6)} | {"empty": b""}


def unsigned(path, headers):
    return (404, []) if path.endswith(("manifest.json", "latest.json")) else None


def both(fault):
    return lambda path, headers: unsigned(path, headers) or fault(path, headers)


def saved(folder, name, tmp_path):
    """Return a torrent or Metalink as a friend has sent it: under another name."""
    place = tmp_path / f"sent{''.join((folder / 'versions/1' / name).suffixes[-1:])}"
    place.write_bytes((folder / "versions/1" / name).read_bytes())
    return str(place)


@pytest.mark.parametrize("below", ["", "versions/1/", "versions/1/birds/", "latest.json"])
@pytest.mark.parametrize("name", KINDS)
def test_the_signed_version_is_found_on_a_mirror(publish, serving, many, tmp_path, name, below):
    folder = publish(many)
    publish(many | {"README.md": b"newer\n"}, "2")
    publish(many | {"README.md": b"newest\n"}, "3")
    server = serving(folder)
    source = saved(folder, name, tmp_path)
    report = get(source, tmp_path / "got", options(mirrors=[f"{server.url}{below}"]))
    assert (report.signed, report.whole, report.version) == (True, True, "1")
    assert contents(tmp_path / "got") == many
    assert [one["source"] for one in report.sources] == [f"{server.url}versions/1/birds/"]
    assert report.sources[0]["reasons"] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_mirror_of_plain_files_will_do(publish, serving, many, tmp_path, name, capsys):
    folder = publish(many)
    server = serving(folder, unsigned)
    place = f"{server.url}versions/1/birds/"
    report = get(saved(folder, name, tmp_path), tmp_path / "got", options(mirrors=[place]))
    assert (report.signed, report.whole) == (False, True)
    assert contents(tmp_path / "got") == many
    assert (report.sources[0]["standing"], report.sources[0]["reasons"]) == ("used", [])
    assert f"{place}: no signed manifest" in capsys.readouterr().err


def test_pieces_that_small_files_share_are_fetched_once_more_at_most(
    publish, serving, many, tmp_path
):
    folder = publish(many)
    server = serving(folder, unsigned)
    report = get(saved(folder, KINDS[0], tmp_path), tmp_path / "got",
                 options(mirrors=[f"{server.url}versions/1/birds/"], connections=1))  # fmt: skip
    small = sum(len(data) for path, data in many.items() if not path.endswith(".tar"))
    assert report.whole
    assert report.bytes <= report.fetched <= report.bytes + small


@pytest.mark.parametrize(
    ("path", "at"), [("00001.tar", 1 << 20), ("notes/3.txt", 5), ("README.md", 0)]
)
def test_wrong_bytes_are_told_by_the_pieces_of_a_v1_torrent(
    publish, serving, many, tmp_path, flip, path, at
):
    folder = publish(many)
    liar, honest = serving(folder, both(flip(at, (path,)))), serving(folder, unsigned)
    mirrors = [f"{server.url}versions/1/birds/" for server in (liar, honest)]
    source = saved(folder, KINDS[0], tmp_path)
    report = get(source, tmp_path / "got", options(mirrors=mirrors))
    assert (report.signed, report.whole) == (False, True)
    assert contents(tmp_path / "got") == many
    assert by_source(report)[honest.url]["standing"] == "used"
    alone = get(source, tmp_path / "alone", options(mirrors=mirrors[:1]))
    assert path in alone.failed
    assert "gave" in alone.failed[path]
    assert path not in contents(tmp_path / "alone")
    assert all(data == many[name] for name, data in contents(tmp_path / "alone").items())


def test_files_that_are_nowhere_are_told_with_the_place_asked(publish, serving, many, tmp_path):
    folder = publish(many)
    server = serving(folder, unsigned)
    report = get(saved(folder, KINDS[0], tmp_path), tmp_path / "got",
                 options(mirrors=[server.url]))  # fmt: skip
    assert report.failed["00000.tar"] == f"{server.url} answers 404"


def test_the_address_of_a_version_is_that_of_its_manifest(publish, serving, many, tmp_path):
    folder = publish(many)
    publish(many | {"README.md": b"newer\n"}, "2")
    server = serving(folder)
    for number, end in enumerate(("versions/1/", "versions/1")):
        report = get(f"{server.url}{end}", tmp_path / f"got{number}", options())
        assert (report.version, report.whole) == ("1", True)
    dead = "http://127.0.0.1:9/versions/1/"
    report = get(dead, tmp_path / "other", options(mirrors=[server.url]))
    assert (report.version, report.whole) == ("1", True)
