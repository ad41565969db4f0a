"""Corruptions as the paper defines them."""

import io

import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.evaluate import distortions
from datacomp.evaluate.corruptions import KINDS, Corruption
from datacomp.evaluate.frost import frost, texture
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.plasma import plasma
from datacomp.evaluate.results import read_results
from datacomp.evaluate.spatter import MUD, WATER, spatter
from PIL import Image

RNG = np.random.default_rng
GREY = np.full((224, 224, 3), 0.5)


@pytest.fixture(scope="module")
def photo():
    """A picture with smooth and sharp parts, and its encoding."""
    y, x = np.mgrid[:224, :224]
    waves = 127 + 90 * np.sin(x / 15)[..., None] * np.cos(y[..., None] / np.array([11, 17, 23]))
    waves[60:120, 60:120] = (230, 40, 20)
    waves[::28] = 10
    pixels = waves.clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return pixels, buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_key_gives_the_same_pixels(photo, kind):
    pixels, data = photo
    one, same, other = (
        np.asarray(Corruption(kind, 3).of(data, key), float) for key in ("a", "a", "b")
    )
    assert one.shape == (224, 224, 3)
    assert np.array_equal(one, same)
    assert np.abs(one - pixels).mean() > 0.5
    random = kind not in ("brightness", "contrast", "saturate", "pixelate", "jpeg_compression",
                          "defocus_blur", "gaussian_blur", "zoom_blur")  # fmt: skip
    assert np.array_equal(one, other) != random


UNEVEN = ("elastic_transform", "saturate", "fog", "glass_blur", "frost", "spatter")
GROWING = [kind for kind in KINDS if kind not in UNEVEN]


@pytest.mark.parametrize("kind", GROWING)
def test_severities_grow(photo, kind):
    pixels, data = photo
    distance = [
        np.sqrt(np.square(np.asarray(Corruption(kind, s).of(data, "a"), float) - pixels).mean())
        for s in range(1, 6)
    ]
    assert distance == sorted(distance)


def test_noise_has_the_spread_of_the_paper():
    for severity, spread in enumerate((0.08, 0.12, 0.18, 0.26, 0.38)):
        noise = distortions.gaussian_noise(GREY, RNG(0), severity) - 0.5
        assert noise.std() == pytest.approx(spread, rel=0.02)
    for severity, quanta in enumerate((60, 25, 12, 5, 3)):
        counted = distortions.shot_noise(GREY, RNG(0), severity)
        assert counted.mean() == pytest.approx(0.5, abs=0.005)
        assert counted.var() == pytest.approx(0.5 / quanta, rel=0.03)
    for severity, share in enumerate((0.03, 0.06, 0.09, 0.17, 0.27)):
        struck = distortions.impulse_noise(GREY, RNG(0), severity)
        assert (struck == 0).mean() == pytest.approx(share / 2, rel=0.05)
        assert (struck == 1).mean() == pytest.approx(share / 2, rel=0.05)
    for severity, spread in enumerate((0.15, 0.2, 0.35, 0.45, 0.6)):
        speckle = distortions.speckle_noise(GREY, RNG(0), severity)
        assert (speckle / 0.5 - 1).std() == pytest.approx(spread, rel=0.02)


BLURS = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur",
         "elastic_transform", "contrast", "pixelate")  # fmt: skip


@pytest.mark.parametrize("kind", BLURS)
def test_what_moves_pixels_leaves_one_colour_alone(kind):
    flat = GREY * (0.2, 1.0, 1.4)
    for severity in (0, 4):
        found = getattr(distortions, kind)(flat, RNG(1), severity)
        assert np.allclose(found, flat, atol=0.003)


def test_one_point_is_spread_as_it_should_be():
    point = np.zeros((224, 224, 3))
    point[100, 110] = 1
    disc = distortions.defocus_blur(point, RNG(0), 4)[:, :, 0]
    rows, columns = np.nonzero(disc > disc.max() / 2)
    assert disc.sum() == pytest.approx(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (90, 110, 100, 120)
    assert np.count_nonzero(disc > disc.max() / 2) == pytest.approx(np.pi * 100, rel=0.05)
    smear = distortions._smear(point, 10, 3, 0)[:, :, 0]
    weights = np.exp(-(np.arange(21) ** 2) / 18)
    assert np.allclose(smear[100, 110 - np.arange(21)], weights / weights.sum())
    assert smear[100].sum() == pytest.approx(1)
    down = distortions._smear(point, 10, 3, 90)[:, :, 0]
    assert np.allclose(down[100 - np.arange(21), 110], weights / weights.sum())


def test_colours_are_changed_as_in_hsv():
    import colorsys

    colours = RNG(3).random((6, 6, 3))
    colours[0, 0] = 0.4  # grey
    colours[0, 1] = 0
    brighter = distortions.brightness(colours, RNG(0), 1)
    for severity, (factor, more) in enumerate(((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))):
        found = distortions.saturate(colours, RNG(0), severity)
        for place in np.ndindex(6, 6):
            hue, depth, value = colorsys.rgb_to_hsv(*colours[place])
            expected = colorsys.hsv_to_rgb(hue, min(depth * factor + more, 1), value)
            assert found[place] == pytest.approx(expected)
            expected = colorsys.hsv_to_rgb(hue, depth, min(value + 0.2, 1))
            assert brighter[place] == pytest.approx(expected)
    flat = distortions.contrast(colours, RNG(0), 4)
    assert flat.mean(axis=(0, 1)) == pytest.approx(colours.mean(axis=(0, 1)))
    assert np.allclose(np.std(flat, axis=(0, 1)), 0.05 * colours.std(axis=(0, 1)))


def test_the_digital_ones_are_pillows(photo):
    pixels, data = photo
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=7)
    assert np.array_equal(Corruption("jpeg_compression", 5).of(data, ""), Image.open(buffer))
    boxes = np.asarray(Corruption("pixelate", 5).of(data, ""))
    assert np.array_equal(boxes, boxes[::4, ::4].repeat(4, 0).repeat(4, 1))


def test_fog_is_rough_at_every_scale_and_fills_its_range():
    cloud = plasma(256, 2, RNG(0))
    assert (cloud.min(), cloud.max(), cloud.shape) == (0, 1, (256, 256))
    steps = [np.abs(cloud - np.roll(cloud, step, 1)).mean() for step in (1, 4, 16, 64)]
    assert steps == sorted(steps)
    assert steps[0] > 0.001


def test_frost_is_grown_as_light_as_the_photographs_and_never_twice():
    grown = [texture(224, RNG(seed)) for seed in range(6)]
    means = np.array([ice.mean(axis=(0, 1)) for ice in grown])
    assert (means.mean(axis=1) > 0.38).all()
    assert (means.mean(axis=1) < 0.83).all()
    assert (np.diff(means, axis=1) > 0).all()  # bluish
    spreads = [ice.std(axis=(0, 1)).mean() for ice in grown]
    assert all(0.05 < spread < 0.18 for spread in spreads)
    assert np.abs(grown[0] - grown[1]).mean() > 0.03
    # Fine crystals: the light changes from one pixel to the next, unlike fog's.
    steps = [np.abs(np.diff(ice[:, :, 1], axis=1)).mean() / ice[:, :, 1].std() for ice in grown]
    cloud = plasma(256, 2, RNG(0))
    assert min(steps) > 2 * np.abs(np.diff(cloud, axis=1)).mean() / cloud.std()


@pytest.mark.parametrize(
    ("severity", "mine", "ice"), [(0, 1, 0.4), (1, 0.8, 0.6), (2, 0.7, 0.7), (4, 0.6, 0.75)]
)
def test_frost_has_the_published_shares(severity, mine, ice):
    found = frost(GREY, RNG(5), severity)
    assert np.allclose(found, mine * GREY + ice * texture(224, RNG(5)))


# The sum, the extent and some values of what is added, computed with OpenCV 5.0: Canny,
# distanceTransform, threshold, blur, equalizeHist, filter2D.
@pytest.mark.parametrize(
    ("severity", "total", "extent", "places"),
    [
        (0, 83.6020, 1684,
         [(0, 0, 0.088446), (52, 84, 0.012020), (105, 179, 0.024040), (171, 203, 0.007171)]),
        (1, 826.4234, 5904,
         [(0, 0, 0.339065), (64, 130, 0.030824), (117, 73, 0.061296), (175, 2, 0.232049)]),
        (2, 1894.5504, 11111,
         [(0, 9, 0.076868), (50, 74, 0.140264), (106, 115, 0.047582), (165, 38, 0.122958)]),
    ],
)  # fmt: skip
def test_drops_of_water_are_those_of_opencv(severity, total, extent, places):
    added = (spatter(GREY, RNG(severity), severity) - GREY) / WATER
    assert np.ptp(added, axis=2).max() < 1e-9
    assert added[:, :, 0].sum() == pytest.approx(total, abs=0.01)
    assert np.count_nonzero(added[:, :, 0] > 1e-9) == extent
    for row, column, value in places:
        assert added[row, column, 0] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("severity", "total", "extent"), [(3, 5666.537, 6472), (4, 8905.789, 10116)]
)
def test_mud_covers(severity, total, extent):
    found = spatter(GREY, RNG(severity), severity)
    cover = (found - GREY) / (MUD - GREY)
    assert cover[:, :, 0].sum() == pytest.approx(total, abs=0.01)
    assert np.count_nonzero(cover[:, :, 0]) == extent
    assert cover.max() <= 1


def test_all_of_imagenet_c_is_there():
    assert len(KINDS) == 19
    assert {"frost", "spatter", "speckle_noise", "gaussian_blur", "saturate"} <= set(KINDS)


def test_any_shape_becomes_the_square_of_clips_preprocessing(picture):
    for width, height in ((50, 400), (300, 40), (1, 1)):
        found = Corruption("brightness", 1).of(picture(1, width=width, height=height), "")
        assert found.size == (224, 224)
    with pytest.raises(DataError, match="not an image of a known format"):
        Corruption("fog", 1).of(b"?", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian_nois:3", r"unknown corruption 'gaussian_nois' \(did you mean 'gaussian_noise'"),
        ("fog", r"^--corrupt fog: expected fog: and a severity from 1 to 5$"),
        ("fog:6", "a severity from 1 to 5"),
        ("fog:0", "a severity from 1 to 5"),
        ("frost", "expected frost: and a severity from 1 to 5"),
    ],
)
def test_what_there_is_not_is_said(text, message):
    with pytest.raises(UsageError, match=message):
        Corruption.parse(text)


def test_a_task_on_corrupted_images(sets, tiny, tmp_path):
    sets.write("colours")
    tasks, output = [sets.task("colours")], tmp_path / "r.jsonl"
    corruption = Corruption.parse("gaussian_noise:5")
    for workers in (1, 3):
        output.unlink(missing_ok=True)
        evaluate(tiny(0), sets.data, tasks, output, corruption=corruption, workers=workers,
                 keep=tmp_path / f"kept{workers}", device="cpu")  # fmt: skip
    assert read_results(output)["colours"].provenance["corruption"] == "gaussian_noise:5"
    name = "wds_colours_test/images.npy"
    one, three = ((tmp_path / f"kept{n}" / name).read_bytes() for n in (1, 3))
    assert one == three
    evaluate(tiny(0), sets.data, tasks, tmp_path / "c.jsonl", keep=tmp_path / "clean",
             device="cpu")  # fmt: skip
    assert (tmp_path / "clean" / name).read_bytes() != one
    with pytest.raises(DataError, match=r"another corruption \(gaussian_noise:5, now none\)"):
        evaluate(tiny(0), sets.data, tasks, output, device="cpu")
