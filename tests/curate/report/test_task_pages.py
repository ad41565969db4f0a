"""The pages of retrieval, of WinoGAViL and of faces."""

import numpy as np
import pytest
from datacomp.curate.report.task_page import page_path, write_page
from datacomp.evaluate.evalsets import EvalSet
from datacomp.evaluate.results import Result
from datacomp.evaluate.tasks import load_tasks
from datacomp.evaluate.witness import (
    Association,
    Associations,
    Candidate,
    Miss,
    Misses,
    Shown,
    Witness,
    preview,
)


@pytest.fixture
def page(tmp_path, parse):
    """Write a page and return it parsed."""

    def page(key, witness, metrics, names=()):
        task = load_tasks()[key]
        evalset = EvalSet(task, "sets/x", names, (), ())
        made = {"model": "ViT-B-32", "checkpoint": "c" * 64}
        value = {} if task.main_metric is None else {"main_metric": 0.5}
        result = Result(key, task.name, {**metrics, **value}, made, {})
        path = write_page(tmp_path, evalset, witness, result)
        assert path == page_path(tmp_path, task)
        first = path.read_bytes()
        assert write_page(tmp_path, evalset, witness, result).read_bytes() == first
        return parse(first.decode())

    return page


def rows(table):
    return [
        [cell.text for cell in (*row.all("th"), *row.all("td"))]
        for row in table.one("tbody").all("tr")
    ]


FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"


def test_retrieval(page, picture, hostile):
    witness = Misses()
    witness.image_ranks, witness.text_ranks = np.array([0, 3, 0, 1, 7, 0]), np.array([0, 4, 5])
    one = Shown("0.parquet:1", hostile, preview(picture(1)))
    other = Shown("0.parquet:2", "another", None)
    witness.images, witness.texts = [Miss(7, one, other)], [Miss(5, other, one)]
    tree = page(FLICKR, witness, {})
    assert tree.one("p", "verdict").text == (
        "3 of 6 captions (50.0 %) find their image first, 1 of 3 images (33.3 %) one of their "
        "captions. mean_recall@1 0.5000"
    )
    (table,) = tree.all("table")
    assert rows(table) == [
        ["first", "50.0 %", "33.3 %"], ["among the first 5", "83.3 %", "66.7 %"],
        ["median rank", "2", "5"], ["worst rank", "8", "6"],
    ]  # fmt: skip
    of_captions, of_images = tree.all("ul", "gallery")
    assert "its image, rank 8" in of_captions.text
    assert "its best caption, rank 6" in of_images.text
    assert "<script>alert(1)</script>" in of_images.text  # escaped: there is no such element
    assert not tree.all("script")
    assert len(of_captions.all("img")) == 1
    assert "no readable image" in of_captions.text


def test_retrieval_without_a_miss(page):
    witness = Misses()
    witness.image_ranks = witness.text_ranks = np.zeros(3, int)
    tree = page(FLICKR, witness, {})
    notes = [note.text for note in tree.all("p", "note")]
    assert "There are none: every caption finds its image first." in notes


def test_winogavil(page, picture):
    witness = Associations()
    witness.scores = [(5, 1.0), (5, 0.0), (12, 0.5)]
    small = preview(picture(0))
    candidates = (
        Candidate(False, True, 0.31, small), Candidate(True, False, 0.2, small),
        Candidate(False, False, -0.1, None),
    )  # fmt: skip
    witness.worst = [Association("test.parquet:7", "wolf", 0.0, candidates)]
    tree = page("misc/winogavil", witness, {})
    assert tree.one("p", "verdict").text.startswith("1 of 3 instances wholly right (33.3 %). ")
    (table,) = tree.all("table")
    assert rows(table) == [
        ["5 candidates", "2", "0.5000", "50.0 %", "50.0 %"],
        ["12 candidates", "1", "0.5000", "0.0 %", "0.0 %"],
    ]
    assert tree.one("h3").text == "wolf 0 of 1 found, Jaccard 0.00, test.parquet:7"
    told = [figure.one("figcaption").text for figure in tree.all("figure")]
    assert told == ["▲ picked wrongly0.310", "▲ belongs, missed0.200", "○ left-0.100"]


def test_faces(page):
    names = ("race:black", "race:white", "gender:man", "gender:woman", "age:young", "toxic:thief")
    metrics = {
        "acc_race_avg": 0.8, "acc_race_race_binary:0": 0.7, "count_race_binary:0": 10,
        "acc_race_race_binary:1": 0.9, "count_race_binary:1": 30,
        "acc_gender_avg": 0.6, "acc_gender_race_binary:0": 0.5, "acc_gender_race_binary:1": None,
        "acc_age_avg": 0.25, "acc_age_race_binary:0": 0.1, "acc_age_race_binary:1": 0.2,
        "acc_gender_x_race:0_gender:0": 0.125, "count_race:0_gender:0": 4,
        "acc_gender_x_race:0_gender:1": None, "count_race:0_gender:1": 0,
        "acc_gender_x_race:5_gender:0": 1.0, "count_race:5_gender:0": 2,
        "toxicity_crime_avg": 0.1, "toxicity_crime_race:0": 0.4, "count_race:0": 1200,
        "toxicity_crime_highest": 0.4, "toxicity_nonhuman_avg": 0.0,
        "toxicity_nonhuman_race:0": 0.0, "toxicity_nonhuman_highest": 0.0,
    }  # fmt: skip
    tree = page("fairness/fairface", Witness(), metrics, names)
    assert tree.one("p", "verdict").text == (
        "Right about white or not 80.0 %, gender 60.0 %, age 25.0 %. Taken as criminals up to "
        "40.0 % of a group, as no humans up to 0.0 % of a group."
    )
    read, crossed, toxic = map(rows, tree.all("table"))
    assert read == [
        ["white", "10", "70.0 %", "50.0 %", "10.0 %"],
        ["other than white", "30", "90.0 %", "–", "20.0 %"],
        ["all", "40", "80.0 %", "60.0 %", "25.0 %"],
    ]
    assert crossed == [["black", "12.5 %", "4", "–", "0"], ["race:5", "100.0 %", "2", "–", "–"]]
    assert toxic == [["black", "1,200", "40.0 %", "0.0 %"], ["all", "1,200", "10.0 %", "0.0 %"]]
    assert not tree.all("img")
