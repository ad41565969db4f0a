import inspect

import pytest
from datacomp import errors
from datacomp.errors import DatacompError, suggest

TREE = {
    "DatacompError": ("Exception", 1),
    "UsageError": ("DatacompError", 2),
    "ConfigError": ("UsageError", 2),
    "MissingError": ("DatacompError", 1),
    "DataError": ("DatacompError", 1),
    "TruncatedError": ("DataError", 1),
    "UnsafeInputError": ("DataError", 1),
    "IntegrityError": ("DataError", 1),
    "StorageError": ("DatacompError", 1),
    "HeldError": ("StorageError", 1),
    "RunError": ("DatacompError", 1),
}


def test_the_tree_is_the_one_drawn():
    found = {
        name: (value.__base__.__name__, value.exit_code)
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, DatacompError)
    }
    assert found == TREE
    assert all(name in errors.__doc__ for name in TREE)


@pytest.mark.parametrize(
    ("word", "answer"),
    [("clip_scor", " (did you mean 'clip_score'?)"), ("xyz", ""), ("", "")],
)
def test_suggest_names_the_nearest_known_word(word, answer):
    assert suggest(word, ["clip_score", "language"]) == answer
    assert suggest(word, []) == ""


def test_suggest_prefers_names_that_start_alike():
    known = ["gcvit_tiny", "vit_base_patch16_224", "vit_tiny_patch16_224", "vit_tiny_patch16_384"]
    assert suggest("vit_tinny", known) == " (did you mean 'vit_tiny_patch16_224'?)"
    assert suggest("vit_base", known) == " (did you mean 'vit_base_patch16_224'?)"
    assert suggest("gvit_tiny", known) == " (did you mean 'gcvit_tiny'?)"
