"""Embeddings kept, and metrics computed from them alone."""

import json
import shutil

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.evaluate import kept
from datacomp.evaluate.harness import evaluate, recompute
from datacomp.evaluate.results import read_results
from datacomp.evaluate.versions import library_versions


@pytest.fixture
def tasks(sets, monkeypatch):
    sets.write("colours", size=13)
    sets.write("wild", "wilds", size=7)
    sets.write("fair", "fairness", size=7)
    sets.write("faces", "faces", size=8)
    sets.write("pairs", "retrieval", size=5)
    rows = sets.puzzles(8)
    rows[0]["cue"] = " "
    rows[3]["candidate_images"][0]["bytes"] = b"no image"
    sets.parquet("winogavil", rows)
    found = [
        sets.task("colours", size=13), sets.task("wild", "wilds", size=7),
        sets.task("fair", "fairness", size=7), sets.task("faces", "faces", size=8),
        sets.task("pairs", "retrieval", size=5),
        sets.task("misc/winogavil", "winogavil", size=8),
    ]  # fmt: skip
    monkeypatch.setattr(kept, "load_tasks", lambda: {task.key: task for task in found})
    return found


def test_metrics_of_every_family_are_computed_without_model_and_images(sets, tasks, tiny, tmp_path):
    whole, again = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    folder = tmp_path / "kept"
    found = evaluate(tiny(0), sets.data, tasks, whole, keep=folder, batch_size=4, device="cpu")
    assert found.failed == {}
    shutil.rmtree(sets.data)
    redone = recompute(folder, again)
    assert redone.failed == {}
    assert again.read_bytes() == whole.read_bytes()
    assert recompute(folder, again).skipped == [task.key for task in tasks]


def test_what_is_kept_are_the_models_embeddings(sets, tasks, tiny, tmp_path):
    import pyarrow.parquet as pq

    spec, folder = tiny(0), tmp_path / "kept"
    evaluate(spec, sets.data, tasks[:1], tmp_path / "r.jsonl", keep=folder, device="cpu")
    place = folder / "wds_colours_test"
    assert sorted(path.name for path in place.iterdir()) == [
        "about.json", "images.npy", "samples.parquet", "texts"
    ]  # fmt: skip
    vectors = np.load(place / "images.npy")
    assert (vectors.shape, vectors.dtype) == ((13, 16), np.float32)
    model = spec.load("cpu")
    first = model.encode_tensors([model.prepare(sets.picture(0))])[0]
    assert np.allclose(vectors[0], first, atol=1e-6)
    assert pq.read_table(place / "samples.parquet").column("label").to_pylist() == [
        i % 6 for i in range(13)
    ]


def test_a_task_done_before_without_its_embeddings_is_embedded(sets, tasks, tiny, tmp_path):
    output, folder = tmp_path / "r.jsonl", tmp_path / "kept"
    evaluate(tiny(0), sets.data, tasks[:1], output, device="cpu")
    before = output.read_bytes()
    evaluate(tiny(0), sets.data, tasks[:1], output, keep=folder, device="cpu")
    assert (folder / "wds_colours_test/about.json").is_file()
    assert output.read_bytes() == before
    assert evaluate(tiny(0), sets.data, tasks[:1], output, keep=folder, device="cpu").skipped


def test_a_failing_task_keeps_nothing(sets, tasks, tiny, tmp_path):
    shard = sets.data / "wds_colours_test/test/1.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    (tmp_path / "kept").mkdir()
    found = evaluate(
        tiny(0), sets.data, tasks[:1], tmp_path / "r.jsonl", keep=tmp_path / "kept", device="cpu"
    )
    assert list(found.failed) == ["colours"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_kept_features_are_probed(sets, tasks, tiny, tmp_path):
    probed, again = tmp_path / "knn.jsonl", tmp_path / "again.jsonl"
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "r.jsonl", keep=tmp_path / "kept",
             device="cpu")  # fmt: skip
    evaluate(tiny(0), sets.data, tasks[:1], probed, probe="knn", device="cpu")
    recompute(tmp_path / "kept", again, probe="knn")
    assert again.read_bytes() == probed.read_bytes()


def test_embeddings_kept_with_a_probe_have_no_texts(sets, tasks, tiny, tmp_path):
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "knn.jsonl", probe="knn",
             keep=tmp_path / "kept", device="cpu")  # fmt: skip
    found = recompute(tmp_path / "kept", tmp_path / "r.jsonl")
    assert found.failed["colours"].endswith(
        "holds no such texts (embeddings kept with a probe have none); keep them anew"
    )


def test_what_is_no_embeddings_is_refused(sets, tasks, tiny, tmp_path):
    folder, output = tmp_path / "kept", tmp_path / "r.jsonl"
    with pytest.raises(MissingError, match=r"^no embeddings at .*kept: no such folder$"):
        recompute(folder, output)
    folder.mkdir()
    with pytest.raises(UsageError, match=r"holds no embeddings of any task; make them with --keep"):
        recompute(folder, output)
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "e.jsonl", keep=folder, device="cpu")
    with pytest.raises(UsageError, match=r"holds no embeddings of mnist; make them with --keep"):
        recompute(folder, output, ["mnist"])
    place = folder / "wds_colours_test"
    vectors = np.load(place / "images.npy")
    np.save(place / "images.npy", vectors[:-1])
    assert recompute(folder, output).failed["colours"].endswith("13 samples, embeddings of others")
    np.save(place / "images.npy", np.array([{}], object), allow_pickle=True)
    assert ": not an array: " in recompute(folder, output).failed["colours"]
    (place / "images.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'descr': (((" + b" " * 104)
    assert ": not an array: " in recompute(folder, output).failed["colours"]
    about = json.loads((place / "about.json").read_text())
    of_another = {**about, "provenance": {**about["provenance"], "task_version": 7}}
    (place / "about.json").write_text(json.dumps(of_another))
    assert recompute(folder, output).failed == {
        "colours": f"{place}: embeddings of version 7 of colours, the list has version 1; keep "
        "them anew"
    }
    for key in ("data", "versions", "model", "image_size"):
        lacking = {k: v for k, v in about["provenance"].items() if k != key}
        (place / "about.json").write_text(json.dumps({**about, "provenance": lacking}))
        assert recompute(folder, output).failed == {
            "colours": f"{place}/about.json: not about embeddings of colours; remove the folder "
            "and keep them anew"
        }


def test_one_damaged_folder_does_not_stop_the_others(sets, tasks, tiny, tmp_path):
    whole, folder = tmp_path / "whole.jsonl", tmp_path / "kept"
    evaluate(tiny(0), sets.data, tasks[:2], whole, keep=folder, device="cpu")
    (folder / "wds_colours_test/about.json").write_text("{}")
    found = recompute(folder, tmp_path / "again.jsonl")
    assert list(found.failed) == ["colours"]
    assert (tmp_path / "again.jsonl").read_bytes() == whole.read_bytes().splitlines(True)[1]


def test_a_folder_of_evaluation_sets_is_never_written_over(sets, tasks, tiny, tmp_path):
    def bytes_in(folder):
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = bytes_in(sets.data)
    copy = shutil.copytree(sets.data, tmp_path / "copy")
    (tmp_path / "link").symlink_to(sets.data)
    for place, said in (
        (sets.data, "holds the evaluation sets; choose another folder with --keep-embeddings"),
        (tmp_path / "link", "holds the evaluation sets; choose another folder"),
        (copy, "copy/wds_colours_test: is there already and holds no kept embeddings; choose "),
    ):
        with pytest.raises(UsageError, match=said):
            evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "r.jsonl", keep=place, device="cpu")
    assert bytes_in(sets.data) == before
    assert (copy / "wds_colours_test/classnames.txt").is_file()


def test_embeddings_of_another_model_are_not_replaced(sets, tasks, tiny, tmp_path):
    folder = tmp_path / "kept"
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "0.jsonl", keep=folder, device="cpu")
    vectors = (folder / "wds_colours_test/images.npy").read_bytes()
    with pytest.raises(DataError, match=r"wds_colours_test: embeddings with another checkpoint \("):
        evaluate(tiny(1), sets.data, tasks, tmp_path / "1.jsonl", keep=folder, device="cpu")
    assert (folder / "wds_colours_test/images.npy").read_bytes() == vectors
    assert not (tmp_path / "1.jsonl").exists()


def test_embeddings_of_other_data_are_replaced_when_the_new_are_there(sets, tasks, tiny, tmp_path):
    folder, task = tmp_path / "kept", tasks[0]
    evaluate(tiny(0), sets.data, [task], tmp_path / "r.jsonl", keep=folder, device="cpu")
    place = folder / "wds_colours_test"
    before = json.loads((place / "about.json").read_text())
    (sets.data / "wds_colours_test/classnames.txt").write_text("a\nb\nc\nd\ne\nf\n")
    (sets.data / "digests.jsonl").unlink()
    shard = sets.data / "wds_colours_test/test/1.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:700])
    failed = evaluate(tiny(0), sets.data, [task], tmp_path / "r.jsonl", keep=folder, device="cpu")
    assert list(failed.failed) == ["colours"]
    assert json.loads((place / "about.json").read_text()) == before
    shard.write_bytes(whole)
    done = evaluate(tiny(0), sets.data, [task], tmp_path / "r.jsonl", keep=folder, device="cpu")
    after = json.loads((place / "about.json").read_text())
    assert after["provenance"]["data"] == done.results[0].provenance["data"]
    assert after["classnames"] == list("abcdef")


def test_a_probe_does_not_replace_embeddings_with_texts_but_these_replace_its_own(
    sets, tasks, tiny, tmp_path
):
    folder, output = tmp_path / "kept", tmp_path / "r.jsonl"
    knn = {"probe": "knn", "keep": folder, "device": "cpu"}
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "knn.jsonl", **knn)
    assert list((folder / "wds_colours_test/texts").iterdir()) == []
    evaluate(tiny(0), sets.data, tasks[:1], output, keep=folder, device="cpu")
    assert len(list((folder / "wds_colours_test/texts").iterdir())) == 1
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "knn2.jsonl", **knn)
    assert recompute(folder, tmp_path / "again.jsonl").failed == {}
    assert (tmp_path / "again.jsonl").read_bytes() == output.read_bytes()


def test_versions_of_the_embeddings_are_told_beside_those_of_today(sets, tasks, tiny, tmp_path):
    folder, again = tmp_path / "kept", tmp_path / "again.jsonl"
    evaluate(tiny(0), sets.data, tasks[:1], tmp_path / "r.jsonl", keep=folder, device="cpu")
    file = folder / "wds_colours_test/about.json"
    about = json.loads(file.read_text())
    about["provenance"]["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(about))
    (result,) = recompute(folder, again).results
    assert result.provenance["embedding_versions"] == {**library_versions(), "torch": "1.0"}
    assert result.provenance["versions"] == library_versions()
    assert recompute(folder, again).skipped == ["colours"]


def test_results_of_another_model_are_not_mixed(sets, tasks, tiny, tmp_path, monkeypatch):
    output = tmp_path / "r.jsonl"
    evaluate(tiny(0), sets.data, tasks[:1], output, keep=tmp_path / "kept", device="cpu")
    evaluate(tiny(1), sets.data, tasks[:1], tmp_path / "other.jsonl", device="cpu")
    with pytest.raises(DataError, match="colours was evaluated with another checkpoint"):
        recompute(tmp_path / "kept", tmp_path / "other.jsonl")
    assert list(read_results(output)) == ["colours"]
