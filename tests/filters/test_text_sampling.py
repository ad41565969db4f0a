import itertools
from collections import Counter

import numpy as np
import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.assets import with_assets
from datacomp.filters.draws.text_sampling import GROUPS, groups_of, step_of, sums_of, worths
from datacomp.pools.uids import from_halves, to_hex

DOG, CAT, HOUSE = 3, 0, 1


@pytest.mark.parametrize(
    ("alpha", "largest", "expected"),
    [
        # Dog is named by 4 captions, cat by 1, house by 2: at 0.5 they are worth 1/2, 1, 1/root 2.
        (0.5, False, [0.5, (0.5 + 1) / 2, 0.5, (0.5 + 0.5**0.5) / 2, 0.5**0.5]),
        (0.5, True, [0.5, 1, 0.5, 0.5**0.5, 0.5**0.5]),
        (0, False, [0.25, (0.25 + 1) / 2, 0.25, (0.25 + 0.5) / 2, 0.5]),
        (1, False, [1, 1, 1, 1, 1]),
        (2, True, [4, 4, 4, 4, 2]),
    ],
)
def test_the_worth_of_five_captions(alpha, largest, expected):
    captions = [[DOG], [DOG, CAT], [DOG], [DOG, HOUSE], [HOUSE]]
    lengths, things = np.array([len(caption) for caption in captions]), np.concatenate(captions)
    often = np.bincount(things, minlength=5)  # of things that nobody names there are two
    found = worths(lengths, things, often, alpha, largest)
    assert found == pytest.approx(expected, rel=1e-12)
    assert 2.0**55 < found.sum() / step_of(often, alpha) < 2.0**62


def test_steps_are_small_enough_for_any_pool():
    """Where a class stands in each of 12.8 billion captions, another in one."""
    for alpha in (0, 0.5, 1):
        often = np.array([12_800_000_000, 1, *[1000] * 20_000])
        step = step_of(often, alpha)
        assert (often.astype(float) ** alpha).sum() / step < 2.0**62
        assert (often.astype(float) ** (alpha - 1)).min() / step > 1000


def test_groups_are_about_as_large_and_sums_those_of_their_captions():
    uids = from_halves(np.zeros(300_000, np.uint64), np.arange(300_000, dtype=np.uint64))
    groups = groups_of(uids)
    assert np.bincount(groups, minlength=GROUPS).max() < 25
    found = sums_of(uids, np.arange(300_000))
    assert found.sum() == 300_000 * 299_999 // 2
    assert found[groups[7]] == np.flatnonzero(groups == groups[7]).sum()


TEXTS = ["a dog"] * 9 + ["the cats, really"] + ["nothing of it", "", "a dog dog"]


@pytest.fixture
def draw(pool_of, baseline_assets):
    numbers = itertools.count()

    def draw(words, texts=TEXTS):
        spec = with_assets(parse(f"text_sampling:{words}"), baseline_assets)
        return run_filters(pool_of(f"pool{next(numbers)}", text=texts), [spec])

    return draw


@pytest.mark.parametrize(("alpha", "share"), [(1, 1 / 11), (0, 1 / 2)])
def test_rare_things_are_drawn_more_often(draw, alpha, share):
    """Ten captions name a dog, one a cat: as they are, or both as often."""
    found = draw(f"alpha={alpha},size=2000,most=2000")
    assert found.steps[0].reasons == {"no_caption": 1, "names_nothing": 1}
    assert found.steps[0].seen == len(found.uids) == 2000
    seen = Counter(int(uid, 16) for uid in to_hex(found.uids))
    assert sorted(seen) == [*range(10), 12]
    assert abs(seen[9] - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5
    again = draw(f"alpha={alpha},size=2000,most=2000")
    assert again.uids.tolist() == found.uids.tolist()


def test_what_is_drawn_too_often_drops_out(draw):
    found = draw("alpha=0,size=2000,most=500")
    assert found.steps[0].reasons == {"no_caption": 1, "names_nothing": 1, "drawn_too_often": 1}
    assert found.kept == 10


def test_as_many_are_drawn_as_name_a_thing(draw):
    assert draw("alpha=1").steps[0].seen == 11
    assert len(draw("alpha=1", ["nothing", "of it"]).uids) == 0


def test_what_is_wrong_is_told(pool_of):
    for wrong in ({"alpha": -1}, {"size": 0}, {"most": 0}, {"over": "median"}):
        with pytest.raises(UsageError, match=r"^filter text_sampling: parameter "):
            registry.create("text_sampling", wrong)
    with pytest.raises(MissingError, match=r"^text_sampling finds nothing at /none for the asset "):
        run_filters(pool_of(text=["a"]), [parse("text_sampling:wordnet=/none")])
