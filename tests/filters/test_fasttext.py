"""The quick way to fastText's labels gives the library's, text by text."""

import random
import struct

import numpy as np
import pyarrow as pa
import pytest
from datacomp.errors import DataError
from datacomp.filters import Batch, parse, run_filters
from datacomp.filters import language as language_module
from datacomp.filters.fasttext_model import read_model
from datacomp.filters.language import LanguageScorer, embedded_model
from hypothesis import example, given, settings
from hypothesis import strategies as st

fasttext = pytest.importorskip("fasttext")
pytest.importorskip("numba")

from datacomp.filters.fasttext_fast import FastLabels  # noqa: E402

VOWELS = "a e i o u ä é о а は の 的 سا".split()  # noqa: SIM905
CONSONANTS = "b d g k l m n r s t sch п р т ч 漢 写 x ph".split()  # noqa: SIM905


def dense_model(path, seed=0, dim=7, labels=9, buckets=997):
    """Write a model that is not quantised, in the format of fastText 0.9, and return its path."""
    draw = np.random.default_rng(seed)
    words = [b"</s>", b"dog", "straße".encode(), b"the", "漢字".encode()]
    entries = [(word, 50 - n, 0) for n, word in enumerate(words)]
    entries += [(b"__label__%d" % n, 1000 - n, 1) for n in range(labels)]
    out = struct.pack("<2i", 793712314, 12)
    out += struct.pack("<12i", dim, 5, 5, 1, 5, 1, 1, 3, buckets, 2, 4, 100) + struct.pack(
        "<d", 1e-4
    )
    out += struct.pack("<3iqq", len(entries), len(words), labels, 1000, -1)
    for word, count, kind in entries:
        out += word + b"\0" + struct.pack("<qb", count, kind)
    rows = draw.normal(0, 1, (len(words) + buckets, dim)).astype("<f4")
    nodes = draw.normal(0, 2, (labels, dim)).astype("<f4")
    out += struct.pack("<?qq", False, *rows.shape) + rows.tobytes()
    out += struct.pack("<?qq", False, *nodes.shape) + nodes.tobytes()
    path.write_bytes(out)
    return path


@pytest.fixture(scope="module", params=["embedded", "dense"])
def both(request, tmp_path_factory):
    """The library's model, and ours of the same file."""
    path = embedded_model()
    if request.param == "dense":
        path = dense_model(tmp_path_factory.mktemp("model") / "dense.bin")
    library = fasttext.load_model(str(path))
    model = read_model(path)
    assert model is not None
    return library, FastLabels(model, library)


def by_library(library, texts):
    found = [
        None if text is None else library.predict(text.replace("\n", " "))[0] for text in texts
    ]
    return [labels[0].removeprefix("__label__") if labels else None for labels in found]


def caption(draw):
    word = lambda: "".join(  # noqa: E731
        draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(1, 5))
    )
    known = ["the", "dog", "a photo of", "straße", "漢字", "von", "в", "la", "</s>", "__label__en"]
    return " ".join(
        draw.choice(known) if draw.random() < 0.3 else word() for _ in range(draw.randint(1, 14))
    )


def test_labels_are_the_librarys(both):
    library, fast = both
    draw = random.Random(7)
    texts = [caption(draw) for _ in range(12_000)]
    texts += texts[:500]  # words that are remembered
    texts += [None, "", "\n", " ", "a\0b", "word " * 3000, "x" * 5000, "</s> the", "__label__de"]
    found = fast.labels(pa.chunked_array([texts[:7], texts[7:]])).to_pylist()
    assert found == by_library(library, texts)
    assert len(set(found)) > 5
    assert fast.undecided < len(texts) / 20


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6))
@example(["\t\v\f\r", "\x1c\x85\u2028", "é" * 12 + " " + "é" * 13, "<the>", "a</s>", "__label__"])
@example(["a" * 23, "a" * 24, "a" * 25, "abc \0\0", "\0abc", "🤦‍♂️🤦‍♂️"])
def test_odd_texts_have_the_librarys_labels(both, texts):
    library, fast = both
    found = fast.labels(pa.chunked_array([pa.array(texts, pa.string())])).to_pylist()
    assert found == by_library(library, texts)


def test_what_rounding_could_change_is_asked_of_the_library(tmp_path):
    path = dense_model(tmp_path / "even.bin")
    data = bytearray(path.read_bytes())
    data[-9 * 7 * 4 :] = bytes(9 * 7 * 4)  # every branch of the tree as likely as the other
    path.write_bytes(data)
    library = fasttext.load_model(str(path))
    fast = FastLabels(read_model(path), library)
    texts = ["the dog", "straße", "x"]
    assert fast.labels(pa.chunked_array([texts])).to_pylist() == by_library(library, texts)
    assert fast.undecided == len(texts)


def test_many_captions_are_scored_the_quick_way(pool_of, monkeypatch):
    draw = random.Random(3)
    texts = [caption(draw) for _ in range(300)]
    slow = pool_of(text=texts)
    expected = run_filters(slow, [parse("language")]).uids.tolist()
    rows = "SELECT uid, value FROM score_values_1 ORDER BY uid"
    labels = slow.sql(rows).fetchall()
    slow.sql("DELETE FROM score_values_1")
    monkeypatch.setattr(language_module, "_MANY", 100)
    asked = []
    monkeypatch.setattr(FastLabels, "labels",
                        lambda self, texts, own=FastLabels.labels: asked.append(len(texts)) or own(self, texts))  # fmt: skip  # noqa: E501
    assert run_filters(slow, [parse("language")]).uids.tolist() == expected
    assert slow.sql(rows).fetchall() == labels
    assert sum(asked) == 300


def test_without_a_compiler_the_library_does_it(monkeypatch, pool_of):
    language_module._load_fast.cache_clear()
    find = language_module.importlib.util.find_spec
    monkeypatch.setattr(language_module.importlib.util, "find_spec",
                        lambda name: None if name == "numba" else find(name))  # fmt: skip
    scorer = LanguageScorer()
    scorer.expect(10**9)
    texts = ["une photo d'un chien brun sur la plage", None]
    assert scorer.score(Batch(pa.table({"text": texts}))) == ["fr", None]
    language_module._load_fast.cache_clear()


def test_a_model_that_is_broken_is_one_clear_line(tmp_path):
    whole = dense_model(tmp_path / "whole.bin").read_bytes()
    path = tmp_path / "broken.bin"
    for cut in (0, 3, 8, 60, 90, 200, 400, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError) as caught:
            read_model(path)
        assert str(caught.value).startswith(f"{path}: not a fastText model: ")
    # How many words, labels, buckets kept, buckets there are.
    for place, value in ((64, 2**31 - 1), (68, -1), (84, 2**62), (40, 0), (40, 2**31 - 1)):
        data = bytearray(whole)
        data[place : place + 8] = struct.pack("<q", value)
        path.write_bytes(data)
        with pytest.raises(DataError):
            read_model(path)


def test_another_kind_of_model_is_left_to_the_library(tmp_path):
    path = dense_model(tmp_path / "other.bin")
    data = bytearray(path.read_bytes())
    data[8 + 6 * 4] = 3  # a plain softmax
    path.write_bytes(data)
    assert read_model(path) is None
