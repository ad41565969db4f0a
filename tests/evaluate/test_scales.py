import pytest
from datacomp.errors import UsageError
from datacomp.evaluate.scales import SCALES, get_scale, model_config_path
from datacomp.evaluate.training import trainer_arguments


@pytest.mark.parametrize(
    ("name", "model", "seen", "batch", "lr", "warmup", "beta2"),
    [
        ("debug", "ViT-B-32", 128_000, 1024, 1e-4, 500, None),
        ("small", "ViT-B-32", 12_800_000, 4096, 5e-4, 500, None),
        ("medium", "ViT-B-32", 128_000_000, 4096, 5e-4, 500, None),
        ("large", "ViT-B-16", 1_280_000_000, 8192, 5e-4, 500, None),
        ("xlarge", "ViT-L-14", 12_800_000_000, 90_112, 1e-3, 10_000, 0.95),
    ],
)
def test_the_scales_are_datacomp_s(name, model, seen, batch, lr, warmup, beta2):
    scale = SCALES[name]
    assert (scale.model, scale.samples_seen, scale.batch_size) == (model, seen, batch)
    assert (scale.learning_rate, scale.warmup, scale.beta2) == (lr, warmup, beta2)
    assert (scale.weight_decay, scale.grad_checkpointing, scale.model_config) == (0.2, True, None)


def test_the_trainer_gets_datacomp_s_recipe(tmp_path):
    arguments = trainer_arguments(
        SCALES["medium"], tmp_path / "run", seed=3, workers=4, precision="amp", device="cuda",
        per_device=512, accumulation=1,
    )  # fmt: skip
    text = " ".join(arguments)
    for part in (
        "--dataset-type webdataset", "--dataset-resampled", "--train-num-samples 25600000",
        "--epochs 5", "--save-most-recent --resume latest", "--model ViT-B-32",
        "--batch-size 512", "--lr 0.0005", "--warmup 500", "--precision amp", "--seed 3",
        "--ddp-static-graph --local-loss --gather-with-grad", "--grad-checkpointing",
    ):  # fmt: skip
        assert part in text
    assert "--beta2" not in text


def test_a_budget_can_be_overridden_but_not_below_a_batch_per_checkpoint():
    assert get_scale("demo", 6400).samples_seen == 6400
    with pytest.raises(UsageError, match="samples_seen is 100, but scale demo needs at least 640"):
        get_scale("demo", 100)
    with pytest.raises(UsageError, match=r"unknown scale 'smal' \(did you mean 'small'\?\)"):
        get_scale("smal")


def test_the_demo_model_has_its_own_configuration():
    path = model_config_path(SCALES["demo"])
    assert path is not None
    assert path.is_file()
    assert model_config_path(SCALES["small"]) is None
