"""Every rule of the check refuses what breaks it, and says where."""

import json
import os
import pickle

import numpy as np
import pytest
from datacomp.evaluate.leaderboard import check as checking
from datacomp.evaluate.leaderboard.check import check
from datacomp.evaluate.leaderboard.layout import RECORD
from datacomp.evaluate.metrics import unpack
from datacomp.evaluate.scales import SCALES
from datacomp.pools.uids import from_hex, save_subset


def refusals(folder, **options):
    return {(one.rule, one.where): one.what for one in check(folder, **options).refused}


def test_a_sound_submission_is_accepted(submission):
    report = check(submission(seeds=(0, 1), with_checkpoint=True))
    assert report.refused == []
    assert report.passed == [
        "layout", "record", "files", "scale", "samples", "sizes", "suite", "results", "metrics",
        "provenance", "model", "uncertainty", "aggregates", "checkpoint",
    ]  # fmt: skip
    assert list(report.not_replayed) == ["pool"]
    assert len(report.results) == 2
    assert len(report.results[0]) == 38


@pytest.mark.parametrize("scale", ["demo", "medium", "xlarge"])
def test_every_scale_can_be_submitted(submission, scale):
    assert check(submission(scale)).accepted


def test_model_configurations_are_those_of_the_scales():
    from datacomp.durable import digest
    from datacomp.evaluate.scales import model_config_path
    from datacomp.pools.clip_config import read_config

    assert {scale.model for scale in SCALES.values()} == set(checking.MODEL_CONFIGS)
    config = model_config_path(SCALES["demo"])
    assert checking.MODEL_CONFIGS["datacomp-demo"][0] == digest(read_config(config))


@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_model_configurations_are_open_clips(model):
    import importlib.util
    from pathlib import Path

    from datacomp.durable import digest

    spec = importlib.util.find_spec("open_clip")  # finding it imports nothing
    folder = Path(spec.submodule_search_locations[0]) / "model_configs"
    config = json.loads((folder / f"{model}.json").read_text())
    size = config["vision_cfg"]["image_size"]
    assert checking.MODEL_CONFIGS[model] == (digest(config), size)


# -- the folder ------------------------------------------------------------------------------


def test_a_stranger_file_is_refused(submission):
    folder = submission()
    (folder / "run.sh").write_text("#!/bin/sh")
    assert refusals(folder) == {
        ("layout", str(folder)): f"{folder}: 'run.sh' has no place in a submission; refused"
    }


def test_links_are_refused(submission):
    folder = submission()
    os.symlink("/etc/passwd", folder / "samples" / "secret.npy")
    assert "no regular file" in refusals(folder)["layout", str(folder)]
    (folder / "samples" / "secret.npy").unlink()
    os.rename(folder / "samples", folder / "elsewhere")
    os.symlink("elsewhere", folder / "samples")
    assert "has no place" in " ".join(refusals(folder).values()) or "no regular file" in " ".join(
        refusals(folder).values()
    )


def test_a_huge_record_is_not_read(submission):
    folder = submission()
    with (folder / RECORD).open("ab") as file:
        file.truncate(1 << 40)
    assert "at most 1,048,576" in refusals(folder)["layout", str(folder)]


def test_a_missing_and_an_unlisted_file_are_told(submission):
    folder = submission()
    os.rename(folder / "results" / "0.jsonl", folder / "results" / "7.jsonl")
    assert refusals(folder) == {
        ("files", "results/7.jsonl"): "is there, but the record does not list it",
        ("files", "results/0.jsonl"): "is missing",
    }


def test_changed_bytes_are_told(submission):
    folder = submission()
    path = folder / "results" / "0.jsonl"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert refusals(folder) == {
        ("files", "results/0.jsonl"): "its SHA-256 is not that of the record"
    }


# -- the record ------------------------------------------------------------------------------


def test_the_id_follows_from_the_content(submission):
    folder = submission()
    content = json.loads((folder / RECORD).read_bytes())
    content["method"] = "Another"
    (folder / RECORD).write_text(json.dumps(content))
    told = [rule for rule, _ in refusals(folder)]
    assert told == ["record"]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("author", "A. Person <a.person@example.org>", "holds an e-mail address"),
        ("method", "mine hf_abcdefghijklmnopqrst", "holds an access token"),
        ("method", "evil\u202etxt", "U+202E"),
        ("method", "x" * 101, "at most 100 characters"),
        ("writeup", "javascript:alert(1)", "expected an http:// or https:// address"),
        ("track", "other", "Input should be 'filtering' or 'byod'"),
        ("dataset_size", -1, "greater than or equal to 0"),
        ("energy_kwh", float("inf"), "not JSON"),
        ("runs", [], "at least 1 item"),
        ("surprise", 1, "Extra inputs are not permitted"),
        ("aggregate_version", 2, "aggregate version 2, known is 1"),
        ("suite_version", 99, "does not judge scale 'small'"),
        ("suite", "demo", "does not judge scale 'small'"),
    ],
)
def test_a_wrong_field_is_refused(submission, forge, key, value, what):
    folder = submission()
    if value == float("inf"):
        text = (folder / RECORD).read_text().replace('"energy_kwh":null', '"energy_kwh":1e999')
        (folder / RECORD).write_text(text)
        what = "should be a finite number"
    else:
        forge(folder, lambda content: content.update({key: value}))
    assert what in " ".join(refusals(folder).values())


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": NaN}'])
def test_what_is_no_record_is_refused(submission, text):
    folder = submission()
    (folder / RECORD).write_text(text)
    assert [rule for rule, _ in refusals(folder)] == ["record"]


def test_another_recipe_is_refused(submission, forge):
    folder = forge(submission(), lambda c: c["scale"].update(samples_seen=25_600_000))
    assert refusals(folder) == {
        ("scale", RECORD): "scale small has samples_seen 12800000, the run '25600000'"
    }


def test_a_funnel_that_grows_is_refused(submission, forge):
    steps = [{"filter": "f", "before": 10, "after": 20, "reasons": {}},
             {"filter": "g", "before": 30, "after": 5, "reasons": {}}]  # fmt: skip
    told = check(forge(submission(), lambda c: c.update(funnel=steps))).refused
    assert [str(one) for one in told] == [
        f"[sizes] {RECORD}: funnel: step 1 keeps more than it was given",
        f"[sizes] {RECORD}: funnel: step 2 is given more than there was",
        f"[sizes] {RECORD}: funnel: ends with 5, the subset has 100",
    ]


def test_more_samples_than_the_pool_are_refused(submission, forge):
    digests = {"digest": "a" * 64, "available_digest": "b" * 64}
    folder = forge(submission(), lambda c: c["pool"].update(samples=200, available=200, **digests))
    assert [one.what for one in check(folder).refused] == [
        "the whole pool is available, but its digest is not the pool's"
    ]
    folder = forge(submission(), lambda c: c["pool"].update(samples=50, available=60))
    assert [one.what for one in check(folder).refused] == [
        "100 samples are chosen of a pool of 50", "of a pool of 50 samples 60 are available",
    ]  # fmt: skip


# -- the samples -----------------------------------------------------------------------------


def replace_subset(folder, forge, path):
    (folder / "samples" / "chosen.npy").write_bytes(path.read_bytes())
    return forge(folder)


def test_an_unsorted_subset_is_refused(submission, forge, unsorted):
    folder = replace_subset(submission(), forge, unsorted)
    assert "the uids are not sorted" in refusals(folder)["samples", "samples/chosen.npy"]


def test_a_repeated_uid_is_refused(submission, forge, tmp_path):
    save_subset(tmp_path / "twice.npy", from_hex(["1" * 32, "2" * 32, "2" * 32]))
    folder = replace_subset(submission(), forge, tmp_path / "twice.npy")
    assert (
        f"uid {'2' * 32} stands there more than once"
        in (refusals(folder)["samples", "samples/chosen.npy"])
    )


def test_a_pickle_is_never_opened(submission, forge, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "evil.npy"
    np.save(path, np.array([Evil()], object), allow_pickle=True)
    assert refusals(replace_subset(submission(), forge, path))
    path.write_bytes(pickle.dumps(Evil()))
    assert refusals(replace_subset(submission(), forge, path))
    assert not (tmp_path / "executed").exists()


def test_a_subset_that_promises_terabytes_is_refused(submission, forge, tmp_path):
    path = tmp_path / "big.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": [("f0", "<u8"), ("f1", "<u8")], "fortran_order": False,
                   "shape": (1 << 40,)},
        )  # fmt: skip
    folder = replace_subset(submission(), forge, path)
    assert "promises 1,099,511,627,776 uids" in refusals(folder)["samples", "samples/chosen.npy"]


def test_another_count_is_told(submission, forge, tmp_path):
    save_subset(tmp_path / "less.npy", from_hex(["1" * 32]))
    told = check(replace_subset(submission(), forge, tmp_path / "less.npy")).refused
    assert [one.what.split(",")[0] for one in told][:2] == ["count is 1", "unique is 1"]


def test_a_foreign_uid_is_told(submission):
    folder = submission()
    whole = from_hex([f"{i:032x}" for i in range(1000)])
    report = check(folder, pool=whole)
    assert report.accepted
    assert "pool" in report.passed
    without = whole[np.arange(1000) != 42]
    assert refusals(folder, pool=without) == {
        ("pool", "samples/chosen.npy"): f"uid {42:032x} is not in the pool"
    }


def test_uids_are_told_apart_by_their_low_halves(tmp_path):
    from datacomp.evaluate.leaderboard.samples import first_foreign

    pool = from_hex([f"{7:016x}{i:016x}" for i in range(0, 50, 2)])
    save_subset(tmp_path / "in.npy", pool[::3])
    save_subset(tmp_path / "out.npy", from_hex([f"{7:016x}{4:016x}", f"{7:016x}{5:016x}"]))
    assert first_foreign(tmp_path / "in.npy", "subset", pool) is None
    assert first_foreign(tmp_path / "out.npy", "subset", pool) == f"{7:016x}{5:016x}"


def test_another_pool_is_told(submission, forge):
    folder = forge(submission(), lambda c: c["pool"].update(digest="a" * 64))
    whole = from_hex([f"{i:032x}" for i in range(1000)])
    assert refusals(folder, pool=whole, pool_digest="b" * 64) == {
        ("pool", RECORD): "was chosen from pool aaaaaaaaaaaa, not bbbbbbbbbbbb"
    }


# -- the results -----------------------------------------------------------------------------


def change(task, /, **values):
    """Return a change of one task's line: of its metrics, provenance or uncertainty."""

    def change(lines):
        for line in lines:
            if line["key"] == task:
                for part, found in values.items():
                    line[part].update(found) if isinstance(found, dict) else line.update(
                        {part: found}
                    )

    return change


@pytest.mark.parametrize(
    ("line", "rule", "where", "what"),
    [
        (lambda lines: lines[1:], "results", "vtab/caltech101", "is missing"),
        (lambda lines: [*lines, lines[0]], "results", "results/0.jsonl", "one stands there twice"),
        (change("mnist", key="nothing"), "results", "nothing", "is no task of suite datacomp"),
        (change("mnist", key="demo/digits"), "results", "demo/digits", "is no task of suite"),
        (change("mnist", dataset="CIFAR-10"), "metrics", "mnist", "is named 'CIFAR-10'"),
        (change("mnist", metrics={"main_metric": 0.99}), "metrics", "mnist", "but acc1 is"),
        (change("mnist", metrics={"acc1": 0.12345678, "main_metric": 0.12345678}), "metrics",
         "mnist", "which is no share of 10,000 images"),
        (change("cars", metrics={"acc5": 1.5}), "metrics", "cars", "outside its range"),
        (change("cars", metrics={"count_x:1": -3}), "metrics", "cars", "outside its range"),
        (change("mnist", provenance={"n": 9_000}), "provenance", "mnist", "the task has 10,000"),
        (change("mnist", provenance={"n": 9_000, "set_aside": 1_000}), "provenance", "mnist",
         "more than 1 %"),
        (change("mnist", provenance={"task_version": 7}), "provenance", "mnist", "expected 1"),
        (change("mnist", provenance={"checkpoint": "0" * 64}), "provenance", "mnist",
         "checkpoint is"),
        (change("mnist", provenance={"probe": "knn"}), "provenance", "mnist", "with a probe"),
        (change("mnist", provenance={"data": None}), "provenance", "mnist", "on which data"),
        (change("mnist", provenance={"model": "ViT-B-32-quickgelu"}), "model", "mnist",
         "scale small has 'ViT-B-32'"),
        (change("mnist", provenance={"model_config":
         "a41c9538e631c66a6e379cc84b7dc3fe3843b46b33974880663b98e1dc66e472"}), "model", "mnist",
         "model_config is 'a41c"),
        (change("mnist", provenance={"image_size": 256}), "model", "mnist", "image_size is '256'"),
        (change("mnist", uncertainty={"interval": [0.1, 0.9]}), "uncertainty", "mnist",
         "lower end is 0.1"),
        (change("vtab/pets", uncertainty={"standard_error": 0.1}), "uncertainty", "vtab/pets",
         "standard error is 0.1"),
        (change("mnist", uncertainty={"method": "trust me"}), "uncertainty", "mnist",
         "'trust me' is not known"),
        (change("mnist", uncertainty={"replicates": None}), "uncertainty", "mnist",
         "has no replicates"),
    ],
)  # fmt: skip
def test_a_forged_line_is_refused(submission, forge, line, rule, where, what):
    told = [one for one in check(forge(submission(), line=line)).refused if one.rule == rule]
    assert any(one.where.endswith(where) and what in one.what for one in told), told


def test_a_raised_score_breaks_several_rules(submission, forge):
    """Whoever raises a score consistently in its line must raise the averages too, and so on."""
    raised = change("mnist", metrics={"acc1": 0.9, "main_metric": 0.9})
    told = check(forge(submission(), line=raised)).refused
    assert {one.rule for one in told} == {"uncertainty", "aggregates"}
    assert "its replicates lie around" in " ".join(one.what for one in told)


def test_a_forged_average_is_refused(submission, forge):
    folder = forge(submission(), lambda c: c["runs"][0]["aggregates"].update(Average=0.9))
    (told,) = check(folder).refused
    assert (told.rule, told.where) == ("aggregates", "results/0.jsonl")
    assert told.what.startswith("'Average' is given as 0.9, recomputed 0.1")


def test_a_missing_and_a_made_up_average_are_refused(submission, forge):
    def swap(content):
        averages = content["runs"][0]["aggregates"]
        averages["My average"] = averages.pop("VTAB")

    assert [one.what for one in check(forge(submission(), swap)).refused] == [
        "suite datacomp has no average 'My average'", "the record lacks 'VTAB'",
    ]  # fmt: skip


def test_private_matter_in_results_is_refused(submission, forge):
    hidden = change("mnist", provenance={"set_aside_samples": ["someone@example.org/1.png"]})
    told = check(forge(submission(), line=hidden)).refused
    assert [one.what for one in told] == ["holds an e-mail address"]


def test_results_that_are_no_json_are_refused(submission, forge):
    folder = submission()
    (folder / "results" / "0.jsonl").write_text("cos\nsystem\n")
    told = check(forge(folder)).refused
    assert [one.rule for one in told][:1] == ["results"]
    assert "not JSON" in told[0].what


def test_another_checkpoint_is_refused(submission, forge):
    folder = submission(with_checkpoint=True)
    (folder / "checkpoints" / "0.pt").write_bytes(b"another")
    assert refusals(forge(folder)) == {
        ("checkpoint", "checkpoints/0.pt"): "is not the checkpoint that was evaluated (SHA-256)"
    }


def test_replicates_are_those_of_the_run(submission):
    report = check(submission())
    replicates = unpack(report.results[0]["mnist"].uncertainty["replicates"])
    assert replicates.shape == (1000,)


def test_nothing_is_evaluated_again_without_a_checkpoint(submission):
    from datacomp.errors import UsageError
    from datacomp.evaluate.leaderboard.reevaluation import reevaluate

    folder = submission()
    with pytest.raises(UsageError, match="holds no checkpoint"):
        reevaluate(folder, check(folder), folder, ["mnist"])
