"""Corruptions as the paper defines them."""

import io

import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.evaluate import distortions
from datacomp.evaluate.corruptions import KINDS, Corruption
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.results import read_results
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


UNEVEN = ("elastic_transform", "saturate", "fog", "glass_blur")
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
    cloud = distortions._plasma(256, 2, RNG(0))
    assert (cloud.min(), cloud.max(), cloud.shape) == (0, 1, (256, 256))
    steps = [np.abs(cloud - np.roll(cloud, step, 1)).mean() for step in (1, 4, 16, 64)]
    assert steps == sorted(steps)
    assert steps[0] > 0.001


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
        ("frost:1", "^corruption frost is not here: it needs its authors' photographs of frost$"),
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
