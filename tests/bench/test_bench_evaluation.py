"""Evaluation: ours against DataComp's evaluate.py as whole processes, and against a forward pass.

DATACOMP_BENCH_EVALUATE is an interpreter with the dependencies of mlfoundations/datacomp and a
checkout of it, as ``/peer/bin/python /peer``. With Python 3.11 these work: torch 2.15,
open_clip_torch 2.16.1, clip-benchmark 1.4.0, wilds 2.0.0 and timm 0.9.16 (these four without their
dependencies, whose pins exclude each other), webdataset 0.2.31, numpy 1.26.4, pandas 1.5.3, pyarrow
17.0.0, datasets 2.14.6, huggingface_hub 0.29.3, pillow 11.3.0, cloudpathlib, ftfy, regex,
scikit-learn, outdated. The suite has 15 tasks of all families with 6,000 small images; both have
the same tiny model. What would be downloaded from the Hub is read from the same parquet files.
Every metric must agree to 1e-6.
"""

import io
import json
import math
import os
import shlex
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datacomp.evaluate.tasks import folder_name, folder_names, load_tasks
from datacomp.pools.tar import tar_bytes
from PIL import Image

PEER = os.environ.get("DATACOMP_BENCH_EVALUATE")
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "2"))
pytestmark = pytest.mark.timeout(3600)

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32,
                   "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}  # fmt: skip
SIZES = {
    "cifar10": 1000, "vtab/dtd": 500, "vtab/pcam": 500, "vtab/caltech101": 500,
    "imagenet1k": 300, "imagenetv2": 200, "imagenet_sketch": 200,
    "wilds/iwildcam": 500, "wilds/camelyon17": 500, "wilds/fmow": 500,
    "fairness/dollar_street": 500, "fairness/geode": 500, "fairness/fairface": 300,
    "retrieval/flickr_1k_test_image_text_retrieval": 200, "misc/winogavil": 60,
}  # fmt: skip
TEMPLATES = ("a photo of a {c}.", "itap of a {c}.", "a bad photo of the {c}.", "art of the {c}.",
             "a photo of the large {c}.", "a photo of the small {c}.",
             "a {c} in a game.")  # fmt: skip
FACES = {"race": 7, "gender": 2, "age": 9, "toxic": 23}
RANGES = {
    "location": 40, "sequence": 500, "year": 16, "month": 12, "day": 28, "hour": 24, "minute": 60,
    "second": 60, "hospital": 3, "slide": 30, "region": 6, "income_ds": 4, "income_meta": 4,
    "country": 12, "age": 9, "gender": 2, "race": 7, "race_binary": 2,
}  # fmt: skip


def picture(rng, side=96):
    """A smooth picture of random colours, as JPEG."""
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_tars(folder, task, size, rng):
    """Write a set of labelled images in the layout of both."""
    (folder / "test").mkdir(parents=True)
    faces = task.family == "faces"
    classes = task.classes or 0
    files = []
    for number in range(size):
        label = number % classes if classes else 0
        if not faces:
            files.append((f"s{number:07d}.cls", str(label).encode()))
        if task.fields:
            values = [label if f == "y" else rng.integers(RANGES[f]) for f in task.fields]
            buffer = io.BytesIO()
            np.save(buffer, np.array(values, np.int64))
            files.append((f"s{number:07d}.npy", buffer.getvalue()))
        files.append((f"s{number:07d}.jpg", picture(rng)))
    (folder / "test/0.tar").write_bytes(tar_bytes(files))
    (folder / "test/nshards.txt").write_text("1")
    names = [f"thing number {n}" for n in range(classes)]
    templates = TEMPLATES
    if faces:
        (folder / "dataset_type.txt").write_text("multilabel")
        names = [f"{question}:kind {n}" for question, count in FACES.items() for n in range(count)]
        templates = [f"{question}:a photo of a {{c}}." for question in FACES]
    (folder / "classnames.txt").write_text("\n".join(names))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates))


def write_parquet(folder, task, size, rng):
    """Write pairs or puzzles with the Hub's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    many = [{"bytes": picture(rng), "path": None} for _ in range(200)]
    if task.family == "retrieval":
        rows = [{"image": many[n % 200], "caption": [f"caption {n} of {k}" for k in range(5)]}
                for n in range(size)]  # fmt: skip
        schema = pa.schema([("image", image), ("caption", pa.list_(pa.string()))])
    else:
        counts = [(5, 6, 10, 12)[n % 4] for n in range(size)]
        rows = [
            {"candidate_images": [many[i] for i in rng.choice(200, count, replace=False)],
             "cue": f"cue {n}", "candidates": [f"c{i}" for i in range(count)],
             "associations": [f"c{i}" for i in range(1, 4)]}
            for n, count in enumerate(counts)
        ]  # fmt: skip
        strings = pa.list_(pa.string())
        schema = pa.schema([("candidate_images", pa.list_(image)), ("cue", pa.string()),
                            ("candidates", strings), ("associations", strings)])  # fmt: skip
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "test-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The data of 15 tasks, and the tiny model."""
    import open_clip
    import torch

    root = tmp_path_factory.mktemp("suite")
    rng = np.random.default_rng(0)
    for key, size in SIZES.items():
        task = load_tasks()[key]
        if task.family in ("retrieval", "winogavil"):
            write_parquet(root / "data" / folder_names(task)[-1], task, size, rng)
        else:
            write_tars(root / "data" / folder_name(key), task, size, rng)
    (root / "tiny.json").write_text(json.dumps(MODEL))
    torch.manual_seed(0)
    state = open_clip.CLIP(**MODEL).state_dict()
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}},
               root / "tiny.pt")  # fmt: skip
    return root


OURS = """
import json, sys
from pathlib import Path
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.tasks import load_tasks
from datacomp.pools.clip_model import ModelSpec

root, output, sizes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
tasks = [load_tasks()[key].model_copy(update={"size": size}) for key, size in sizes.items()]
spec = ModelSpec("tiny", root / "tiny.pt", root / "tiny.json")
found = evaluate(spec, root / "data", tasks, output, device="cpu")
assert found.failed == {}, found.failed
"""

THEIRS = """
import io, runpy, sys
from pathlib import Path
import datasets, open_clip, pyarrow.parquet as pq
from PIL import Image

checkout, root = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(checkout))
open_clip.add_model_config(root / "tiny.json")
decode = lambda image: Image.open(io.BytesIO(image["bytes"])).convert("RGB")

class Rows:
    def __init__(self, rows):
        self.rows = rows
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, index):
        row = dict(self.rows[index])
        if "image" in row:
            row["image"] = decode(row["image"])
        else:
            row["candidate_images"] = [decode(image) for image in row["candidate_images"]]
        return row

def load_dataset(name, **_):
    (file,) = (root / "data" / name.rpartition("/")[2]).glob("*.parquet")
    return Rows(pq.read_table(file).to_pylist())

datasets.load_dataset = load_dataset
sys.argv = ["evaluate.py", *sys.argv[3:]]
runpy.run_path(str(checkout / "evaluate.py"), run_name="__main__")
"""


@pytest.mark.skipif(PEER is None, reason="DATACOMP_BENCH_EVALUATE names no peer to run")
def test_a_suite_is_evaluated_alike_and_takes(suite, tmp_path, capsys, timed):
    python, checkout = shlex.split(str(PEER))
    own = tmp_path / "checkout"
    shutil.copytree(checkout, own, ignore=shutil.ignore_patterns(".git"))
    listed = {
        key: {"name": load_tasks()[key].name, "size": size,
              "main_metric": load_tasks()[key].main_metric or "acc1"}
        for key, size in SIZES.items()
    }  # fmt: skip
    (own / "tasklist.yml").write_text(json.dumps(listed))  # JSON is YAML too
    for interpreter in (sys.executable, python):  # neither reads its libraries from a cold disk
        timed([interpreter, "-c", "import open_clip"], tmp_path / "warm.log")
    pairs = []
    for number in range(ROUNDS):
        ours, theirs = tmp_path / f"ours{number}.jsonl", tmp_path / f"theirs{number}"
        # Each round starts from sets never seen: else ours skips reading their headers.
        for seen in (".seen.jsonl", "digests.jsonl"):
            (suite / "data" / seen).unlink(missing_ok=True)
        mine = timed(
            [sys.executable, "-c", OURS, str(suite), str(ours), json.dumps(SIZES)],
            tmp_path / "ours.log",
        )
        other = timed(
            [python, "-c", THEIRS, str(own), str(suite), "--train_output_dir", str(theirs),
             "--use_model", f"tiny {suite / 'tiny.pt'}", "--data_dir", str(suite / "data")],
            tmp_path / "theirs.log",
        )  # fmt: skip
        compare(ours, theirs / "eval_results.jsonl")
        pairs.append((mine, other))
    with capsys.disabled():
        print(f"\n{len(SIZES)} tasks, {sum(SIZES.values()):,} images, the same metrics")
        for place, what in enumerate(("wall", "CPU")):
            mine, other = (
                statistics.median(pair[side][place] for pair in pairs) for side in (0, 1)
            )
            print(f"  {what}: ours {mine:.1f} s, peer {other:.1f} s, {other / mine:.1f}x")


def compare(ours: Path, theirs: Path) -> None:
    """Every metric that the peer wrote must be ours too, to 1e-6."""
    mine = {line["key"]: line for line in map(json.loads, ours.read_text().splitlines())}
    other = {line["key"]: line for line in map(json.loads, theirs.read_text().splitlines())}
    assert list(mine) == list(other) == list(SIZES)
    for key, line in other.items():
        assert line["dataset"] == mine[key]["dataset"]
        for name, value in line["metrics"].items():
            found = mine[key]["metrics"][name]
            if value is None or math.isnan(value):
                assert found is None, (key, name)
            else:
                assert found == pytest.approx(value, abs=1e-6), (key, name)


def test_images_are_embedded_as_fast_as_the_model_runs(tmp_path, paired):
    """ViT-B-32 on this machine: files to embeddings, against the forward pass on tensors."""
    import open_clip
    import torch
    from datacomp.evaluate.embedding import Embedder, SetAside
    from datacomp.evaluate.evalsets import open_evalset
    from datacomp.pools.clip_model import ModelSpec

    torch.manual_seed(0)
    state = open_clip.create_model("ViT-B-32", load_weights=False).state_dict()
    torch.save(state, tmp_path / "b32.pt")
    task = load_tasks()["cifar10"].model_copy(update={"size": 256})
    write_tars(tmp_path / folder_name("cifar10"), task, 256, np.random.default_rng(0))
    model = ModelSpec("ViT-B-32", tmp_path / "b32.pt").load()
    evalset = open_evalset(tmp_path, task)
    embedder = Embedder(model, min(8, os.cpu_count() or 1), 64)
    tensors = [model.prepare(sample.image) for sample in evalset.samples()]
    batches = [tensors[start : start + 64] for start in range(0, 256, 64)]

    def ours():
        return np.concatenate([e for _, e in embedder.images(evalset, SetAside())])

    def bare():
        return np.concatenate([model.encode_tensors(batch) for batch in batches])

    assert np.allclose(ours(), bare(), atol=1e-6)
    paired("embed 256 images with ViT-B-32", ours, bare, against="the forward pass", rounds=3)


def test_a_gpu_is_fed_as_fast_as_it_runs(tmp_path, capsys):
    """ViT-B-32 in bf16, batches of 256: tars to embeddings against the forward pass on tensors.

    DATACOMP_BENCH_WORKERS is the number of decoding threads, by default one a processor.
    """
    import open_clip
    import torch
    from datacomp.evaluate.embedding import Embedder, SetAside
    from datacomp.evaluate.evalsets import open_evalset
    from datacomp.pools.clip_model import ModelSpec

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    workers = int(os.environ.get("DATACOMP_BENCH_WORKERS", os.cpu_count() or 1))
    batch, count = 256, 256 * 32
    torch.manual_seed(0)
    state = open_clip.create_model("ViT-B-32", load_weights=False).state_dict()
    torch.save(state, tmp_path / "b32.pt")
    task = load_tasks()["cifar10"].model_copy(update={"size": count})
    write_tars(tmp_path / folder_name("cifar10"), task, count, np.random.default_rng(0))
    model = ModelSpec("ViT-B-32", tmp_path / "b32.pt").load("cuda", "bf16")
    evalset = open_evalset(tmp_path, task)
    embedder = Embedder(model, workers, batch)
    first = [model.prepare(s.image) for s, _ in zip(evalset.samples(), range(batch), strict=False)]
    ready = torch.stack(first).to("cuda", torch.bfloat16)

    def ours():
        return np.concatenate([e for _, e in embedder.images(evalset, SetAside())])

    def bare():
        with torch.inference_mode():
            for _ in range(count // batch):
                model.model.encode_image(ready)
        torch.cuda.synchronize()

    embedded = ours()
    assert embedded.shape == (count, 512)
    assert np.allclose(embedded[:batch], model.encode_tensors(first), atol=1e-2)
    bare()
    rates = {"ours": [], "the forward pass": []}
    for _ in range(max(ROUNDS, 3)):
        for name, run in (("ours", ours), ("the forward pass", bare)):
            began = time.perf_counter()
            run()
            rates[name].append(count / (time.perf_counter() - began))
    mine, other = (statistics.median(found) for found in rates.values())
    with capsys.disabled():
        print(
            f"\n{torch.cuda.get_device_name()}, {workers} threads, bf16, batches of {batch}: ours "
            f"{mine:,.0f} images/s, the forward pass {other:,.0f} images/s, {mine / other:.2f}x"
        )
