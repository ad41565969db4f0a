"""The store: whole submissions or none, several writers, nothing left behind."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError
from datacomp.evaluate.leaderboard import store as stores
from datacomp.evaluate.leaderboard.layout import pack, stem_of, unpack
from datacomp.evaluate.leaderboard.make import Statement, make_submission
from datacomp.evaluate.leaderboard.record import private_matter
from datacomp.evaluate.leaderboard.samples import describe, write_weights
from datacomp.pools.tar import tar_bytes
from datacomp.pools.uids import from_hex, save_subset, sort_uids
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_submission_goes_to_its_place_once(submission, tmp_path):
    folder = submission()
    report, fresh = stores.add(tmp_path / "board", folder)
    assert fresh
    assert stores.places(tmp_path / "board") == [
        tmp_path / "board" / "small" / "filtering" / report.id
    ]
    assert stores.add(tmp_path / "board", folder)[1] is False
    assert sorted(os.listdir(tmp_path / "board")) == ["small"]


def test_a_tar_and_a_folder_are_the_same(submission, tmp_path):
    folder = submission(with_checkpoint=True)
    pack(folder, tmp_path / "sent.tar")
    report, _ = stores.add(tmp_path / "board", tmp_path / "sent.tar")
    assert stores.add(tmp_path / "board", folder)[1] is False
    place = tmp_path / "board" / stores.place_of(report.record)
    for path in folder.rglob("*"):
        if path.is_file():
            assert (place / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_a_refused_one_leaves_nothing(submission, forge, tmp_path):
    folder = forge(submission(), lambda c: c["runs"][0]["aggregates"].update(Average=1.0))
    with pytest.raises(
        stores.RefusedError, match=r"\[aggregates\] results/0.jsonl: 'Average' is given"
    ):
        stores.add(tmp_path / "board", folder)
    assert os.listdir(tmp_path / "board") == []


def test_the_same_results_under_another_name_are_refused(submission, forge, tmp_path):
    folder = submission()
    first, _ = stores.add(tmp_path / "board", folder)
    forge(folder, lambda content: content.update(method="Mine now"))
    with pytest.raises(stores.DuplicateError) as caught:
        stores.add(tmp_path / "board", folder)
    assert caught.value.id == first.id


def test_many_writers_of_one_submission(submission, tmp_path):
    folder = submission()
    with ThreadPoolExecutor(6) as threads:
        fresh = list(threads.map(lambda _: stores.add(tmp_path / "board", folder)[1], range(6)))
    assert sorted(fresh) == [False] * 5 + [True]
    assert len(stores.places(tmp_path / "board")) == 1


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_not(submission, tmp_path):
    board = tmp_path / "board"
    with stores.incoming(board) as alive:
        (board / ".incoming-dead").mkdir()
        (board / ".incoming-dead" / "half").write_text("x")
        assert stores.sweep(board) == 1
        assert alive.is_dir()
    assert os.listdir(board) == []


def test_no_store_is_told(tmp_path):
    with pytest.raises(MissingError, match="no such folder of submissions"):
        stores.places(tmp_path / "nothing")
    with pytest.raises(MissingError, match="no such submission"):
        stores.add(tmp_path / "board", tmp_path / "nothing")


def test_a_tar_larger_than_its_limit_is_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_bytes([("submission.json", bytes(5000))]))
    (tmp_path / "to").mkdir()
    with pytest.raises(UnsafeInputError, match="4,000 bytes; refused"):
        unpack(tmp_path / "x.tar", tmp_path / "to", 4000)
    assert os.listdir(tmp_path / "to") == []


@given(st.binary(max_size=3000))
@settings(max_examples=60, deadline=None)
def test_no_bytes_break_the_unpacking(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("any")
    (root / "x.tar").write_bytes(data)
    (root / "to").mkdir()
    with pytest.raises(DataError):
        unpack(root / "x.tar", root / "to", 1 << 20)


@given(st.text(max_size=150))
def test_any_file_name_gives_a_stem_of_the_layout(name):
    from datacomp.evaluate.leaderboard.layout import limit_of

    assert limit_of(f"samples/{stem_of(name)}.npy") is not None


def test_private_matter_is_found_in_linear_time():
    assert private_matter("write to a.b+c@mail.example.org please") == "an e-mail address"
    assert private_matter("ghp_" + "a" * 36) == "an access token"
    assert private_matter("a @ b, 3@4, user@localhost") is None
    assert private_matter("a" * 1_000_000 + "." * 1_000_000) is None
    assert private_matter("@" * 100_000) is None


# -- making ----------------------------------------------------------------------------------


def test_paths_of_the_machine_are_not_told(submission):
    for path in submission(with_checkpoint=True).rglob("*.json*"):
        assert "/home/someone" not in path.read_text()


def test_the_date_does_not_change_the_id(write_run, subset, tmp_path):
    run, ids = write_run(tmp_path / "run", samples=100), set()
    for year in (2026, 2027):
        made = make_submission(
            [run], [subset()], Statement("filtering", "Mine", "A"), tmp_path / f"s{year}",
            created=f"{year}-01-01T00:00:00Z",
        )  # fmt: skip
        ids.add(made.id)
    assert len(ids) == 1


def test_repetitions_become_weights(write_run, tmp_path):
    uids = sort_uids(from_hex(["2" * 32, "1" * 32, "2" * 32, "3" * 32, "2" * 32]))
    save_subset(tmp_path / "repeated.npy", uids)
    run = write_run(tmp_path / "run", samples=5)
    made = make_submission(
        [run], [tmp_path / "repeated.npy"], Statement("filtering", "Mine", "A"), tmp_path / "s"
    )
    (found,) = made.samples
    assert (found.file, found.kind) == ("samples/repeated.parquet", "weights")
    assert (found.count, found.unique) == (5, 3)
    assert made.dataset_size == 3


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"uid": ["1" * 32, "1" * 32], "weight": [1, 1]}, "are not sorted by uid, or stand there"),
        ({"uid": ["2" * 32, "1" * 32], "weight": [1, 1]}, "are not sorted by uid"),
        ({"uid": ["1" * 32], "weight": [0]}, "1 weights are below 1"),
        ({"uid": ["x"], "weight": [1]}, "1 rows have no uid"),
        ({"url": [None], "text": ["x"]}, "1 rows have no url"),
        ({"something": [1]}, "expected uid and weight, or url and text"),
    ],
)
def test_unsound_parquet_is_refused(tmp_path, columns, what):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if "url" in columns:
        table = table.cast(pa.schema([("url", pa.string()), ("text", pa.string())]))
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=what):
        describe(tmp_path / "x.parquet", "x.parquet")


def test_captions_and_broken_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"url": ["http://a", "http://b"], "text": ["x", "y"], "more": [1, 2]})
    pq.write_table(table, tmp_path / "it's.parquet")
    assert describe(tmp_path / "it's.parquet", "x").kind == "captions"
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(DataError, match="not readable"):
        describe(tmp_path / "broken.parquet", "broken.parquet")


def test_a_parquet_bomb_is_not_expanded(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3_000_000, "i4")), ["http://a"])
    pq.write_table(pa.table({"url": same, "text": same}), tmp_path / "bomb.parquet")
    with pytest.raises(UnsafeInputError, match="promises 3,000,000 rows in"):
        describe(tmp_path / "bomb.parquet", "bomb.parquet")


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
@settings(max_examples=20, deadline=None)
def test_weights_say_how_often(tmp_path_factory, numbers):
    uids = sort_uids(from_hex([f"{n:032x}" for n in numbers]))
    path = tmp_path_factory.mktemp("weights") / "w.parquet"
    write_weights(path, uids)
    found = describe(path, "w")
    assert (found.count, found.unique) == (len(numbers), len(set(numbers)))


def test_runs_that_do_not_belong_together_are_told(write_run, subset, tmp_path):
    statement = Statement("filtering", "Mine", "A")
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b")]
    with pytest.raises(UsageError, match="must differ in the seed"):
        make_submission(runs, [subset()], statement, tmp_path / "s")
    other = write_run(tmp_path / "c", "medium", seed=1)
    with pytest.raises(UsageError, match="another recipe"):
        make_submission([runs[0], other], [subset()], statement, tmp_path / "s")
    info = other / "info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "objective": "dfn"}))
    with pytest.raises(UsageError, match=r"c: was trained to filter with \(objective dfn\), not "):
        make_submission([other], [subset()], statement, tmp_path / "s")
    path = runs[0] / "eval_results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(MissingError, match="1 missing: fairness/geode"):
        make_submission(runs[:1], [subset()], statement, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_an_e_mail_address_stops_the_making(write_run, subset, tmp_path):
    with pytest.raises(DataError, match="author: holds an e-mail address"):
        make_submission(
            [write_run(tmp_path / "a")], [subset()],
            Statement("filtering", "Mine", "me@example.org"), tmp_path / "s",
        )  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_records_are_canonical_json(submission):
    raw = (submission() / "submission.json").read_bytes()
    value = json.loads(raw)
    assert raw == json.dumps(value, sort_keys=True, separators=(",", ":"),
                             ensure_ascii=False).encode() + b"\n"  # fmt: skip
    assert np.isfinite(value["runs"][0]["aggregates"]["Average"])
