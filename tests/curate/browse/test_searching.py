import pytest
from datacomp.curate.browse import searching
from datacomp.curate.browse.searching import Asked, count, search, terms_of
from datacomp.errors import UsageError
from datacomp.pools import Pool
from datacomp.pools.sources import open_source

CAPTIONS = ["a red shoe", "Blue SHOES", "eine Straße", "STRASSE", "写真 cat", "100% off_now", "a.b",
            "ÉTÉ à Paris", "", "shoe red"]  # fmt: skip


@pytest.fixture
def pool(pool_of):
    count = len(CAPTIONS)
    return pool_of(text=CAPTIONS, width=list(range(count)), height=[1] * count,
                   score=[i / 10 for i in range(count)])  # fmt: skip


def found(pool, **asked):
    return [row["uid"] for row in search(pool, Asked(**asked)).rows]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("", range(10)),
        ("shoe", [0, 1, 9]),
        ("SHOE red", [0, 9]),
        ('"red shoe"', [0]),
        ('"red shoe" a', [0]),
        ("straße", [2]),
        ("été", [7]),
        ("写真", [4]),
        ("100%", [5]),
        ("off_now", [5]),
        ("offxnow", []),
        ("a.b", [6]),
        (".", [6]),
        ("'; DROP TABLE samples; --", []),
        ("\\E(", []),
    ],
)
def test_words_must_all_be_in_the_caption_whatever_their_case(pool, words, numbers):
    assert found(pool, words=words) == list(numbers)
    assert count(pool, Asked(words=words)) == len(numbers)


def test_terms():
    assert terms_of(' red  "running shoes" red "" x') == ["running shoes", "red", "x"]
    for words, message in (
        (" ".join(map(str, range(17))), "17 words; at most 16 can be searched for at once"),
        ("x" * 201, "a word of more than 200 characters, or of what no caption has"),
        ("a\0b", "a word of more than 200 characters, or of what no caption has"),
    ):
        with pytest.raises(UsageError) as caught:
            terms_of(words)
        assert str(caught.value) == message


@pytest.mark.parametrize("window", [1, 3, 1 << 18])
def test_pages_follow_one_another_and_show_every_match_once(pool, monkeypatch, window):
    monkeypatch.setattr(searching, "_FIRST_WINDOW", window)
    seen, after, pages = [], 0, 0
    while after is not None:
        page = search(pool, Asked(words="e", after=after), page=2)
        assert len(page.rows) <= 2
        seen += [row["uid"] for row in page.rows]
        after, pages = page.after, pages + 1
    assert seen == [0, 1, 2, 3, 9]
    assert pages == 3


def test_a_page_without_time_says_how_far_it_looked(pool, monkeypatch):
    monkeypatch.setattr(searching, "_FIRST_WINDOW", 4)
    monkeypatch.setattr(searching, "BUDGET", -1)
    page = search(pool, Asked(words="paris"))
    assert (page.rows, page.after, page.looked, page.total) == ([], 4, 4, 10)
    page = search(pool, Asked(words="paris", after=6))
    assert ([row["uid"] for row in page.rows], page.after, page.looked) == ([7], None, 10)


@pytest.mark.parametrize(
    ("order", "first"),
    [("width", [0, 1]), ("-width", [9, 8]), ("aspect", [0, 1]), ("-score", [9, 8]),
     ("-caption", [7, 2]), ("caption", [8, 6])],
)  # fmt: skip
def test_samples_come_in_an_order(pool, order, first):
    assert found(pool, order=order)[:2] == first
    page = search(pool, Asked(order=order), page=4)
    again = search(pool, Asked(order=order, after=page.after), page=100)
    assert len({row["uid"] for row in page.rows + again.rows}) == 10
    assert again.after is None


def test_a_random_order_is_another_with_another_seed(pool):
    orders = [found(pool, order="random", seed=seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(10))


def test_a_random_order_of_many_is_one_of_a_fair_share(pool_of):
    rows = 20_000
    uids = [f"{(i + 1) * 0x9E3779B97F4A7C15 % (1 << 64):032x}" for i in range(rows)]
    pool = pool_of("many", uid=uids, text=["t"] * rows)
    page = search(pool, Asked(order="random", seed=3), page=48)
    later = search(pool, Asked(order="random", seed=3, after=page.after), page=48)
    both = {row["uid"] for row in page.rows} | {row["uid"] for row in later.rows}
    assert len(both) == 96
    assert len(search(pool, Asked(words="t", order="random"), page=48).rows) == 48


def test_conditions_may_name_scores(pool):
    table = pool.score_table("aesthetic", "d", {"type": "FLOAT"})
    pool.write_scores(table, pool.uids()[:3], [0.5, 0.7, 0.9])
    assert found(pool, where="aesthetic > 0.6 -- so") == [1, 2]
    assert found(pool, words="e", where="aesthetic > 0.6", order="-aesthetic") == [2, 1]
    assert found(pool, order="-aesthetic")[:3] == [2, 1, 0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"where": "widht > 3"}, 'Binder Error: Referenced column "widht" not found'),
        ({"where": "1 +"}, 'Parser Error: syntax error at or near ")"'),
        ({"where": "true); DROP TABLE samples; SELECT (1"}, "expected one SQL condition"),
        ({"where": "EXISTS (FROM glob('/*'))"}, "Permission Error"),
        ({"order": "nothing"}, "no column 'nothing' to order by"),
        ({"order": "width; DROP TABLE samples"}, "no column 'width; DROP TABLE samples' to"),
        ({"order": "width", "after": 10_001}, "only the first 10,000 samples of an order"),
        ({"where": "x" * 10_001}, "a question of more than 10,000 characters"),
    ],
)
def test_what_cannot_be_asked_is_one_line(pool, asked, message):
    pool.close()
    with Pool.open(pool.path, read_only=True, confined=True) as confined:
        with pytest.raises(UsageError) as caught:
            search(confined, Asked(**asked))
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
        assert confined.count() == 10


def test_linked_metadata_are_searched_too(tmp_path, commonpool):
    with Pool.open(commonpool(tmp_path / "m", files=2, rows=5)) as pool:
        assert found(pool, words="number 7") == [7]
        assert found(pool, order="-width")[:2] == [9, 8]
        page = search(pool, Asked(), page=4)
        assert (len(page.rows), page.after, page.total) == (4, 4, 10)
        rest = search(pool, Asked(after=4), page=6)
        assert {row["uid"] for row in page.rows + rest.rows} == set(range(10))
    with Pool.create(tmp_path / "p.duckdb") as pool:
        pool.add(open_source("commonpool", tmp_path / "m"))
        assert found(pool, words="number 7") == [7]
