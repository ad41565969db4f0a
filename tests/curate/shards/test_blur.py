"""Faces are blurred by the peer's rule, counted, and never passed through."""

import json

import numpy as np
import pytest
from datacomp.curate.shards.build import build_shards
from datacomp.errors import (
    DataError,
    MissingError,
    UsageError,
)

FACE = [[0.25, 0.25, 0.75, 0.75]]


def boxes(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.list_(pa.float64()))
    table = pa.table({"uid": [uid for uid, _ in rows],
                      "face_bboxes": pa.array([found for _, found in rows], kind)})  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return path


def test_faces_are_blurred_and_counted(shards, select, out, make, tmp_path, run):
    path = boxes(tmp_path / "b" / "0.parquet", [(make.uid_of(1), FACE), (make.uid_of(2), [])])
    arguments = ["shards", "build", shards, select(1, 1, 2), "-o", out, "--workers", 1]
    code, stdout, _ = run(*arguments, "--blur", path.parent)
    assert (code, stdout.splitlines()[1]) == (0, "blurred: 2 samples with faces; 1 without")
    found = dict(make.contents(out / "00000000.tar"))
    assert sorted(name.partition("-")[2] for name in found if make.uid_of(1) in name) == [
        "0.json", "0.txt", "0.webp", "1.json", "1.txt", "1.webp",
    ]  # fmt: skip
    assert found[f"{make.uid_of(2)}-0.jpg"] == make.picture(2)
    assert json.loads((out / "meta.json").read_text())["blur_count"] == 1  # an image, twice
    again = build_shards(shards, select(1, 1, 2), out, workers=1, blur=path.parent)
    assert (again.reused, again.blurred) == (1, 2)
    with pytest.raises(UsageError, match=r"holds another build \(blur: "):
        build_shards(shards, select(1, 1, 2), out, workers=1)


def test_the_map_of_datacomp_names_files_of_boxes(shards, select, out, make, tmp_path):
    path = boxes(tmp_path / "b.parquet", [(make.uid_of(1), FACE)])
    named = tmp_path / "map.json"
    named.write_text(json.dumps({"0": {"parquet": str(path), "shards": ["/else/00000000.tar"]}}))
    report = build_shards(shards, select(1), out, workers=1, blur=named)
    assert report.blurred == 1
    path.unlink()
    with pytest.raises(MissingError) as caught:
        build_shards(shards, select(1), out, workers=1, blur=named)
    assert str(caught.value) == f"{path}: no such file of face boxes, but {named} names it"
    named.write_text("[]")
    with pytest.raises(DataError, match="not a map of face boxes"):
        build_shards(shards, select(1), out, workers=1, blur=named)


def test_no_image_passes_whose_faces_are_not_known(shards, select, out, make, tmp_path):
    rows = [(make.uid_of(1), FACE), (make.uid_of(3), None)]
    path = boxes(tmp_path / "b.parquet", rows)
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(1, 2, 3), out, workers=1, blur=path)
    lacking = ", ".join(sorted([make.uid_of(2), make.uid_of(3)]))
    assert str(caught.value) == (
        f"{path}: says nothing about the faces of 2 samples ({lacking}); "
        "--keep-going leaves them out"
    )
    report = build_shards(shards, select(1, 2, 3), out, workers=1, blur=path, keep_going=True)
    assert report.missing == {"no_face_boxes": 2}
    assert [name for name, _ in make.contents(out / "00000000.tar")] == [
        f"{make.uid_of(1)}-0.{extension}" for extension in ("json", "txt", "webp")
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1, [[0.1, 0.2, 0.3]])], "a face box that is not four numbers"),
        ([(1, [[0.1, 0.2, 0.3, float("nan")]])], "a face box that is not four numbers"),
        ([(1, FACE), (1, [])], "a uid whose boxes stand there twice"),
    ],
)
def test_boxes_that_are_none(shards, select, out, make, tmp_path, rows, said):
    path = boxes(tmp_path / "b.parquet", [(make.uid_of(n), found) for n, found in rows])
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(1), out, workers=1, blur=path)
    assert str(caught.value) == f"{path}: {said}"
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no readable face boxes"):
        build_shards(shards, select(1), out, workers=1, blur=path)
    with pytest.raises(MissingError, match="no such file of face boxes"):
        build_shards(shards, select(1), out, workers=1, blur=tmp_path / "none")


@pytest.mark.parametrize(
    "box", [(0.6, 0.2, 0.3, 0.4), (0.2, 0.4, 0.3, 0.4), (40, 30, 90, 80), (1, 0.2, 1.5, 0.4)]
)
def test_a_box_that_would_blur_nothing_leaves_its_sample_out(
    shards, select, out, make, tmp_path, box
):
    rows = [(make.uid_of(1), [FACE[0], box]), (make.uid_of(2), FACE), (make.uid_of(99), [box])]
    path = boxes(tmp_path / "b.parquet", rows)
    assert build_shards(shards, select(2), tmp_path / "o", workers=1, blur=path).blurred == 1
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(1, 2), out, workers=1, blur=path)
    shown = ", ".join(f"{value:g}" for value in box)
    assert str(caught.value) == (
        f"{path}: 1 samples with a face box as ({shown}) of {make.uid_of(1)}, but a box is left, "
        "top, right, bottom, as shares of width and height; --keep-going leaves them out"
    )
    report = build_shards(shards, select(1, 2), out, workers=1, blur=path, keep_going=True)
    assert (report.blurred, report.missing) == (1, {"wrong_face_boxes": 1})


def test_the_blur_is_local_and_strong():
    from datacomp.curate.shards.blur import blur_pixels

    pixels = np.random.default_rng(0).random((200, 300, 3), np.float32)
    result = blur_pixels(pixels, [(0.4, 0.4, 0.6, 0.6)])
    # A box of 60 by 40 px grows by 6 px; its sigma is 6 px, so 24 px further nothing changes.
    changed = np.abs(result - pixels).max(axis=2) > 1e-6
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (rows[0], columns[0]) >= (74 - 25, 114 - 25)
    assert (rows[-1], columns[-1]) <= (126 + 25, 186 + 25)
    middle = result[90:110, 140:160]
    assert middle.std() < pixels[90:110, 140:160].std() / 8
    assert blur_pixels(pixels, []) is pixels


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0.5, 0.501, 0.501),
        (0.0, 0.0, 0.001, 0.001),
        (0.2, 0.997, 0.8, 0.999),
        (-0.9, -0.9, 0.001, 0.001),
        (0.9, 0.2, 1.9, 0.4),
    ],
)
def test_a_box_of_less_than_a_pixel_or_at_the_edge_is_blurred(box):
    from datacomp.curate.shards.blur import blur_pixels

    pixels = np.random.default_rng(0).random((200, 300, 3), np.float32)
    result = blur_pixels(pixels, [box])
    row = min(max(int(box[1] * 200), 0), 199)
    column = min(max(int(box[0] * 300), 0), 299)
    assert np.abs(result - pixels)[row, column].max() > 1e-3


def test_only_samples_of_one_image_are_blurred(tmp_path, select, out, make):
    make.write_shard(tmp_path / "s", 0, make.members(1, png=make.picture(9, "PNG")))
    path = boxes(tmp_path / "b.parquet", [(make.uid_of(1), FACE)])
    with pytest.raises(DataError) as caught:
        build_shards(tmp_path / "s", select(1), out, workers=1, blur=path)
    assert str(caught.value) == (
        f"{make.uid_of(1)}-0: its faces cannot be blurred: it has several images (jpg, png); "
        "leave the sample out of the subset"
    )
    make.write_shard(tmp_path / "s", 1, make.members(2) + make.members(3, jpg=b"no image"))
    path = boxes(tmp_path / "b.parquet", [(make.uid_of(n), FACE) for n in (1, 2, 3)])
    report = build_shards(
        tmp_path / "s", select(1, 2, 3), tmp_path / "o", workers=1, blur=path, keep_going=True
    )
    assert (report.samples, report.blurred, report.missing) == (1, 1, {"not_blurred": 2})
