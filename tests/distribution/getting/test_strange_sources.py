"""Sources that a person mistypes or a stranger makes up: one clear line, or passed over."""

import pytest
from datacomp.distribution import bencode
from datacomp.distribution.getting import get
from datacomp.distribution.getting.torrent_file import names_of, read_torrent
from datacomp.errors import DataError, IntegrityError, MissingError, UsageError

from .conftest import HTTP, contents, options

NO_ADDRESSES = ("http://[::1/", "http://[x/", "http://h..h/", "http://h:99999/", "http:///x")


def info(**more):
    """Return the info dictionary of a v1 torrent of one file."""
    return {"files": [{"length": 3, "path": ["a.txt"]} | more], "name": "birds",
            "piece length": 1 << 18, "pieces": bytes(20)}  # fmt: skip


@pytest.mark.parametrize("name", ["birds.torrent", "birds.meta4"])
def test_a_file_that_is_not_there_is_told(tmp_path, command, name):
    place = tmp_path / name
    assert command("get", place, tmp_path / "got") == (1, "", f"error: {place}: no such file\n")


@pytest.mark.parametrize("source", NO_ADDRESSES)
def test_what_is_no_address_is_told_in_one_line(tmp_path, command, source):
    code, _, err = command("get", source, tmp_path / "got")
    assert (code, err) == (1, f"error: {source!r}: not an HTTP address; refused\n")
    assert not (tmp_path / "got").exists()


def test_letters_of_other_alphabets_are_encoded(publish, serving, files, tmp_path):
    server = serving(publish(files))
    with pytest.raises(MissingError, match="no such file"):
        get(f"{server.url}é ü/", tmp_path / "got", HTTP)
    assert server.asked == [("/é ü/latest.json", None)]


@pytest.mark.parametrize(
    ("magnet", "reason"),
    [
        ("magnet:?" + "&".join(["x=1"] * 1001), "has more than 1,000 fields"),
        ("magnet://[x?xt=1", "names no torrent"),
    ],
)
def test_magnets_that_make_no_sense(tmp_path, magnet, reason):
    with pytest.raises(UsageError, match=reason):
        get(magnet, tmp_path / "got", HTTP)


@pytest.mark.parametrize("kind", ["magnet", "torrent", "metalink"])
def test_addresses_in_a_torrent_that_are_none_are_passed_over(
    publish, serving, files, tmp_path, kind
):
    folder = publish(files)
    server = serving(folder)
    place = folder / "versions/1"
    if kind == "torrent":
        torrent = bencode.decode((place / "birds-1.torrent").read_bytes(), 1 << 20)
        torrent[b"url-list"] = [*NO_ADDRESSES, f"{server.url}versions/1/"]
        source = tmp_path / "birds.torrent"
        source.write_bytes(bencode.encode(torrent))
    elif kind == "metalink":
        source = tmp_path / "birds.meta4"
        urls = [*NO_ADDRESSES, f"{server.url}versions/1/birds/"]
        text = (place / "birds-1.meta4").read_text()
        for name in files:
            found = "".join(f"<url>{url}{name}</url>" for url in urls)
            text = text.replace(f'<file name="birds/{name}">', f'<file name="birds/{name}">{found}')
        source.write_text(text)
    else:
        v1 = names_of((place / "birds-1.torrent").read_bytes())
        hashes = min(v1, key=len)
        seeds = "".join(f"&ws={url}" for url in [*NO_ADDRESSES, f"{server.url}versions/1/"])
        source = f"magnet:?xt=urn:btih:{hashes}{seeds}"
    report = get(str(source), tmp_path / "got", HTTP)
    assert (report.signed, report.whole) == (True, True)
    assert contents(tmp_path / "got") == files


@pytest.mark.parametrize("name", ["birds-1.torrent", "birds-1.hybrid.torrent", "birds-1.meta4"])
def test_a_served_file_that_names_no_address_leads_to_the_manifest_beside_it(
    publish, serving, files, tmp_path, name
):
    server = serving(publish(files))
    report = get(f"{server.url}versions/1/{name}", tmp_path / "got", HTTP)
    assert (report.signed, report.whole, report.version) == (True, True, "1")
    assert contents(tmp_path / "got") == files


def test_attributes_of_a_file_that_are_no_text_say_nothing():
    order, _ = read_torrent(bencode.encode({"info": info(attr=1)}), "t")
    assert [(file.path, file.size) for file in order.files] == [("a.txt", 3)]
    order, _ = read_torrent(bencode.encode({"info": info(attr=b"x")}), "t")
    assert len(order.files) == 1
    with pytest.raises(DataError, match="0 files"):
        read_torrent(bencode.encode({"info": info(attr=b"xp")}), "t")


def test_web_seeds_are_mirrors_where_a_torrent_proves_its_files():
    leaf = {"": {"length": 3, "pieces root": bytes(32)}}
    tree = {"name": "a b", "piece length": 1 << 18, "pieces": bytes(20)}
    seeds = ["http://h/a%20b", "http://h/v/", "http://[::1/", "udp://h/"]
    alone = tree | {"file tree": {"a b": leaf}, "length": 3}
    order, _ = read_torrent(bencode.encode({"info": alone, "url-list": seeds}), "t")
    assert (order.mirrors, order.seeds) == (["http://h/", "http://h/v/"], [])
    several = tree | {"file tree": {"a b": leaf}, "files": [{"length": 3, "path": ["a b"]}]}
    order, _ = read_torrent(bencode.encode({"info": several, "url-list": seeds}), "t")
    assert order.mirrors == ["http://h/a%20b/a%20b/", "http://h/v/a%20b/"]
    order, _ = read_torrent(bencode.encode({"info": info(), "url-list": seeds}), "t")
    assert (order.mirrors, order.seeds) == ([], ["http://h/a%20b", "http://h/v/"])


@pytest.mark.parametrize("data", [b"i5e", b"le", b"de"])
def test_what_is_no_torrent_has_no_name(data):
    with pytest.raises(DataError, match="not a torrent"):
        names_of(data)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--key", "zz"], "--key: a public key has 64 hex digits, not 'zz'"),
        (["--mirror", "ftp://x/"], "'ftp://x/': not an HTTP address; refused"),
        (["--gateway", "x"], "'x': not an HTTP address; refused"),
        (["--listen", "foo"], "--listen 'foo': expected HOST:PORT, or several with commas"),
        (["--listen", "h:65536"], "--listen 'h:65536': expected HOST:PORT, or several with commas"),
        (["--peer", "foo"], "peer 'foo': expected HOST:PORT"),
        (["--peer", "h:" + "9" * 5000], f"peer 'h:{'9' * 5000}': expected HOST:PORT"),
        (["--no-http", "--no-bittorrent"], "birds 1: no source to get it from; name a --mirror"),
    ],
)
def test_a_mistake_in_the_command_leaves_no_folder(
    publish, serving, files, tmp_path, command, arguments, reason
):
    server = serving(publish(files))
    assert command("get", server.url, tmp_path / "got", *arguments) == (2, "", f"error: {reason}\n")
    assert not (tmp_path / "got").exists()


def test_a_torrent_without_any_source_leaves_no_folder(tmp_path):
    source = tmp_path / "birds.torrent"
    source.write_bytes(bencode.encode({"info": info()}))
    with pytest.raises(UsageError, match="no source to get it from"):
        get(str(source), tmp_path / "got", HTTP)
    assert not (tmp_path / "got").exists()
    (tmp_path / "got").mkdir()
    with pytest.raises(UsageError, match="no source to get it from"):
        get(str(source), tmp_path / "got", HTTP)
    assert (tmp_path / "got").exists()


def test_a_key_may_be_written_in_capitals(publish, serving, files, key, tmp_path):
    server = serving(publish(files))
    assert get(server.url, tmp_path / "got", options(key=key.public.upper())).whole
    with pytest.raises(IntegrityError, match=f"not with {'a' * 64} as expected; refused"):
        get(server.url, tmp_path / "other", options(key="A" * 64))
