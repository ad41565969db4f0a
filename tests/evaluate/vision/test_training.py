import json
import os

import pytest
from datacomp.errors import DataError, IntegrityError, RunError, UsageError
from datacomp.evaluate.vision import training
from datacomp.evaluate.vision.backbone import spec_of_run
from datacomp.evaluate.vision.training import Settings, finetune, pretrain
from safetensors.torch import load_file

ONE = Settings(device="cpu", workers=0, threads=1)


@pytest.fixture(scope="module")
def begun(labelled, tiny_recipe, tmp_path_factory):
    """A run that was pre-trained on four colours."""
    output = tmp_path_factory.mktemp("runs") / "begun"
    return output, pretrain(labelled, output, tiny_recipe(), settings=ONE)


def test_a_run_says_what_it_was(begun, labelled):
    output, info = begun
    assert json.loads((output / "info.json").read_bytes()) == info
    assert (info["format"], info["task"], info["status"]) == (
        "datacomp-vision-run", "pretrain", "done",
    )  # fmt: skip
    assert info["data"]["samples"] == 80
    assert (info["set_aside"], info["set_aside_samples"]) == ({}, [])
    assert sorted(os.listdir(output)) == ["checkpoint.safetensors", "info.json", "log.jsonl"]
    steps = [json.loads(line)["step"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 9]


def test_a_finished_run_is_not_trained_again(begun, labelled, tiny_recipe):
    output, info = begun
    assert pretrain(labelled, output, tiny_recipe(), settings=ONE) == info


def test_an_interrupted_run_ends_with_the_same_weights(
    begun, labelled, tiny_recipe, tmp_path, monkeypatch
):
    at_once = Settings(device="cpu", workers=0, threads=1, save_every=0.0)
    fit = training.Progress.advance
    taken = []

    def interrupted(self, amount=1):
        taken.append(amount)
        if len(taken) == 6:
            raise KeyboardInterrupt
        fit(self, amount)

    monkeypatch.setattr(training.Progress, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(labelled, tmp_path / "run", tiny_recipe(), settings=at_once)
    assert (tmp_path / "run/state.pt").is_file()
    assert json.loads((tmp_path / "run/info.json").read_bytes())["status"] == "running"
    monkeypatch.undo()
    info = pretrain(labelled, tmp_path / "run", tiny_recipe(), settings=at_once)
    assert info["checkpoint_sha256"] == begun[1]["checkpoint_sha256"]
    assert (tmp_path / "run/log.jsonl").read_bytes() == (begun[0] / "log.jsonl").read_bytes()
    assert not (tmp_path / "run/state.pt").exists()


def test_a_run_refuses_other_data_and_other_settings(
    begun, labelled, tiny_recipe, tmp_path, square, write_tar
):
    output, _ = begun
    with pytest.raises(UsageError, match="was begun with seed = 0, now 1; train"):
        pretrain(labelled, output, tiny_recipe(), seed=1, settings=ONE)
    write_tar(tmp_path / "0.tar", [("a.png", square(0, 0)), ("a.cls", b"1")])
    with pytest.raises(IntegrityError, match="was begun on other data"):
        pretrain(tmp_path, output, tiny_recipe(), settings=ONE)


def test_a_folder_of_other_things_is_left_alone(labelled, tiny_recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        pretrain(labelled, tmp_path, tiny_recipe(), settings=ONE)


def test_a_damaged_state_is_named(labelled, tiny_recipe, tmp_path):
    recipe = tiny_recipe()
    run = tmp_path / "run"
    run.mkdir()
    plan = training._plan("pretrain", recipe, 0, training.open_labelled(labelled, run), ONE)
    (run / "info.json").write_text(json.dumps({**plan, "status": "running"}))
    (run / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"state\.pt: not a saved state .*; delete it to start"):
        pretrain(labelled, run, recipe, settings=ONE)


def test_mixing_and_soft_labels_train(labelled, tiny_recipe, tmp_path):
    recipe = tiny_recipe(mixup=0.8, cutmix=1.0, drop_path=0.1, repeats=3, epochs=1)
    info = pretrain(labelled, tmp_path / "run", recipe, settings=ONE)
    assert info["loss"] < 2


def test_finetuning_measures_on_what_was_held_out(begun, labelled, tiny_recipe, tmp_path):
    recipe = tiny_recipe("finetune", epochs=20)
    info = finetune(begun[0], labelled, tmp_path / "run", recipe, train=10, settings=ONE)
    assert info["split"] == {"train": 10, "held_out": 40}
    assert info["start"] == begun[1]["checkpoint_sha256"]
    assert info["accuracy"] == 1.0
    assert spec_of_run(tmp_path / "run").model == "vit_tiny_patch16_224"


def test_finetuning_needs_the_architecture_it_starts_from(begun, labelled, tiny_recipe, tmp_path):
    recipe = tiny_recipe("finetune", image_size=32)
    with pytest.raises(UsageError, match=r"at 16 px .* fine-tunes a vit_tiny_patch16_224 at 32 px"):
        finetune(begun[0], labelled, tmp_path / "run", recipe, settings=ONE)


@pytest.fixture
def spoilt(tmp_path, square, write_tar):
    """Eighty images of which four do not decode, and two samples that have no label."""
    files = []
    for i in range(80):
        image = square(i % 4, i)
        files.append((f"{i:04d}.png", image[: len(image) // 2] if i % 20 == 7 else image))
        files.append((f"{i:04d}.cls", str(i % 4).encode()))
    files += [("x.png", square(0, 0)), ("y.png", square(0, 1))]
    folder = tmp_path / "spoilt"
    folder.mkdir()
    write_tar(folder / "00000.tar", files)
    return folder


@pytest.mark.slow
def test_two_processes_train_as_one(spoilt, tiny_recipe, tmp_path, launcher):
    """Same weights, and what either of them sets aside is counted once."""
    script = tmp_path / "train.py"
    script.write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from datacomp.evaluate.vision.recipes import Recipe\n"
        "from datacomp.evaluate.vision.training import Settings, pretrain\n"
        "recipe = Recipe(**json.loads(sys.argv[3]))\n"
        "pretrain(Path(sys.argv[1]), Path(sys.argv[2]), recipe,\n"
        "    settings=Settings(device='cpu', workers=0, threads=1))\n"
    )
    recipe = json.dumps(tiny_recipe().to_dict())
    both = launcher.run_together(2, script, spoilt, tmp_path / "two", recipe)
    assert [done.returncode for done in both] == [0, 0], both[0].stderr[-2000:]
    two = json.loads((tmp_path / "two/info.json").read_bytes())
    one = pretrain(spoilt, tmp_path / "one", tiny_recipe(), settings=ONE)
    assert (two["status"], two["world_size"]) == ("done", 2)
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)  # of the whole batch
    assert one["set_aside"] == two["set_aside"] == {"image_broken": 4, "no_label": 2}
    assert one["set_aside_samples"] == two["set_aside_samples"]
    assert [line.split(" (")[0] for line in one["set_aside_samples"]] == [
        *(f"00000.tar:{n:04d}: image_broken" for n in (7, 27, 47, 67)),
        "00000.tar:x: no_label", "00000.tar:y: no_label",
    ]  # fmt: skip
    lists = [(tmp_path / name / "set_aside.jsonl").read_bytes() for name in ("one", "two")]
    assert lists[0] == lists[1]
    weights = [load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two")]
    assert max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]) < 1e-4


FULL = """
import json, resource, signal, sys
from pathlib import Path
from datacomp.errors import StorageError
from datacomp.evaluate.vision.recipes import Recipe
from datacomp.evaluate.vision.training import Settings, pretrain
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
recipe = Recipe(**json.loads(sys.argv[3]))
for save_every in (0.0, 300.0):
    try:
        pretrain(Path(sys.argv[1]), Path(sys.argv[2]), recipe,
                 settings=Settings("cpu", workers=0, threads=1, save_every=save_every))
    except StorageError as error:
        print(error)
"""


def test_a_full_disk_is_told_in_a_line(begun, labelled, tiny_recipe, tmp_path, launcher):
    """First the state cannot be saved, then the checkpoint."""
    output, recipe = tmp_path / "run", tiny_recipe()
    done = launcher.run("-c", FULL, labelled, output, json.dumps(recipe.to_dict()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == 2 * [
        f"cannot write {output}: most likely the disk is full; free some space and run the same "
        "command again"
    ]
    assert list(output.iterdir()) == []  # other settings may be tried there
    info = pretrain(labelled, output, recipe, settings=ONE)
    assert info["checkpoint_sha256"] == begun[1]["checkpoint_sha256"]


def test_broken_images_among_the_held_out_are_counted(spoilt, tiny_recipe, tmp_path):
    recipe = tiny_recipe("finetune", epochs=1)
    info = finetune(None, spoilt, tmp_path / "run", recipe, train=2, settings=ONE)
    assert info["set_aside"] == {"image_broken": 4, "no_label": 2}


def test_only_what_differs_in_a_recipe_is_named(begun, labelled, tiny_recipe):
    with pytest.raises(UsageError, match=r"was begun with recipe\.epochs = 2, now 3; train into"):
        pretrain(labelled, begun[0], tiny_recipe(epochs=3), settings=ONE)


def _too_small(*_):
    raise RunError("too small")


def test_a_command_that_cannot_begin_leaves_the_folder_free(
    labelled, tiny_recipe, tmp_path, monkeypatch
):
    with pytest.raises(UsageError, match="unknown timm model 'vit_tinny'"):
        pretrain(labelled, tmp_path / "run", tiny_recipe(model="vit_tinny"), settings=ONE)
    monkeypatch.setattr(training, "check_shared_memory", _too_small)
    with pytest.raises(RunError, match="too small"):
        pretrain(labelled, tmp_path / "run", tiny_recipe(), settings=ONE)
    monkeypatch.undo()
    assert list((tmp_path / "run").iterdir()) == []
    info = pretrain(labelled, tmp_path / "run", tiny_recipe(epochs=1), settings=ONE)
    (tmp_path / "run/checkpoint.safetensors").unlink()
    with pytest.raises(IntegrityError, match="is not the checkpoint this run ended with"):
        pretrain(labelled, tmp_path / "run", tiny_recipe(epochs=1), settings=ONE)
    assert info["status"] == "done"
