"""WILDS, fairness, faces, pairs in parquet and WinoGAViL: from files to metrics."""

import functools
import hashlib
import io
import json
import re

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError
from datacomp.evaluate import winogavil
from datacomp.evaluate.evalsets import open_evalset
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.samples import Flawed, Puzzle, Sample
from datacomp.evaluate.winogavil import prompt
from datacomp.pools.tar import tar_bytes


@pytest.fixture
def measure(sets, tiny, tmp_path):
    """Evaluate one task, and return its result or why it failed."""

    def measure(task, **options):
        output = tmp_path / f"{task.key.replace('/', '-')}.jsonl"
        found = evaluate(tiny(0), sets.data, [task], output, device="cpu", **options)
        return found.results[0] if found.results else found.failed[task.key]

    return measure


@pytest.fixture
def embed(tiny):
    """Embed one image or text, the shortest way."""
    import torch
    from PIL import Image

    model = tiny(0).load("cpu")

    @functools.cache
    def embed(what) -> np.ndarray:
        with torch.inference_mode():
            if isinstance(what, str):
                found = model.model.encode_text(model.tokenizer([what]))
            else:
                image = Image.open(io.BytesIO(what)).convert("RGB")
                found = model.model.encode_image(model.preprocess(image)[None])
        return (found / found.norm()).numpy()[0]

    return embed


def classify(embed, sample, names, templates) -> int:
    def column(name):
        mean = np.mean([embed(template.replace("{c}", name)) for template in templates], axis=0)
        return mean / np.linalg.norm(mean)

    return int(np.argmax([embed(sample.image) @ column(name) for name in names]))


def test_groups_are_those_of_each_samples_own_metadata(sets, measure, embed):
    sets.write("wild", "wilds", size=13)
    task = sets.task("wild", "wilds", size=13)
    result = measure(task, batch_size=4)
    evalset = open_evalset(sets.data, task)
    hits: dict[int, list[bool]] = {region: [] for region in range(4)}
    for i, sample in enumerate(evalset.samples()):
        assert sample.metadata == (i % 4, i)
        found = classify(embed, sample, evalset.classnames, evalset.templates)
        hits[i % 4].append(found == sample.label)
    for region, of in hits.items():
        assert result.metrics[f"acc_region:{region}"] == pytest.approx(np.mean(of))
        assert result.metrics[f"count_region:{region}"] == len(of)
    assert result.value == result.metrics["acc_wg"] == min(np.mean(of) for of in hits.values())
    assert result.metrics["acc_avg"] == result.metrics["acc1"]


def test_precision_and_recall_by_class_where_nothing_is_grouped(sets, measure):
    sets.write("wild", "wilds", size=13)
    result = measure(sets.task("wild", "wilds", size=13, groups=[], main_metric="F1-macro_all"))
    assert list(result.metrics) == [
        "acc1", "acc5", "mean_per_class_recall", "acc_avg", "recall-macro_all", "F1-macro_all",
        "main_metric",
    ]  # fmt: skip
    assert result.value == result.metrics["F1-macro_all"]
    assert result.interval[0] <= result.value <= result.interval[1]


def test_two_fields_have_a_worst_group_each(sets, measure):
    sets.write("wild", "wilds", size=13)
    result = measure(
        sets.task("wild", "wilds", size=13, groups=["region", "income"],
                  unknown_groups={"income": 12}, main_metric="acc_worst_region")
    )  # fmt: skip
    assert {"acc_worst_region", "acc_worst_income", "acc_worst_income_known"} <= set(result.metrics)
    assert "acc_wg" not in result.metrics
    assert result.value == result.metrics["acc_worst_region"]


def test_fairness_counts_the_first_classes(sets, measure):
    sets.write("home", "fairness", size=13)
    result = measure(
        sets.task("home", "fairness", size=13, top=5, groups=["income"], main_metric="acc_top5_wg")
    )
    assert result.metrics["acc_top5_avg"] == result.metrics["acc5"]
    assert result.value == min(result.metrics[f"acc_top5_income:{i}"] for i in range(13))


def test_faces_are_asked_each_question_alone(sets, measure, embed):
    sets.write("face", "faces", size=12)
    task = sets.task("face", "faces", size=12)
    result = measure(task)
    assert (result.value, result.uncertainty) == (None, {})
    assert result.metrics["main_metric"] is None
    evalset = open_evalset(sets.data, task)
    names = [name.partition(":")[2] for name in evalset.classnames if name.startswith("gender:")]
    right = [
        classify(embed, sample, names, ["a photo of {c}"]) == sample.metadata[1]
        for sample in evalset.samples()
    ]
    assert result.metrics["acc_gender_avg"] == pytest.approx(np.mean(right))
    assert result.metrics["count_race:2_gender:1"] == 2
    assert (
        0 <= result.metrics["toxicity_nonhuman_wg"] <= result.metrics["toxicity_nonhuman_highest"]
    )


def test_a_face_set_without_a_question_is_refused(sets, measure):
    path = sets.write("face", "faces", size=12) / "classnames.txt"
    path.write_text(path.read_text().replace("age:", "aeg:"))
    assert measure(sets.task("face", "faces")) == f"{path}: no line begins with 'age:'"


def test_pairs_in_parquet_are_those_in_tars(sets, measure):
    sets.write("retrieval/pairs", "retrieval", size=11)
    task = sets.task("retrieval/pairs", "retrieval", size=11)
    (sets.data / "wds_retrieval-pairs_test").rename(sets.data / "wds_pairs_test")
    in_tars = measure(task)
    (sets.data / "wds_pairs_test").rename(sets.data / "away")
    (sets.data / "digests.jsonl").unlink()
    sets.parquet("pairs", sets.pairs(11), files=2)
    in_parquet = measure(task)
    assert in_parquet.metrics == in_tars.metrics
    assert in_parquet.uncertainty == in_tars.uncertainty
    assert in_parquet.provenance["data"] != in_tars.provenance["data"]


def test_flawed_pairs_are_named_by_file_and_row(sets):
    rows = sets.pairs(4)
    rows[0]["image"] = None
    rows[1]["image"]["bytes"] = None
    rows[2]["caption"] = ["", None]
    sets.parquet("pairs", rows)
    found = list(open_evalset(sets.data, sets.task("pairs", "retrieval", size=4)).samples())
    name = "test-00000-of-00001.parquet"
    assert found == [
        Flawed(f"{name}:0", "no image"), Flawed(f"{name}:1", "no image"),
        Flawed(f"{name}:2", "no caption"),
        Sample(f"{name}:3", sets.picture(3), captions=("picture 3", "photo number 3")),
    ]  # fmt: skip


def test_winogavil_picks_as_many_as_there_are(sets, measure, embed):
    rows = sets.puzzles(12)
    sets.parquet("winogavil", rows, files=3)
    result = measure(sets.task("misc/winogavil", "winogavil", size=12), batch_size=4)
    scores: dict[int, list[float]] = {}
    for row in rows:
        cue = embed("An egg" if row["cue"] == "Egg" else "A wolf")
        order = np.argsort([-float(embed(x["bytes"]) @ cue) for x in row["candidate_images"]])
        picked, right = set(order[:2].tolist()), {1, 3}
        scores.setdefault(len(row["candidates"]), []).append(
            len(picked & right) / len(picked | right)
        )
    for size, of in scores.items():
        assert result.metrics[f"jaccard_score_{size}"] == pytest.approx(np.mean(of))
    assert result.value == pytest.approx(np.mean(scores[10] + scores[12]))
    assert result.provenance["n"] == 12


def test_a_puzzle_that_cannot_be_solved_is_set_aside(sets, measure):
    rows = sets.puzzles(8)
    rows[0]["cue"] = " "
    rows[1]["associations"] = ["elsewhere"]
    rows[2]["candidate_images"] = rows[2]["candidate_images"][:-1]
    rows[3]["candidate_images"][0]["bytes"] = b""
    rows[4]["candidate_images"][0]["bytes"] = b"no image"
    sets.parquet("winogavil", rows)
    result = measure(sets.task("misc/winogavil", "winogavil", size=8))
    name = "test-00000-of-00001.parquet"
    assert result.provenance["n"] == 3
    assert result.provenance["set_aside_samples"] == [
        f"{name}:0: no cue", f"{name}:1: no candidate is an association",
        f"{name}:2: 9 images of 10 candidates", f"{name}:3: a candidate without an image",
        f"{name}:4: a candidate's image cannot be decoded",
    ]  # fmt: skip
    assert result.metrics["jaccard_score_10-12"] is not None


def test_sizes_that_do_not_occur_are_null(sets, measure, tmp_path):
    sets.parquet("winogavil", sets.puzzles(2))
    result = measure(sets.task("misc/winogavil", "winogavil", size=2))
    assert (result.value, result.interval) == (None, None)
    assert result.metrics["jaccard_score_12"] is None
    json.loads((tmp_path / "misc-winogavil.jsonl").read_text(), parse_constant=pytest.fail)


def test_a_puzzle_reads_as_it_was_written(sets):
    rows = sets.puzzles(1)
    sets.parquet("winogavil", rows)
    (found,) = open_evalset(sets.data, sets.task("x/winogavil", "winogavil")).puzzles()
    images = tuple(image["bytes"] for image in rows[0]["candidate_images"])
    right = (False, True, False, True, False)
    names = tuple(hashlib.sha256(image).hexdigest() for image in images)
    assert found == Puzzle("test-00000-of-00001.parquet:0", "wolf", images, right, names)


@pytest.mark.parametrize(
    ("scores", "right", "picked"),
    [([0.5, 0.5, 0.5], [1, 1, 0], [0, 1, 1]), ([0.1, 0.9, 0.5, 0.5], [1, 0, 1, 0], [0, 1, 0, 1]),
     ([0.2, 0.2], [1, 1], [1, 1])],
)  # fmt: skip
def test_of_equal_candidates_the_later_is_picked_as_datacomp_does(scores, right, picked):
    found = winogavil.pick(np.array(scores, np.float32), np.array(right, bool))
    # wino_eval.py: np.argsort(image_logits)[-n_assoc:], with the sort of up to 16 of its numpy
    theirs = np.argsort(np.array(scores), kind="stable")[-sum(right) :]
    assert found.tolist() == [bool(n) for n in picked]
    assert found.nonzero()[0].tolist() == sorted(theirs.tolist())


def test_the_article_of_a_cue():
    assert [prompt(cue) for cue in ("Apple", "Unit", "dog")] == ["An apple", "An unit", "A dog"]


FIELDS = "expected 2 numbers (region, income)"


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        (None, DataError, "no .npy beside the image"),
        (b"text", DataError, ".npy is not an array"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': (((" + b" " * 104, DataError, ".npy is not an array"),
        ((1, 2, 3), DataError, f".npy has shape (3,), {FIELDS}"),
        ((1,), DataError, f".npy has shape (1,), {FIELDS}"),
        (((1, 2), (3, 4)), DataError, f".npy has shape (2, 2), {FIELDS}"),
        (("a", "b"), DataError, ".npy does not hold 2 plain numbers"),
        (b"x" * 5000, UnsafeInputError, ".npy of 5,000 bytes"),
    ],
)
def test_wrong_metadata_stop_the_task(sets, npy, metadata, kind, message):
    path = sets.write("wild", "wilds", size=1, shards=1) / "test" / "0.tar"
    files = [("a.cls", b"0"), ("a.png", sets.picture(0))]
    if isinstance(metadata, tuple):
        metadata = npy(*metadata, dtype=None)
    if metadata is not None:
        files.insert(1, ("a.npy", metadata))
    path.write_bytes(tar_bytes(files))
    with pytest.raises(kind) as caught:
        list(open_evalset(sets.data, sets.task("wild", "wilds")).samples())
    assert str(caught.value) == f"{path}: sample 'a': {message}"


def test_an_array_that_would_run_code_or_fill_the_memory_is_refused(sets, npy):
    path = sets.write("wild", "wilds", size=1, shards=1) / "test" / "0.tar"
    huge = npy(1, 2).replace(b"'shape': (2,), ", b"'shape': (2,)*9")
    short = npy(1, 2)[:-4]
    evil = npy({"a": 1}, {"b": 2}, dtype=object)
    for data, message in ((evil, "holds objects, which could run code"),
                          (huge, "is not an array"), (short, "does not hold 2 plain")):  # fmt: skip
        path.write_bytes(tar_bytes([("a.cls", b"0"), ("a.npy", data), ("a.png", b"x")]))
        with pytest.raises(DataError, match=message):
            list(open_evalset(sets.data, sets.task("wild", "wilds")).samples())


def test_numbers_of_any_plain_type_are_metadata(sets, npy):
    path = sets.write("wild", "wilds", size=1, shards=1) / "test" / "0.tar"
    for kind in (np.int64, np.uint8, np.float32, ">i4"):
        path.write_bytes(
            tar_bytes([("a.cls", b"0"), ("a.npy", npy(3, 1, dtype=kind)), ("a.png", b"x")])
        )
        (sample,) = open_evalset(sets.data, sets.task("wild", "wilds")).samples()
        assert sample.metadata == (3.0, 1.0)


def test_a_broken_parquet_file_is_one_clear_line(sets):
    path = sets.parquet("pairs", sets.pairs(3)) / "test-00000-of-00001.parquet"
    evalset = open_evalset(sets.data, sets.task("pairs", "retrieval"))
    whole = path.read_bytes()
    for data, message in (
        (whole[:-9], "not a parquet file: "),
        (b"", "not a parquet file: "),
        (
            whole.replace(b"caption", b"captoin"),
            "no column 'caption'; there are: image, captoin, s",
        ),
        (whole[:4] + b"\xff" * 600 + whole[604:], "a damaged parquet file: "),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"^{re.escape(f'{path}: {message}')}") as caught:
            list(evalset.samples())
        assert "\n" not in str(caught.value)


def test_captions_that_are_no_text_are_one_clear_line(sets):
    import pyarrow.parquet as pq

    path = sets.parquet("pairs", sets.pairs(1)) / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"photo number", b"photo \xff\xff\xff\xff\xff\xff"))
    message = f"{path}: a damaged parquet file: 'utf-8' codec can't decode"
    with pytest.raises(DataError, match=rf"^{re.escape(message)}"):
        list(open_evalset(sets.data, sets.task("pairs", "retrieval")).samples())


def test_winogavil_is_not_in_tars(sets):
    (sets.data / "winogavil").mkdir(parents=True)
    with pytest.raises(MissingError, match=r"winogavil: no \.parquet files in it; fetch the eval"):
        open_evalset(sets.data, sets.task("misc/winogavil", "winogavil"))


def test_rows_are_counted_as_samples_are(sets, measure):
    path = sets.parquet("winogavil", sets.puzzles(4))
    assert measure(sets.task("misc/winogavil", "winogavil", size=5)) == (
        f"{path}: 4 samples, task misc/winogavil has 5; its score would be another; "
        "fetch the evaluation set again"
    )
