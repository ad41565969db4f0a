import math

import pytest
from datacomp.errors import UsageError
from datacomp.evaluate.vision.recipes import FINETUNING, PRETRAINING, get_recipe


def test_the_published_pretraining_recipe():
    recipe = PRETRAINING["deit"]
    assert (recipe.model, recipe.image_size) == ("deit_tiny_patch16_224", 224)
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (300, 256, 5)
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adamw", 1e-3, 0.05)
    assert (recipe.mixup, recipe.cutmix, recipe.erasing, recipe.smoothing) == (0.8, 1.0, 0.25, 0.1)
    assert (recipe.auto_augment, recipe.drop_path) == ("rand-m9-mstd0.5-inc1", 0.1)
    assert (recipe.horizontal_flip, recipe.repeats) == (0.0, 3)


def test_the_published_finetuning_recipe():
    recipe = FINETUNING["deit"]
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("sgd", 0.01, 1e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (1000, 768, 10)


def test_the_learning_rate_rises_and_falls():
    recipe = get_recipe(PRETRAINING, "deit", epochs=20, batch_size=100)
    assert recipe.steps(1000) == 200
    assert recipe.learning_rate_at(0, 1000) == 1e-6
    assert recipe.learning_rate_at(25, 1000) == pytest.approx((1e-6 + 1e-3) / 2)
    assert recipe.learning_rate_at(50, 1000) == 1e-3
    middle = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi / 2)) / 2
    assert recipe.learning_rate_at(125, 1000) == pytest.approx(middle)
    assert recipe.learning_rate_at(200, 1000) == pytest.approx(1e-5)


def test_fewer_images_than_a_batch_still_make_a_step():
    assert PRETRAINING["demo"].steps_per_epoch(3) == 1


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("diet", {}, r"unknown recipe 'diet' \(did you mean 'deit'\?\); there are: deit, demo"),
        ("demo", {"epochs": 0}, "epochs is 0, expected at least 1"),
        ("demo", {"learning_rate": -1.0}, r"learning_rate is -1.0, expected a positive number"),
        ("deit", {"batch_size": 15}, "batch_size is 15; mixing images needs an even one"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(name, changes, message):
    with pytest.raises(UsageError, match=message):
        get_recipe(PRETRAINING, name, **changes)
