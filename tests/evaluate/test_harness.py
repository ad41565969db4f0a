import json
import re
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, StorageError, UsageError
from datacomp.evaluate import measuring
from datacomp.evaluate.embedding import Embedder, SetAside
from datacomp.evaluate.evalsets import open_evalset
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.results import read_results
from datacomp.evaluate.versions import library_versions
from datacomp.pools.tar import tar_bytes


@pytest.fixture
def tasks(sets):
    sets.write("colours", size=13)
    sets.write("again", size=7)
    sets.write("pairs", "retrieval", size=11)
    return [
        sets.task("colours", size=13),
        sets.task("pairs", "retrieval", size=11),
        sets.task("again", size=7, main_metric="mean_per_class_recall"),
    ]


def lines(path: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_each_task_gives_one_line(sets, tasks, tiny, tmp_path, capsys):
    output = tmp_path / "run" / "eval_results.jsonl"
    spec = tiny(0)
    evaluation = evaluate(spec, sets.data, tasks, output, batch_size=4, device="cpu")
    assert evaluation.failed == {}
    assert evaluation.skipped == []
    written = lines(output)
    assert [line["key"] for line in written] == ["colours", "pairs", "again"]
    assert written == [result.to_dict() for result in evaluation.results]
    first = written[0]
    assert list(first) == ["key", "dataset", "metrics", "provenance", "uncertainty"]
    assert set(first["metrics"]) == {"acc1", "acc5", "mean_per_class_recall", "main_metric"}
    assert first["metrics"]["main_metric"] == first["metrics"]["acc1"]
    assert written[1]["metrics"]["main_metric"] == written[1]["metrics"]["mean_recall@1"]
    assert written[2]["metrics"]["main_metric"] == written[2]["metrics"]["mean_per_class_recall"]
    assert first["provenance"] == {
        "suite": "demo", "suite_version": 1, "task_version": 1,
        "data": open_evalset(sets.data, tasks[0]).digest(),
        "model": "tiny", "model_config": spec.identity()["config"],
        "checkpoint": spec.identity()["weights_sha256"], "precision": "fp32", "image_size": 32,
        "versions": library_versions(),
        "n": 13, "set_aside": 0, "set_aside_samples": [],
    }  # fmt: skip
    low, high = first["uncertainty"]["interval"]
    assert low <= first["metrics"]["acc1"] <= high
    assert capsys.readouterr().err == ""


def test_metrics_are_those_of_a_plain_loop(sets, tasks, tiny, tmp_path):
    """The whole path against the shortest program that does the same."""
    import io

    import torch
    from PIL import Image

    spec = tiny(0)
    model = spec.load("cpu")
    evalset = open_evalset(sets.data, tasks[0])
    right = 0
    with torch.inference_mode():
        columns = []
        for name in evalset.classnames:
            texts = [template.replace("{c}", name) for template in evalset.templates]
            each = model.model.encode_text(model.tokenizer(texts))
            mean = torch.nn.functional.normalize(each, dim=-1).mean(dim=0)
            columns.append(mean / mean.norm())
        for sample in evalset.samples():
            image = Image.open(io.BytesIO(sample.image)).convert("RGB")
            feature = model.model.encode_image(model.preprocess(image)[None])[0]
            scores = [float(feature @ column) for column in columns]
            right += int(np.argmax(scores)) == sample.label
    evaluation = evaluate(spec, sets.data, tasks[:1], tmp_path / "r.jsonl", device="cpu")
    assert evaluation.results[0].metrics["acc1"] == right / 13


def test_below_five_classes_acc5_is_null(sets, tiny, tmp_path):
    path = sets.write("few", size=4)
    names = ["a", "b", "c", "d"]
    (path / "classnames.txt").write_text("\n".join(names))
    task = sets.task("few", size=4, classes=4)
    evaluate(tiny(0), sets.data, [task], tmp_path / "r.jsonl", device="cpu")
    assert lines(tmp_path / "r.jsonl")[0]["metrics"]["acc5"] is None


def test_workers_do_not_change_a_byte(sets, tasks, tiny, tmp_path):
    for workers in (1, 3):
        output = tmp_path / f"{workers}.jsonl"
        evaluate(tiny(0), sets.data, tasks, output, workers=workers, batch_size=4, device="cpu")
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "3.jsonl").read_bytes()


def test_a_rerun_skips_what_is_done_without_loading_the_model(
    sets, tasks, tiny, tmp_path, monkeypatch
):
    output = tmp_path / "r.jsonl"
    first = evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    before = output.read_bytes()
    monkeypatch.setattr(measuring, "Embedder", None)  # using it would fail
    again = evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    assert again.skipped == ["colours", "pairs", "again"]
    assert again.results == first.results
    assert output.read_bytes() == before


def test_a_new_version_of_a_task_is_evaluated_again(sets, tasks, tiny, tmp_path):
    output = tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    newer = tasks[2].model_copy(update={"version": 2})
    (sets.data / "wds_again_test" / "classnames.txt").write_text("a\nb\nc\nd\ne\nf\n")
    again = evaluate(tiny(0), sets.data, [*tasks[:2], newer], output, device="cpu")
    assert again.skipped == ["colours", "pairs"]
    assert [line["key"] for line in lines(output)] == ["colours", "pairs", "again", "again"]


def test_a_set_that_changes_is_refused_until_its_record_is_taken_out(
    sets, tasks, tiny, tmp_path, capsys
):
    output = tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    was = open_evalset(sets.data, tasks[0]).digest()
    names = sets.data / "wds_colours_test" / "classnames.txt"
    names.write_text("a\nb\nc\nd\ne\nf\n")
    now = open_evalset(sets.data, tasks[0]).digest()
    again = evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    record = sets.data / "digests.jsonl"
    assert again.failed == {
        "colours": f"colours: the evaluation set is not what {record} recorded ({was[:12]}, now "
        f"{now[:12]}); fetch it again, or take its line out of that file if the change is meant"
    }
    kept = [line for line in record.read_text().splitlines() if "colours" not in line]
    record.write_text("".join(f"{line}\n" for line in kept))
    again = evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    assert (again.failed, again.skipped) == ({}, ["pairs", "again"])
    assert "colours" in record.read_text()


def test_sets_where_nobody_can_write_are_evaluated_all_the_same(sets, tasks, tiny, tmp_path):
    (sets.data / "digests.jsonl").mkdir()  # no line can be added
    found = evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "r.jsonl", device="cpu")
    assert found.failed == {}


def test_results_of_another_checkpoint_are_not_mixed(sets, tasks, tiny, tmp_path):
    output = tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks[:1], output, device="cpu")
    was, now = (tiny(seed).identity()["weights_sha256"][:16] for seed in (0, 1))
    with pytest.raises(DataError, match=re.escape(
        f"{output}: colours was evaluated with another checkpoint ({was}, now {now}); "
        "choose another file with --output"
    )):  # fmt: skip
        evaluate(tiny(1), sets.data, tasks, output, device="cpu")


def test_results_of_another_precision_are_not_mixed(sets, tasks, tiny, tmp_path):
    output = tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks[:1], output, device="cpu")
    with pytest.raises(DataError, match=r"another precision \(fp32, now bf16\)"):
        evaluate(tiny(0), sets.data, tasks, output, precision="bf16", device="cpu")


def test_results_of_images_prepared_otherwise_are_not_mixed(sets, tasks, tiny, tmp_path):
    output, kept = tmp_path / "r.jsonl", tmp_path / "kept"
    spec = tiny(0)
    spec = replace(spec, checkpoint=Path(shutil.copy(spec.checkpoint, tmp_path)))
    plain = evaluate(spec, sets.data, tasks[:1], output, device="cpu")
    assert "preprocessing" not in plain.results[0].provenance
    config = {"model_cfg": json.loads(spec.model_config.read_text()),
              "preprocess_cfg": {"mean": [0.2, 0.2, 0.2], "std": [0.9, 0.9, 0.9]}}  # fmt: skip
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    said = r"another preparation of images \(none, now [0-9a-f]{16}\)"
    with pytest.raises(DataError, match=said):
        evaluate(spec, sets.data, tasks[:1], output, device="cpu")
    other = tmp_path / "other.jsonl"
    (found,) = evaluate(spec, sets.data, tasks[:1], other, keep=kept, device="cpu").results
    assert found.provenance["preprocessing"] == spec.identity()["preprocessing"]
    # Kept embeddings know it too.
    about = json.loads((kept / "wds_colours_test/about.json").read_text())
    assert about["provenance"]["preprocessing"] == found.provenance["preprocessing"]
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(DataError, match="embeddings with another preparation of images"):
        evaluate(spec, sets.data, tasks[:1], output, keep=kept, device="cpu")


def test_results_that_do_not_say_their_checkpoint_are_not_mixed(sets, tasks, tiny, tmp_path):
    output = tmp_path / "r.jsonl"
    output.write_text('{"key": "mnist", "dataset": "MNIST", "metrics": {"main_metric": 0.5}}\n')
    with pytest.raises(DataError, match=r"mnist was evaluated with another checkpoint \(unknown"):
        evaluate(tiny(0), sets.data, tasks, output, device="cpu")


def test_a_failing_task_does_not_stop_the_others(sets, tasks, tiny, tmp_path, capsys):
    shard = sets.data / "wds_pairs_test" / "test" / "1.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    absent = sets.task("absent")
    evaluation = evaluate(tiny(0), sets.data, [absent, *tasks], tmp_path / "r.jsonl", device="cpu")
    assert (list(evaluation.failed), evaluation.absent) == (["absent", "pairs"], ["absent"])
    assert "truncated at byte 700" in evaluation.failed["pairs"]
    assert [line["key"] for line in lines(tmp_path / "r.jsonl")] == ["colours", "again"]
    assert "warning: pairs failed: " in capsys.readouterr().err


def test_an_undecodable_image_is_counted_and_named(sets, tiny, tmp_path, capsys):
    path = sets.write("colours", size=2, shards=1)
    picture = next(open_evalset(sets.data, sets.task("colours")).samples()).image
    members = [
        ("a.cls", b"0"), ("a.png", picture), ("b.cls", b"1"), ("b.png", b"not an image"),
        ("c.cls", b"2"), ("c.png", picture[:-40]), ("d.txt", b"no image at all"),
    ]  # fmt: skip
    (path / "test" / "0.tar").write_bytes(tar_bytes(members))
    evaluation = evaluate(
        tiny(0), sets.data, [sets.task("colours", size=4)], tmp_path / "r.jsonl", device="cpu"
    )
    provenance = evaluation.results[0].provenance
    assert (provenance["n"], provenance["set_aside"], evaluation.set_aside) == (1, 3, 3)
    named = provenance["set_aside_samples"]
    assert named[0] == "0.tar:b: not an image of a known format"
    assert named[1].startswith("0.tar:c: broken image: ")
    assert named[2] == "0.tar:d: no image"
    assert "warning: colours: 3 samples set aside, first 0.tar:b: not an" in capsys.readouterr().err


def test_a_needle_of_an_image_is_set_aside_not_blown_up(sets, tiny, tmp_path):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (1, 60_000)).save(buffer, "PNG")
    path = sets.write("colours", size=1, shards=1)
    good = next(open_evalset(sets.data, sets.task("colours")).samples()).image
    members = [("a.cls", b"0"), ("a.png", buffer.getvalue()), ("b.cls", b"0"), ("b.png", good)]
    (path / "test" / "0.tar").write_bytes(tar_bytes(members))
    evaluation = evaluate(
        tiny(0), sets.data, [sets.task("colours", size=2)], tmp_path / "r.jsonl", device="cpu"
    )
    assert evaluation.results[0].provenance["set_aside_samples"] == [
        "0.tar:a: 1 x 60000 pixels: too narrow to resize"
    ]


def test_a_task_of_which_nothing_is_usable_fails(sets, tiny, tmp_path):
    path = sets.write("colours", size=1, shards=1)
    (path / "test" / "0.tar").write_bytes(tar_bytes([("a.cls", b"0"), ("a.png", b"?")]))
    evaluation = evaluate(
        tiny(0), sets.data, [sets.task("colours", size=1)], tmp_path / "r.jsonl", device="cpu"
    )
    assert evaluation.failed["colours"].endswith("not one usable sample (1 set aside)")
    assert not (tmp_path / "r.jsonl").exists()


def test_another_number_of_samples_than_published_is_an_error(sets, tiny, tmp_path, monkeypatch):
    path = sets.write("colours", size=3)
    monkeypatch.setattr(measuring, "Embedder", None)  # no model is loaded for it
    found = evaluate(tiny(0), sets.data, [sets.task("colours")], tmp_path / "r.jsonl", device="cpu")
    assert found.failed == {
        "colours": f"{path}: 3 samples, task colours has 12; its score would be another; "
        "fetch the evaluation set again"
    }
    assert not (sets.data / "digests.jsonl").exists()


def test_absent_folders_are_one_line(sets, tasks, tiny, tmp_path, capsys):
    absent = [sets.task(f"absent/{i}") for i in range(7)]
    found = evaluate(tiny(0), sets.data, [*absent, tasks[0]], tmp_path / "r.jsonl", device="cpu")
    assert list(found.failed) == found.absent == [task.key for task in absent]
    assert capsys.readouterr().err == (
        f"warning: {sets.data}: 7 of 8 tasks have no folder there: wds_absent-0_test, "
        "wds_absent-1_test, wds_absent-2_test, wds_absent-3_test, wds_absent-4_test and 2 more; "
        f"'datacomp evalsets demo {sets.data}' builds the demo suite\n"
    )
    with pytest.raises(MissingError) as caught:
        evaluate(tiny(0), sets.data, absent, tmp_path / "r.jsonl", device="cpu")
    assert str(caught.value) == (
        f"none of the 7 tasks' folders are in {sets.data}: wds_absent-0_test, "
        "wds_absent-1_test, wds_absent-2_test, wds_absent-3_test, wds_absent-4_test and 2 more; "
        f"'datacomp evalsets demo {sets.data}' builds the demo suite"
    )


def test_tasks_that_share_a_classifier_share_it(sets, tasks, tiny):
    embedder = Embedder(tiny(0).load("cpu"), workers=1, batch_size=4)
    first, other = (open_evalset(sets.data, task) for task in (tasks[0], tasks[2]))
    built = embedder.classifier(first.classnames, first.templates)
    assert embedder.classifier(other.classnames, other.templates) is built
    assert embedder.classifier(("a", "b"), ("{c}",)) is not built
    assert np.allclose(np.linalg.norm(built, axis=0), 1)


def test_only_the_placeholder_is_replaced(sets, tasks, tiny, monkeypatch):
    embedder = Embedder(tiny(0).load("cpu"), workers=1, batch_size=4)
    seen: list[str] = []
    encode = embedder._encode
    monkeypatch.setattr(embedder, "_encode", lambda texts: seen.extend(texts) or encode(texts))
    embedder.classifier(("{c.__class__}", "b"), ("{c} {0} {c}",))
    assert seen == ["{c.__class__} {0} {c.__class__}", "b {0} b"]


def test_set_aside_names_are_bounded():
    aside = SetAside()
    for i in range(250):
        aside.add(f"0.tar:{i}", "no image")
    assert (aside.count, len(aside.named)) == (250, 100)


def test_wrong_use_is_refused(sets, tasks, tiny, tmp_path):
    with pytest.raises(UsageError, match="workers and batch size are at least 1"):
        evaluate(tiny(0), sets.data, tasks, tmp_path / "r.jsonl", batch_size=0)
    with pytest.raises(UsageError, match=r"unknown precision 'fp23' \(did you mean 'fp32'\?\)"):
        evaluate(tiny(0), sets.data, tasks, tmp_path / "r.jsonl", precision="fp23")
    absent = type(tiny(0))("tiny", tmp_path / "no.pt", tiny(0).model_config)
    with pytest.raises(MissingError, match=r"^no evaluation sets at .*: no such folder; 'datacomp"):
        evaluate(tiny(0), tmp_path / "none", tasks, tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="is a folder, expected a file for the results"):
        evaluate(tiny(0), sets.data, tasks, tmp_path)
    with pytest.raises(MissingError, match=r"no checkpoint at .*no\.pt; train the model or give"):
        evaluate(absent, sets.data, tasks, tmp_path / "r.jsonl")


def test_a_full_disk_is_one_clear_error_and_a_rerun_goes_on(sets, tasks, tiny, tmp_path, capsys):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks, whole, device="cpu")
    evaluate(tiny(0), sets.data, tasks[:1], output, device="cpu")
    before = output.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .* would exceed the largest size"):
            evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(read_results(output)) == ["colours"]
    assert output.read_bytes().startswith(before)
    evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    assert output.read_bytes() == whole.read_bytes()


def test_a_torn_last_line_is_done_again(sets, tasks, tiny, tmp_path):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks, whole, device="cpu")
    content = whole.read_bytes()
    second = content.index(b"\n") + 1
    output.write_bytes(content[: second + 200])
    again = evaluate(tiny(0), sets.data, tasks, output, device="cpu")
    assert again.skipped == ["colours"]
    assert output.read_bytes() == content


KILLED = """
import os, signal, sys
from pathlib import Path
from datacomp.evaluate import embedding, harness
from datacomp.pools.clip_model import ModelSpec
from datacomp.evaluate.tasks import Task

where, model, checkpoint, config, data, output, *tasks = sys.argv[1:]
count = 0

def dying(function, last):
    def wrapped(*arguments):
        global count
        found = function(*arguments)
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return wrapped

if where == "between":
    harness.append_line = dying(harness.append_line, 2)
else:  # 13 images, then 11: in the third task of batches of 4
    embedding.Embedder._batch = dying(embedding.Embedder._batch, 8)
harness.evaluate(
    ModelSpec(model, Path(checkpoint), Path(config)), Path(data),
    [Task.model_validate_json(task) for task in tasks], Path(output), device="cpu", batch_size=4,
)
"""


@pytest.mark.parametrize("where", ["between", "inside"])
def test_killed_between_or_inside_tasks_and_run_again_equals_uninterrupted(
    sets, tasks, tiny, tmp_path, where, launcher
):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    spec = tiny(0)
    evaluate(spec, sets.data, tasks, whole, device="cpu", batch_size=4)
    done = launcher.run(
        "-c", KILLED, where, spec.model, spec.checkpoint, spec.model_config, sets.data, output,
        *(task.model_dump_json() for task in tasks),
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(read_results(output)) == ["colours", "pairs"]
    again = evaluate(spec, sets.data, tasks, output, device="cpu", batch_size=4)
    assert again.skipped == ["colours", "pairs"]
    assert output.read_bytes() == whole.read_bytes()


def test_a_copied_set_and_checkpoint_are_the_same_evaluation(sets, tasks, tiny, tmp_path):
    output, spec = tmp_path / "r.jsonl", tiny(0)
    evaluate(spec, sets.data, tasks, output, device="cpu")
    copied = shutil.copytree(sets.data, tmp_path / "elsewhere")
    checkpoint = shutil.copy(spec.checkpoint, tmp_path / "renamed.pt")
    moved = type(spec)("tiny", Path(checkpoint), spec.model_config)
    assert len(evaluate(moved, copied, tasks, output, device="cpu").skipped) == 3


def test_digests_that_cannot_be_recorded_are_told_once(sets, tiny, tmp_path, capsys):
    tasks = [sets.task(key) for key in ("colours", "shades")]
    for task in tasks:
        sets.write(task.key)
    record = sets.data / "digests.jsonl"
    record.mkdir()  # nobody can write there, whoever runs this
    for _ in range(2):  # also where all was done before
        done = evaluate(tiny(0), sets.data, tasks, tmp_path / "r.jsonl", device="cpu")
        assert (len(done.results), done.failed) == (2, {})
        said = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
        assert said == [
            f"warning: cannot write {record}: a folder stands where a file should be written; the "
            "digests of 2 sets are not recorded, so nothing will notice if they change"
        ]
        (sets.data / ".seen.jsonl").unlink()
