import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from datacomp.errors import IntegrityError
from datacomp.evaluate.demo_suite import GREEK, LETTERS, RETRIEVAL, SYMBOLS, build_demo_suite
from datacomp.evaluate.evalsets import Sample, open_evalset
from datacomp.evaluate.tasks import select_tasks
from datacomp.pools.lettering import HELD_OUT_FONTS, POOL_FONTS, characters, describe, draw


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("sets")
    build_demo_suite(data)
    return data


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(data: Path, key: str) -> list[Sample]:
    found = list(open_evalset(data, select_tasks([key])[0]).samples())
    assert all(isinstance(sample, Sample) for sample in found)
    return found  # type: ignore[return-value]


def test_every_task_is_as_the_list_says(built):
    for task in select_tasks(suite="demo"):
        found = samples(built, task.key)
        assert len(found) == task.size
        assert 500 <= task.size <= 2000
        if task.family == "classification":
            counts = np.bincount([sample.label for sample in found], minlength=task.classes)
            assert counts.min() > 0
            assert task.chance == pytest.approx(1 / task.classes, rel=1e-3)
            assert counts.max() / counts.min() < 1.1


def test_class_names_are_told_apart_by_words(built):
    names = open_evalset(built, select_tasks(["demo/letters"])[0]).classnames
    assert names[LETTERS.index("c")] == "lowercase letter c"
    assert names[LETTERS.index("C")] == "capital letter c"
    for chosen in (LETTERS, GREEK, SYMBOLS, RETRIEVAL):
        assert len({describe(character) for character in chosen}) == len(chosen)


def test_every_character_is_in_the_pool_and_in_a_held_out_font():
    pool = {character for font in POOL_FONTS for character in characters(font)}
    held_out = {character for font in HELD_OUT_FONTS for character in characters(font)}
    for chosen in (LETTERS, GREEK, SYMBOLS, RETRIEVAL):
        assert set(chosen) <= pool & held_out
    assert not {font.file for font in POOL_FONTS} & {font.file for font in HELD_OUT_FONTS}


def test_no_drawn_character_is_the_box_for_a_missing_one():
    from datacomp.pools.lettering import font_path
    from PIL import Image, ImageDraw, ImageFont

    def picture(font: ImageFont.FreeTypeFont, character: str) -> bytes:
        image = Image.new("L", (64, 64), 255)
        ImageDraw.Draw(image).text((10, 5), character, font=font, fill=0)
        return image.tobytes()

    for font in HELD_OUT_FONTS:
        face = ImageFont.truetype(str(font_path(font)), 32)
        box = picture(face, "\U0001f9ff")
        for character in {*LETTERS, *GREEK, *SYMBOLS, *RETRIEVAL} & set(characters(font)):
            assert picture(face, character) != box, (font.file, character)


def test_symbols_differ_as_pictures():
    from PIL import ImageFilter

    pictures = []
    for character in SYMBOLS:
        image = draw(character, HELD_OUT_FONTS[0], 64, fill=0.8)
        assert image is not None
        ink = 255 - np.asarray(image.filter(ImageFilter.GaussianBlur(1)), float).ravel()
        pictures.append(ink / np.linalg.norm(ink))
    likeness = np.array(pictures) @ np.array(pictures).T - np.eye(len(pictures))
    assert likeness.max() < 0.96


def test_digits_are_the_handwritten_ones(built):
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    found = samples(built, "demo/digits")
    assert [sample.label for sample in found] == scans.target.tolist()
    for index in (0, 500, 1796):
        image = Image.open(io.BytesIO(found[index].image))
        assert image.size == (64, 64)
        small = 255 - np.asarray(image.crop((8, 8, 56, 56)).resize((8, 8), Image.Resampling.BOX))
        likeness = np.corrcoef(small.ravel(), scans.images[index].ravel())[0, 1]
        assert likeness > 0.95


def test_retrieval_captions_name_the_character(built):
    found = samples(built, "demo/glyph_retrieval")
    first = RETRIEVAL.index("A")
    assert found[first].captions == (
        "a drawing of capital letter a",
        "a picture of capital letter a",
    )
    assert len({sample.captions[0] for sample in found}) == 500


def test_the_same_seed_gives_the_same_bytes(built, tmp_path):
    build_demo_suite(tmp_path)
    assert files(tmp_path) == files(built)


def test_another_seed_draws_otherwise(built, tmp_path):
    build_demo_suite(tmp_path, seed=1)
    ours, theirs = files(tmp_path), files(built)
    assert ours["wds_demo-letters_test/test/0.tar"] != theirs["wds_demo-letters_test/test/0.tar"]
    assert ours["wds_demo-digits_test/test/0.tar"] == theirs["wds_demo-digits_test/test/0.tar"]


def test_what_is_there_is_left_alone_and_what_is_missing_built(built, tmp_path):
    data = tmp_path / "sets"
    shutil.copytree(built, data)
    kept = data / "wds_demo-greek_test" / "test" / "0.tar"
    before = kept.stat().st_mtime_ns
    shutil.rmtree(data / "wds_demo-letters_test")
    build_demo_suite(data)
    assert kept.stat().st_mtime_ns == before
    assert files(data) == files(built)


def test_a_changed_set_is_refused(built, tmp_path):
    path = tmp_path / "wds_demo-digits_test"
    shutil.copytree(built / path.name, path)
    with pytest.raises(IntegrityError, match=re.escape(
        f"{path}: built with another version or seed; remove the folder and build it again"
    )):  # fmt: skip
        build_demo_suite(tmp_path, seed=1)
    shard = path / "test" / "1.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"changed since it was built; remove the folder and"):
        build_demo_suite(tmp_path)
    shard.unlink()
    with pytest.raises(IntegrityError, match=r"not a whole demo task \(.*1\.tar is not there"):
        build_demo_suite(tmp_path)
