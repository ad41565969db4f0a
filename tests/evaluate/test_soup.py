"""Soups: means of checkpoints, exactly; greedy ones keep what does not harm."""

import json

import pytest
from datacomp.errors import DataError, UsageError
from datacomp.evaluate.harness import evaluate
from datacomp.evaluate.models import load_run
from datacomp.evaluate.soup import Mean, make_soup
from datacomp.pools.checkpoints import read_checkpoint


@pytest.fixture
def runs(tiny_run, tmp_path):
    return [tiny_run(tmp_path / f"run{seed}", seed) for seed in range(3)]


def test_a_uniform_soup_is_the_mean(runs, tmp_path):
    info = make_soup(runs, tmp_path / "soup")
    spec = load_run(tmp_path / "soup").spec
    soup = read_checkpoint(spec.checkpoint)
    parts = [read_checkpoint(load_run(run).spec.checkpoint) for run in runs]
    assert soup.keys() == parts[0].keys()
    for name, tensor in soup.items():
        mean = sum(part[name].double() for part in parts) / 3
        assert tensor.dtype == parts[0][name].dtype
        assert tensor.equal(mean.to(tensor.dtype)), name
    assert info["soup"]["kind"] == "uniform"
    assert [one["run"] for one in info["soup"]["ingredients"]] == ["run0", "run1", "run2"]
    assert "scale" not in info
    assert spec.checkpoint.suffix == ".safetensors"


def test_the_order_of_runs_does_not_matter(runs, tmp_path):
    first = make_soup(runs, tmp_path / "one")
    second = make_soup(runs[::-1], tmp_path / "two")
    assert first["checkpoint_sha256"] == second["checkpoint_sha256"]


def test_the_same_soup_is_not_cooked_twice(runs, tmp_path):
    info = make_soup(runs, tmp_path / "soup")
    before = (tmp_path / "soup" / "info.json").stat().st_mtime_ns
    assert make_soup(runs, tmp_path / "soup") == info
    assert (tmp_path / "soup" / "info.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="holds something else"):
        make_soup(runs[:2], tmp_path / "soup")


def test_a_soup_is_scored_like_any_run(runs, sets, tmp_path):
    sets.write("dishes")
    make_soup(runs, tmp_path / "soup")
    spec = load_run(tmp_path / "soup").spec
    found = evaluate(spec, sets.data, [sets.task("dishes")], tmp_path / "results.jsonl")
    assert found.results[0].provenance["checkpoint"] == spec.identity()["weights_sha256"]


def test_a_greedy_soup_keeps_what_does_not_harm(runs, sets, tmp_path):
    sets.write("dishes")
    tasks = [sets.task("dishes")]
    info = make_soup(runs, tmp_path / "soup", "greedy", data=sets.data, tasks=tasks)
    soup = info["soup"]
    digests = [one["sha256"] for one in soup["ingredients"]]
    assert set(soup["scores"]) == set(digests)
    assert soup["kept"][0] in [
        d for d in digests if soup["scores"][d] == max(soup["scores"].values())
    ]
    assert soup["score"] >= max(soup["scores"].values())
    assert soup["chosen_on"] == ["dishes"]
    spec = load_run(tmp_path / "soup").spec
    again = evaluate(spec, sets.data, tasks, tmp_path / "again.jsonl")
    assert again.results[0].value == pytest.approx(soup["score"], abs=1e-9)


def test_another_architecture_is_refused(runs, tmp_path):
    config = json.loads((runs[1] / "model_config.json").read_text())
    config["vision_cfg"]["layers"] = 2
    (runs[1] / "model_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="another configuration than"):
        make_soup(runs, tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    def saved(name, **tensors):
        save_file(tensors, tmp_path / name)
        return tmp_path / name

    mean = Mean()
    mean.add(saved("a.safetensors", w=torch.zeros(2), steps=torch.tensor([3])))
    with pytest.raises(
        DataError, match="has shape \\(3,\\), that of the first checkpoint \\(2,\\)"
    ):
        mean.add(saved("b.safetensors", w=torch.zeros(3), steps=torch.tensor([3])))
    with pytest.raises(DataError, match="'steps' is not in all"):
        mean.add(saved("c.safetensors", w=torch.zeros(2)))
    with pytest.raises(DataError, match="whole numbers differs"):
        mean.add(saved("d.safetensors", w=torch.zeros(2), steps=torch.tensor([4])))


def test_what_makes_no_soup_is_told(runs, tmp_path):
    with pytest.raises(UsageError, match="at least two runs"):
        make_soup(runs[:1], tmp_path / "soup")
    with pytest.raises(UsageError, match="has the checkpoint of"):
        make_soup([runs[0], runs[0]], tmp_path / "soup")
    with pytest.raises(UsageError, match="give evaluation sets and tasks"):
        make_soup(runs, tmp_path / "soup", "greedy")
    with pytest.raises(UsageError, match="uniform or greedy"):
        make_soup(runs, tmp_path / "soup", "spicy")


def test_a_soup_cannot_be_submitted_as_a_run(runs, tmp_path, command):
    make_soup(runs, tmp_path / "soup")
    (tmp_path / "s.npy").write_bytes(b"")
    code, _, err = command("submit", tmp_path / "soup", "--method", "soup", "--author", "A",
                           "--samples", tmp_path / "s.npy", "--to", tmp_path / "board")  # fmt: skip
    assert code == 1
    assert "names no known scale" in err or "not a readable .npy" in err
