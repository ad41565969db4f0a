"""[assets]: what filters need besides their parameters, for a whole study."""

import pytest
from datacomp.curate.workflow.checks import check_inputs
from datacomp.curate.workflow.config import load_study
from datacomp.errors import ConfigError

STUDY = """[pool]
source = [{ kind = "folder", path = "photos" }]
[assets]
wordnet = "wn"
fasttext_lid = "lid.bin"
[[dataset]]
name = "text"
filters = [{ use = "text_based", exact = false }, { use = "language", model = "own.bin" }]
[evaluate]
suite = "demo"
"""


@pytest.fixture
def study(tmp_path):
    def study(text=STUDY):
        (tmp_path / "study.toml").write_text(text)
        return load_study(tmp_path / "study.toml")

    for folder in ("photos", "wn"):
        (tmp_path / folder).mkdir()
    for file in ("lid.bin", "own.bin"):
        (tmp_path / file).touch()
    return study


def test_filters_get_the_assets_they_take_under_full_paths_and_keep_their_titles(study, tmp_path):
    found = study()
    text, language = found.filters_of(found.get_dataset("text"))
    assert text.parameters == {
        "exact": False, "wordnet": str(tmp_path / "wn"), "model": str(tmp_path / "lid.bin"),
    }  # fmt: skip
    assert text.label() == "text_based:exact=false"
    assert language.parameters == {"model": str(tmp_path / "own.bin")}
    check_inputs(found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('wordnet = "wn"', 'wordne = "wn"',
         "4: unknown key 'assets.wordne' (did you mean 'wordnet'?), expected one of: fasttext_lid, "
         "wordnet, imagenet21k_synsets, pool_centroids, target_embeddings"),
        ('wordnet = "wn"', 'wordnet = "none"',
         "8: filter text_based: wordnet is 'none', expected an existing file or folder; "),
        ('wordnet = "wn"', "",
         "8: text_based needs the asset wordnet: the folder of WordNet 3.0's database files "),
    ],
)  # fmt: skip
def test_a_wrong_or_missing_asset_is_told_before_anything_runs(study, tmp_path, old, new, message):
    with pytest.raises(ConfigError) as caught:
        check_inputs(study(STUDY.replace(old, new)))
    assert str(caught.value).startswith(f"{tmp_path / 'study.toml'}:{message}")
