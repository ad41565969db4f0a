"""What the server answers, asked over real sockets."""

import contextlib
import hashlib
import http.client
import io
import json
import signal
import subprocess
import sys
import tarfile
from urllib.parse import quote, urlsplit

import pytest
from datacomp.distribution.ipfs import dag
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.gateway import Gateway
from datacomp.distribution.release import Releases, Removal
from datacomp.distribution.serving import brace_urls, catalog, serve
from datacomp.distribution.serving.braces import brace_lines
from datacomp.distribution.serving.ranges import MAX_PARTS, Unsatisfiable, parse_ranges
from datacomp.errors import MissingError, StorageError, UsageError
from hypothesis import given
from hypothesis import strategies as st


def ask(url, path="", method="GET", **headers):
    """Return status, headers and body of one answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method, "/" + path, headers=names)
        with connection.getresponse() as response:
            body = response.read()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


# -- ranges -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-", [(2, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-30", [(0, 10)]),
        ("bytes=8-99", [(8, 10)]),
        (" Bytes = 1-2", [(1, 3)]),
        ("bytes=5-6, 0-1", [(5, 7), (0, 2)]),
        ("bytes=0-1,50-60", [(0, 2)]),
        ("bytes=3-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=", None),
        ("lines=0-1", None),
        ("bytes=99999999999999999999999-", None),
    ],
)
def test_ranges(header, expected):
    assert parse_ranges(header, 10) == expected


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=-0", "bytes=0-5,5-6", "bytes=" + ",".join(["0-0"] * 99)]
)
def test_ranges_that_are_refused(header):
    with pytest.raises(Unsatisfiable):
        parse_ranges(header, 10)


@given(st.text(max_size=40) | st.from_regex(r"bytes=(\d{0,3}-\d{0,3},?){1,5}"), st.integers(0, 99))
def test_ranges_lie_in_the_file(header, size):
    try:
        found = parse_ranges(header, size)
    except Unsatisfiable:
        return
    assert found is None or all(0 <= start < end <= size for start, end in found)
    assert found is None or len(found) <= MAX_PARTS


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def server(publish, serving, files):
    return serving(publish(files))


TAR = "versions/1/birds/00001.tar"


def test_a_whole_file(server, files):
    status, headers, body = ask(server.url, TAR)
    assert (status, body) == (200, files["00001.tar"])
    assert headers["etag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert headers["content-length"] == str(len(body))
    assert headers["content-type"] == "application/x-tar"
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-content-type-options"] == "nosniff"


def test_head(server, files):
    status, headers, body = ask(server.url, TAR, "HEAD", Range="bytes=0-9")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(files["00001.tar"]))


def test_one_range(server, files):
    data = files["00001.tar"]
    status, headers, body = ask(server.url, TAR, Range="bytes=1048570-1048590")
    assert (status, body) == (206, data[1048570:1048591])
    assert headers["content-range"] == f"bytes 1048570-1048590/{len(data)}"
    assert ask(server.url, TAR, Range="bytes=-7")[2] == data[-7:]


def test_several_ranges(server, files):
    data = files["00001.tar"]
    status, headers, body = ask(server.url, TAR, Range="bytes=10-19,1000-1004")
    border = headers["content-type"].removeprefix("multipart/byteranges; boundary=").encode()
    parts = body.split(b"--" + border)
    assert (status, parts[0], parts[-1]) == (206, b"", b"--\r\n")
    for part, (start, end) in zip(parts[1:-1], [(10, 20), (1000, 1005)], strict=True):
        head, _, content = part.partition(b"\r\n\r\n")
        assert f"content-range: bytes {start}-{end - 1}/{len(data)}".encode() in head
        assert content == data[start:end] + b"\r\n"


def test_a_range_behind_the_end(server, files):
    status, headers, body = ask(server.url, TAR, Range="bytes=99999999-")
    assert (status, body) == (416, b"")
    assert headers["content-range"] == f"bytes */{len(files['00001.tar'])}"


def test_conditions(server, files):
    tag = f'"{hashlib.sha256(files["00001.tar"]).hexdigest()}"'
    status, headers, body = ask(server.url, TAR, If_None_Match=f'"other", W/{tag}')
    assert (status, body, headers["etag"]) == (304, b"", tag)
    assert ask(server.url, TAR, If_None_Match="*")[0] == 304
    assert ask(server.url, TAR, If_None_Match='"other"')[0] == 200
    assert ask(server.url, TAR, If_Match='"other"')[0] == 412
    assert ask(server.url, TAR, If_Match=tag)[0] == 200
    assert ask(server.url, TAR, Range="bytes=0-1", If_Range=tag)[0] == 206
    assert ask(server.url, TAR, Range="bytes=0-1", If_Range='"other"')[0] == 200
    assert ask(server.url, TAR, Range="bytes=0-1", If_Range=f"W/{tag}")[0] == 200


def test_an_empty_file(publish, serving):
    server = serving(publish({"empty": b"", "one": b"1"}))
    assert ask(server.url, "versions/1/birds/empty")[::2] == (200, b"")
    assert ask(server.url, "versions/1/birds/empty", Range="bytes=0-")[0] == 416


def test_many_answers_on_one_connection(server, files):
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    for start in range(0, 100, 10):
        connection.request("GET", "/" + TAR, headers={"Range": f"bytes={start}-{start + 9}"})
        assert connection.getresponse().read() == files["00001.tar"][start : start + 10]
    connection.close()


# -- only what a manifest lists ---------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "versions/1/birds/none.tar", "versions/1/birds/", "versions/1/birds", "versions/2/",
        "versions/1/birds/../manifest.json", "versions/1/birds/%2e%2e/manifest.json",
        "versions/../key.pem", "..%2f..%2fetc/passwd", ".state/lock", "versions/1/.hidden",
        "versions/1/birds/stray.txt", "versions/1/birds//00001.tar", "%00", "versions",
        "versions/1/birds/00001.tar/", "//etc/passwd",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server, tmp_path, path):
    (tmp_path / "releases/versions/1/birds/stray.txt").write_text("not listed")
    (tmp_path / "releases/versions/1/.hidden").write_text("hidden")
    assert ask(server.url, path)[0] == 404


def test_nothing_can_be_written(server):
    for method in ("PUT", "POST", "DELETE"):
        assert ask(server.url, TAR, method)[0] == 405


def test_every_view_is_served(server, tmp_path):
    folder = tmp_path / "releases/versions/1"
    names = [p.name for p in folder.iterdir() if p.is_file()]
    assert {"manifest.json", "SHA256SUMS", "birds-1.meta4", "birds-1.torrent"} <= set(names)
    for name in names:
        status, headers, body = ask(server.url, f"versions/1/{name}")
        assert (status, body) == (200, (folder / name).read_bytes())
        assert "immutable" in headers["cache-control"]
    for name in ("latest.json", "key.pem"):
        status, headers, body = ask(server.url, name)
        assert (status, body) == (200, (tmp_path / "releases" / name).read_bytes())
        assert headers["cache-control"] == "public, max-age=60"


def test_a_damaged_copy_is_not_served(server, tmp_path, files):
    place = tmp_path / "releases" / TAR
    place.unlink()
    place.write_bytes(files["00001.tar"][:-1])
    assert ask(server.url, TAR)[::2] == (404, b"this copy is damaged; use another mirror\n")


def test_a_new_version_is_noticed_at_once(server, publish, files):
    assert ask(server.url, "versions/2/manifest.json")[0] == 404
    publish(files | {"more.txt": b"more"}, "2")
    assert b'"version":"2"' in ask(server.url, "latest.json")[2]
    assert ask(server.url, "versions/2/birds/more.txt")[2] == b"more"
    assert ask(server.url, TAR)[2] == files["00001.tar"]


def test_what_is_published_while_a_server_starts_is_news(publish, files, monkeypatch):
    class Slow(Releases):
        @property
        def latest(self):
            found = super().latest
            publish(files | {"more.txt": b"more"}, "2")
            return found

    folder = publish(files)
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "Releases", Slow)
        served = catalog.Catalog(folder)
    assert [release.folder.name for release in served.releases.versions] == ["1"]
    assert served.is_stale()
    assert served.refresh()
    assert [release.folder.name for release in served.releases.versions] == ["1", "2"]


def test_what_was_taken_back_is_gone(server, publish, files, tmp_path, shard):
    old = Releases(tmp_path / "releases").latest.manifest.by_path["00001.tar"]
    removal = Removal("2", 2, "asked for", ("0" * 32,), ((old.path, old.size, old.sha256),))
    publish(files | {"00001.tar": shard(77, 1)}, "2", removal=removal)
    assert ask(server.url, TAR)[0] == 410
    assert ask(server.url, "versions/2/birds/00001.tar")[2] == shard(77, 1)
    block = ask(server.url, f"ipfs/{old.cid}?format=raw")
    assert block[::2] == (410, f"{old.cid}: was taken back by its keeper\n".encode())


def test_what_is_left_of_an_old_root_is_served_whatever_was_asked_before(
    server, publish, serving, files, tmp_path, shard, capfd
):
    first = Releases(tmp_path / "releases").latest.manifest
    root, old = first.root_cid, first.by_path["00001.tar"]
    assert ask(server.url, f"ipfs/{root}?format=raw")[0] == 200
    removal = Removal("2", 2, "asked for", ("0" * 32,), ((old.path, old.size, old.sha256),))
    publish(files | {"00001.tar": shard(77, 1)}, "2", removal=removal)
    fresh = serving(tmp_path / "releases")

    def both(path):
        found = [ask(one.url, path) for one in (server, fresh)]
        assert found[0][::2] == found[1][::2]
        return found[0]

    status, _, body = both(f"ipfs/{root}?format=car")
    assert status == 410
    assert body.decode() == (
        f"{root}/00001.tar: {old.cid}: was taken back by its keeper; ask for the other files one "
        "by one\n"
    )
    assert both(f"ipfs/{root}/00001.tar?format=car")[0] == 410
    assert both(f"ipfs/{root}/00002.tar?format=car")[0] == 200
    assert both(f"ipfs/{root}?format=raw")[0] == 200
    assert both(f"ipfs/{root}?format=car&dag-scope=entity")[0] == 200
    for cid, count in ((root, 1), (old.cid, 0), (first.by_path["00002.tar"].cid, 1)):
        found = [ask(one.url, f"routing/v1/providers/{cid}")[2] for one in (server, fresh)]
        assert [len(json.loads(body)["Providers"]) for body in found] == [count, count]
    assert capfd.readouterr().err == ""


def test_a_damaged_block_is_an_error_and_one_line(server, tmp_path, capfd):
    manifest = Releases(tmp_path / "releases").latest.manifest
    place = tmp_path / "releases" / TAR
    data = bytearray(place.read_bytes())
    for at in (10, 2 << 20):
        data[at] ^= 1
    place.write_bytes(data)
    file_cid = CID.parse(manifest.by_path["00001.tar"].cid)
    leaf = next(dag.leaves(Gateway(Releases(tmp_path / "releases")).blocks.get, file_cid)).cid
    answer = ask(server.url, f"ipfs/{leaf}?format=raw")
    assert answer[::2] == (500, b"this copy is damaged; use another mirror\n")
    assert answer[1]["cache-control"] == "no-store"
    assert capfd.readouterr().err == (
        f"warning: {place}: bytes 0 to 1,048,576 are not what was released\n"
    )
    with pytest.raises(http.client.IncompleteRead):  # the first block is sound
        ask(server.url, f"ipfs/{file_cid}?format=car")
    assert capfd.readouterr().err == (
        f"warning: /ipfs/{file_cid}: an answer was broken off: {place}: bytes 0 to 1,048,576 are "
        "not what was released\n"
    )


def test_an_address_is_one(publish, files):
    folder = publish(files)
    for base in ("nonsense", "ftp://host/", "http://", "https://ho st/", "http://[::1/"):
        with pytest.raises(
            UsageError, match=r"expected an address as in https://data\.example\.org/"
        ):
            serve(folder, port=0, base=base)


def test_the_page_of_a_version_offers_what_works(server, publish, files, tmp_path, shard):
    status, headers, _ = ask(server.url, "versions/1")
    assert (status, headers["location"]) == (308, "1/")
    publish(files | {"more.txt": b"more"}, "2", mirrors=("https://example.org/",))
    page = ask(server.url, "versions/2/")[2].decode()
    assert "aria2c" in page
    assert "sha256sum -c --quiet SHA256SUMS" in page
    gone = Releases(tmp_path / "releases").latest.manifest.by_path["00001.tar"]
    removal = Removal("3", 3, "asked for", ("0" * 32,), ((gone.path, gone.size, gone.sha256),))
    publish(files | {"00001.tar": shard(77, 1)}, "3", removal=removal)
    page = ask(server.url, "versions/2/")[2].decode()
    assert "aria2c" not in page
    assert "sha256sum -c --quiet --ignore-missing SHA256SUMS" in page


def test_blocks_for_ipfs(server, tmp_path):
    manifest = Releases(tmp_path / "releases").latest.manifest
    status, headers, body = ask(server.url, f"ipfs/{manifest.root_cid}?format=raw")
    assert status == 200
    assert headers["content-type"] == "application/vnd.ipld.raw"
    assert b"README.md" in body
    assert ask(server.url, f"ipfs/{manifest.root_cid}?format=raw", "HEAD")[2] == b""
    status, headers, body = ask(server.url, f"routing/v1/providers/{manifest.root_cid}")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert b"transport-ipfs-gateway-http" in body


# -- pages ------------------------------------------------------------------------------------


def test_the_page(server):
    status, headers, body = ask(server.url)
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>birds</h1>" in page
    assert f"datacomp get {server.url} birds" in page
    assert f"{server.url}versions/1/birds/{{00000..00003}}.tar" in page
    assert "<script" not in page
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_every_link_of_the_pages_leads_somewhere(server):
    import re

    for page in ("", "versions/1/"):
        text = ask(server.url, page)[2].decode()
        links = re.findall(r"href='([^']+)'", text)
        assert len(links) > 4
        for link in links:
            if link.startswith(("magnet:", "ipfs:")):
                continue
            path = link.removeprefix(server.url) if "://" in link else page + link
            path = "" if path.endswith("../../") else path
            assert ask(server.url, path, "HEAD")[0] == 200, link


def test_the_magnet_is_of_the_torrent_that_every_client_reads(server, tmp_path):
    import html
    import re

    manifest = Releases(tmp_path / "releases").latest.manifest
    v1, hybrid = manifest.torrents["v1"], manifest.torrents["hybrid"]
    for page in ("", "versions/1/"):
        text = html.unescape(ask(server.url, page)[2].decode())
        found = {name: url for url, name in re.findall(r"href='(magnet:[^']+)'>([^<]+)<", text)}
        end = f"&dn=birds&ws={quote(f'{server.url}versions/1/', safe='')}"
        assert found == {
            "Magnet": f"magnet:?xt=urn:btih:{v1['infohash']}{end}",
            "Magnet (v2)": f"magnet:?xt=urn:btih:{hybrid['infohash_v1']}"
            f"&xt=urn:btmh:1220{hybrid['infohash_v2']}{end}",
        }


def test_a_page_cannot_be_turned_against_its_reader(publish, serving, tmp_path):
    from datacomp.distribution.release import About

    evil = "<script>alert(1)</script>"
    server = serving(publish({"<b>x&.txt": b"1"}, about=About(description=evil, authors=(evil,))))
    for path in ("", "versions/1/"):
        page = ask(server.url, path, Host='x"><script>')[2]
        assert b"<script" not in page
        assert b"<b>" not in page


# -- brace URLs -------------------------------------------------------------------------------


def test_brace_lines():
    names = ["00000.tar", "00001.tar", "00002.tar", "00004.tar", "a/9.tar", "a/10.tar", "x.tar"]
    assert brace_lines(names) == [
        "{00000..00002}.tar", "00004.tar", "a/9.tar", "a/10.tar", "x.tar",
    ]  # fmt: skip


@given(st.lists(st.integers(0, 120), unique=True))
def test_brace_lines_expand_to_the_names(numbers):
    import braceexpand

    names = [f"part-{number:03d}.tar" for number in sorted(numbers)]
    lines = brace_lines(names)
    assert [name for line in lines for name in braceexpand.braceexpand(line)] == names


TRAIN = """
import json, sys
from pathlib import Path
import datacomp.evaluate, open_clip, torch, webdataset as wds

torch.manual_seed(0)
torch.set_num_threads(1)
open_clip.add_model_config(Path(datacomp.evaluate.__file__).with_name("model_configs"))
model, transform, _ = open_clip.create_model_and_transforms("datacomp-demo")
tokenize = open_clip.get_tokenizer("datacomp-demo")
samples = (
    wds.WebDataset(sys.argv[1], shardshuffle=False)
    .decode("pilrgb")
    .to_tuple("__key__", "png", "txt")
    .map_tuple(str, transform, lambda text: tokenize(text)[0])
    .batched(4)
)
loss_of = open_clip.ClipLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
batches = list(samples)
losses = []
for _, images, texts in batches * 2:
    images_said, texts_said, scale = model(images, texts)
    loss = loss_of(images_said, texts_said, scale)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(json.dumps([[key for keys, *_ in batches for key in keys], losses]))
"""


def test_webdataset_trains_from_the_served_shards(publish, serving, picture, launcher):
    pytest.importorskip("webdataset")
    pytest.importorskip("open_clip")
    shards = {}
    for shard in range(2):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for number in range(4):
                text = b"picture %d of %d" % (number, shard)
                for name, data in (("png", picture(4 * shard + number)), ("txt", text)):
                    entry = tarfile.TarInfo(f"{shard:05d}{number:04d}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        shards[f"{shard:05d}.tar"] = buffer.getvalue()
    folder = publish(shards)
    server = serving(folder)
    url = "::".join(brace_urls(folder, server.url))
    assert "{00000..00001}.tar" in url
    # A process of its own: webdataset leaves the pipes of its curl open.
    done = launcher.run("-c", TRAIN, url)
    assert done.returncode == 0, done.stderr
    keys, losses = json.loads(done.stdout)
    assert keys == [f"{shard:05d}{number:04d}" for shard in range(2) for number in range(4)]
    assert sum(losses[2:]) < sum(losses[:2])


# -- starting ---------------------------------------------------------------------------------


def test_a_folder_without_releases(tmp_path):
    with pytest.raises(MissingError, match="no release there; make one with"):
        serve(tmp_path / "none")


def test_a_port_that_is_taken(publish, files):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=rf"cannot listen on 127\.0\.0\.1:{port}: address"):
            serve(publish(files), port=port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_stops(publish, files, number):
    folder = publish(files)
    process = subprocess.Popen(
        [sys.executable, "-m", "datacomp.curate.cli", "serve", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = process.stdout.readline().strip()
        assert process.stdout.readline().strip() == f"{url}versions/1/birds/{{00000..00003}}.tar"
        assert ask(url, quote(TAR))[2] == files["00001.tar"]
    finally:
        process.send_signal(number)
        process.stdout.close()
        assert process.wait(10) == 0
