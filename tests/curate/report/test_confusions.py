"""The page of a task: confusions and worst mistakes."""

import numpy as np
import pytest
from datacomp.curate.report.task_page import page_path, write_page
from datacomp.evaluate.evalsets import EvalSet
from datacomp.evaluate.results import Result
from datacomp.evaluate.samples import Sample
from datacomp.evaluate.tasks import load_tasks
from datacomp.evaluate.witness import WORST, Confusions

DIGITS = tuple(f"{n}" for n in range(10))


def seen(labels, predictions, classes, picture=lambda n: b"?", margins=None):
    """A witness of samples whose cosines are 0 but for the class predicted."""
    witness = Confusions()
    cosines = np.zeros((len(labels), classes), np.float32)
    cosines[np.arange(len(labels)), predictions] = 0.25 if margins is None else margins
    samples = [Sample(f"0.tar:{n:04d}", picture(n), label) for n, label in enumerate(labels)]
    for start in range(0, len(samples), 7):
        witness.classified(samples[start : start + 7], cosines[start : start + 7])
    return witness


def page(folder, witness, names=DIGITS, key="mnist"):
    task = load_tasks()[key]
    evalset = EvalSet(task, "sets/x", names, ("{c}",), ())
    result = Result(
        key, task.name, {"main_metric": 0.75},
        {"model": "ViT-B-32", "checkpoint": "c" * 64, "corruption": "fog:2"},
        {"interval": [0.7, 0.8]},
    )  # fmt: skip
    path = write_page(folder, evalset, witness, result)
    assert path == page_path(folder, task)
    return path.read_text("utf-8")


def test_a_witness_counts_and_remembers_the_worst():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 10, 400), rng.integers(0, 10, 400)
    margins = rng.random(400).astype(np.float32)
    witness = seen(labels.tolist(), predictions, 10, margins=margins)
    for label in range(10):
        for guess in range(10):
            expected = int(np.sum((labels == label) & (predictions == guess)))
            assert witness.confusion[label, guess] == expected
    wrong = [n for n in np.argsort(-margins) if labels[n] != predictions[n]][:WORST]
    assert [mistake.key for mistake in witness.worst] == [f"0.tar:{n:04d}" for n in wrong]
    assert witness.worst[0].margin == pytest.approx(float(margins[wrong[0]]))


def test_the_page_tells_everything(tmp_path, picture, parse):
    labels, guesses = [0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2]
    tree = parse(page(tmp_path, seen(labels, guesses, 10, picture)))
    assert tree.one("h1").text == "MNIST"
    assert tree.one("p", "verdict").text == (
        "3 of 6 images right (50.0 %). acc1 0.7500 (0.7000 to 0.8000)"
    )
    assert tree.all("p", "note")[0].text == "ViT-B-32, checkpoint cccccccccccc, corrupted by fog:2"
    cells = [rect.one("title").text for rect in tree.one("svg").all("rect") if rect.all("title")]
    assert "0 taken for 1: 2 (66.7 %)" in cells
    assert len(cells) == 5
    rows = [
        [cell.text for cell in (*row.all("th"), *row.all("td"))]
        for table in tree.all("table") for row in table.one("tbody").all("tr")
    ]  # fmt: skip
    assert rows[:2] == [["0", "1", "2", "66.7 %"], ["1", "0", "1", "50.0 %"]]
    assert rows[2:] == [["0", "33.3 %", "3"], ["1", "50.0 %", "2"], ["2", "100.0 %", "1"]]
    shown = tree.one("ul", "gallery").all("figure")
    assert len(shown) == 3
    assert all(figure.all("img") for figure in shown)
    assert tree.all("script") == []


def test_many_classes_are_a_picture(tmp_path, parse, picture):
    names = tuple(f"class {n}" for n in range(300))
    labels = list(range(300))
    tree = parse(page(tmp_path, seen(labels, labels[::-1], 300, picture), names))
    (matrix,) = tree.all("section")[0].all("img")
    assert matrix.attributes["width"] == "600"
    assert not tree.all("svg")
    assert len(tree.one("ul", "gallery").all("figure")) == WORST


def test_no_mistake_at_all(tmp_path):
    text = page(tmp_path, seen([0, 1, 2], [0, 1, 2], 10))
    assert text.count("There are none: every image is right.") == 2


def test_names_of_strangers_are_escaped_and_bytes_are_the_same(tmp_path, hostile, picture):
    names = (hostile, "b" * 500)
    first = page(tmp_path, seen([0, 1], [1, 0], 2, picture), names)
    assert hostile not in first
    assert "<script" not in first
    assert page(tmp_path, seen([0, 1], [1, 0], 2, picture), names) == first


def test_an_image_that_was_not_kept_is_said(tmp_path):
    assert "no readable image" in page(tmp_path, seen([0], [1], 10, lambda n: b""))
