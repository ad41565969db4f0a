import base64
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.report import collect_sheets
from datacomp.curate.report.sheets import THUMBNAIL, Thumbnail, gallery, thumbnails, truth_mark
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools import Pool
from PIL import Image


@pytest.fixture
def uids(pool):
    return [
        row[0]
        for row in pool.sql("SELECT printf('%032x', uid) FROM samples ORDER BY uid").fetchall()
    ]


@pytest.fixture
def dataset(chosen, uids):
    dropped = [(uid, "basic", "too_small") for uid in uids[20:40]]
    dropped += [(uid, "dedup", "duplicate") for uid in uids[40:]]
    return chosen("mine", uids[:20], dropped)


def test_kept_first_then_reasons_by_frequency(pool, dataset, uids):
    sheets = collect_sheets(pool, [dataset], per_sheet=7)
    assert [(s.dataset, s.filter, s.reason, s.total, len(s.samples)) for s in sheets] == [
        ("mine", None, None, 20, 7),
        ("mine", "basic", "too_small", 20, 7),
        ("mine", "dedup", "duplicate", len(uids) - 40, len(uids) - 40),
    ]
    assert {s.uid for s in sheets[0].samples} <= set(uids[:20])
    assert {s.uid for s in sheets[1].samples} <= set(uids[20:40])
    assert {s.uid for s in sheets[2].samples} == set(uids[40:])


def test_the_same_seed_picks_the_same(pool, dataset):
    once = collect_sheets(pool, [dataset], per_sheet=5)
    assert collect_sheets(pool, [dataset], per_sheet=5) == once
    other = collect_sheets(pool, [dataset], per_sheet=5, seed=1)
    assert [s.uid for s in other[0].samples] != [s.uid for s in once[0].samples]


def test_datasets_show_the_same_samples_where_they_can(pool, chosen, uids):
    whole, most = chosen("whole", uids, []), chosen("most", uids[5:], [])
    first, second = collect_sheets(pool, [whole, most], per_sheet=8)
    shared = [s.uid for s in first.samples if s.uid in set(uids[5:])]
    assert [s.uid for s in second.samples][: len(shared)] == shared


def test_a_weighted_sample_is_shown_once(pool, chosen, uids):
    (sheet,) = collect_sheets(pool, [chosen("weighted", [uids[0]] * 3 + [uids[1]], [])])
    assert sheet.total == 4
    assert sorted(s.uid for s in sheet.samples) == uids[:2]


def test_nothing_dropped_and_nothing_kept(pool, chosen, uids):
    assert [s.reason for s in collect_sheets(pool, [chosen("no_filter", uids, [])])] == [None]
    sheets = collect_sheets(pool, [chosen("none", [], [(uid, "f", "r") for uid in uids])])
    assert [(s.reason, s.total, len(s.samples)) for s in sheets] == [
        (None, 0, 0),
        ("r", len(uids), 24),
    ]


def test_thumbnails_are_small_and_whole(pool, uids):
    shown = thumbnails(pool, uids)
    assert set(shown) == set(uids)
    readable = [s for s in shown.values() if s.image]
    assert len(readable) == len(uids) - 3
    for sample in readable:
        kind, data = sample.image.split(",")
        assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == sample.shown
            assert max(image.size) <= THUMBNAIL
    wide = next(s for s in readable if s.caption == "a wide one")
    assert (wide.width, wide.height, wide.shown) == (400, 100, (96, 24))
    assert wide.source == "samples.bin/samples.bin"
    assert wide.truth == "clean"


def test_unreadable_images_get_a_placeholder(pool, uids, parse):
    shown = thumbnails(pool, uids)
    broken = [s for s in shown.values() if s.image is None]
    assert sorted(s.caption for s in broken) == ["broken", "no bytes", "truncated"]
    page = parse(gallery(broken))
    assert page.all("img") == []
    assert [d.text for d in page.all("div", "broken")] == ["no readable image"] * 3


def test_without_an_image_the_size_is_what_the_pool_says(tmp_path, commonpool, parse):
    with Pool.open(commonpool(tmp_path / "m")) as metadata:
        (shown,) = thumbnails(metadata, ["0" * 32]).values()
    assert (shown.image, shown.width, shown.height) == (None, 300, 200)
    facts = [n.text for n in parse(gallery([shown], detailed=True)).all("span", "fact")]
    assert facts == ["300 × 200 px", "m"]


def test_a_sample_the_pool_lacks_is_shown_as_missing(pool):
    assert thumbnails(pool, ["0" * 32]) == {"0" * 32: Thumbnail("0" * 32)}


def test_captions_are_escaped_and_cut(parse, hostile):
    page = parse(gallery([Thumbnail("a" * 32, hostile), Thumbnail("b" * 32, "  ")]))
    assert page.all("script") == []
    said = page.all("span", "said")
    assert said[0].text == hostile.replace("\0", "\ufffd")
    assert said[0].attributes["dir"] == "auto"
    assert said[1].text == "no caption"


def test_details_of_a_card(parse):
    sample = Thumbnail("a" * 32, "c", None, "data:image/png;base64,xx", 4, 3, (4, 3), "src/00.tar")
    page = parse(gallery([sample], detailed=True))
    assert [n.text for n in page.walk() if n.attributes.get("class") == "fact"] == [
        "4 × 3 px", "src/00.tar", "a" * 32
    ]  # fmt: skip
    assert page.one("img").attributes["alt"] == "sample aaaaaaaa, 4 by 3 pixels"


def test_truth_is_told_by_shape_and_word():
    assert truth_mark(None) is None
    assert "●" in (truth_mark("clean") or "")
    assert "▲" in (truth_mark("near_duplicate") or "")
    assert "near duplicate" in (truth_mark("near_duplicate") or "")


def test_errors(pool, dataset, tmp_path):
    name, subset, _ = dataset
    with pytest.raises(UsageError, match=r"^per_sheet is 0; a sheet shows at least one sample$"):
        collect_sheets(pool, [dataset], per_sheet=0)
    absent = tmp_path / "absent.parquet"
    with pytest.raises(MissingError) as caught:
        collect_sheets(pool, [(name, subset, absent)])
    assert str(caught.value) == (
        f"{absent}: no such list of reasons; run the dataset's filters again"
    )
    absent.write_bytes(b"not parquet")
    with pytest.raises(DataError) as broken:
        collect_sheets(pool, [(name, subset, absent)])
    assert str(broken.value).startswith(f"{absent}: not a list of reasons: ")
    assert "\n" not in str(broken.value)
    pq.write_table(pa.table({"uid": ["a" * 32]}), absent)
    with pytest.raises(DataError, match=r"not a list of reasons: .*filter"):
        collect_sheets(pool, [(name, subset, absent)])
