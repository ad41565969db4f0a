"""Batches in stretches are those that are drawn one by one from all keys."""

import itertools

import numpy as np
import pytest
from datacomp.filters.draws import batches
from datacomp.filters.draws.batches import (
    Here,
    Law,
    State,
    Urn,
    candidates,
    draw_batches,
    keys_of,
    numbers_of,
    reached_by,
    sizes_of,
    steps,
)
from datacomp.pools.uids import from_halves
from hypothesis import given, settings
from hypothesis import strategies as st


def urn_of(scores, law, drawn=None):
    numbers = np.random.default_rng(5).integers(0, 2**64, (2, len(scores)), np.uint64)
    drawn = np.zeros(len(scores), np.uint32) if drawn is None else np.asarray(drawn, np.uint32)
    return Urn(np.asarray(scores, float), numbers_of(from_halves(*numbers), law), drawn)


def split_mix(numbers, key):
    """SplitMix64's finaliser, in Python's integers."""
    found = []
    for number in numbers.tolist():
        bits = number ^ key
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> shift)) * factor % 2**64
        found.append(bits ^ (bits >> 31))
    return np.array(found, np.uint64)


def one_by_one(urn, law, size, batch):
    """Draw each batch from the keys of all."""
    drawn = urn.drawn.copy()
    for number, start in enumerate(range(0, size, batch)):
        (key,) = batches._of_batches(law, number, number + 1).tolist()
        bits = split_mix(urn.numbers, key)
        keys = keys_of(urn.scores, drawn, bits, law)
        drawn[np.lexsort((bits, -keys))[: min(batch, size - start)]] += 1
    return drawn


def in_stretches(urn, law, size, batch):
    """Return how often each is drawn, and the stretches: their limits and candidates."""
    seen = []

    class Noted(Here):
        def offer(self, first, end, limit):
            counts = super().offer(first, end, limit)
            seen.append((first, end, limit, int(counts.sum())))
            return counts

    states = []
    draw_batches(Noted(urn, law), len(urn.scores), batch, law, State(0, size), states.append)
    assert states[-1].left == 0
    return urn.drawn, seen


SCORES = np.random.default_rng(1).normal(0, 2, 3000)


@pytest.mark.parametrize(
    ("scores", "penalty", "size", "batch"),
    [
        (SCORES * 0, 0.15, 3000, 3),
        (SCORES, 0.15, 3000, 10),
        (SCORES * 5, 0.15, 2000, 7),
        (SCORES, 50, 9001, 450),  # who was drawn is out until all are
        (SCORES, 0, 500, 1),
        (SCORES, 1, 6000, 2999),
        (SCORES, 1, 6000, 3000),
        (np.round(SCORES) * 1e17, 0.15, 900, 11),  # the noise is lost, and many keys are the same
        (np.round(SCORES) * 1e17, 1e17, 900, 11),
        (SCORES, 1e308, 9500, 2000),  # penalties become infinite
        ([0.5], 0.15, 20, 1),
    ],
)
@pytest.mark.parametrize("at_once", [1, 3000, 1 << 22])
def test_stretches_draw_what_batches_draw(scores, penalty, size, batch, at_once, monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", at_once)
    monkeypatch.setattr(batches, "BATCHES_AT_ONCE", 1 if at_once == 1 else 4)
    monkeypatch.setattr(batches, "_ROWS", 1000)
    law = Law(penalty, 3)
    expected = one_by_one(urn_of(scores, law), law, size, batch)
    found, _ = in_stretches(urn_of(scores, law), law, size, batch)
    assert expected.sum() == size
    assert found.tolist() == expected.tolist()


def test_candidates_are_few_and_stretches_long(monkeypatch):
    """A thousandth of 30,000 in each batch: few rounds, and little more than is drawn."""
    law, scores = Law(0.15, 0), np.random.default_rng(2).normal(0, 1, 30_000)
    _, seen = in_stretches(urn_of(scores, law), law, 30_000, 30)
    assert len(seen) < 10
    assert sum(count for *_, count in seen) < 4 * 30_000
    monkeypatch.setattr(batches, "AT_ONCE", 1000)
    _, seen = in_stretches(urn_of(scores, law), law, 30_000, 30)
    assert max(count for *_, count in seen) < 1500


def test_large_batches_share_a_stretch(monkeypatch):
    """Each stretch is a pass over all files, so it has four batches, however large they are."""
    monkeypatch.setattr(batches, "AT_ONCE", 1000)
    law, scores = Law(0.15, 0), np.random.default_rng(2).normal(0, 1, 30_000)
    _, seen = in_stretches(urn_of(scores, law), law, 30_000, 1500)
    assert len(seen) < 10
    assert max(count for *_, count in seen) < 2 * 4 * 1.5 * 1500


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-50, 50) | st.sampled_from([1e17, -1e300]), min_size=1, max_size=40),
    st.floats(-30, 60), st.floats(0, 5),
)  # fmt: skip
def test_who_reaches_a_limit_is_a_candidate(scores, limit, penalty):
    law = Law(penalty, 1)
    urn = urn_of(scores, law, np.arange(len(scores)) % 4)
    counts, found = candidates(urn, law, 7, 12, limit)
    ends = np.cumsum(counts)
    for number in range(5):
        here = found[ends[number] - counts[number] : ends[number]]
        (key,) = batches._of_batches(law, 7 + number, 8 + number).tolist()
        bits = split_mix(urn.numbers, key)
        reach = np.flatnonzero(keys_of(urn.scores, urn.drawn, bits, law) >= limit)
        assert set(reach) <= set(here["row"])
        assert (here["bits"] == bits[here["row"]]).all()
        assert (here["drawn"] == urn.drawn[here["row"]]).all()
        assert (here["score"] == urn.scores[here["row"]]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=4), st.data())
def test_a_limit_that_files_tell_is_reached_by_so_many(sizes, data):
    law = Law(0.15, 2)
    urns = [
        urn_of(np.random.default_rng(n).normal(0, 3, size), law) for n, size in enumerate(sizes)
    ]
    if not sum(sizes):
        return
    wanted = data.draw(st.integers(1, sum(sizes)))
    limit = reached_by([steps(urn, law, 4, 16) for urn in urns], wanted)
    (key,) = batches._of_batches(law, 4, 5).tolist()
    keys = [keys_of(u.scores, u.drawn, split_mix(u.numbers, key), law) for u in urns]
    reach = sum(int((some >= limit).sum()) for some in keys)
    assert wanted <= reach <= 4 * wanted + 16 * len(sizes)
    assert all(len(steps(urn, law, 4, 16)[0]) <= 16 for urn in urns)


def test_the_noise_is_gumbel():
    """Its distribution is exp(-exp(-x)); no bits lead to anything infinite."""
    bits = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64)
    nothing = np.zeros(len(bits))
    noise = keys_of(nothing, nothing.astype(np.uint32), bits, Law(0, 0))
    found = np.histogram(np.exp(-np.exp(-noise)), 20, (0, 1))[0]
    assert ((found - 5000) ** 2 / 5000).sum() < 43.8  # the chi-square of 19 degrees, at 0.001
    edges = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert np.isfinite(keys_of(np.zeros(4), np.zeros(4, np.uint32), edges, Law(0, 0))).all()


def test_batches_are_independent():
    """Who is in one is no likelier to be in the next: of 400 in each of 200, 2 are in both."""
    law, n = Law(0, 0), 80_000
    urn = urn_of(np.zeros(n), law)
    members = []
    for number in range(200):
        (key,) = batches._of_batches(law, number, number + 1)
        bits = np.empty_like(urn.numbers)
        batches._mix(urn.numbers, key, bits, np.empty_like(bits))
        keys = keys_of(urn.scores, urn.drawn, batches._finish(bits), law)
        members.append(np.argsort(-keys)[:400])
    both = sum(len(np.intersect1d(a, b)) for a, b in itertools.pairwise(members))
    assert abs(both - 199 * 2) < 4 * (199 * 2) ** 0.5
    often = np.bincount(np.concatenate(members), minlength=n)
    assert abs(often.var() - 1) < 0.05  # Poisson


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((10, None, None), (10, 1)),
        ((12_800, None, None), (12_800, 10)),
        ((10, 256_000, None), (256_000, 10)),
        ((10, 99, 4), (99, 4)),
        ((3, 7, 50), (7, 3)),
    ],
)
def test_how_many_are_drawn_at_a_time(given, found):
    assert sizes_of(*given, 1280) == found
