import hashlib
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools import Pool
from datacomp.pools.sources import Record, SetAside, open_source
from datacomp.pools.uids import uid_of_bytes


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    return path


def read(folder):
    return list(open_source("folder", folder).records())


def aside(folder):
    return [(item.item, item.reason) for item in read(folder) if isinstance(item, SetAside)]


def kept(folder):
    return {item.shard: item for item in read(folder) if isinstance(item, Record)}


def test_sidecars_make_records_in_path_order(folder, picture):
    (folder / "b.dir").mkdir()
    data = [picture(i, "JPEG", 20 + i, 30) for i in range(3)]
    (folder / "z.jpg").write_bytes(data[0])
    (folder / "z.txt").write_text("a zebra\n")
    (folder / "b.dir" / "a.b.JPEG").write_bytes(data[1])
    (folder / "b.dir" / "a.b.json").write_text(json.dumps({"caption": "ä", "stars": 5}))
    uid = "0" * 31 + "a"
    (folder / "m.png").write_bytes(data[2])
    (folder / "m.json").write_text(json.dumps({"uid": uid, "text": "no", "url": "http://m"}))
    (folder / "m.txt").write_text("the text file wins")
    (folder / ".hidden.jpg").write_bytes(b"x")
    assert read(folder) == [
        Record(uid, "http://m", "the text file wins", 22, 30, hashlib.sha256(data[2]).hexdigest(),
               "m.png", 0, len(data[2])),
        Record(uid_of_bytes(data[0], b"a zebra"), "z.jpg", "a zebra", 20, 30,
               hashlib.sha256(data[0]).hexdigest(), "z.jpg", 0, len(data[0])),
        Record(uid_of_bytes(data[1], "ä".encode()), "b.dir/a.b.JPEG", "ä", 21, 30,
               hashlib.sha256(data[1]).hexdigest(), "b.dir/a.b.JPEG", 0, len(data[1]),
               {"stars": 5}),
    ]  # fmt: skip
    assert open_source("folder", folder).estimate() == 3


def test_nothing_to_read_is_one_clear_line(folder):
    with pytest.raises(MissingError) as caught:
        read(folder / "none")
    assert str(caught.value) == f"{folder / 'none'}: no such folder"
    (folder / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"{folder}: no images found (looked for jpg, jpeg, png, webp, gif, ...)"
    )


@pytest.mark.parametrize(
    ("image", "caption", "sidecar", "reason"),
    [
        (lambda data: data[:-100], b"x", None, "image_broken"),
        (lambda data: b"GIF87a", b"x", None, "image_broken"),
        (lambda data: data, b"caf\xe9", None, "caption_not_utf8"),
        (lambda data: data, b"x" * 2_000_000, None, "caption_too_long"),
        (lambda data: data, b"x", b'{"a": ', "json_broken"),
        (lambda data: data, None, b'{"a": "' + b"x" * 2_000_000 + b'"}', "json_too_long"),
        (lambda data: data, None, b'{"caption": "\\ud83d"}', "caption_not_utf8"),
        (lambda data: data, None, b'{"caption": 7}', "no_caption"),
    ],
)
def test_a_bad_sample_is_set_aside_and_the_others_stay(
    folder, picture, image, caption, sidecar, reason
):
    (folder / "bad.png").write_bytes(image(picture(1)))
    if caption is not None:
        (folder / "bad.txt").write_bytes(caption)
    if sidecar is not None:
        (folder / "bad.json").write_bytes(sidecar)
    (folder / "good.png").write_bytes(picture(2))
    (folder / "good.txt").write_text("good")
    assert aside(folder) == [("bad.png", reason)]
    assert list(kept(folder)) == ["good.png"]


def test_metadata_files_name_images(folder, picture):
    (folder / "sub").mkdir()
    for i, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png")):
        (folder / name).write_bytes(picture(i))
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "./a.png", "text": "A", "n": 1}\n\n{broken\n{"text": "nameless"}\n'
        '{"file_name": "gone.png", "text": "x"}\n{"file_name": "a.png", "text": "again"}\n'
    )
    (folder / "metadata.csv").write_text('file_name,text\nb.png,"B, ""quoted"""\nx.png\n')
    (folder / "sub" / "metadata.csv").write_bytes(
        b"\xef\xbb\xbffile_name,text,extra\nc.png,C,\n../d.png,caf\xe9,1\nd,e,f,g\n"
    )
    pq.write_table(
        pa.table({"file_name": ["d.png", None], "text": ["D", "E"]}), folder / "metadata.parquet"
    )
    assert {name: record.text for name, record in kept(folder).items()} == {
        "a.png": "A", "b.png": 'B, "quoted"', "sub/c.png": "C", "d.png": "D",
    }  # fmt: skip
    assert kept(folder)["a.png"].extra == {"n": 1}
    assert sorted(aside(folder)) == [
        ("a.png", "named_twice"),
        ("gone.png", "image_missing"),
        ("metadata.csv:3", "line_broken"),
        ("metadata.jsonl", "no_file_name"),
        ("metadata.jsonl:3", "json_broken"),
        ("metadata.parquet", "no_file_name"),
        ("sub/metadata.csv:3", "line_broken"),
        ("sub/metadata.csv:4", "line_broken"),
    ]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", ".."])
def test_metadata_cannot_name_files_outside(folder, picture, name):
    (folder.parent / "secret.png").write_bytes(picture(9))
    (folder / "..a.png").write_bytes(picture(1))
    (folder / "ok.png").write_bytes(picture(2))
    rows = [{"file_name": name, "text": "x"}, {"file_name": "ok.png", "text": "y"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert aside(folder) == [(name, "outside_root")]
    assert list(kept(folder)) == ["ok.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.parquet", b"PAR1 but no more"),
        ("metadata.csv", b'file_name,text\na.png,"never closed\n'),
        ("metadata.jsonl", b"x" * 3_000_000),
    ],
)
def test_broken_metadata_is_set_aside(folder, picture, name, content):
    (folder / name).write_bytes(content)
    (folder / "a.png").write_bytes(picture(1))
    (folder / "a.txt").write_text("a")
    assert [item.partition(":")[0] for item, _ in aside(folder)] == [name]
    assert list(kept(folder)) == ["a.png"]


def test_links_that_leave_the_folder_are_not_followed(folder, picture):
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(picture(1))
    (outside / "a.txt").write_text("secret")
    (outside / "metadata.csv").write_text("file_name,text\ninner.png,secret\n")
    (folder / "a.png").symlink_to(outside / "a.png")
    (folder / "dir").symlink_to(outside)
    (folder / "metadata.csv").symlink_to(outside / "metadata.csv")
    (folder / "b.png").write_bytes(picture(2))
    (folder / "b.txt").symlink_to(outside / "a.txt")
    (folder / "inner.png").write_bytes(picture(3))
    (folder / "linked.png").symlink_to("inner.png")
    (folder / "linked.txt").write_text("a link that stays inside")
    assert sorted(aside(folder)) == [
        ("a.png", "outside_root"),
        ("b.png", "no_caption"),
        ("inner.png", "no_caption"),
        ("metadata.csv", "outside_root"),
    ]
    assert {name: record.text for name, record in kept(folder).items()} == {
        "linked.png": "a link that stays inside"
    }


def test_what_is_no_regular_file_is_never_opened(folder, picture):
    os.mkfifo(folder / "pipe.png")
    (folder / "pipe.txt").write_text("would block")
    (folder / "dir.png").mkdir()
    (folder / "dead.png").symlink_to("nowhere.png")
    (folder / "dead.txt").write_text("x")
    assert aside(folder) == [("dead.png", "image_unreadable"), ("pipe.png", "image_unreadable")]


def test_a_name_that_is_not_utf8_is_set_aside_and_can_be_stored(folder, picture):
    strange = os.fsencode(folder) + b"/caf\xe9.png"
    with open(strange, "wb") as file:
        file.write(picture(1))
    (folder / "family 👨‍👩‍👧.png").write_bytes(picture(2))
    (folder / "family 👨‍👩‍👧.txt").write_text("a family")
    with Pool.create(folder.parent / "pool.duckdb") as pool:
        report = pool.add(open_source("folder", folder))
        assert (report.added, report.set_aside) == (1, {"name_not_utf8": 1})
        assert pool.sql("SELECT item FROM set_aside").fetchall() == [("caf\\udce9.png",)]
