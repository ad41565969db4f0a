"""Assets come from a web server whole, checked, and only once."""

import hashlib
from dataclasses import replace

import pytest
from datacomp.errors import IntegrityError, MissingError, StorageError, UsageError
from datacomp.filters import asset_download
from datacomp.filters.asset_download import download_asset, published_files
from datacomp.filters.assets import ASSETS

DATA = {"one.pt": bytes(range(256)) * 9, "two.pt": b"two" * 100}


@pytest.fixture
def site(server, monkeypatch):
    """A server that has the files of the assets ``single``, ``choice`` and ``folder``."""
    monkeypatch.setattr(asset_download, "_PIECE", 1000)
    for name, data in DATA.items():
        server.files[f"/{name}"] = (data, "tag")
    published = {name: hashlib.sha256(data).hexdigest() for name, data in DATA.items()}
    plain = replace(ASSETS["fasttext_lid"], address=f"{server.url}/", published=published)
    monkeypatch.setitem(ASSETS, "choice", replace(plain, name="choice"))
    monkeypatch.setitem(ASSETS, "folder", replace(plain, name="folder", all_of_it=True))
    one = {"one.pt": published["one.pt"]}
    monkeypatch.setitem(ASSETS, "single", replace(plain, name="single", published=one))
    return server


def test_a_file_comes_in_pieces_and_only_once(site, tmp_path):
    path = download_asset("single", tmp_path / "new" / "assets")
    assert path == tmp_path / "new" / "assets" / "one.pt"
    assert path.read_bytes() == DATA["one.pt"]
    assert site.asked == [("/one.pt", f"bytes={at}-{at + 999}") for at in (0, 1000, 2000)]
    assert download_asset("single", path.parent) == path
    assert len(site.asked) == 3
    assert [file.name for file in path.parent.iterdir()] == ["one.pt"]


def test_what_was_broken_off_goes_on(site, tmp_path):
    (tmp_path / ".one.pt.part").write_bytes(DATA["one.pt"][:1500])
    site.failures = 1
    assert download_asset("single", tmp_path).read_bytes() == DATA["one.pt"]
    assert site.asked[0] == ("/one.pt", "bytes=1500-2499")


def test_a_whole_part_is_only_checked(site, tmp_path):
    (tmp_path / ".one.pt.part").write_bytes(DATA["one.pt"])
    assert download_asset("single", tmp_path).read_bytes() == DATA["one.pt"]
    (tmp_path / "one.pt").unlink()
    (tmp_path / ".one.pt.part").write_bytes(b"wrong" * 900)
    with pytest.raises(IntegrityError):
        download_asset("single", tmp_path)
    assert download_asset("single", tmp_path).read_bytes() == DATA["one.pt"]


def test_other_bytes_are_refused_and_nothing_is_kept(site, tmp_path):
    site.files["/one.pt"] = (DATA["one.pt"][::-1], "tag")
    with pytest.raises(IntegrityError) as caught:
        download_asset("single", tmp_path)
    assert str(caught.value).startswith(
        f"{site.url}/one.pt: not the file that was published (SHA-256 "
    )
    assert str(caught.value).endswith("; nothing was kept")
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_sends_all_of_it(site, tmp_path, monkeypatch):
    site.files["/whole/one.pt"] = (DATA["one.pt"], "tag")
    (tmp_path / ".one.pt.part").write_bytes(b"half")
    path = download_asset("single", tmp_path, address=f"{site.url}/whole/")
    assert path.read_bytes() == DATA["one.pt"]


def test_files_that_belong_together_lie_in_a_folder(site, tmp_path):
    path = download_asset("folder", tmp_path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == DATA
    assert path == tmp_path / "folder"


def test_a_choice_must_be_made(site, tmp_path):
    with pytest.raises(UsageError) as caught:
        download_asset("choice", tmp_path)
    assert str(caught.value) == "asset choice is one of several files: one.pt, two.pt; say which"
    assert download_asset("choice", tmp_path, "two.pt").read_bytes() == DATA["two.pt"]
    with pytest.raises(
        UsageError, match=r"asset choice has no file 'tow\.pt' \(did you mean 'two\.pt'\?\)"
    ):
        download_asset("choice", tmp_path, "tow.pt")


def test_what_is_not_to_be_had_is_one_clear_line(site, tmp_path):
    with pytest.raises(UsageError, match="asset wordnet has no public file: get it from apt-get "):
        download_asset("wordnet", tmp_path)
    with pytest.raises(UsageError, match="unknown asset 'fasttext'"):
        download_asset("fasttext", tmp_path)
    del site.files["/one.pt"]
    with pytest.raises(MissingError, match=r"one\.pt: no such file \(404\)"):
        download_asset("single", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        download_asset("single", tmp_path / "file")


def test_every_address_is_https_and_every_file_has_a_digest():
    for asset in ASSETS.values():
        if asset.address is not None:
            assert asset.address.startswith("https://")
            assert asset.address.endswith("/")
            assert asset.published
            for name, digest in asset.published.items():
                assert len(digest) == 64
                assert "/" not in name
    assert published_files(ASSETS["imagenet21k_synsets"]) == ["imagenet21k_wordnet_ids.txt"]
    assert len(published_files(ASSETS["target_embeddings"])) == 5
