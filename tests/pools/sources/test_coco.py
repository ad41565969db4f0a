import json

import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError
from datacomp.pools.sources import coco, open_source
from datacomp.pools.uids import uid_of_bytes, uid_of_url

POLYGON = [[1.0, 2.0, 3.0, 4.5, 5.0, 6.0]]
KWCOCO_POLYGON = {"exterior": [[1, 2], [3, 4], [5, 6]], "interiors": []}


@pytest.fixture
def folder(tmp_path, picture):
    """Return a maker of a folder with images and a JSON file; None leaves the JSON out."""

    def folder(content, name="annotations/captions.json", images=("a.png", "b.png")):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "c" / name).write_text(text)
        for number, image in enumerate(images):
            (tmp_path / "c" / image).parent.mkdir(exist_ok=True)
            (tmp_path / "c" / image).write_bytes(picture(number))
        return tmp_path / "c"

    return folder


def image(number, name, **more):
    return {"id": number, "file_name": name, **more}


def test_a_sample_is_an_image_with_one_caption(folder, empty, rows, picture):
    path = folder({
        "images": [image(7, "a.png", coco_url="http://x/a", width=1), image(8, "b.png")],
        "annotations": [
            {"image_id": 7, "caption": "a cat"}, {"image_id": 8, "caption": "a dog"},
            {"image_id": 7, "caption": "two cats"}, {"image_id": 7, "caption": "a cat"},
        ],
    })  # fmt: skip
    assert empty.add(open_source("coco", path)).added == 3
    assert sorted(rows(empty, "text, url, width, shard, \"offset\", length > 0, image_id")) == [
        ("a cat", "http://x/a", 24, "a.png", 0, True, 7),
        ("a dog", None, 24, "b.png", 0, True, 8),
        ("two cats", "http://x/a", 24, "a.png", 0, True, 7),
    ]  # fmt: skip
    uid = uid_of_bytes(picture(0), b"two cats")
    assert empty.scalar(f"SELECT text FROM samples WHERE printf('%032x', uid) = '{uid}'") == (
        "two cats"
    )


def test_categories_and_polygons_are_kept(folder, empty, rows):
    path = folder(
        {
            "info": [],
            "categories": [{"id": 1, "name": "poop"}, {"id": 2, "name": "leaf"}, {"id": 3}],
            "images": [image(1, "a.png"), image(2, "b.png")],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 2, "segmentation": KWCOCO_POLYGON,
                 "bbox": [1, 2, 3, 4]},
                {"id": 2, "image_id": 1, "category_id": 1, "segmentation": POLYGON, "area": 2.5},
                {"id": 3, "image_id": 1, "category_id": 2, "secret": 1},
                {"id": 4, "image_id": 1, "category_id": 3},
                {"id": 5, "image_id": 99}, {"id": 6}, 7,
            ],
        },
        "train.kwcoco.json",
    )  # fmt: skip
    assert empty.add(open_source("coco", path / "train.kwcoco.json")).added == 2
    assert sorted(rows(empty, "shard, text, categories")) == [
        ("a.png", "leaf, poop", "leaf\npoop\nleaf"), ("b.png", "", ""),
    ]  # fmt: skip
    found = empty.scalar("SELECT annotations FROM samples WHERE shard = 'a.png'")
    assert json.loads(found) == [
        {"category": "leaf", "bbox": [1, 2, 3, 4], "segmentation": KWCOCO_POLYGON},
        {"category": "poop", "segmentation": POLYGON, "area": 2.5},
        {"category": "leaf"}, {},
    ]  # fmt: skip


def test_images_lie_in_a_folder_of_their_own_or_at_a_url(folder, empty, rows):
    path = folder(
        {"images": [image(1, "a.png", caption="x"),
                    image(2, "z.png", coco_url="http://x/z", width=5, height=-1, caption="y")]},
        images=["train2017/a.png"],
    )  # fmt: skip
    source = open_source("coco", path, images="train2017", file="annotations/captions.json")
    assert empty.add(source).to_dict()["added"] == 2
    assert sorted(rows(empty, "shard, url, text, width, height"), key=str) == [
        ("train2017/a.png", None, "x", 24, 24), (None, "http://x/z", "y", 5, None),
    ]  # fmt: skip
    uids = [uid for (uid,) in rows(empty, "printf('%032x', uid)")]
    assert uid_of_url("http://x/z", "y") in uids


def test_what_cannot_be_used_is_set_aside(folder, empty, aside, tmp_path, picture):
    (tmp_path / "out.png").write_bytes(picture())
    path = folder({
        "images": [
            image(1, "a.png"), image(1, "b.png"), {"id": 2}, {"file_name": "b.png"}, 5,
            image(3, "none.png"), image(4, "../out.png"), image(5, "/etc/passwd"),
            image(6, "bad.png"), image(7, "b.png"), image(8, "a\0.png"),
        ],
        "annotations": [{"id": 9, "image_id": 7, "caption": "x" * (1 << 20) + "y"},
                        {"image_id": 7, "segmentation": ["x" * (1 << 20)]}],
    })  # fmt: skip
    (path / "bad.png").write_bytes(b"no image")
    report = empty.add(open_source("coco", path))
    assert report.added == 1
    assert aside(empty, "item, reason") == [
        ("annotation 9", "caption_too_long"), ("image 2", "named_twice"),
        ("image 3", "no_file_name"), ("image 4", "json_broken"), ("image 5", "json_broken"),
        ("none.png", "image_missing"), ("../out.png", "outside_root"),
        ("/etc/passwd", "outside_root"), ("bad.png", "image_broken"), ("b.png", "json_too_long"),
        ("image 11", "no_file_name"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "{file}: not COCO (no list 'images')"),
        ('{"images": {}}', "{file}: not COCO (no list 'images')"),
        ('{"images": [], "annotations": 1}', "{file}: not COCO ('annotations' is no list)"),
        ("{", "{file}: not JSON: "),
    ],
)
def test_what_is_no_coco_is_one_line(folder, content, message):
    path = folder(content)
    with pytest.raises(DataError) as caught:
        list(open_source("coco", path).records())
    assert str(caught.value).startswith(message.format(file=path / "annotations/captions.json"))


def test_a_file_too_large_is_refused(folder, monkeypatch):
    monkeypatch.setattr(coco, "MAX_JSON", 10)
    path = folder({"images": [], "annotations": []})
    with pytest.raises(UnsafeInputError, match="larger than 10 bytes; refused"):
        list(open_source("coco", path).records())


def test_the_file_must_be_clear(folder, tmp_path):
    path = folder({"images": []})
    folder({"images": []}, "annotations/other.json")
    with pytest.raises(UsageError) as caught:
        list(open_source("coco", path).records())
    assert str(caught.value) == (
        f"{path}: which JSON file? Name it with --option file=NAME; there are: "
        "annotations/captions.json, annotations/other.json"
    )
    with pytest.raises(UsageError, match=r"option file='\.\./x\.json' leaves the folder"):
        list(open_source("coco", path, file="../x.json").records())
    with pytest.raises(MissingError, match="no such file"):
        list(open_source("coco", path, file="x.json").records())
    with pytest.raises(MissingError, match="no such folder"):
        list(open_source("coco", tmp_path / "none").records())
