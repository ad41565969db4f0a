"""What is remembered of retrievals and of WinoGAViL, seen through whole evaluations."""

import io

import numpy as np
import pytest
from datacomp.evaluate.evalsets import open_evalset
from datacomp.evaluate.harness import Examination, evaluate
from datacomp.evaluate.retrieval import rank_pairs
from datacomp.evaluate.samples import Puzzle, Sample
from datacomp.evaluate.witness import Associations, Misses, Previews, preview
from PIL import Image


@pytest.fixture
def witnessed(sets, tiny, tmp_path):
    """Evaluate a task; return the witness, the result, and the model."""

    def witnessed(task):
        seen = []
        examine = Examination(lambda *found: seen.append(found), lambda task: False)
        found = evaluate(tiny(0), sets.data, [task], tmp_path / "r.jsonl", device="cpu",
                         examine=examine)  # fmt: skip
        assert found.failed == {}
        ((_, witness, result),) = seen
        return witness, result

    return witnessed


def test_the_worst_queries_are_those_of_the_metrics(sets, tiny, witnessed):
    sets.parquet("pairs", sets.pairs(9), files=2)
    task = sets.task("pairs", "retrieval", size=9)
    witness, result = witnessed(task)
    assert isinstance(witness, Misses)
    model = tiny(0).load("cpu")
    samples = list(open_evalset(sets.data, task).samples())
    images = np.stack([model.encode_tensors([model.prepare(s.image)])[0] for s in samples])
    captions = [caption for sample in samples for caption in sample.captions]
    texts, owner = model.encode_texts(captions), np.arange(len(captions)) // 2
    ranks = rank_pairs(images, texts, owner)
    assert np.array_equal(witness.image_ranks, ranks.image)
    assert result.metrics["text_retrieval_recall@1"] == np.mean(witness.text_ranks == 0)
    assert [miss.rank for miss in witness.images] == sorted(
        (int(rank) for rank in ranks.image if rank), reverse=True
    )
    for miss in witness.images:
        text = captions.index(miss.wanted.caption)
        assert samples[owner[text]].key == miss.wanted.key
        assert (
            miss.first.key == samples[int(np.argmax(images @ texts[text]))].key != miss.wanted.key
        )
    for miss in witness.texts:
        image = [sample.key for sample in samples].index(miss.wanted.key)
        assert miss.rank == ranks.text[image] > 0
        assert miss.first.caption == captions[int(np.argmax(texts @ images[image]))]
        assert miss.wanted.caption in samples[image].captions
        assert Image.open(io.BytesIO(miss.wanted.preview)).format == "JPEG"


def test_the_worst_associations_come_first(sets, witnessed):
    sets.parquet("puzzles", sets.puzzles(8))
    witness, result = witnessed(sets.task("puzzles", "winogavil", size=8))
    assert isinstance(witness, Associations)
    assert np.mean([score for _, score in witness.scores]) == pytest.approx(
        result.metrics["avg_jaccard_score"]
    )
    scores = [found.jaccard for found in witness.worst]
    assert scores == sorted(scores) == sorted(s for _, s in witness.scores if s < 1)
    for found in witness.worst:
        cosines = [candidate.cosine for candidate in found.candidates]
        assert cosines == sorted(cosines, reverse=True)
        picked = [candidate.picked for candidate in found.candidates]
        right = [candidate.right for candidate in found.candidates]
        assert picked == [place < sum(right) for place in range(len(picked))]
        both = sum(p and r for p, r in zip(picked, right, strict=True))
        assert found.jaccard == pytest.approx(both / (2 * sum(right) - both))


def test_among_equal_scores_the_surest_mistake_is_worse():
    puzzles = [Puzzle(f"k{n}", "cue", (), (True, False), ("a", "b")) for n in range(3)]
    witness = Associations()
    witness.seen([Sample("a", b"?"), Sample("b", b"?")])
    picked = np.array([False, True])
    cosines = [np.array(pair) for pair in ([0.2, 0.3], [0.1, 0.6], [0.2, 0.4])]
    witness.solved([(p, c, picked, 0.0) for p, c in zip(puzzles, cosines, strict=True)])
    assert [found.key for found in witness.worst] == ["k1", "k2", "k0"]
    assert witness.worst[0].candidates[0].preview is None


def test_a_preview_is_small(picture):
    small = Image.open(io.BytesIO(preview(picture(0, width=900, height=300))))
    assert small.size == (192, 64)
    assert preview(b"?") is None


@pytest.mark.parametrize("held", [1, 1 << 20])
def test_previews_in_memory_or_in_a_file_are_the_same(held, monkeypatch):
    monkeypatch.setattr("datacomp.evaluate.witness._HELD", held)
    images = {}
    for shade in (0, 90, 180):
        buffer = io.BytesIO()
        Image.new("L", (300, 200), shade).save(buffer, "PNG")
        images[shade] = buffer.getvalue()
    kept = Previews()
    assert kept.get(0) is None
    for shade, image in images.items():
        kept.add(shade, image)
    kept.add("broken", b"no image")
    assert kept._file._rolled == (held == 1)
    for shade in (180, 0, 90):
        assert kept.get(shade) == preview(images[shade]) is not None
    kept.add("late", images[90])  # reading has not moved where the next one goes
    assert kept.get("late") == kept.get(90)
    assert kept.get("broken") is None
    kept.clear()
    assert kept.get(0) is None
