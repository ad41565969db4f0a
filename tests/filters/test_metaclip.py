import json

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.captions import metaclip
from datacomp.filters.captions.metaclip import BalanceScorer, Entries
from datacomp.pools.uids import to_hex

ENTRIES = ["dog", "new york", "York", "a", "it's", "a  b", "dog", "St. Louis"]


def run(pool, text):
    found = run_filters(pool, [parse(text)])
    return [int(uid, 16) for uid in to_hex(found.uids)], found.steps[0].reasons


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("dog", [0, 6]), ("hotdog", []), ("dog,cat", [0, 6]), ("Dog", []), ("", []),
        ("in new york!", [1]), ("new  york", []), ("new\tyork", [1]), ("New York", [2]),
        ("it's a dog", [0, 3, 4, 6]), ("a  b", [3, 5]), ("a,b", [3]), ("a, b", [3]),
        ("St. Louis", []), ("york new york york", [1]), ("(dog)", []),
    ],
)  # fmt: skip
def test_entries_match_as_with_the_authors_code(text, numbers):
    """What the authors' matching finds in these; 20,000 random texts were compared once as well."""
    assert Entries(ENTRIES).match(text) == numbers


def test_probabilities_by_hand(pool_of, set_scores, tmp_path):
    """With t = 2, dog (4 captions) fires with 1/2, cat (3) with 2/3, owl (1) always."""
    texts = ["dog", "dog cat", "cat, cat", "dog cat owl", "nothing here", "dog"]
    (tmp_path / "entries.txt").write_text("dog\ncat\r\n\nowl\n")
    scorer = BalanceScorer(tmp_path / "entries.txt", 2)
    expected = [1 / 2, 1 - 1 / 2 * 1 / 3, 2 / 3, 1, 0, 1 / 2]
    for size in (1, 4, 4096):
        scorer.batch_size = size
        assert set_scores(pool_of(f"p{size}", text=texts), scorer) == pytest.approx(expected)
    metaclip.load.cache_clear()
    (tmp_path / "entries.json").write_text(json.dumps(["dog", "cat", "owl"]))
    same = BalanceScorer(tmp_path / "entries.json", 2)
    assert set_scores(pool_of("json", text=texts), same) == pytest.approx(expected)
    many = BalanceScorer(tmp_path / "entries.json", 100)
    assert set_scores(pool_of("many", text=texts), many) == [1, 1, 1, 1, 0, 1]


def test_a_pool_is_balanced(pool_of, tmp_path):
    """Of 4,000 dogs and 100 cats with t = 400, a tenth of the dogs and every cat is drawn."""
    (tmp_path / "entries.txt").write_text("dog\ncat")
    texts = ["a dog"] * 4000 + ["a cat"] * 100 + ["a tree", None]
    pool = pool_of(text=texts)
    text = f"metaclip:entries_file={tmp_path / 'entries.txt'},t=400"
    kept, reasons = run(pool, text)
    assert kept == run(pool, text)[0]
    assert [uid for uid in kept if uid >= 4000] == list(range(4000, 4100))
    dogs = sum(uid < 4000 for uid in kept)
    assert abs(dogs - 400) < 4 * np.sqrt(4000 * 0.1 * 0.9)
    assert reasons == {"no_caption": 1, "no_entry": 1, "not_drawn": 4000 - dogs}
    assert run(pool, f"{text},seed=1")[0] != kept
    assert len(pool.info()["scores"]) == 1  # another seed needs no other score


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", b"{}", "expected a JSON array of strings"), ("a.json", b"[1]", "JSON array"),
        ("a.json", b"[", "not a list of entries"), ("a.txt", b"\xff", "not a list of entries"),
        ("a.txt", b" \n\n", "the list of entries is empty"), ("a.json", b"[]", "is empty"),
    ],
)  # fmt: skip
def test_what_is_no_list(pool_of, set_scores, tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        set_scores(pool_of(text=["x"]), BalanceScorer(tmp_path / name, 2))


def test_what_is_missing(pool_of, tmp_path):
    with pytest.raises(UsageError, match="parameter entries_file is required"):
        registry.create("metaclip", {})
    with pytest.raises(MissingError, match="no such list of entries"):
        run(pool_of(text=["x"]), f"metaclip:entries_file={tmp_path / 'no'}")
