"""What becomes of every kind of URL: good ones, dead ones, and servers that mean harm."""

import datetime
import importlib
import io
import socket
import ssl
import struct
import time
import zlib
from email.message import Message

import pyarrow.parquet as pq
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from datacomp.curate.fetching import REASONS, addresses
from datacomp.curate.fetching.addresses import is_public
from datacomp.curate.fetching.limits import Hosts
from datacomp.curate.fetching.optout import opted_out
from datacomp.curate.fetching.reasons import reason_of, retry_pattern
from datacomp.errors import UsageError
from PIL import Image

BUFFER = io.BytesIO()
Image.new("RGB", (32, 32), (200, 30, 30)).save(BUFFER, "JPEG")
PICTURE = BUFFER.getvalue()


def png_of(width, height):
    """Return the start of a PNG that promises so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + (
        chunk(b"IEND", b"")
    )  # fmt: skip


def slowly(handler):
    """Never answer."""
    handler.over.wait(60)


def drip(handler):
    """Send a byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.over.wait(0.05):
        handler.wfile.write(b"x")


def drip_headers(handler):
    """Send a header that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.over.wait(0.05):
        handler.wfile.write(b"x")


def endless(handler):
    """Send ten gigabytes that nobody announced."""
    handler.send_response(200)
    handler.end_headers()
    block = bytes(1 << 20)
    for _ in range(10_000):
        handler.wfile.write(block)
        type(handler).sent += len(block)


def promised(handler):
    """Announce ten gigabytes, and send some."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10 << 30))
    handler.end_headers()
    handler.wfile.write(bytes(1 << 16))


def dies(handler):
    """Stop in the middle."""
    data = PICTURE
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])


def dies_chunked(handler):
    """Stop in the middle of a chunk."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + bytes(20))


def nonsense(handler):
    """Speak something else."""
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n")


def resets(handler):
    """Hang up on the caller."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def tells(status, data=b"", kind="text/plain", **headers):
    """Return a route with a fixed answer."""
    return lambda handler: handler.answer(status, data, kind, **headers)


def redirect(to):
    return tells(302, b"", Location=to)


def small():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def scans():
    """Return a JPEG that claims thousands of scans."""
    return PICTURE[:-2] + b"\xff\xda\x00\x08" * 5000 + PICTURE[-2:]


ROUTES = {
    "/404.jpg": (tells(404), "http_404"),
    "/500.jpg": (tells(500), "http_500"),
    "/304.jpg": (tells(304), "http_304"),
    "/never.jpg": (slowly, "timeout"),
    "/drip.jpg": (drip, "timeout"),
    "/drip-headers.jpg": (drip_headers, "timeout"),
    "/loop.jpg": (redirect("/loop.jpg"), "redirects"),
    "/nowhere.jpg": (tells(302), "redirects"),
    "/file.jpg": (redirect("file:///etc/passwd"), "bad_url"),
    "/endless.jpg": (endless, "too_many_bytes"),
    "/promised.jpg": (promised, "too_many_bytes"),
    "/bomb.jpg": (tells(200, png_of(60_000, 60_000), "image/jpeg"), "too_many_pixels"),
    "/html.jpg": (tells(200, b"<html><body>Gone</body></html>", "image/jpeg"), "not_an_image"),
    "/broken.jpg": (tells(200, png_of(4, 4), "image/png"), "image_broken"),
    "/scans.jpg": (tells(200, scans(), "image/jpeg"), "image_broken"),
    "/small.jpg": (tells(200, small(), "image/png"), "too_small"),
    "/dies.jpg": (dies, "cut_short"),
    "/chunk.jpg": (dies_chunked, "cut_short"),
    "/nonsense.jpg": (nonsense, "bad_answer"),
    "/resets.jpg": (resets, "connection"),
    "/empty.jpg": (tells(200, b""), "empty"),
    "/noai.jpg": (tells(200, PICTURE, X_Robots_Tag="noai"), "opted_out"),
    "/none.jpg": (tells(200, PICTURE, X_Robots_Tag="none"), "opted_out"),
    "/tdm.jpg": (tells(200, PICTURE, TDM_Reservation="1"), "opted_out"),
}


@pytest.fixture
def hostile(web):
    web.routes = {path: route for path, (route, _) in ROUTES.items()} | {
        "/moved.jpg": redirect("/img/77.jpg"),
        "/a b.jpg": tells(404),
    }
    return web


def test_every_url_has_a_reason(hostile, urls_pool, fetch, states, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        unused = closed.getsockname()[1]
    expected = {hostile.url + path: reason for path, (_, reason) in ROUTES.items()} | {
        f"http://127.0.0.1:{unused}/x.jpg": "refused",
        "http://no-such-host.invalid/x.jpg": "dns",
        "ftp://example.org/x.jpg": "bad_url",
        "file:///etc/passwd": "bad_url",
        "no url": "bad_url",
        "http://[bad/x.jpg": "bad_url",
        hostile.url.replace("http:", "https:") + "/img/1.jpg": "tls",
        hostile.url + "/img/1.jpg": None,
        hostile.url + "/moved.jpg": None,
        hostile.url + "/a b.jpg": "http_404",
    }
    pool = urls_pool(list(expected))
    importlib.import_module("datacomp.curate.fetching.worker")  # takes a while
    started = time.monotonic()
    report = fetch(pool, tmp_path / "out", threads=64, timeout=0.4, per_host=64, min_size=20)
    assert time.monotonic() - started < 15
    found = {url: reason for url, (_, reason, _) in states(pool).items()}
    assert found == expected
    assert {(state, attempts) for state, _, attempts in states(pool).values()} == {
        ("ok", 1), ("failed", 1),
    }  # fmt: skip
    assert report.fetched == report.available == 2
    assert report.tried == report.samples == len(expected)
    assert hostile.sent < 200 << 20  # of ten gigabytes
    messages = {
        row["url"]: row["error_message"]
        for row in pq.read_table(tmp_path / "out/00000000.parquet").to_pylist()
    }
    assert messages[hostile.url + "/promised.jpg"] == (
        "too_many_bytes: 10,737,418,240 promised, at most 67,108,864 allowed"
    )
    assert messages[hostile.url + "/html.jpg"] == ("not_an_image: not an image of a known format")
    assert messages[hostile.url + "/never.jpg"] == "timeout: timed out"
    assert messages[hostile.url + "/drip.jpg"] == "timeout: took too long altogether"


def test_private_addresses_are_refused(web, urls_pool, fetch, states, tmp_path):
    port = web.url.rsplit(":", 1)[1]
    hosts = ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]")
    pool = urls_pool([f"http://{host}:{port}/img/1.jpg" for host in hosts])
    fetch(pool, tmp_path / "out", allow_private=False)
    assert {reason for _, reason, _ in states(pool).values()} == {"private_address"}
    assert web.asked == []


def test_a_redirect_to_a_private_address_is_refused(
    web, serve, urls_pool, fetch, states, tmp_path, monkeypatch
):
    # 127.0.0.1 stands for the open internet here, 127.0.0.2 for the machine next door.
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    with serve("127.0.0.2") as inside:
        web.routes["/evil.jpg"] = redirect(f"{inside.url}/img/3.jpg")
        pool = urls_pool([f"{web.url}/evil.jpg", f"{inside.url}/img/2.jpg", f"{web.url}/img/1.jpg"])
        fetch(pool, tmp_path / "out", allow_private=False)
        assert inside.asked == []
    assert [reason for _, reason, _ in states(pool).values()] == [
        "private_address", "private_address", None,
    ]  # fmt: skip


def test_a_name_is_resolved_once(web, serve, urls_pool, fetch, states, tmp_path, monkeypatch):
    """A name that is public when it is judged and private when it is called (DNS rebinding)."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    port = int(web.url.rsplit(":", 1)[1])
    answers = []
    real = socket.getaddrinfo

    def rebinding(host, *arguments, **named):
        if host != "rebind.example":
            return real(host, *arguments, **named)
        answers.append("127.0.0.2" if answers else "127.0.0.1")
        return real(answers[-1], *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    pool = urls_pool([f"http://rebind.example:{port}/img/1.jpg"])
    fetch(pool, tmp_path / "out", allow_private=False)
    assert answers == ["127.0.0.1"]
    assert next(iter(states(pool).values())) == ("ok", None, 1)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2001:4860:4860::8888", True), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("127.0.0.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("::1", False),
        ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True), ("2002:7f00:1::", False), ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True), ("::127.0.0.1", False), ("ff02::1", False),
        ("fec0::1", False), ("feff::1", False), ("::ffff:0:10.0.0.1", False),
        ("::ffff:0:8.8.8.8", True), ("64:ff9b:1::808:808", False), ("2001:0:a00:1::", False),
    ],
)  # fmt: skip
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_a_busy_host_is_left_alone(web, urls_pool, fetch, states, tmp_path):
    asked = []

    def busy(handler):
        asked.append(time.monotonic())
        handler.answer(429, b"", Retry_After="120")

    web.routes |= {f"/{i}.jpg": busy for i in range(20)}
    pool = urls_pool([f"{web.url}/{i}.jpg" for i in range(20)])
    report = fetch(pool, tmp_path / "out", threads=8, per_host=1)
    assert len(asked) == 1
    assert report.failed == {"host_busy": 19, "http_429": 1}
    assert states(pool)[f"{web.url}/3.jpg"][0] == "failed"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120), ("7200", 300), ("9" * 400, 300), ("0", 0), (None, 5), ("soon", 5),
        ("-1", 5), ("Tue, 01 Dec 2026 02:02:00 GMT", 120), ("Wed, 02 Dec 2026 02:00:00 GMT", 300),
        ("Mon, 30 Nov 2026 02:00:00 GMT", 0), ("Tue, 99 Foo 99999999999 02:00:00 GMT", 5),
        ("Tue, 01 Dec 99999 02:00:00 GMT", 5),
    ],
)  # fmt: skip
def test_how_long_a_host_is_left_alone(monkeypatch, header, seconds):
    now = datetime.datetime(2026, 12, 1, 2, tzinfo=datetime.UTC).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    waited = []
    hosts = Hosts(1, 1000.0, waited.append)
    hosts.leave_alone("x.org", header)
    with hosts.turn("x.org"):
        assert waited == ([seconds] if seconds else [])


def test_a_short_rest_is_waited_for(web, urls_pool, fetch, tmp_path):
    asked = []

    def busy_at_first(handler):
        asked.append(time.monotonic())
        if len(asked) == 1:
            handler.answer(503, b"", Retry_After="1")
        else:
            handler.answer(200, PICTURE)

    web.routes |= {f"/{i}.jpg": busy_at_first for i in range(3)}
    pool = urls_pool([f"{web.url}/{i}.jpg" for i in range(3)])
    report = fetch(pool, tmp_path / "out", per_host=1)
    assert (report.fetched, report.failed) == (2, {"http_503": 1})
    assert asked[1] - asked[0] > 0.9


def test_a_host_gets_only_so_many_connections(web, urls_pool, fetch, tmp_path):
    def counted(handler):
        own = type(handler)
        own.open_now += 1
        own.most_open = max(own.most_open, own.open_now)
        time.sleep(0.02)
        own.open_now -= 1
        handler.answer(200, PICTURE)

    web.routes |= {f"/{i}.jpg": counted for i in range(30)}
    pool = urls_pool([f"{web.url}/{i}.jpg" for i in range(30)])
    assert fetch(pool, tmp_path / "out", threads=16, per_host=3).fetched == 30
    assert 2 <= web.most_open <= 3


@pytest.mark.parametrize(
    ("values", "header"),
    [
        (["none"], "X-Robots-Tag: none"), (["nofollow, NoAI "], "X-Robots-Tag: noai"),
        (["all", "noimageindex"], "X-Robots-Tag: noimageindex"),
        (["nofollow"], None), (["max-image-preview: none"], None), ([""], None),
        (["other: noindex, noai"], None), (["other: nofollow, DataComp: none"],
                                           "X-Robots-Tag: none"),
        (["datacomp: nofollow, noai"], "X-Robots-Tag: noai"), (["*: noai"], "X-Robots-Tag: noai"),
        (["noindex, unavailable_after: 25 Jun 2030 15:00:00 PST"], "X-Robots-Tag: noindex"),
        (["unavailable_after: Tue, 25 Jun 2030 15:00:00 PST, noai"], "X-Robots-Tag: noai"),
        (["max-snippet: 50, noai"], "X-Robots-Tag: noai"),
    ],
)  # fmt: skip
def test_what_opts_out(values, header):
    headers = Message()
    for value in values:
        headers["X-Robots-Tag"] = value
    assert opted_out(headers, "DataComp") == header


def test_opt_out_can_be_ignored_and_goes_by_name(web, urls_pool, fetch, states, tmp_path):
    web.routes["/all.jpg"] = tells(200, PICTURE, X_Robots_Tag="noimageai")
    web.routes["/us.jpg"] = tells(200, PICTURE, X_Robots_Tag="datacomp: noindex")
    web.routes["/them.jpg"] = tells(200, PICTURE, X_Robots_Tag="other: noindex")
    urls = [f"{web.url}/{name}.jpg" for name in ("all", "us", "them")]
    pool = urls_pool(urls)
    fetch(pool, tmp_path / "out", user_agent_token="DataComp")
    assert [states(pool)[url][1] for url in urls] == ["opted_out", "opted_out", None]
    report = fetch(pool, tmp_path / "out", honour_opt_out=False, retry=("opted_out",))
    assert (report.fetched, report.available) == (2, 3)


def test_memory_for_large_bodies_is_bounded(web, urls_pool, fetch, tmp_path, monkeypatch):
    from datacomp.curate.fetching import worker

    body = PICTURE + bytes((3 << 20) - len(PICTURE))
    held = []
    take = worker.Room.take
    monkeypatch.setattr(worker, "ROOM", 7 << 20)
    monkeypatch.setattr(
        worker.Room, "take", lambda room, *given: (take(room, *given), held.append(room._total))
    )
    web.routes |= {f"/{i}.jpg": tells(200, body) for i in range(12)}
    pool = urls_pool([f"{web.url}/{i}.jpg" for i in range(12)])
    report = fetch(pool, tmp_path / "out", threads=12, timeout=10)
    assert report.fetched == 12
    assert len(held) == 12
    assert max(held) <= 7 << 20


def test_over_tls(urls_pool, fetch, states, serve, tmp_path, monkeypatch):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serve(context=context) as web:
        web.routes["/never.jpg"] = slowly
        port = web.url.rsplit(":", 1)[1]
        urls = [f"https://localhost:{port}/img/1.jpg", f"https://127.0.0.1:{port}/img/1.jpg",
                f"https://localhost:{port}/never.jpg"]  # fmt: skip
        pool = urls_pool(urls)
        fetch(pool, tmp_path / "out")  # a certificate that nobody trusts
        assert [reason for _, reason, _ in states(pool).values()] == ["tls", "tls", "tls"]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        fetch(pool, tmp_path / "out", retry=("tls",), timeout=0.5)
        # The second URL has another name than the certificate.
        assert [reason for _, reason, _ in states(pool).values()] == [None, "tls", "timeout"]


def test_through_a_proxy(web, urls_pool, fetch, states, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    web.routes["http://images.invalid/1.jpg"] = tells(200, PICTURE)
    pool = urls_pool(["http://images.invalid/1.jpg", "http://10.1.2.3/1.jpg"])
    fetch(pool, tmp_path / "out", allow_private=False)
    assert [reason for _, reason, _ in states(pool).values()] == [None, "private_address"]
    assert web.asked == ["http://images.invalid/1.jpg"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("dns: x: Name or service not known", "dns"),
        ("http_404: Not Found", "http_404"),
        ("HTTP Error 404: Not Found", "http_404"),
        ("HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite "
         "loop.\nThe last 30x error message was:\nFound", "redirects"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns"),
        ("<urlopen error timed out>", "timeout"),
        ("<urlopen error [Errno 111] Connection refused>", "refused"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>", "tls"),
        ("IncompleteRead(20 bytes read, 80 more expected)", "cut_short"),
        ("Remote end closed connection without response", "connection"),
        ("Use of image disallowed by X-Robots-Tag directive", "opted_out"),
        ("hash mismatch", "hash_mismatch"),
        ("Image decoding error", "image_broken"),
        ("image too small", "too_small"),
        ("unknown url type: 'x'", "bad_url"),
        ("", "not_fetched"),
        ("something else: entirely", "not_fetched"),
    ],
)  # fmt: skip
def test_reasons_of_messages(message, reason):
    assert reason_of(message) == reason
    assert reason in REASONS or reason.startswith("http_")


def test_names_of_what_to_retry():
    assert retry_pattern(["dns", "404", "5xx", "dns"]) == r"dns|http_404|http_5\d\d"
    with pytest.raises(UsageError, match=r"--retry 'tiemout': no such reason \(did you mean 'time"):
        retry_pattern(["tiemout"])
