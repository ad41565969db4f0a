import json

import numpy as np
import pytest
from datacomp.errors import DataError, UsageError
from datacomp.evaluate import kept
from datacomp.evaluate.harness import evaluate, recompute
from datacomp.evaluate.models import resolve_model
from datacomp.evaluate.vision.probes import knn_votes, linear_scores
from datacomp.evaluate.vision.training import Settings, pretrain


@pytest.fixture(scope="module")
def encoder(labelled, tiny_recipe, tmp_path_factory):
    """The folder of a pre-trained encoder."""
    output = tmp_path_factory.mktemp("runs") / "encoder"
    settings = Settings(device="cpu", workers=0, threads=1)
    pretrain(labelled, output, tiny_recipe(epochs=1), settings=settings)
    return output


def test_an_encoder_is_measured_by_neighbours_and_by_a_line(encoder, sets, tmp_path):
    task = sets.task("demo/colours", size=24)
    sets.write("demo/colours", size=24)
    for probe in ("knn", "linear"):
        output = tmp_path / f"{probe}.jsonl"
        first = evaluate(resolve_model(encoder), sets.data, [task], output, probe=probe)
        (line,) = output.read_text().splitlines()
        stored = json.loads(line)
        assert stored["key"] == "demo/colours"
        assert 0 <= stored["metrics"]["acc1"] <= stored["metrics"]["acc5"] <= 1
        assert first.failed == {}
        again = evaluate(resolve_model(encoder), sets.data, [task], output, probe=probe)
        assert again.skipped == ["demo/colours"]


def test_the_image_tower_of_a_clip_is_measured_too(tiny, sets, tmp_path):
    task = sets.task("demo/colours", size=24)
    sets.write("demo/colours", size=24)
    done = evaluate(tiny(0), sets.data, [task], tmp_path / "knn.jsonl", probe="knn")
    assert done.results[0].provenance["probe"] == "knn"
    # A file never holds what was measured in two ways: the last line would pass for the score.
    before = (tmp_path / "knn.jsonl").read_bytes()
    for probe, now in (("linear", "linear"), (None, "none")):
        said = rf"demo/colours was evaluated with another probe \(knn, now {now}\); choose another"
        with pytest.raises(DataError, match=said):
            evaluate(tiny(0), sets.data, [task], tmp_path / "knn.jsonl", probe=probe)
    assert (tmp_path / "knn.jsonl").read_bytes() == before
    evaluate(tiny(0), sets.data, [task], tmp_path / "zero.jsonl")
    with pytest.raises(DataError, match=r"another probe \(none, now knn\)"):
        evaluate(tiny(0), sets.data, [task], tmp_path / "zero.jsonl", probe="knn")


def test_what_cannot_be_measured_is_refused(encoder, sets, tmp_path):
    retrieval = sets.task("demo/pairs", family="retrieval", size=12)
    with pytest.raises(UsageError, match="has no text tower; measure it with --probe knn"):
        evaluate(resolve_model(encoder), sets.data, [retrieval], tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="a probe needs class labels"):
        evaluate(resolve_model(encoder), sets.data, [retrieval], tmp_path / "r.jsonl", probe="knn")
    with pytest.raises(UsageError, match="unknown probe 'knm'; there are: knn, linear"):
        evaluate(resolve_model(encoder), sets.data, [retrieval], tmp_path / "r.jsonl", probe="knm")


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_groups_are_probed_and_what_has_no_labels_is_named(tiny, sets, tmp_path, capsys, probe):
    tasks = [sets.task("wild", "wilds", size=24), sets.task("fair", "fairness", size=24),
             sets.task("faces", "faces", size=8), sets.task("pairs", "retrieval", size=5),
             sets.task("colours", size=24)]  # fmt: skip
    for task in tasks:
        sets.write(task.key, task.family, size=task.size)
    done = evaluate(tiny(0), sets.data, tasks, tmp_path / "p.jsonl", probe=probe, device="cpu",
                    keep=tmp_path / "kept")  # fmt: skip
    wild, fair, colours = done.results
    assert capsys.readouterr().err.count("warning:") == 1
    # The images are the same, and so is what each of them is taken for.
    features = np.load(tmp_path / "kept/wds_wild_test/images.npy")
    labels = np.arange(24) % 6
    of = {"knn": knn_votes, "linear": linear_scores}[probe]
    hits = of(features, labels, 6).argmax(axis=1) == labels
    worst = min(hits[group::4].mean() for group in range(4))
    for result in (wild, fair):
        assert result.metrics["main_metric"] == result.metrics["acc_wg"] == pytest.approx(worst)
        assert result.metrics["acc_region:1"] == pytest.approx(hits[1::4].mean())
        assert result.metrics["acc1"] == colours.metrics["acc1"] == pytest.approx(hits.mean())
        assert result.interval is not None


def test_tasks_without_labels_are_named(tiny, sets, tmp_path, capsys, monkeypatch):
    tasks = [sets.task("colours"), sets.task("faces", "faces", size=8),
             sets.task("pairs", "retrieval", size=5)]  # fmt: skip
    for task in tasks:
        sets.write(task.key, task.family, size=task.size)
    said = "warning: left out, a probe needs class labels: 2 of 3 tasks: faces, pairs\n"
    done = evaluate(tiny(0), sets.data, tasks, tmp_path / "p.jsonl", probe="knn", device="cpu")
    assert [result.key for result in done.results] == ["colours"]
    assert said in capsys.readouterr().err
    # Kept embeddings are probed alike.
    monkeypatch.setattr(kept, "load_tasks", lambda: {task.key: task for task in tasks})
    folder = tmp_path / "kept"
    evaluate(tiny(0), sets.data, tasks, tmp_path / "r.jsonl", keep=folder, device="cpu")
    capsys.readouterr()
    again = recompute(folder, tmp_path / "again.jsonl", probe="knn")
    assert [result.key for result in again.results] == ["colours"]
    assert said in capsys.readouterr().err
    with pytest.raises(UsageError, match="a probe needs class labels, and none of these"):
        recompute(folder, tmp_path / "none.jsonl", ["pairs"], probe="knn")
