import shutil

import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError
from datacomp.filters import wordnet as module
from datacomp.filters.wordnet import WordNet

FIRST = {
    "dog": ("noun", 2084071), "Dogs": ("noun", 2084071), "DOG": ("noun", 2084071),
    "geese": ("noun", 1855672), "mice": ("noun", 2330245), "oxen": ("noun", 2402425),
    "wolves": ("noun", 2114100), "churches": ("noun", 8082602), "women": ("noun", 10787470),
    "axes": ("noun", 2764044), "ran": ("verb", 1926329), "abdicated": ("verb", 2379216),
    "running": ("noun", 558883), "better": ("noun", 5143558), "happier": ("adj", 1148283),
    "quickly": ("adv", 85811), "in": ("noun", 13649791), "on": ("adj", 1651196),
    "hot_dog": ("noun", 10187710), "New_York": ("noun", 9119277), "12": ("noun", 13746785),
    # Endings are taken off again and again; nltk 3.10 does so once and finds nothing.
    "houseses": ("noun", 3544360), "oxeses": ("noun", 2403003),
    "dog,": None, "cat's": None, "the": None, "": None, "doggings": None, "ing": None,
    "собака": None, "\0": None,
}  # fmt: skip
"""What nltk 3.8.1 gives as wordnet.synsets(word)[0] over the whole of WordNet 3.0."""


def test_the_first_sense_is_the_one_nltk_gives(wordnet):
    database = WordNet(wordnet)
    assert {word: database.first(word) for word in FIRST} == FIRST


def test_the_digest_is_of_the_files(wordnet, tmp_path):
    shutil.copytree(wordnet, tmp_path / "copy")
    assert WordNet(tmp_path / "copy").digest == WordNet(wordnet).digest
    with (tmp_path / "copy" / "noun.exc").open("a") as file:
        file.write("doggos dog\n")
    assert WordNet(tmp_path / "copy").digest != WordNet(wordnet).digest
    assert WordNet(tmp_path / "copy").first("doggos") == ("noun", 2084071)


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("index.noun", lambda text: text.replace("WordNet 3.0", "WordNet 3.1"), DataError,
         "{path}: not of WordNet 3.0, whose synset numbers name ImageNet's classes"),
        ("index.verb", lambda text: text + "dog v one\n", DataError,
         "{path}:52: not a line of a WordNet index"),
        ("index.adj", lambda text: text + "dog a 1 999 ! 1 0 5\n", DataError,
         "{path}:46: not a line of a WordNet index"),
        ("noun.exc", lambda text: text + "\udcff", DataError, "{path}: not UTF-8 at byte "),
        ("adv.exc", None, MissingError,
         "{folder}: not a WordNet database: it has no adv.exc"),
    ],
)  # fmt: skip
def test_what_is_no_wordnet_is_one_clear_line(wordnet, tmp_path, name, change, error, message):
    folder = tmp_path / "copy"
    shutil.copytree(wordnet, folder)
    path = folder / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()), errors="surrogateescape")
    with pytest.raises(error) as caught:
        WordNet(folder)
    assert str(caught.value).startswith(message.format(path=path, folder=folder))


def test_a_file_without_end_is_not_read(wordnet, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 100)
    with pytest.raises(UnsafeInputError, match=r"index.noun: larger than any WordNet; not read$"):
        WordNet(wordnet)
