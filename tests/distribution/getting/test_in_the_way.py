"""What is in the way of a download: files, links, full disks, sources that are none."""

import pytest
from datacomp.distribution.getting import get
from datacomp.distribution.getting.folder import Folder
from datacomp.distribution.getting.order import Order, Wanted
from datacomp.distribution.getting.there import check_space
from datacomp.errors import (
    MissingError,
    StorageError,
    UnsafeInputError,
    UsageError,
)

from .conftest import HTTP, contents


def test_a_stranger_s_file_is_not_overwritten(publish, serving, files, tmp_path):
    server = serving(publish(files))
    (tmp_path / "got").mkdir()
    (tmp_path / "got/README.md").write_text("my notes")
    with pytest.raises(UsageError, match=r"README\.md: is there already and is another file"):
        get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == {"README.md": b"my notes"}


def test_a_link_out_of_the_folder_is_not_followed(publish, serving, tmp_path):
    server = serving(publish({"a/one.txt": b"one"}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got/a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeInputError, match="a link on the way leaves the folder"):
        get(server.url, tmp_path / "got", HTTP)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_one_at_a_time(publish, serving, files, tmp_path):
    from datacomp.distribution.getting.folder import Folder

    server = serving(publish(files))
    with (
        Folder(tmp_path / "got"),
        pytest.raises(StorageError, match="another 'datacomp get' fills it"),
    ):
        get(server.url, tmp_path / "got", HTTP)


def test_a_disk_too_small_is_told_before(publish, serving, files, tmp_path, monkeypatch):
    import shutil

    server = serving(publish(files))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"bytes are still to come, but only 1,000 are free"):
        get(server.url, tmp_path / "got", HTTP)


def test_what_peers_gave_before_needs_no_room_again(tmp_path, monkeypatch):
    import shutil

    size = 8 << 20
    wanted = Wanted(0, "a/00000.tar", size, "f" * 64)
    order = Order("birds", "1", (wanted,))
    with Folder(tmp_path / "got") as folder:
        staged = folder.torrent / "birds/a/00000.tar"
        staged.parent.mkdir(parents=True)
        with staged.open("wb") as file:
            file.truncate(size)
            file.seek(4 << 20)
            file.write(b"x" * (3 << 20))
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
        check_space(folder, order, [wanted])
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 << 20))
        with pytest.raises(StorageError, match="5,242,880 bytes are still to come, but only"):
            check_space(folder, order, [wanted])


def test_what_is_no_source(tmp_path):
    with pytest.raises(UsageError, match="not a source; expected the URL of a manifest"):
        get("no-such-thing", tmp_path / "got", HTTP)
    with pytest.raises(UsageError, match="names no torrent"):
        get("magnet:?dn=birds", tmp_path / "got", HTTP)
    with pytest.raises(UsageError, match="name an IPFS gateway with --gateway"):
        get("ipfs://bafkqaaa", tmp_path / "got", HTTP)


def test_nobody_answers(tmp_path):
    with pytest.raises(StorageError, match=r"latest\.json: the server cannot be reached"):
        get("http://127.0.0.1:9/", tmp_path / "got", HTTP)


def test_a_server_without_releases(serving, publish, files, tmp_path):
    server = serving(publish(files))
    with pytest.raises(MissingError, match=r"latest\.json: no such file \(404\)"):
        get(server.url + "elsewhere/", tmp_path / "got", HTTP)
