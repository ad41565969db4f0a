"""The submission API over real HTTP: nothing lost, nothing shown that was not verified."""

import http.client
import io
import json
import socket
import stat
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
from datacomp.curate.leaderboard.server import tokens
from datacomp.evaluate.leaderboard.store import add, places
from datacomp.pools.tar import tar_bytes, ustar_header
from datacomp.pools.uids import from_hex, save_subset

LIMIT = 4 << 20


@pytest.fixture
def server(serving, tmp_path):
    server = serving("--max-bytes", str(LIMIT))
    server.token = tokens.create(server.store, "tester", "tester@example.org")
    return server


@pytest.fixture(scope="module")
def refusing(tmp_path_factory, start_server):
    """A server that the tests give nothing it could take."""
    server = start_server(tmp_path_factory.mktemp("refusing") / "store", "--max-bytes", str(LIMIT))
    server.token = tokens.create(server.store, "tester")
    return server


def post(server, data, token=None, **headers):
    """Post bytes; return status and what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    named = {"Authorization": f"Bearer {token or server.token}",
             "Content-Type": "application/x-tar"}  # fmt: skip
    named |= {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        connection.request("POST", "/api/submissions", data, named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def raw(server, head, body=b""):
    """Send bytes as they are; return the status and how much of the body was taken."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.settimeout(30)
        sock.sendall(head)
        sent = 0
        try:
            for _ in range(1 << 20):
                if not body:
                    break
                sock.sendall(body)
                sent += len(body)
        except OSError:
            pass
        try:
            answer = sock.recv(65536)
        except OSError:
            answer = b""
        return int(answer.split()[1]) if answer else 0, sent


def assert_clean(server, count=0):
    """Nothing is shown, stored or left over but ``count`` submissions."""
    assert len(server.shown()) == count
    assert len(places(server.store)) == count
    assert not list(server.store.glob(".incoming-*"))


def test_submit_verify_and_see_it_appear(server, submissions, tar_of):
    (folder,) = submissions(1, method="<script>alert(1)</script> & co")
    status, answer = post(server, tar_of(folder))
    assert (status, answer["new"]) == (201, True)
    assert answer["page"] == f"/entries/{answer['id']}.html"
    page = server.get(answer["page"][1:]).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.replace("<wbr>", "")
    assert "<script>alert" not in page
    assert "<script>alert" not in server.get("small.html").decode()
    assert "<script>alert" not in server.get("data/small.js").decode()
    assert (
        server.get(f"files/{answer['id']}/results/0.jsonl")
        == (folder / "results" / "0.jsonl").read_bytes()
    )
    assert json.loads(server.get(f"api/submissions/{answer['id']}"))["record"]["author"] == "Ada"
    assert post(server, tar_of(folder)) == (200, {**answer, "new": False})
    assert_clean(server, 1)


def test_fifty_at_once(server, submissions, tar_of):
    archives = [tar_of(folder) for folder in submissions(50)]
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda data: post(server, data), archives))
    assert [status for status, _ in answers] == [201] * 50
    assert server.shown() == {answer["id"] for _, answer in answers}
    assert_clean(server, 50)


def test_the_same_one_at_once_is_there_once(server, submissions, tar_of):
    data = tar_of(submissions(1)[0])
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(server, data), range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert_clean(server, 1)


def test_another_name_for_the_same_results_is_a_duplicate(server, submissions, tar_of, copy_as):
    (folder,) = submissions(1)
    first = post(server, tar_of(folder))[1]["id"]
    status, answer = post(server, tar_of(copy_as(folder, method="Stolen")))
    assert (status, answer["other"]) == (409, first)
    assert_clean(server, 1)


@pytest.fixture
def copy_as(tmp_path):
    """Return a maker of a submission's copy with other words, and digests that fit."""
    import shutil

    from datacomp.durable import canonical_json, sha256_file
    from datacomp.evaluate.leaderboard.record import identifier

    def copy_as(folder, change=None, **values):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        content = json.loads((copy / "submission.json").read_bytes()) | values
        if change:
            change(copy, content)
        for file in content["files"]:
            path = copy / file["path"]
            file["size"], file["sha256"] = path.stat().st_size, sha256_file(path)
        content["id"] = identifier(content)
        (copy / "submission.json").write_bytes(canonical_json(content))
        return copy

    return copy_as


def forged_average(folder, content):
    content["runs"][0]["aggregates"]["Average"] = 0.9


def forged_score(folder, content):
    path = folder / "results" / "0.jsonl"
    path.write_text(path.read_text().replace('"acc1": 0.', '"acc1": 0.9', 1))


def unsorted_subset(folder, content):
    uids = from_hex([f"{i:032x}" for i in range(50)])
    path = next((folder / "samples").iterdir())
    data = bytearray(path.read_bytes())
    data[-16:], data[-32:-16] = data[-32:-16], data[-16:]
    assert len(uids) == 50
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("forgery", "rule"),
    [(forged_average, "aggregates"), (forged_score, "metrics"), (unsorted_subset, "samples")],
)
def test_forgeries_are_refused(refusing, submissions, tar_of, copy_as, forgery, rule):
    status, answer = post(refusing, tar_of(copy_as(submissions(1)[0], forgery)))
    assert status == 422
    assert rule in {one["rule"] for one in answer["refused"]}
    assert str(refusing.store) not in json.dumps(answer)
    assert_clean(refusing)


def test_a_foreign_subset_is_refused(serving, submissions, tar_of, tmp_path):
    save_subset(tmp_path / "pool.npy", from_hex([f"{i:032x}" for i in range(40)]))
    server = serving("--pool", f"small={tmp_path / 'pool.npy'}")
    server.token = tokens.create(server.store, "tester")
    status, answer = post(server, tar_of(submissions(1)[0]))
    assert status == 422
    assert answer["refused"][0]["what"] == f"uid {40:032x} is not in the pool"
    assert_clean(server)
    # Nor does it get in past the server, be it while it runs or before it starts.
    add(server.store, submissions(1)[0])
    time.sleep(1.1)
    assert server.shown() == set()
    server.kill()
    server.start()
    assert server.shown() == set()


# -- bodies that mean harm -------------------------------------------------------------------


def head(server, *lines):
    return "\r\n".join([
        "POST /api/submissions HTTP/1.1", "Host: x", f"Authorization: Bearer {server.token}",
        "Content-Type: application/x-tar", *lines, "", "",
    ]).encode()  # fmt: skip


def test_ten_gigabytes_are_refused_unread_or_cut_off(refusing):
    status, _ = raw(refusing, head(refusing, f"Content-Length: {10 << 30}"))
    assert status == 413
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    status, sent = raw(refusing, head(refusing, "Transfer-Encoding: chunked"), chunk)
    assert status in (413, 0)  # the answer may be lost with the connection
    assert sent < LIMIT + (64 << 20)  # what the system's buffers hold
    assert_clean(refusing)
    assert refusing.process.poll() is None


def test_a_length_that_is_none_is_refused(refusing):
    for length in ("-1", "9" * 30, "ten"):
        status, _ = raw(refusing, head(refusing, f"Content-Length: {length}"))
        assert status in (400, 413)
    assert_clean(refusing)


def test_a_zip_bomb_is_not_opened(refusing):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("submission.json", bytes(200 << 20))
    status, answer = post(refusing, buffer.getvalue())
    assert status == 422
    assert "a compressed archive may grow without bounds" in answer["error"]
    assert post(refusing, b"x", Content_Encoding="gzip")[0] == 415
    assert post(refusing, b"x", Content_Type="application/zip")[0] == 415
    assert_clean(refusing)


@pytest.mark.parametrize(
    "name", ["../escaped.json", "/tmp/escaped.json", "samples/../../escaped.npy", "run.sh",
             "samples/.hidden.npy", "samples/a/b.npy", "samples/x.npy\n", ".server/tokens.jsonl",
             "C:\\x.npy"],
)  # fmt: skip
def test_path_tricks_are_refused(refusing, name):
    block = bytearray(ustar_header("x", 2))
    block[:100] = name.encode().ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data = tar_bytes([("submission.json", b"{}")])[:1024] + bytes(block) + b"{}".ljust(512, b"\0")
    status, answer = post(refusing, data + bytes(1024))
    assert status == 422, answer
    assert not (refusing.store.parent / "escaped.json").exists()
    assert_clean(refusing)


def test_links_and_double_names_are_refused(refusing):
    block = bytearray(ustar_header("samples/x.npy", 0))
    block[156:157], block[157:168] = b"2", b"/etc/passwd"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert post(refusing, bytes(block) + bytes(1024))[0] == 422
    twice = tar_bytes([("submission.json", b"{}"), ("submission.json", b"{}")])
    assert "stands there twice" in post(refusing, twice)[1]["error"]
    assert post(refusing, b"")[0] == 422
    assert post(refusing, b"\0" * 5000)[0] == 422
    assert_clean(refusing)


# -- who may ---------------------------------------------------------------------------------


def test_wrong_tokens_are_refused_and_slowed_down(server, submissions, tar_of):
    data = tar_of(submissions(1)[0])
    assert post(server, data, token="dct_wrong")[0] == 401
    assert post(server, data, Authorization="Basic eDp5")[0] == 401
    tokens.revoke(server.store, "tester")
    assert post(server, data)[0] == 401
    statuses = [post(server, b"x", token="dct_guess")[0] for _ in range(25)]
    assert statuses[-1] == 429
    assert_clean(server)


def test_only_digests_of_tokens_are_kept(server):
    private = server.store / ".server"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    kept = b"".join(p.read_bytes() for p in private.iterdir())
    assert server.token.encode() not in kept
    assert tokens.digest(server.token).encode() in kept


def test_the_rate_is_limited(serving, submissions, tar_of):
    server = serving("--per-hour", "2")
    server.token = tokens.create(server.store, "eager")
    archives = [tar_of(folder) for folder in submissions(3)]
    assert [post(server, data)[0] for data in archives] == [201, 201, 429]
    assert_clean(server, 2)


def test_private_matter_is_never_given_out(server, submissions, tar_of):
    post(server, tar_of(submissions(1)[0]))
    for path in (".server/tokens.jsonl", ".lock", "files/x/../../.server/tokens.jsonl",
                 "files/%2e%2e/%2e%2e/.server/tokens.jsonl", "small/filtering"):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", f"/{path}")
        assert connection.getresponse().status == 404, path
        connection.close()
    for path in ("", "small.html", "api/submissions"):
        assert b"tester@example.org" not in server.get(path)


def test_every_attempt_is_in_the_audit_log(server, submissions, tar_of):
    import duckdb

    post(server, tar_of(submissions(1)[0]))
    post(server, b"x", token="dct_wrong")
    post(server, b"not a tar")
    assert "Traceback" not in server.stop()
    with duckdb.connect(server.store / ".server" / "ledger.duckdb", read_only=True) as ledger:
        rows = ledger.sql("SELECT token, outcome, status FROM audit ORDER BY time").fetchall()
    assert rows == [
        ("tester", "accepted", 201), (None, "rejected", 401), ("tester", "rejected", 422),
    ]  # fmt: skip


# -- accidents -------------------------------------------------------------------------------


def test_killed_in_the_middle_nothing_is_lost(server, submissions, tar_of):
    archives = [tar_of(folder) for folder in submissions(24)]
    answered = set()
    with ThreadPoolExecutor(6) as threads:
        waiting = [threads.submit(post, server, data) for data in archives]
        for number, done in enumerate(as_completed(waiting)):
            if number == 8:
                server.kill()
            try:
                status, answer = done.result()
            except (OSError, http.client.HTTPException, ValueError):
                continue  # lost with the server
            assert status == 201
            answered.add(answer["id"])
    assert answered
    server.start()
    shown = server.shown()
    assert answered <= shown
    assert shown == {place.name for place in places(server.store)}
    again = [post(server, data) for data in archives]
    assert {status for status, _ in again} <= {200, 201}
    assert_clean(server, 24)


def test_what_is_not_sound_in_the_store_is_not_shown(server, submissions, tar_of):
    (folder,) = submissions(1)
    id = post(server, tar_of(folder))[1]["id"]
    server.stop()
    (place,) = places(server.store)
    path = place / "results" / "0.jsonl"
    path.write_text(path.read_text().replace("0.", "0.9", 3))
    server.start()
    assert server.shown() == set()
    with pytest.raises(OSError, match="404"):
        server.get(f"entries/{id}.html")
    assert "not shown" in server.stop()


def test_submissions_put_into_the_folder_are_seen(server, submissions):
    import time

    from datacomp.evaluate.leaderboard.store import add

    report, fresh = add(server.store, submissions(1)[0])
    assert fresh
    until = time.monotonic() + 20
    while report.id not in server.shown() and time.monotonic() < until:
        time.sleep(0.2)
    assert report.id in server.shown()


def test_the_command_submits_over_http(server, write_run, tmp_path, command, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    run = write_run(tmp_path / "run", samples=1)
    save_subset(tmp_path / "s.npy", from_hex(["1" * 32]))
    (tmp_path / "token").write_text(server.token)
    words = ("submit", run, "--method", "mine", "--author", "A. Person", "--samples",
             tmp_path / "s.npy", "--to", server.url,
             "--token-file", tmp_path / "token")  # fmt: skip
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith(": submitted")
    assert command(*words)[1].splitlines()[0].endswith(": was there already")
    code, _, err = command(*(w if w != "mine" else "thine" for w in words))
    assert code == 1
    assert "its results are those of mine-" in err
    assert_clean(server, 1)


def test_a_token_is_not_sent_in_the_clear(command, write_run, tmp_path):
    from datacomp.curate.leaderboard.client import upload
    from datacomp.errors import UnsafeInputError

    with pytest.raises(UnsafeInputError, match="a token is not sent without encryption"):
        upload("http://board.example.org", tmp_path / "x.tar", "dct_secret")


def test_a_second_server_of_one_store_is_refused(server, command):
    code, _, err = command("leaderboard", "serve", server.store, "--port", "0")
    assert code == 1
    assert "another server may hold it" in err
