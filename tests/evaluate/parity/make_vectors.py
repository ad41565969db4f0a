"""Make vectors.json: what DataComp's own evaluation says of made-up predictions.

Run once, by hand, with wilds 2.0, clip_benchmark 1.4, numpy 2.2, torch and scikit-learn, and a
checkout of https://github.com/mlfoundations/datacomp:

    python tests/evaluate/parity/make_vectors.py CHECKOUT > tests/evaluate/parity/vectors.json

Its functions run unchanged; only what would load a model or a data set hands them arrays.
"""

import contextlib
import json
import math
import sys
import types
from unittest import mock

import numpy as np
import torch

rng = np.random.RandomState(20240417)  # a stream that numpy promises never to change


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    hub = sys.modules["datasets"] = types.ModuleType("datasets")
    with contextlib.redirect_stdout(sys.stderr):
        vectors = {
            "wilds/iwildcam": iwildcam(),
            "wilds/camelyon17": camelyon17(),
            "wilds/fmow": fmow(),
            "fairness/dollar_street": dollar_street(),
            "fairness/geode": geode(),
            "fairness/fairface": faces("fairness/fairface", races=7),
            "fairness/utkface": faces("fairness/utkface", races=5),
            "retrieval": retrieval(),
            "misc/winogavil": winogavil(hub),
        }
    print(json.dumps(plain(vectors)))


def plain(value):
    """Return values for JSON; NaN becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):  # inputs, of four decimals at most
        return (
            np.round(value.astype(float), 4).tolist() if value.dtype.kind == "f" else value.tolist()
        )
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def scores(n: int, classes: int, labels: np.ndarray, lift: float) -> np.ndarray:
    """Return logits that know something of the labels, no two alike."""
    found = rng.normal(size=(n, classes))
    found[np.arange(n), labels] += lift
    return np.round(found, 4).astype(np.float32)


def classification(task: str, metadata: list, classes: int, lift: float = 1.0) -> dict:
    """Run the peer's evaluation of a task with groups."""
    from eval_utils import fairness_eval, wds_eval, wilds_eval

    metadata = np.array(metadata)
    n = len(metadata)
    labels = rng.randint(0, classes - 1, n)  # the last class is absent
    logits = scores(n, classes, labels, lift)
    dataset = types.SimpleNamespace(templates=["{c}"], classes=[str(i) for i in range(classes)])
    target = torch.tensor(labels)

    def metadata_loader(*_):
        yield target, torch.tensor(metadata)

    wds_eval.create_model = lambda *_: (None, None, "cpu")
    wds_eval.create_webdataset = lambda *_: (dataset, None)
    wds_eval.open_clip.get_tokenizer = lambda *_: None
    wds_eval.zsc.zero_shot_classifier = lambda *_: None
    wds_eval.zsc.run_classification = lambda *_, **__: (torch.tensor(logits), target)
    wilds_eval.create_metadata_loader = fairness_eval.create_metadata_loader = metadata_loader
    evaluate = {
        "fairness/dollar_street": fairness_eval.evaluate_dollar_street_dataset,
        "fairness/geode": fairness_eval.evaluate_geode_dataset,
    }.get(task, wilds_eval.evaluate_wilds_dataset)
    return {
        "logits": logits, "labels": labels, "metadata": metadata,
        "metrics": evaluate(task, "model", "checkpoint"),
    }  # fmt: skip


def iwildcam() -> dict:
    return classification("wilds/iwildcam", rng.randint(0, 30, (90, 9)), classes=11)


def camelyon17() -> dict:
    slides = rng.choice([0, 1, 3, 4], 70)  # slide 2 has no image
    return classification(
        "wilds/camelyon17", np.stack([slides // 2, slides, slides * 0], axis=1), classes=2
    )


def fmow() -> dict:
    """Region 5 is "Other": here two images, both wrong, as it happens to many models."""
    regions = np.append(rng.choice([0, 1, 2, 4], 98), [5, 5])
    years = rng.choice([14, 15, 17], 100)
    found = classification(
        "wilds/fmow", np.stack([regions, years, regions * 0], axis=1), classes=8, lift=2.5
    )
    logits, labels = found["logits"].copy(), found["labels"]
    return found if (logits[-2:].argmax(1) != labels[-2:]).all() else fmow()


def dollar_street() -> dict:
    return classification("fairness/dollar_street", rng.randint(0, 4, (80, 3)), classes=12)


def geode() -> dict:
    return classification("fairness/geode", rng.randint(0, 6, (80, 2)), classes=9)


def faces(task: str, races: int) -> dict:
    from eval_utils import fairness_eval

    n, classes = 120, {"race": races, "gender": 2, "age": 9, "toxic": 21}
    race = rng.randint(0, races, n)
    metadata = np.stack(
        [rng.randint(0, 9, n), rng.randint(0, 2, n), race, (race != 1).astype(int)], axis=1
    )
    known = {"age": 0, "gender": 1, "race": 2}
    logits = np.zeros((n, 4, 21), np.float32)
    for place, (question, count) in enumerate(classes.items()):
        labels = metadata[:, known[question]] if question in known else rng.randint(0, 21, n)
        logits[:, place, :count] = scores(n, count, labels, 1.5)
    dataset = types.SimpleNamespace(
        pipeline=[], templates=[f"{question}:{{c}}" for question in classes],
        classes=[f"{question}:{i}" for question, count in classes.items() for i in range(count)],
    )  # fmt: skip
    dataset.to_tuple = dataset.map_tuple = dataset.batched = lambda *_: dataset
    fairness_eval.create_model = lambda *_: (None, None, "cpu")
    fairness_eval.create_webdataset = lambda *_: (dataset, None)
    fairness_eval.zsc.zero_shot_classifier = lambda _, __, names, *___: torch.zeros(3, len(names))
    fairness_eval.run_multilabel_classification = lambda *_, **__: (
        torch.tensor(logits), torch.tensor(metadata),
    )  # fmt: skip
    with mock.patch("torch.utils.data.DataLoader"):
        metrics = fairness_eval.evaluate_fairface_dataset(task, "model", "checkpoint")
    return {"logits": logits, "classes": classes, "metadata": metadata, "metrics": metrics}


class Model:
    """Embeds what is an embedding already."""

    encode_image = encode_text = staticmethod(lambda x, normalize=False: x)


def retrieval() -> dict:
    from clip_benchmark.metrics import zeroshot_retrieval

    images = np.round(rng.normal(size=(40, 6)), 3)
    owner = np.repeat(np.arange(40), rng.randint(1, 4, 40))
    texts = np.round(images[owner] + 1.5 * rng.normal(size=(len(owner), 6)), 3)
    batches = [
        (
            torch.tensor(images[i : i + 16]),
            [list(texts[owner == j]) for j in range(i, min(i + 16, 40))],
        )
        for i in (0, 16, 32)
    ]
    metrics = zeroshot_retrieval.evaluate(
        Model, batches, lambda rows: torch.tensor(np.array(rows)), "cpu", amp=False,
        recall_k_list=[1, 5, 10],
    )  # fmt: skip
    metrics["mean_recall@1"] = 0.5 * (
        metrics["text_retrieval_recall@1"] + metrics["image_retrieval_recall@1"]
    )
    return {"images": images, "texts": texts, "owner": owner, "metrics": metrics}


def winogavil(hub: types.ModuleType) -> dict:
    from eval_utils import wino_eval

    def tensor(embedded) -> torch.Tensor:
        return torch.tensor(np.array(embedded))

    instances = []
    for size in rng.choice([5, 6, 10, 12], 60):
        right = rng.permutation(size)[: rng.randint(2, 4)]
        instances.append(
            {
                "candidate_images": np.round(rng.normal(size=(size, 5)), 3).astype(np.float32),
                "cue": np.round(rng.normal(size=5), 3).astype(np.float32),
                "candidates": [f"c{i}" for i in range(size)],
                "associations": [f"c{i}" for i in right],
            }
        )
    hub.load_dataset = lambda *_, **__: instances
    wino_eval.create_model = lambda *_: (Model, tensor, "cpu")
    wino_eval.open_clip.get_tokenizer = lambda *_: tensor
    wino_eval.get_clip_prompt = lambda cue: cue
    metrics = wino_eval.evaluate_winogavil_dataset("model", "checkpoint", num_workers=0)
    return {"instances": instances, "metrics": metrics}


if __name__ == "__main__":
    main(sys.argv[1])
