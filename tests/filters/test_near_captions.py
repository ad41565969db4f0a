import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.captions.near_captions import (
    NearCaptionScorer,
    band_width,
    signature,
)
from datacomp.filters.groups import Groups
from datacomp.pools.uids import to_hex
from hypothesis import given
from hypothesis import strategies as st

LONG = "a photograph of a small brown dog that runs along the beach in the evening sun"


def resemblance(a, b, letters=5):
    runs = [{t[i : i + letters] for i in range(max(1, len(t) - letters + 1))} for t in (a, b)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_signatures_estimate_the_jaccard_index():
    rng = np.random.default_rng(1)
    words = LONG.split() + "cat tree house blue old street rain window".split()  # noqa: SIM905
    errors = []
    for _ in range(150):
        first = list(rng.choice(words, 14))
        second = [w if rng.random() < 0.8 else str(rng.choice(words)) for w in first]
        a, b = " ".join(first), " ".join(second)
        estimate = (signature(a, 5) == signature(b, 5)).mean()
        errors.append(estimate - resemblance(a, b))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05


def test_signatures_are_always_the_same():
    assert signature("a dog", 5)[:3].tolist() == [2598931188, 2579532059, 1631499607]
    assert np.array_equal(signature(" A\tDOG\n", 5), signature("a dog", 5))
    assert signature("", 5).shape == signature("x" * 100_000 + "\ud800", 5).shape == (128,)


def test_bands_find_what_they_should():
    assert [band_width(t) for t in (1, 0.9, 0.8, 0.5, 0.3)] == [32, 8, 4, 2, 1]
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.95):
        r = band_width(threshold)
        assert 1 - (1 - threshold**r) ** (128 // r) >= 0.999


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40),
        )
    )
)
def test_groups_are_the_connected_components(drawn):  # fmt: skip
    count, pairs = drawn
    group = list(range(count))
    for a, b in pairs:
        low, high = sorted((group[a], group[b]))
        group = [low if g == high else g for g in group]
    groups = Groups(count)
    for part in (pairs[:7], pairs[7:]):
        a, b = (np.array([p[side] for p in part], np.int64) for side in (0, 1))
        groups.join(a, b)
        assert not groups.apart(a, b).any()
    assert groups.first().tolist() == [group[i] == i for i in range(count)]


def test_a_pool(pool_of, set_scores):
    texts = [
        LONG, LONG.upper(), LONG + "!", "a cat", "A  cat", "a cab", "", "  ",
        LONG.replace("brown", "black"), LONG[::-1], None,
    ]  # fmt: skip
    assert resemblance(LONG, texts[8]) == pytest.approx(0.8, abs=0.01)
    first = [True, False, False, True, False, True, True, True, True]
    pool = pool_of(text=texts)
    for size in (1, 4, 1024):
        scorer = NearCaptionScorer(0.9, 5)
        scorer.batch_size = size
        assert set_scores(pool, scorer, "text <> ''") == first
    found = run_filters(pool, [parse("near_captions:threshold=0.9")])
    assert [int(uid, 16) for uid in to_hex(found.uids)] == [0, 3, 5, 7, 8, 9]
    assert found.steps[0].reasons == {"no_caption": 2, "near_duplicate": 3}
    looser = run_filters(pool, [parse("near_captions:threshold=0.6")])
    assert [int(uid, 16) for uid in to_hex(looser.uids)] == [0, 3, 5, 7, 9]


def test_of_many_copies_all_but_one_go(pool_of):
    rng = np.random.default_rng(2)
    base = ["".join(rng.choice(list("abcdefgh "), 60)) for _ in range(40)]
    texts = [base[i % 40][: 60 - i // 200] for i in range(400)]
    found = run_filters(pool_of(text=texts), [parse("near_captions")])
    assert [int(uid, 16) for uid in to_hex(found.uids)] == list(range(40))


@pytest.mark.parametrize("wrong", [{"threshold": 0.1}, {"threshold": 1.1}, {"letters": 0}])
def test_wrong_parameters(wrong):
    with pytest.raises(UsageError, match=r"^filter near_captions: parameter "):
        registry.create("near_captions", wrong)
