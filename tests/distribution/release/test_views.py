"""What is made from a manifest for other software: each is read as that software would."""

import json
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from datacomp.distribution.release import About, Facts, Plan, Releases, Source, create_version

from .conftest import KEY, NOW, PIECE, SIZES, write_files

META4 = "{urn:ietf:params:xml:ns:metalink}"


@pytest.fixture
def release(publish, tmp_path):
    facts = Facts(
        samples=21,
        members={"jpg": 20, "png": 1, "txt": 21, "json": 21},
        missing={"no_image": 3},
        blurred=4,
        funnel=[{"filter": "basic", "before": 30, "after": 21, "reasons": {}}],
        pool={
            "samples": 30, "digest": "d" * 64,
            "sources": [{"kind": "folder", "samples": 30, "duplicates": 1, "set_aside": 2}],
            "set_aside": [{"source": 1, "reason": "broken", "count": 2, "example": "x"}],
        },
    )  # fmt: skip
    about = About(
        licence="CC-BY-4.0", authors=("Ann", "Bo & Co"), description="Cats | dogs",
        url="https://cats.example.org", scores={"tasks": {"mnist": 0.61}},
        answers={"motivation": "Because.", "uses": "Play.", "citation": "Ann 2026"}, facts=facts,
    )  # fmt: skip
    publish("1", about=about, mirrors=("http://h/", "https://i/x/"))
    return Releases(tmp_path / "releases").latest


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_checks_the_files(release):
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=release.folder).returncode == 0
    (release.data / "sub/notes.txt").write_bytes(b"x")
    assert subprocess.run(check, cwd=release.folder, capture_output=True).returncode == 1


def test_metalink(release, data):
    import hashlib

    root = ElementTree.parse(release.folder / "ds-1.meta4").getroot()
    assert root.tag == f"{META4}metalink"
    assert root.findtext(f"{META4}published") == "2026-11-20T00:00:00Z"
    files = {file.get("name"): file for file in root.iter(f"{META4}file")}
    assert list(files) == [f"ds/{name}" for name in sorted(SIZES)]
    file = files["ds/sub/notes.txt"]
    content = (data / "sub/notes.txt").read_bytes()
    assert file.findtext(f"{META4}size") == "700"
    assert file.findtext(f"{META4}hash") == hashlib.sha256(content).hexdigest()
    cid = release.manifest.by_path["sub/notes.txt"].cid
    assert [(u.get("priority"), u.text) for u in file.iter(f"{META4}url")] == [
        ("1", "http://h/versions/1/ds/sub/notes.txt"),
        ("2", "https://i/x/versions/1/ds/sub/notes.txt"),
        ("3", f"ipfs://{cid}"),
    ]
    assert [m.text for m in file.iter(f"{META4}metaurl")] == [
        "http://h/versions/1/ds-1.torrent", "https://i/x/versions/1/ds-1.torrent",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "kind", "length"),
    [("unixfs-v1-2025", "sha-256", 1 << 20), ("legacy-256k", "sha-256", 1 << 18),
     ("unixfs-v0-2015", "sha-1", PIECE)],
)  # fmt: skip
def test_the_pieces_of_a_metalink(publish, data, tmp_path, profile, kind, length):
    import hashlib

    write_files(data, {"big.tar": 70 * PIECE})
    publish("1", profile=profile)
    root = ElementTree.parse(tmp_path / "releases/versions/1/ds-1.meta4").getroot()
    [file] = [f for f in root.iter(f"{META4}file") if f.get("name") == "ds/big.tar"]
    pieces = file.find(f"{META4}pieces")
    content = (data / "big.tar").read_bytes()
    expected = [
        hashlib.new(kind.replace("-", ""), content[at : at + length]).hexdigest()
        for at in range(0, len(content), length)
    ]
    assert (pieces.get("type"), pieces.get("length")) == (kind, str(length))
    assert [piece.text for piece in pieces] == expected


def test_croissant(release):
    value = json.loads((release.folder / "croissant.json").read_bytes())
    assert value["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert (value["@type"], value["name"], value["version"]) == ("sc:Dataset", "ds", "1")
    assert (value["license"], value["isLiveDataset"]) == ("CC-BY-4.0", True)
    assert (value["citeAs"], value["rai:dataUseCases"]) == ("Ann 2026", "Play.")
    assert [c["name"] for c in value["creator"]] == ["Ann", "Bo & Co"]
    objects = {o["@id"]: o for o in value["distribution"] if o["@type"] == "cr:FileObject"}
    assert sorted(objects) == sorted(SIZES)
    shard, file = objects["00000000.tar"], release.manifest.by_path["00000000.tar"]
    assert shard["contentUrl"] == "http://h/versions/1/ds/00000000.tar"
    assert shard["sameAs"] == ["https://i/x/versions/1/ds/00000000.tar", f"ipfs://{file.cid}"]
    assert (shard["sha256"], shard["contentSize"]) == (file.sha256, f"{file.size} B")
    [images, captions] = [o for o in value["distribution"] if o["@type"] == "cr:FileSet"]
    assert images["includes"] == ["*.jpg", "*.png"]
    assert captions["includes"] == ["*.txt"]
    assert [r["@id"] for r in value["recordSet"]] == ["images", "captions"]


def test_the_datasheet_says_what_is_known(release):
    text = (release.folder / "datasheet.md").read_text()
    for line in [
        "# ds 1", "| licence | CC-BY-4.0 |", "| authors | Ann, Bo & Co |", "| samples | 21 |",
        "| .jpg | 20 |", "Faces were blurred in 4 images.", "- 3: no_image", "Because.",
        "| folder | 30 | 1 | 2 |", "- set aside: 2 broken", "| basic | 30 | 21 |",
        "| mnist | 0.6100 |", "Cats | dogs", f"- IPFS: `ipfs://{release.manifest.root_cid}`"
        " (unixfs-v1-2025)",
    ]:  # fmt: skip
        assert line in text.splitlines(), line
    assert text.count("*Not stated.*") == 3


def test_a_datasheet_makes_nothing_up(publish, tmp_path):
    publish("1")
    text = (tmp_path / "releases/versions/1/datasheet.md").read_text()
    assert text.count("*Not stated.*") == 9
    assert "their samples were not counted" in text


def test_names_from_strangers_stay_in_their_place(tmp_path):
    odd = "<b>&\"'|é ü.txt"
    write_files(tmp_path / "data", {odd: 5})
    plan = Plan("ds", "1", "2026-11-20", mirrors=("http://h/",))
    create_version(tmp_path / "r", [Source(odd, tmp_path / "data" / odd)], plan, KEY, NOW)
    release = Releases(tmp_path / "r").latest
    root = ElementTree.parse(release.folder / "ds-1.meta4").getroot()
    [file] = root.iter(f"{META4}file")
    assert file.get("name") == f"ds/{odd}"
    assert file.findtext(f"{META4}url") == (
        "http://h/versions/1/ds/%3Cb%3E%26%22%27%7C%C3%A9%20%C3%BC.txt"
    )
    assert json.loads((release.folder / "croissant.json").read_bytes())
    assert sys.getdefaultencoding() == "utf-8"
