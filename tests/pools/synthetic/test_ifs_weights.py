"""Rows of multipliers, as the authors' files list them."""

import pytest
from datacomp.pools.synthetic.ifs_weights import eased, plane_rows, space_rows, spread_order


def test_rows_of_the_plane():
    rows = plane_rows(0.4)
    assert len(rows) == 25
    assert rows[:6] == (
        (0.2, 1, 1, 1, 1, 1), (0.6, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1), (1.4, 1, 1, 1, 1, 1),
        (1.8, 1, 1, 1, 1, 1), (1, 0.2, 1, 1, 1, 1),
    )  # fmt: skip
    assert rows[24] == (1, 1, 1, 1, 1, 1.8)
    assert [row[0] for row in plane_rows(0.5)[:5]] == [0.01, 0.5, 1, 1.5, 2]
    assert [row[0] for row in plane_rows(0.0125)[:5]] == [0.975, 0.9875, 1, 1.0125, 1.025]
    assert plane_rows(0.0) == ((1, 1, 1, 1, 1, 1),)


@pytest.mark.parametrize("count", [1, 25, 49, 73, 97, 121, 145])
def test_rows_of_space(count):
    rows = space_rows(count)
    assert len(rows) == count
    assert rows[(count - 1) // 24] == (1,) * 12
    if count > 1:
        assert rows[-1] == (*(1,) * 11, round(1 + (count - 1) / 240, 1))
        assert rows[0] == (round(1 - (count - 1) / 240, 1), *(1,) * 11)


def test_the_authors_file_of_145_repeats_a_row():
    rows = space_rows(145)
    assert rows[108] == rows[99] == (1, 1, 1, 1, 1, 1, 1, 1, 0.6, 1, 1, 1)
    assert len(set(rows)) == 144


@pytest.mark.parametrize("rows", [plane_rows(0.4), plane_rows(0), space_rows(145), space_rows(49)])
def test_every_row_comes_once_the_unchanged_one_first(rows):
    order = spread_order(rows)
    assert sorted(order) == list(range(len(rows)))
    assert rows[order[0]] == (1,) * len(rows[0])


def test_a_few_rows_in_a_row_change_many_parameters():
    rows = space_rows(145)
    changed = {max(range(12), key=lambda n: abs(row[n] - 1)) for row in map(
        rows.__getitem__, spread_order(rows)[1:25])}  # fmt: skip
    assert len(changed) >= 11


def test_rows_without_an_unchanged_one():
    assert sorted(spread_order(((0.5,), (2.0,), (3.0,)))) == [0, 1, 2]


def test_easing_halves_the_way_to_one():
    assert eased((1.8, 1.0, 0.2), 0) == (1.8, 1.0, 0.2)
    assert eased((2.0, 1.0, 0.0), 1) == (1.5, 1.0, 0.5)
    assert eased((2.0, 1.0, 0.0), 3) == (1.125, 1.0, 0.875)
