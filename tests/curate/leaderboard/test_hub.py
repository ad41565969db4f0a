"""The Hub's layout, sent by its own library to a server that speaks the Hub's protocol."""

import base64
import http.server
import json
import socket
import threading

import pytest
from datacomp.curate.leaderboard.hub import hub_paths
from datacomp.pools.uids import from_hex, save_subset

TOKEN = "hf_" + "x" * 30


class Hub(http.server.BaseHTTPRequestHandler):
    """Takes repositories and commits as the Hub does, small files only."""

    address: str
    taken: dict[str, bytes]
    made: list[str]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            type(self).made.append(json.loads(body)["name"])
            self.answer(200, {"url": f"{self.address}/me/mine", "id": "me/mine"})
        elif self.path.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(body)["files"]]
            self.answer(200, {"files": [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]})  # fmt: skip
        elif self.path.endswith("/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            type(self).made.append(lines[0]["value"]["summary"])
            for line in lines[1:]:
                value = line["value"]
                type(self).taken[value["path"]] = base64.b64decode(value["content"])
            self.answer(200, {"commitUrl": f"{self.address}/me/mine/commit/1", "commitOid": "1",
                              "success": True})  # fmt: skip
        else:
            self.answer(404, {"error": "not found"})

    def do_GET(self):
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.answer(200 if known else 401, {"id": "me/mine"} if known else {"error": "no"})

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    handler = type("Own", (Hub,), {"taken": {}, "made": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        import huggingface_hub.hf_api

        address = f"http://127.0.0.1:{server.server_address[1]}"
        handler.address = address
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert huggingface_hub.hf_api
        yield handler
        server.shutdown()
        thread.join()


@pytest.fixture
def words(write_run, tmp_path):
    run = write_run(tmp_path / "run", samples=1)
    save_subset(tmp_path / "mine.npy", from_hex(["1" * 32]))
    return ["submit", run, "--method", "Mine", "--author", "A. Person", "--checkpoint",
            "--samples", tmp_path / "mine.npy", "--to", "hf://me/mine"]  # fmt: skip


def test_the_layout_is_datacomps(hub, words, command, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert f"page:  {hub.address}/me/mine/commit/1" in out
    assert hub.made == ["mine", "Upload artifacts (small scale)"]
    assert set(hub.taken) == {
        "small_scale/results.jsonl", "small_scale/checkpoint.pt", "small_scale/samples/mine.npy",
        "small_scale/submission.json",
    }  # fmt: skip
    assert hub.taken["small_scale/samples/mine.npy"] == (tmp_path / "mine.npy").read_bytes()
    run = tmp_path / "run"
    assert (
        hub.taken["small_scale/checkpoint.pt"] == (run / "checkpoints" / "epoch_5.pt").read_bytes()
    )
    assert len(hub.taken["small_scale/results.jsonl"].splitlines()) == 38


def test_refusals(hub, words, command, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "y" * 30)
    code, out, err = command(*words)
    assert code == 1
    assert "hf://me/mine" in err
    assert "hf_yyy" not in err + out
    assert hub.taken == {}
    words[-1] = "hf://nothing"
    code, _, err = command(*words)
    assert (code, err) == (2, "error: --to hf://nothing: expected hf://USER/REPOSITORY\n")


def test_a_hub_that_cannot_be_reached_is_one_line(hub, words, command, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert err.startswith("error: hf://me/mine: ")
    assert err.count("\n") == 1
    assert TOKEN not in err


def test_seeds_have_names_of_their_own(submissions):
    from datacomp.evaluate.leaderboard.record import read_record

    (folder,) = submissions(1, seeds=(0, 1))
    paths = hub_paths(read_record(folder)[0])
    assert sorted(paths.values())[:2] == [
        "small_scale/results.jsonl",
        "small_scale/results_1.jsonl",
    ]
