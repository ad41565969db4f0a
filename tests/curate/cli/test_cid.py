"""``datacomp cid``: parse, call, print."""

import json

import pytest

CIDS = {
    "unixfs-v1-2025": "bafybeigfhaija5fosvfglowxrw2vlzw3kskmnd7qd4raeunccy6woycm3m",
    "unixfs-v0-2015": "QmRxRq7RBBYjcWyggoXJa6icAemsupfmePoTQESfmyahS9",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in {"a.txt": "alpha\n", "b.txt": "beta\n", "c.txt": "gamma\n"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_cid_of_a_folder(command, folder):
    assert command("cid", folder) == (0, f"{CIDS['unixfs-v1-2025']}\n", "")
    code, out, _ = command("cid", folder, "--profile", "unixfs-v0-2015", "--json")
    assert code == 0
    assert json.loads(out) == {
        "path": str(folder),
        "cid": CIDS["unixfs-v0-2015"],
        "profile": "unixfs-v0-2015",
        "size": 17,
        "dag_size": 186,
    }


def test_hidden_files(command, folder):
    (folder / ".hidden").write_text("x")
    assert command("cid", folder)[1] == f"{CIDS['unixfs-v1-2025']}\n"
    assert command("cid", folder, "--hidden")[1] != f"{CIDS['unixfs-v1-2025']}\n"


def test_errors(command, folder):
    assert command("cid", folder / "none") == (
        1, "", f"error: {folder / 'none'}: no such file or folder\n"
    )  # fmt: skip
    code, _, message = command("cid", folder, "--profile", "unixfs")
    assert (code, message.startswith("error: unknown CID profile 'unixfs'")) == (2, True)
