"""The token goes to the Hub and to nobody else."""

import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.pools.hub_access import hub_headers
from datacomp.pools.ranges import fetch

WHO = {"Authorization": "Bearer hf_secret"}


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """A Hub at ``server.url``; ``hub.told`` is who asked for which path at which server."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HOME",
                 "HF_TOKEN_PATH"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.told = []
    answer = server.do_GET

    def do_GET(self):
        host, who = self.headers["Host"].partition(":")[0], self.headers.get("Authorization")
        server.told.append((host, self.path, who))
        if self.path.startswith("/datasets/o/gated") and who is None:
            self.answer(401, b"no")
        elif self.path.startswith("/datasets/o/shut"):
            self.answer(403, b"no")
        elif self.path.startswith("/away/"):
            place = server.url.replace("127.0.0.1", "localhost")
            self.answer(302, b"", Location=f"{place}/{self.path.removeprefix('/away/')}")
        else:
            answer(self)

    monkeypatch.setattr(server, "do_GET", do_GET)
    return server


def test_it_is_said_to_the_hub_alone(hub, monkeypatch):
    hub.files["/x"] = hub.files["/datasets/o/gated/x"] = (b"data", "t")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(f"{hub.url}/datasets/o/gated/x", 9) == b"data"
    assert fetch(f"{hub.url}/away/x", 9) == b"data"
    assert fetch(f"{hub.url.replace('127.0.0.1', 'localhost')}/x", 9) == b"data"
    assert hub.told == [
        ("127.0.0.1", "/datasets/o/gated/x", "Bearer hf_secret"),
        ("127.0.0.1", "/away/x", "Bearer hf_secret"),
        ("localhost", "/x", None),
        ("localhost", "/x", None),
    ]
    assert hub_headers("https://huggingface.co/x") == {}  # the endpoint is another


@pytest.mark.parametrize("evil", ["https://huggingface.co.example.org/x", "http://huggingface.co/x",
                                  "https://huggingface.co@example.org/x"])  # fmt: skip
def test_it_is_not_said_to_who_looks_like_it(monkeypatch, evil):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub_headers("https://huggingface.co/x") == WHO
    assert hub_headers(evil) == {}


def test_the_file_of_the_hubs_own_tools(hub, monkeypatch, tmp_path):
    url = f"{hub.url}/x"
    assert hub_headers(url) == {}
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface/token").write_text("hf_secret\n")
    assert hub_headers(url) == WHO
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert hub_headers(url) == {}
    monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    other = tmp_path / "other"
    other.write_text("two words")
    monkeypatch.setenv("HF_TOKEN_PATH", str(other))
    with pytest.raises(UsageError) as caught:
        hub_headers(url)
    assert str(caught.value) == f"{other}: not a token of the Hub; expected one word"


def test_a_gate_is_named(hub, monkeypatch):
    with pytest.raises(MissingError) as caught:
        fetch(f"{hub.url}/datasets/o/gated/resolve/main/x", 9)
    assert str(caught.value) == (
        f"{hub.url}/datasets/o/gated/resolve/main/x: not open to you: if it is gated, accept its "
        f"terms at {hub.url}/datasets/o/gated with an account, and set HF_TOKEN or run "
        "'hf auth login' (401)"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(MissingError) as caught:
        fetch(f"{hub.url}/datasets/o/shut/resolve/main/x", 9)
    assert str(caught.value).endswith(
        f"accept its terms at {hub.url}/datasets/o/shut with the account of the token (403)"
    )
