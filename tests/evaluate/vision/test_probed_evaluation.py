import json

import pytest
from datacomp.errors import UsageError
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.models import resolve_model
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
    # The same file never holds a result for another: the probe is part of what was measured.
    other = evaluate(tiny(0), sets.data, [task], tmp_path / "knn.jsonl", probe="linear")
    assert other.skipped == []


def test_what_cannot_be_measured_is_refused(encoder, sets, tmp_path):
    retrieval = sets.task("demo/pairs", family="retrieval", size=12)
    with pytest.raises(UsageError, match="has no text tower; measure it with --probe knn"):
        evaluate(resolve_model(encoder), sets.data, [retrieval], tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="a probe needs class labels"):
        evaluate(resolve_model(encoder), sets.data, [retrieval], tmp_path / "r.jsonl", probe="knn")
    with pytest.raises(UsageError, match="unknown probe 'knm'; there are: knn, linear"):
        evaluate(resolve_model(encoder), sets.data, [retrieval], tmp_path / "r.jsonl", probe="knm")
