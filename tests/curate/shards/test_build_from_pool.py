"""A pool with images as the source of a build."""

import hashlib
import json

import pytest
from datacomp.curate.shards import check_shards, index_shards, origin
from datacomp.curate.shards.build import build_shards
from datacomp.errors import (
    DataError,
    IntegrityError,
    UsageError,
)
from datacomp.pools import Pool
from datacomp.pools.sources import open_source


@pytest.fixture
def pool(tmp_path, make):
    """A pool of loose images in three formats and one tar; a planted truth among the columns."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (kind, extension) in enumerate([("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "jpg")]):
        (folder / f"{number}.{extension}").write_bytes(make.picture(number, kind))
        values = {"uid": make.uid_of(number), "caption": f"bild {number} ü", "truth": "good"}
        (folder / f"{number}.json").write_text(json.dumps(values | {"url": f"http://x/{number}"}))
    make.write_shard(tmp_path / "tars", 0, make.members(3) + make.members(4))
    path = tmp_path / "pool.duckdb"
    with Pool.create(path) as made:
        made.add(open_source("folder", folder))
        made.add(open_source("webdataset", tmp_path / "tars"))
        assert "truth" in made.columns()
    return path


def test_a_pool_with_images_is_a_source(pool, select, out, make):
    report = build_shards(pool, select(0, 1, 2, 3, 4, 4), out, shard_size=2, workers=1)
    assert (report.samples, report.shards) == (6, 3)
    found = {}
    for path in sorted(out.glob("*.tar")):
        names = [name for name, _ in make.contents(path)]
        assert names == sorted(names)
        found |= dict(make.contents(path))
    for number, kind, extension in [(0, "JPEG", "jpg"), (1, "PNG", "png"), (2, "WEBP", "webp")]:
        key = f"{make.uid_of(number)}-0"
        image = make.picture(number, kind)
        assert found[f"{key}.{extension}"] == image
        assert found[f"{key}.txt"].decode() == f"bild {number} ü"
        assert json.loads(found[f"{key}.json"]) == {
            "uid": make.uid_of(number),
            "url": f"http://x/{number}",
            "caption": f"bild {number} ü",
            "width": 24,
            "height": 24,
            "sha256": hashlib.sha256(image).hexdigest(),
        }
    assert found[f"{make.uid_of(4)}-1.jpg"] == make.picture(4)
    assert not any(b"truth" in data or b"good" in data for data in found.values())


def test_class_labels_of_a_pool_go_with_its_images(tmp_path, select, out, make):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, label in [(0, 7), (1, 12), (2, None)]:
        (folder / f"{number}.jpg").write_bytes(make.picture(number))
        values = {"uid": make.uid_of(number), "caption": "x"}
        values |= {} if label is None else {"class": label}
        (folder / f"{number}.json").write_text(json.dumps(values))
    with Pool.create(tmp_path / "pool.duckdb") as made:
        made.add(open_source("folder", folder))
    build_shards(tmp_path / "pool.duckdb", select(0, 1, 2), out, workers=1)
    found = dict(make.contents(out / "00000000.tar"))
    labels = {name: data for name, data in found.items() if name.endswith(".cls")}
    assert labels == {f"{make.uid_of(0)}-0.cls": b"7", f"{make.uid_of(1)}-0.cls": b"12"}


def test_what_a_source_knew_besides_goes_with_its_images(tmp_path, select, out, make):
    folder = tmp_path / "photos"
    folder.mkdir()
    known = [
        {"class": 3, "orbits": 7, "noise": 0.25, "truth": "caption of another"},
        {"orbits": 8, "noise": 1e-3, "caption": "x", "kind": "é"},
    ]
    for number, values in enumerate(known):
        (folder / f"{number}.jpg").write_bytes(make.picture(number))
        written = {"uid": make.uid_of(number), "caption": "x", **values}
        (folder / f"{number}.json").write_text(json.dumps(written))
    with Pool.create(tmp_path / "pool.duckdb") as made:
        made.add(open_source("folder", folder))
    build_shards(tmp_path / "pool.duckdb", select(0, 1), out, workers=1)
    found = dict(make.contents(out / "00000000.tar"))
    wanted = [
        {"class": 3, "orbits": 7, "noise": 0.25},
        {"orbits": 8, "noise": 0.001, "kind": "é"},
    ]
    for number, values in enumerate(wanted):
        image = make.picture(number)
        assert json.loads(found[f"{make.uid_of(number)}-0.json"]) == values | {
            "uid": make.uid_of(number), "url": f"{number}.jpg", "caption": "x",
            "width": 24, "height": 24,
            "sha256": hashlib.sha256(image).hexdigest(),
        }  # fmt: skip


def test_workers_change_nothing_from_a_pool(pool, select, tmp_path, make):
    subset = select(0, 1, 2, 3, 4, 4)
    for workers in (1, 2):
        folder = tmp_path / f"w{workers}"
        build_shards(pool, subset, folder, shard_size=2, workers=workers, shuffle=3)
    assert make.files_of(tmp_path / "w1") == make.files_of(tmp_path / "w2")


def test_rows_are_cut_into_shards_wherever_batches_end(pool, select, tmp_path, make, monkeypatch):
    build_shards(pool, select(0, 1, 2, 3, 4), tmp_path / "a", shard_size=2, workers=1)
    monkeypatch.setattr(origin, "PLAN_BATCH", 1)
    build_shards(pool, select(0, 1, 2, 3, 4), tmp_path / "b", shard_size=2, workers=1)
    assert make.files_of(tmp_path / "a") == make.files_of(tmp_path / "b")


def test_built_shards_have_the_uids_of_the_pool(pool, select, out):
    subset = select(0, 1, 2, 3, 4)
    build_shards(pool, subset, out, workers=1)
    index_shards(out, 1)
    build_shards(out, subset, out.with_name("again"), workers=1)
    assert (out.with_name("again") / "00000000.tar").read_bytes() == (
        out / "00000000.tar"
    ).read_bytes()


def test_an_image_that_changed_since_it_was_added_is_an_error(pool, select, out, make, tmp_path):
    path = tmp_path / "photos" / "1.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError) as caught:
        build_shards(pool, select(1), out, workers=1)
    assert str(caught.value) == (
        f"{path}: the image of sample {make.uid_of(1)} is not the one that was added to the pool "
        "(SHA-256 differs); restore it or make the pool again"
    )
    assert not list(out.glob("*.tar*"))


def test_images_that_changed_can_be_left_out(pool, select, out, make, tmp_path, run):
    for name in ("1.png", "2.jpg"):
        path = tmp_path / "photos" / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    subset = select(0, 1, 1, 2, 3, 4)
    command = ["shards", "build", pool, subset, "-o", out, "--shard-size", 2, "--keep-going"]
    code, stdout, _ = run(*command)
    assert code == 3
    assert f"left out: 2 uids image_changed (listed in {out / 'missing.txt'})" in stdout
    whole = make.files_of(out)
    kept = sorted(f"{make.uid_of(n)}-0" for n in (0, 3, 4))
    assert make.keys(out) == kept
    assert whole["missing.txt"].decode() == "".join(
        f"{uid} image_changed\n" for uid in sorted(map(make.uid_of, (1, 2)))
    )
    assert check_shards(out, 1).sound
    report = build_shards(pool, subset, out, shard_size=2, workers=2, keep_going=True)
    assert (report.reused, report.missing) == (2, {"image_changed": 2})
    (out / "00000001_stats.json").unlink()
    build_shards(pool, subset, out, shard_size=2, workers=2, keep_going=True)
    assert make.files_of(out) == whole
    build_shards(pool, subset, tmp_path / "b", shard_size=2, workers=2, keep_going=True)
    assert make.files_of(tmp_path / "b") == whole
    with pytest.raises(DataError, match="was begun without 2 samples that cannot be used"):
        build_shards(pool, subset, out, shard_size=2, workers=1)


def test_images_that_changed_are_left_out_of_shards_in_a_store(pool, select, tmp_path, make, s3):
    subset = select(0, 1, 1, 2, 3, 4)
    path = tmp_path / "photos" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    options = {"shard_size": 1, "workers": 1, "keep_going": True}
    build_shards(pool, subset, tmp_path / "here", **options)
    report = build_shards(pool, subset, "s3://bucket/out", **options)
    assert (report.missing, report.samples, report.reused) == ({"image_changed": 1}, 5, 0)
    client = s3.client()
    found = client.list_objects_v2(Bucket="bucket", Prefix="out/")["Contents"]
    stored = {
        item["Key"].removeprefix("out/"): client.get_object(Bucket="bucket", Key=item["Key"])[
            "Body"
        ].read()
        for item in found
    }
    client.close()
    assert stored == make.files_of(tmp_path / "here")
    assert build_shards(pool, subset, "s3://bucket/out", **options).reused == 5


def test_images_that_are_gone_and_samples_without_one_count_as_missing(
    pool, select, out, make, tmp_path
):
    (tmp_path / "photos" / "0.jpeg").unlink()
    with Pool.open(pool) as opened:
        opened.sql(f"UPDATE samples SET shard = NULL WHERE uid = '0x{make.uid_of(1)}'::UHUGEINT")
    subset = select(0, 1, 2, 9)
    with pytest.raises(DataError) as caught:
        build_shards(pool, subset, out, workers=1)
    assert str(caught.value) == (
        f"{subset}: of 4 uids 1 not in {pool} ({make.uid_of(9)}); "
        f"1 without an image at hand ({make.uid_of(1)}); "
        f"1 with an image that cannot be read ({make.uid_of(0)}); --keep-going leaves them out"
    )
    report = build_shards(pool, subset, out, workers=1, keep_going=True)
    assert report.samples == 1
    assert report.missing == {"not_in_source": 1, "no_image": 1, "unreadable": 1}
    assert dict(line.split() for line in (out / "missing.txt").read_text().splitlines()) == {
        make.uid_of(0): "unreadable", make.uid_of(1): "no_image", make.uid_of(9): "not_in_source",
    }  # fmt: skip


def test_a_pool_is_the_only_source_and_has_no_weights(shards, pool, select, out):
    with pytest.raises(UsageError, match=r"^several sources must all be folders of tars$"):
        build_shards([shards, pool], select(1), out, workers=1)
    with pytest.raises(UsageError, match="weights are for folders of tars, not for a pool"):
        build_shards(pool, select(1), out, workers=1, mix=[2])
    with pytest.raises(UsageError, match=r"^no source given"):
        build_shards([], select(1), out, workers=1)
