import numpy as np
import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.pixels.changed_clip_score import UndigitedClipScorer
from datacomp.pools import Pool
from datacomp.pools.images import decode
from datacomp.pools.sources import open_source


@pytest.fixture
def photos(tmp_path, picture):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.png").write_bytes(picture(i, width=40, height=30))
        (folder / f"{i}.txt").write_text(["12 dogs of 2019", "a dog", "2 cats", "no number"][i])
    with Pool.create(tmp_path / "photos.duckdb") as pool:
        pool.add(open_source("folder", folder))
        yield pool


@pytest.fixture
def model(tiny):
    return tiny()


def stored(pool):
    return [value for (value,) in pool.sql(
        "SELECT v.value FROM samples s JOIN score_values_1 v USING (uid) ORDER BY s.shard"
    ).fetchall()]  # fmt: skip


def spec(name, model, more=""):
    return parse(f"{name}:checkpoint={model.checkpoint},model=tiny,"
                 f"model_config_file={model.model_config},device=cpu{more}")  # fmt: skip


def expected(pool, model, tmp_path, images=lambda i: i, texts=lambda t: t):
    clip = model.load("cpu")
    folder = tmp_path / "photos"
    seen = [images(decode((folder / f"{i}.png").read_bytes())) for i in range(4)]
    read = [texts((folder / f"{i}.txt").read_text()) for i in range(4)]
    pictures = clip.encode_tensors([clip.prepare(image) for image in seen])
    return np.einsum("nd,nd->n", pictures, clip.encode_texts(read)).tolist()


def test_the_image_is_turned(photos, model, tmp_path):
    from PIL.ImageOps import mirror

    found = run_filters(photos, [spec("flipped_clip_score", model, ",fraction=0.5")])
    assert stored(photos) == pytest.approx(expected(photos, model, tmp_path, mirror), abs=1e-6)
    assert stored(photos) != pytest.approx(expected(photos, model, tmp_path), abs=1e-6)
    assert found.steps[0].reasons == {"low_clip_score": 2}


def test_the_digits_are_gone(photos, model, tmp_path):
    plain = {"12 dogs of 2019": "dogs of", "2 cats": "cats"}
    found = run_filters(photos, [spec("digit_masked_clip_score", model)])
    assert stored(photos) == pytest.approx(
        expected(photos, model, tmp_path, texts=lambda t: plain.get(t, t)), abs=1e-6
    )
    assert found.steps[0].after == 1  # 40 % of four


def test_only_digits_change_a_caption():
    read = UndigitedClipScorer.read
    for text, masked in {"a  b": "a  b", "Windows95 now": "Windows now", "7": "", "1 a 2": "a",
                         "x\t3\ty": "x y", "٣ dogs": "dogs"}.items():  # fmt: skip
        assert read(None, text) == masked


def test_what_is_missing():
    with pytest.raises(UsageError, match="parameter checkpoint is required"):
        registry.create("flipped_clip_score", {})
    for name in ("flipped_clip_score", "digit_masked_clip_score"):
        with pytest.raises(MissingError, match=f"^{name}: no checkpoint at /none"):
            registry.create(name, {"checkpoint": "/none"}).scorers()
