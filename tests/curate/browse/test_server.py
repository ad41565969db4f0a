"""The pages over real HTTP, from a process of its own."""

import http.client
import json
import re
import threading
import urllib.parse

import pytest
from datacomp.pools import Pool
from datacomp.pools.neighbours import folder_of


def quoted(**values):
    return urllib.parse.urlencode(values)


def uids_on(server, path, data=None):
    body = server.ask(path, data)[2].decode()
    return re.findall(r'href="/sample/([0-9a-f]{32})"', body)


def test_samples_and_search(server, known):
    status, text = server.page("")
    assert status == 200
    assert "120 samples" in text
    assert uids_on(server, "") == [known.uid(n) for n in range(48)]
    assert uids_on(server, "?after=48") == [known.uid(n) for n in range(48, 96)]
    assert "Next page" in text
    found = uids_on(server, "?" + quoted(words="STRASSE ß"))
    assert found == []
    found = uids_on(server, "?" + quoted(words="shoes sale", where="width < 70"))
    assert found == [known.uid(n) for n in (1, 11, 16, 21)]
    status, text = server.page("?" + quoted(words="shoes sale", where="width < 70"))
    assert "4 shown, of 120 samples looked at." in text
    _, _, body = server.ask("count?" + quoted(words="shoes sale", where="width < 70"))
    assert json.loads(body) == {"count": 4}
    assert uids_on(server, "?order=-width")[0] == known.uid(119)
    assert uids_on(server, "?order=-aesthetic")[0] in {known.uid(n) for n in range(120)}


def test_mistakes_are_told_in_one_line_with_the_question_still_there(server):
    where = "widht > 3 <script>"
    status, _, body = server.ask("?" + quoted(where=where, words='say "'))
    assert status == 400
    assert b"<script>" not in body
    assert b"widht &gt; 3 &lt;script&gt;" in body
    status, text = server.page("sql?" + quoted(q="SELECT * FROM read_text('/etc/passwd')"))
    assert status == 400
    assert "Permission Error" in text
    assert "root:" not in text
    for path, message in (
        ("nothing", "there is no such page"),
        ("sample/xyz", "'xyz' is no uid: 32 hex digits"),
        ("sample/" + "0" * 32, f"no sample {'0' * 32} in this pool"),
        ("alike?uid=" + "0" * 32 + "&features=tiny_img", f"sample {'0' * 32} has no feature"),
        ("sample/../../etc/passwd", "there is no such page"),
    ):
        status, text = server.page(path)
        assert (status, message in text) == (404, True), text
    status, _, body = server.ask("count?" + quoted(where="1 +"))
    assert (status, "error" in json.loads(body)) == (400, True)
    assert server.ask("", b"x")[0] == 405


def test_one_sample(server, known):
    status, text = server.page("sample/" + known.uid(5))
    assert status == 200
    assert known.hostile.replace("\u202e", "") in text.replace("\u202e", "")
    assert "Most like it by tiny_img" in text
    assert "aesthetic" in text
    _, _, body = server.ask("sample/" + known.uid(5))
    assert b"<img src=x" not in body
    _, _, body = server.ask("sample/" + known.uid(4))
    assert b'href="https://host1.example/4.jpg" rel="noreferrer noopener nofollow external"' in body


def test_images_are_made_anew_and_only_those_of_the_pool(server, known):
    status, headers, data = server.ask(f"image/{known.uid(3)}?side=256")
    assert (status, headers["content-type"], data[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    assert headers["x-content-type-options"] == "nosniff"
    for name in (known.uid(7), known.uid(8), "0" * 32, known.uid(3) + "?side=9", "x",
                 "..%2f..%2fetc%2fpasswd"):  # fmt: skip
        assert server.ask("image/" + name)[0] == 404, name


def test_what_is_like_a_sample(server, known):
    found = uids_on(server, f"alike?uid={known.uid(3)}&features=tiny_img")
    assert len(found) == 48
    assert known.uid(3) not in found
    status, text = server.page(f"alike?uid={known.uid(3)}&features=tiny_txt")
    assert status == 200
    assert "By tiny_txt: cosine, of 120 samples compared exactly." in text
    assert "by tiny_img" in text
    status, text = server.page(f"alike?uid={known.uid(3)}&features=nothing")
    assert (status, "no features 'nothing'" in text) == (404, True)


def test_what_is_like_an_image_and_a_text(server, known):
    found = uids_on(server, "alike", known.picture(30))
    assert found[0] == known.uid(30)
    status, text = server.page("alike", known.picture(30))
    assert "Like your image" in text
    assert "1.000" in text
    assert len(uids_on(server, "alike?" + quoted(text="a red shoe"))) == 48
    status, text = server.page("alike", b"no image")
    assert status == 400
    status, text = server.page("alike?text=")
    assert (status, "expected a text of 1 to 1,000 characters" in text) == (400, True)
    assert server.ask("alike", known.picture(1), Sec_Fetch_Site="cross-site")[0] == 403


def test_the_overview(server):
    status, text = server.page("overview")
    assert status == 200
    for word in ("120 samples; the images of 119 are at hand.", "commonpool", "width, px",
                 "language", "host0.example", "clip_l14_similarity_score", "aesthetic",
                 "the widest for their height"):  # fmt: skip
        assert word in text, word


def test_every_answer_is_guarded(server, known):
    for path in ("", "sql", "overview", "sample/" + known.uid(1), "nothing", "style.css",
                 "script.js", "count", f"image/{known.uid(3)}"):  # fmt: skip
        _, headers, _ = server.ask(path)
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["server"] is None


@pytest.mark.parametrize(
    ("name", "status"),
    [("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost:80", 200),
     ("[::1]:8080", 200), ("127.0.0.1", 200), ("192.168.0.1", 421), ("", 421)],
)  # fmt: skip
def test_only_this_machines_names_are_answered(server, name, status):
    host, port = server.url.removeprefix("http://").strip("/").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/style.css", headers={"Host": name})
    assert connection.getresponse().status == status
    connection.close()


def test_slow_questions_are_stopped_while_others_are_answered(server):
    slow = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(9000000) b"
    paths = ["sql?" + quoted(q=slow), "?" + quoted(where=f"({slow}) > 0")]
    told = []
    threads = [
        threading.Thread(target=lambda p=path: told.append(server.page(p))) for path in paths
    ]
    for thread in threads:
        thread.start()
    assert server.page("?words=cat")[0] == 200
    for thread in threads:
        thread.join()
    for status, text in told:
        assert status == 400
        assert "stopped after 4 seconds; ask for less, or start with a longer --seconds" in text
        assert "b.range" in text or "Condition and order" in text  # the question is still there


def test_a_folder_of_metadata_with_sketches(start_browse, tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=2, rows=40)
    served = start_browse(folder, "--sketch", "l14_img", "--sketch", "b32_img")
    assert {p.name for p in folder_of(folder).iterdir()} == {"l14_img", "b32_img"}
    status, text = served.page(f"alike?uid={1:032x}&features=l14_img")
    assert status == 200
    assert "of 80 samples compared by their sketches, then exactly." in text
    assert uids_on(served, "?words=" + urllib.parse.quote('"number 77"')) == [f"{77:032x}"]
    assert served.stop() == ""
    with Pool.open(folder) as pool:  # sketches are not taken for metadata
        assert pool.count() == 80


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "ViT-B-32"], 2, "--model, --checkpoint and --features belong together"),
        (["--sketch", "nothing"], 1, "no features 'nothing'"),
        (["--sketch", "../x"], 2, "'../x' is no name of a feature"),
        (["--model", "tiny", "--checkpoint", "none.pt", "--features", "l14_im"], 1,
         "no features 'l14_im' (did you mean 'l14_img'?); there are: b32_img, l14_img"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line(command, tmp_path, commonpool, options, code, message):
    folder = commonpool(tmp_path / "m")
    found, out, err = command("pool", "browse", folder, "--port", 0, *options)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_port_that_is_taken(command, tmp_path, commonpool, server):
    port = server.url.rsplit(":", 1)[1].strip("/")
    found, _, err = command("pool", "browse", commonpool(tmp_path / "m"), "--port", port)
    assert (found, err) == (
        1, f"error: cannot listen on 127.0.0.1:{port}: address already in use; choose another "
           "--host or --port\n",
    )  # fmt: skip
