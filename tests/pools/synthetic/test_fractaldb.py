"""FractalDB: the authors' classes and pixels in exact mode, any image by itself in fast mode.

Digests are of images and files made with the authors' code,
github.com/hirokatsukataoka16/FractalDB-Pretrained-ResNet-PyTorch at 1b8fb9f, in which only
``np.str`` was replaced by ``str``:

    python param_search/ifs_search.py --rate=0.2 --category=3 --numof_point=100000
    python fractal_renderer/make_fractaldb.py --load_root=CSVS --draw_type=TYPE
        --weight_csv=fractal_renderer/weights/weights_0.4.csv --image_size_x=SIDE
        --image_size_y=SIDE --iteration=POINTS --instance=1

where CSVS holds 00000.csv alone. For patches ``random.seed(0)`` ran first, since the authors
leave the masks to chance. A digest is the SHA-256 of the RGB pixels of all 100 images in the
order of their names; those of CSVs are of data/csv_rate0.2_category1000, byte by byte.
"""

import hashlib
import random
import re
from dataclasses import replace

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools.synthetic import ifs
from datacomp.pools.synthetic.fractaldb import FractalDB, color_wheel

CSVS = {
    3: "88b7c79b676c176dad375120ee67a5e4f55b43df28c60257a30f38ea7c349fe0",
    10: "398e9c3936c5f22038af62361bf170cc8b081b4ceb9ce6930a73a54476af0a3b",
}
IMAGES = {
    ("point_gray", 362, 200_000): (
        "f795217b6f5a004a044ee99727e73fa83a716b61b740f87b0d3da761f88ea580"
    ),
    ("point_color", 128, 20_000): (
        "cf2ecbc449cb5db8b80c42d38dc3b8b6dfaaea953c6ca39acbf88ea41d6cda1e"
    ),
    ("patch_gray", 96, 3000): "ddc679e6cd05f9331e6ae3ac15ff03676a01ee9875be3589ee8c6304f39c3100",
    ("patch_color", 96, 3000): "e9912d015e85a327768ac6fc3e3bceb3c0601ce791be5e3a81d8ea8114379181",
}
SMALL = {"size": 64, "points": 2000, "search_points": 20_000, "rate": 0.03}
TRIANGLE = "".join(
    f"0.5,0,0,0.5,{x},{y},{p}\n" for x, y, p in [(0, 0, 0.4), (1, 0, 0.3), (0, 1, 0.3)]
)
WILD = "2,0,0,2,1,1,0.5\n2,0.5,0,2,-1,1,0.5\n"


def records(generator):
    return [record for group in generator.groups() for record in generator.find(group)]


def images(generator, record, first=0, last=None):
    last = generator.instances if last is None else last
    return [
        (one.instance, one.pixels.copy(), one.parameters)
        for one in generator.pictures(record, first, last)
    ]


def digest_of_rgb(pictures):
    total = hashlib.sha256()
    for pixels in pictures:
        rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        total.update(np.ascontiguousarray(rgb).tobytes())
    return total.hexdigest()


@pytest.fixture
def csvs(tmp_path):
    def csvs(*texts):
        for number, text in enumerate(texts):
            (tmp_path / f"{number:05d}.csv").write_text(text)
        return str(tmp_path)

    return csvs


@pytest.fixture(scope="module")
def authors():
    """Return the authors' first ten classes."""
    return records(FractalDB(mode="exact", classes=10))


# --- exact mode ---


def test_the_search_finds_the_published_classes_byte_by_byte(authors):
    generator = FractalDB(mode="exact", classes=10)
    total = hashlib.sha256()
    for count, record in enumerate(authors, 1):
        [(name, data)] = generator.class_files(record).items()
        assert name == f"{count - 1:05d}/{count - 1:05d}.csv"
        total.update(data)
        if count in CSVS:
            assert total.hexdigest() == CSVS[count]
    assert [record.parameters["maps"] for record in authors[:4]] == [5, 3, 2, 5]
    assert authors[0].parameters["filling_rate"] == 58653 / 512**2


def test_the_search_passes_over_the_classes_before_the_first(authors):
    later = FractalDB(mode="exact", classes=2, start_class=2)
    assert records(later) == authors[2:4]


@pytest.mark.parametrize(("draw", "size", "points"), list(IMAGES)[:2])
def test_points_are_the_authors_pixels(authors, draw, size, points):
    generator = FractalDB(
        mode="exact", classes=1, instances=100, draw=draw, size=size, points=points
    )
    found = images(generator, authors[0])
    assert digest_of_rgb(pixels for _, pixels, _ in found) == IMAGES[draw, size, points]


@pytest.mark.parametrize(("draw", "size", "points"), list(IMAGES)[2:])
def test_patches_with_the_authors_masks_are_their_pixels(authors, monkeypatch, draw, size, points):
    masks_of = random.Random(0)

    def draw_masks(key, when, visited, masks):
        every = np.array([masks_of.randrange(1, 512) for _ in range(points)])
        masks[:visited], masks[visited] = every[when[:visited]], 0

    monkeypatch.setattr(ifs, "draw_masks", draw_masks)
    generator = FractalDB(
        mode="exact", classes=1, instances=100, draw=draw, size=size, points=points
    )
    found = images(generator, authors[0])
    assert digest_of_rgb(pixels for _, pixels, _ in found) == IMAGES[draw, size, points]


def test_names_are_the_authors(authors):
    generator = FractalDB(mode="exact", classes=1)
    names = [generator.file_name(authors[0], n) for n in (0, 5, 39, 40, 999)]
    assert names == [
        "00000/00000_00_count_0_flip0.png",
        "00000/00000_00_count_1_flip1.png",
        "00000/00000_00_count_9_flip3.png",
        "00000/00000_01_count_0_flip0.png",
        "00000/00000_24_count_9_flip3.png",
    ]
    assert len({generator.file_name(authors[0], n) for n in range(1000)}) == 1000


def test_the_seed_moves_the_search_from_the_authors(authors):
    other = records(FractalDB(mode="exact", classes=1, seed=1))
    assert other[0].parameters != authors[0].parameters


def test_what_the_authors_code_cannot_draw_is_refused(csvs):
    folder = csvs(TRIANGLE.replace("0.5,0,", "1e6,0,"))
    generator = FractalDB(
        mode="exact", classes=1, parameters=folder, instances=100, draw="point_gray"
    )
    with pytest.raises(DataError, match=r"class 0 diverges within 100 points in row 0 of the"):
        records(generator)


# --- fast mode ---


def test_a_class_is_the_same_however_the_search_is_cut():
    whole = records(FractalDB(classes=5, **SMALL))
    assert [one.class_id for one in whole] == [0, 1, 2, 3, 4]
    assert all(one.parameters["filling_rate"] >= SMALL["rate"] for one in whole)
    assert records(FractalDB(classes=2, start_class=3, **SMALL)) == whole[3:]
    assert list(FractalDB(classes=5, **SMALL).find(range(2, 3))) == whole[2:3]
    assert records(FractalDB(classes=1, seed=1, **SMALL)) != whole[:1]


def test_classes_fill_what_the_authors_ask_for():
    found = records(FractalDB(classes=3))
    assert all(one.parameters["filling_rate"] >= 0.2 for one in found)
    for one in found:
        system = np.array(one.parameters["coefficients"]).reshape(one.parameters["maps"], 7)
        assert 2 <= len(system) <= 7
        assert np.abs(system[:, :6]).max() <= 1
        sizes = np.abs(system[:, 0] * system[:, 3] - system[:, 1] * system[:, 2])
        assert system[:, 6] == pytest.approx(sizes / sizes.sum())


@pytest.mark.parametrize("draw", ["patch_gray", "patch_color", "point_gray", "point_color"])
def test_an_image_is_the_same_however_a_class_is_cut(draw):
    generator = FractalDB(classes=2, instances=100, draw=draw, **SMALL)
    record = records(generator)[1]
    whole = images(generator, record)
    assert [n for n, _, _ in whole] == list(range(100))
    for first, last in [(0, 1), (3, 9), (38, 45), (99, 100)]:
        for (n, pixels, values), there in zip(
            images(generator, record, first, last), whole[first:last], strict=True
        ):
            assert (n, values) == (there[0], there[2])
            assert (pixels == there[1]).all()
    alone = generator.picture(1, 41)
    assert (alone.pixels == whole[41][1]).all()


@pytest.mark.parametrize(
    ("draw", "shape", "levels"),
    [("patch_gray", (64, 64), (0, 127)), ("point_color", (64, 64, 3), None)],
)
def test_gray_images_have_one_channel_and_two_levels(draw, shape, levels):
    generator = FractalDB(classes=1, instances=4, draw=draw, **SMALL)
    picture = generator.picture(0, 0)
    assert picture.pixels.shape == shape
    assert (picture.levels, picture.background) == (levels, 0)
    if levels:
        assert set(np.unique(picture.pixels)) == set(levels)


def test_flips_are_of_one_image():
    generator = FractalDB(classes=1, instances=100, **SMALL)
    none, down, right, both = (
        pixels for _, pixels, _ in images(generator, records(generator)[0], 0, 4)
    )
    assert (down == none[::-1]).all()
    assert (right == none[:, ::-1]).all()
    assert (both == none[::-1, ::-1]).all()


def test_a_thousand_instances_are_all_rows_draws_and_flips():
    generator = FractalDB(classes=1, **SMALL)
    record = records(generator)[0]
    found = images(generator, record)
    places = {(v["row"], v["draw"], v["flip"]) for _, _, v in found}
    assert places == {(r, d, f) for r in range(25) for d in range(10) for f in range(4)}
    assert len({pixels.tobytes() for _, pixels, _ in found}) == 1000
    assert generator.block == 40


def test_the_first_image_is_the_class_itself():
    """One-instance FractalDB takes the unchanged row, unflipped."""
    generator = FractalDB(classes=1, instances=1, **SMALL)
    values = generator.picture(0, 0).parameters
    assert values == {"row": 2, "draw": 0, "flip": 0, "eased": 0}
    assert generator.file_name(records(generator)[0], 0) == "00000/00000_02_count_0_flip0.png"


def test_half_of_what_patches_cover_is_inked(csvs):
    generator = FractalDB(
        classes=1, instances=200, size=64, variation=0.0, parameters=csvs(TRIANGLE)
    )
    record = records(generator)[0]
    found = [pixels for _, pixels, values in images(generator, record) if values["flip"] == 0]
    assert len(found) == 50
    shares = np.mean([pixels > 0 for pixels in found], axis=0)
    covered = shares > 0
    assert shares[covered].mean() == pytest.approx(256 / 511, abs=0.01)
    assert shares[covered].min() > 0.2


def test_given_classes_are_drawn_and_written_as_they_are(csvs):
    folder = csvs(TRIANGLE, TRIANGLE.replace("0.5,0,0,0.5", "0.4,0.1,0,0.5"))
    generator = FractalDB(classes=2, instances=4, parameters=folder, size=64, points=2000)
    found = records(generator)
    assert [one.parameters["maps"] for one in found] == [3, 3]
    assert found[0].parameters["coefficients"][:7] == [0.5, 0, 0, 0.5, 0, 0, 0.4]
    assert generator.caption(found[0]) == "a fractal of 3 affine maps"
    [(_, data)] = generator.class_files(found[0]).items()
    assert [[float(value) for value in line.split(",")] for line in data.decode().splitlines()] == [
        [float(value) for value in line.split(",")] for line in TRIANGLE.splitlines()
    ]


def test_a_triangle_is_a_triangle(csvs):
    """Sierpinski's: rows of the image count from the top, the maps' from the bottom."""
    generator = FractalDB(
        classes=1, instances=1, draw="point_gray", parameters=csvs(TRIANGLE), size=64, pad=1,
        variation=0.0,
    )  # fmt: skip
    shown = generator.picture(0, 0).pixels
    rows, columns = np.nonzero(shown)
    assert ((63 - rows) + columns <= 65).all()
    assert shown[62, 1] == shown[62, 60] == shown[2, 1] == 127
    assert (shown[62, 1:61] == 127).all()
    assert (shown[34:42, 22:30] == 0).all()  # the hole in the middle


def test_a_row_that_diverges_is_eased_until_it_does_not(csvs, tmp_path):
    (tmp_path / "weights").write_text("1,1,1,1,1,1\n8,1,1,1,1,1\n")
    generator = FractalDB(
        classes=1, instances=8, parameters=csvs(TRIANGLE), weights=str(tmp_path / "weights"),
        size=64, points=2000,
    )  # fmt: skip
    values = [values for _, _, values in images(generator, records(generator)[0])]
    assert [(one["row"], one["eased"]) for one in values] == [(0, 0)] * 4 + [(1, 3)] * 4


def test_sweeps_multiply_one_parameter_of_all_maps():
    generator = FractalDB(classes=1, instances=100, **SMALL)
    [record] = records(generator)
    assert list(generator.sweeps()) == [
        "times_a",
        "times_b",
        "times_c",
        "times_d",
        "times_e",
        "times_f",
    ]
    unlike = [(row.index(by), by) for row in generator.rows for by in row if by != 1]
    still = images(generator, record, 0, 1)[0][1]
    for parameter, name in enumerate(generator.sweeps()):
        shown = [
            images(generator, replace(record, parameters=record.parameters | {name: by}), 0, 1)[0][
                1
            ]
            for by in (0.6, 1.0, 1.4)
        ]
        assert (parameter, 0.6) in unlike
        assert [(one == still).all() for one in shown] == [False, True, False]


def test_colours_turn_once_in_128_points():
    wheel = color_wheel()
    assert wheel.shape == (128, 3)
    assert wheel[0].tolist() == [47, 47, 191]
    assert wheel.max(axis=1).tolist() == [191] * 128
    assert wheel.min(axis=1).tolist() == [47] * 128


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": 0}, "fractaldb: classes is 0, expected 1 to 10,000,000"),
        ({"size": 12}, "fractaldb: a margin of 6 px leaves nothing of 12 px; lower pad"),
        ({"maps_min": 5, "maps_max": 3}, "fractaldb: maps_min is 5, more than maps_max 3"),
        (
            {"rate": 0.5},
            "fractaldb: 100,000 points cannot fill 0.5 of 512 x 512 pixels; lower rate or raise "
            "search_points",
        ),
        (
            {"draw": "point_gray"},
            "fractaldb: point_gray gives 100 different images per class, not 1,000; lower "
            "instances or draw patches",
        ),
        ({"mode": "exact", "seed": 2**32}, "fractaldb: seed is 4294967296, over 4294967294 in"),
        ({"variation": 0.6}, "fractaldb: variation is 0.6, expected 0.0 to 0.5"),
        ({"draw": "line"}, "fractaldb: draw is 'line', expected one of patch_gray, patch_color"),
        ({"points": 1}, "fractaldb: points is 1, expected 2 to 10,000,000"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UsageError, match=f"^{re.escape(said)}"):
        FractalDB(**options)


def test_a_filling_rate_that_no_system_reaches_ends_the_search(monkeypatch):
    monkeypatch.setattr("datacomp.pools.synthetic.fractaldb._TRIES", 20)
    generator = FractalDB(classes=1, rate=0.38)
    with pytest.raises(
        DataError,
        match=r"^fractaldb: none of 20 systems fills 0\.38 of the image \(class 0\); lower",
    ):
        records(generator)


def test_maps_that_diverge_are_refused_by_file(csvs, tmp_path):
    folder = csvs(TRIANGLE, WILD)
    generator = FractalDB(classes=2, parameters=folder)
    said = f"{tmp_path / '00001.csv'}: the maps diverge; take maps that bring points closer"
    with pytest.raises(DataError, match=f"^{re.escape(said)}"):
        records(generator)


def test_a_class_without_a_file_is_named(csvs):
    folder = csvs(TRIANGLE)
    generator = FractalDB(classes=2, parameters=folder)
    with pytest.raises(MissingError, match=r"there is no 00001\.csv; the set has classes 0 to 1$"):
        generator.identity()
    with pytest.raises(MissingError, match=r"there is no 00001\.csv"):
        records(generator)


def test_a_broken_file_is_refused_by_line(csvs):
    generator = FractalDB(classes=1, parameters=csvs(TRIANGLE + "1,2\n"))
    with pytest.raises(DataError, match=r"00000\.csv: line 4: expected 7 numbers, found 2$"):
        records(generator)


def test_files_count_by_what_is_in_them(csvs):
    generator = FractalDB(classes=1, parameters=csvs(TRIANGLE))
    before = generator.digest()
    assert FractalDB(classes=1, parameters=csvs(TRIANGLE)).digest() == before
    csvs(TRIANGLE.replace("0.5", "0.4"))
    assert generator.digest() != before
