"""Text in images: found by a real network, painted over, and the rest scored by CLIP."""

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.assets import locate
from datacomp.filters.pixels.text_detector import TextDetector, text_lines
from datacomp.filters.pixels.text_masking import TextMaskedClipScorer, filled
from datacomp.pools import Pool
from datacomp.pools.images import decode
from datacomp.pools.sources import open_source
from PIL import Image, ImageDraw, ImageFont


@pytest.fixture(scope="module")
def network():
    """Return the network that the development environment has, see the Makefile."""
    pytest.importorskip("onnxruntime")
    try:
        return locate("text_masked_clip_score", "text_detector", None)
    except MissingError:
        pytest.skip("no network that finds text: pip install --no-deps rapidocr-onnxruntime")


def picture_with(text, size=(320, 200), at=(40, 80)):
    """Return a picture of soft colours with some words, and where these may be."""
    import matplotlib

    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    soft = np.stack([90 + rows // 4, 140 + columns // 8, 200 - rows // 4], axis=2)
    image = Image.fromarray(soft.astype(np.uint8))
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 28)
    box = ImageDraw.Draw(image).textbbox(at, text, font)
    if text:
        ImageDraw.Draw(image).text(at, text, (10, 10, 10), font)
    return image, tuple(round(side) for side in box)


def test_the_network_finds_words_and_nothing_else(network):
    detector = TextDetector(network)
    image, (left, top, right, bottom) = picture_with("grand opening")
    mask = detector.find(image)
    assert mask.shape == (200, 320)
    assert mask[top:bottom, left:right].mean() > 0.9
    mask[top - 14 : bottom + 14, left - 14 : right + 14] = False
    assert not mask.any()
    assert not detector.find(picture_with("")[0]).any()
    tall, _ = picture_with("up", size=(100, 300), at=(20, 100))
    assert detector.find(tall).shape == (300, 100)


def test_text_is_painted_over_in_the_colour_around_it(network):
    plain, words = (np.asarray(picture_with(text)[0]) for text in ("", "grand opening"))
    masked = filled(words, TextDetector(network).find(picture_with("grand opening")[0]))
    dark = words.astype(int).max(axis=2) < 60
    assert dark.sum() > 500
    left = np.abs(masked.astype(int) - plain)[dark].max(axis=1) >= 25
    assert left.sum() < dark.sum() / 100  # of 947 pixels, four at the edge


def test_lines_grow_by_their_area_over_their_perimeter():
    cores = np.zeros((32, 40), np.float32)
    cores[10:14, 8:28] = 0.9  # 4 by 20 pixels: 80 * 1.6 / 48 = 2.67 around it
    cores[25:27, 30:36] = 0.4  # connected and above the limit of a pixel, not of a line
    found = text_lines(cores)
    expected = np.zeros((32, 40), bool)
    for row in range(32):
        for column in range(40):
            down = max(10 - row, row - 13, 0)
            right = max(8 - column, column - 27, 0)
            expected[row, column] = max(down, right) <= 80 * 1.6 / 48
    assert np.array_equal(found, expected)
    assert not text_lines(np.zeros((32, 32), np.float32)).any()


def test_each_part_is_filled_with_the_mean_around_it():
    pixels = np.zeros((50, 50, 3), np.uint8)
    pixels[:, :25], pixels[:, 25:] = (10, 20, 30), (200, 100, 0)
    mask = np.zeros((50, 50), bool)
    mask[10:13, 10:13] = mask[20:22, 24:26] = True
    pixels[mask] = 255
    result = filled(pixels, mask)
    assert (result[10:13, 10:13] == (10, 20, 30)).all()
    # As many pixels of one colour as of the other lie around the second part.
    assert (result[20:22, 24:26] == (105, 60, 15)).all()
    assert np.array_equal(result[~mask], pixels[~mask])
    assert (pixels[mask] == 255).all()


def test_of_an_image_that_is_text_throughout_its_mean_stays():
    pixels = np.array([[[1, 2, 3], [2, 2, 3]]], np.uint8)
    assert filled(pixels, np.ones((1, 2), bool)).tolist() == [[[2, 2, 3], [2, 2, 3]]]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, text in enumerate(("", "grand opening", "", "now on sale")):
        picture_with(text)[0].save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"caption {number} of {text or 'soft colours'}")
    with Pool.create(tmp_path / "photos.duckdb") as pool:
        pool.add(open_source("folder", folder))
        yield pool


def test_the_score_is_that_of_what_is_left(photos, tiny, network, tmp_path):
    model = tiny()
    spec = parse(
        f"text_masked_clip_score:checkpoint={model.checkpoint},model=tiny,"
        f"model_config_file={model.model_config},device=cpu"
    )
    found = run_filters(photos, [spec])
    assert found.steps[0].reasons == {"low_clip_score": 2}
    stored = [value for (value,) in photos.sql(
        "SELECT v.value FROM samples s JOIN score_values_1 v USING (uid) ORDER BY s.shard"
    ).fetchall()]  # fmt: skip
    clip, detector = model.load("cpu"), TextDetector(network)
    images = [decode((tmp_path / f"photos/{n}.png").read_bytes()) for n in range(4)]
    texts = [(tmp_path / f"photos/{n}.txt").read_text() for n in range(4)]
    masked = [Image.fromarray(filled(np.asarray(i), detector.find(i))) for i in images]
    seen = clip.encode_tensors([clip.prepare(image) for image in masked])
    expected = np.einsum("nd,nd->n", seen, clip.encode_texts(texts))
    assert stored == pytest.approx(expected.tolist(), abs=1e-6)
    assert masked[0].tobytes() == images[0].tobytes()
    assert masked[1].tobytes() != images[1].tobytes()


def test_what_is_no_such_network(tiny, network, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(DataError, match=r"broken.onnx: no network of one input: "):
        TextDetector(broken)
    other = network.with_name("ch_ppocr_mobile_v2.0_cls_infer.onnx")  # tells which side is up
    with pytest.raises(DataError, match=r"gives an array of shape \(1, 2\) for an image of "):
        TextDetector(other).find(picture_with("")[0])
    model = tiny()
    parameters = {"checkpoint": str(model.checkpoint), "model": "tiny",
                  "model_config_file": str(model.model_config)}  # fmt: skip
    with pytest.raises(MissingError) as caught:
        registry.create(
            "text_masked_clip_score", {**parameters, "text_detector": "/none.onnx"}
        ).scorers()
    assert str(caught.value).startswith(
        "text_masked_clip_score finds nothing at /none.onnx for the asset text_detector: a network "
        "that finds text in images: ONNX, of the DB family; get it from "
    )
    made = registry.create("text_masked_clip_score", {**parameters, "text_detector": str(network)})
    (scorer,) = made.scorers()
    assert isinstance(scorer, TextMaskedClipScorer)
    assert len(scorer.identity()["detector_sha256"]) == 64
