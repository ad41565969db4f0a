import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.captions import wfpp
from datacomp.filters.captions.wfpp import (
    Discard,
    WordCounts,
    WordFrequencyScorer,
    counted,
    frequent,
    score,
    words,
)
from datacomp.pools.uids import to_hex


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's life, isn't it?", ["a", "dog", "'s", "life", ",", "isn", "'t", "it", "?"]),
        ("2023 x_y ---", ["2", "0", "2", "3", "x", "_", "y", "---"]),
        ("Füße 12 ça!!", ["füße", "1", "2", "ça", "!!"]),
        ("5th ½ *** a_b", ["5", "th", "½", "***", "a", "_", "b"]),
        ("ROCK'N'ROLL", ["rock", "'", "n", "'", "roll"]),
        (" \t\n", []),
    ],
)
def test_words_are_those_of_clips_tokenizer(text, expected):
    """What open_clip's tokenizer cuts, noted once."""
    assert words(text) == expected


def discarded(counts, t):
    found = frequent(counted(counts))
    return Discard(found, int(found["n"].sum()), t).of([*counts, "never"])


def test_counts_on_the_disk_are_those_in_memory(monkeypatch):
    texts = [f"{'ab'[n % 2]} {chr(97 + n % 23) * 3} x{n}" for n in range(200)]
    with WordCounts() as counts:
        counts.add(texts)
        expected = np.concatenate([*counts.parts()])
    assert expected["n"].sum() == sum(len(words(text)) for text in texts)
    assert set(expected["n"]) >= {100}
    monkeypatch.setattr(wfpp, "_MAX_WORDS", 5)
    with WordCounts() as counts:
        for start in range(0, 200, 7):
            counts.add(texts[start : start + 7])
        found = np.concatenate([*counts.parts()])
    assert np.sort(found).tolist() == np.sort(expected).tolist()


def test_scores_by_hand():
    """Of 100 words, the (64) has P = 1 - sqrt(.16/.64) = .5, a (36) 1/3, dog (4) none: too rare."""
    discard = discarded({"the": 64, "a": 36, "dog": 4}, 0.16)
    assert discard == pytest.approx({"the": 0.5, "a": 1 / 3})
    assert score("the a", discard) == pytest.approx((1 - 0.5 / 3) / 2)
    assert score("the the dog", discard) == pytest.approx((1 - 0.25) / 3)
    assert score("dog", discard) == 0
    assert score("!", discard) == 0
    assert score("", discard) is None
    # Only 30 words count.
    assert score("the " * 40, discard) == pytest.approx((1 - 0.5**30) / 30)


def test_it_agrees_with_the_authors_code():
    """What their statements give for these captions; 3,000 random ones were compared once."""
    captions = ["a photo of a dog"] * 4 + ["a dog and a cat", "photo of the zebra", "the cat"]
    captions += ["a " * 35 + "zebra", "quagga"]
    with WordCounts() as counts:
        counts.add(captions)
        found = np.concatenate([*map(frequent, counts.parts())])
    every = {word for caption in captions for word in words(caption)}
    discard = Discard(found, int(found["n"].sum()), 0.01).of(every)
    authors = [0.156311, 0.097727, 0.143205, 0.0, 0.032493, 0.0]
    assert [score(caption, discard) for caption in captions[3:]] == pytest.approx(authors, abs=1e-6)


def test_words_rarer_than_t_are_never_too_frequent():
    assert discarded({"the": 50, "a": 50}, 0.6) == {}
    assert discarded({}, 0.1) == {}


def test_a_pool(pool_of, set_scores, monkeypatch):
    texts = ["the dog"] * 5 + ["the the", "dog", "zebra", " ", None]
    pool = pool_of(text=texts)
    # the: 7 of 13 words; dog: 6; zebra is met once.
    the, dog = (1 - (0.01 * 13 / n) ** 0.5 for n in (7, 6))
    expected = [(1 - the * dog) / 2] * 5 + [(1 - the**2) / 2, 1 - dog, 0, None]
    for size in (1, 3, 100):
        scorer = WordFrequencyScorer(0.01)
        scorer.batch_size = size
        found = set_scores(pool, scorer, "text IS NOT NULL")
        assert found[:8] == pytest.approx(expected[:8])
        assert found[8] is None
    monkeypatch.setattr(wfpp, "_MAX_WORDS", 2)
    assert set_scores(pool, WordFrequencyScorer(0.01), "text IS NOT NULL") == found
    kept = run_filters(pool, [parse("wfpp:t=0.01,fraction=0.8")])
    order = sorted(range(8), key=lambda uid: (-expected[uid], uid))
    assert [int(uid, 16) for uid in to_hex(kept.uids)] == sorted(order[:6])
    assert kept.steps[0].reasons == {"no_caption": 1, "no_words": 1, "frequent_words": 2}


def test_no_words_at_all(pool_of):
    with pytest.raises(DataError, match="no sample has a score"):
        run_filters(pool_of(text=["", " "]), [parse("wfpp")])


@pytest.mark.parametrize("wrong", [{"t": 0}, {"t": 1}, {"fraction": 0}])
def test_wrong_parameters(wrong):
    with pytest.raises(UsageError, match=r"^filter wfpp: parameter "):
        registry.create("wfpp", wrong)
