"""norm_sim, vas, image_distance and decontaminate: what is measured against a target set."""

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.similarity import targets as module
from datacomp.filters.similarity.targets import LargestSimilarity, Targets, VarianceAlignment
from datacomp.pools.uids import to_hex

# Cosines with the targets (1, 0) and (0.6, 0.8), by hand.
IMAGES = np.float32([[2, 0], [0, 1], [3, 4], [-1, 0], [0, 0], [np.nan, 1], [4, -3]])
TARGETS = np.float32([[5, 0], [3, 4]])
COSINES = [[1, 0.6], [0, 0.8], [0.6, 1], [-1, -0.6], None, None, [0.8, 0]]


def scores(scorer, rows=IMAGES):
    class Batch:
        features = {"l14_img": rows}  # noqa: RUF012

    return scorer.score(Batch)


@pytest.fixture
def target_file(tmp_path):
    np.save(tmp_path / "targets.npy", TARGETS)
    return tmp_path / "targets.npy"


def kept(pool, text):
    return [int(uid, 16) for uid in to_hex(run_filters(pool, [parse(text)]).uids)]


def reasons(pool, text):
    return run_filters(pool, [parse(text)]).steps[0].reasons


@pytest.mark.parametrize("rows", [1, 2, 4096])
def test_scores_by_hand(monkeypatch, target_file, rows):
    monkeypatch.setattr(module, "_ROWS", rows)
    by_rule = {
        LargestSimilarity(target_file, "l14_img"): max,
        LargestSimilarity(target_file, "l14_img", absolute=True): lambda c: max(map(abs, c)),
        VarianceAlignment(target_file, "l14_img"): lambda c: sum(x * x for x in c) / 2,
        VarianceAlignment(target_file, "l14_img", norm=True): lambda c: np.hypot(*c),
    }
    for scorer, rule in by_rule.items():
        expected = [None if cosines is None else rule(cosines) for cosines in COSINES]
        found = scores(scorer)
        assert [v is None for v in found] == [v is None for v in expected], scorer.name
        assert [v for v in found if v is not None] == pytest.approx(
            [v for v in expected if v is not None], abs=1e-6
        )
    assert len({scorer.digest() for scorer in by_rule}) == 4


def test_they_agree_with_the_authors_code(tmp_path):
    """What the authors' functions for NormSim (p = 2 and infinite) and VAS give, once computed."""
    images = np.float32([[2, -1, 0], [1, 3, 1], [0, -2, 1], [1, 1, -1]])
    np.save(tmp_path / "t.npy", np.float32([[1, 2, 2], [-1, 1, 0], [3, 0, 1]]))
    path = tmp_path / "t.npy"
    for scorer, authors in {
        VarianceAlignment(path, "l14_img", norm=True): [1.272792, 1.070259, 0.713364, 0.412759],
        LargestSimilarity(path, "l14_img", absolute=True): [0.948683, 0.904534, 0.632456, 0.365148],
        VarianceAlignment(path, "l14_img"): [0.54, 0.381818, 0.16963, 0.05679],
    }.items():
        assert scores(scorer, images) == pytest.approx(authors, abs=2e-6)


def test_torch_gives_the_same(target_file):
    found = LargestSimilarity(target_file, "l14_img")
    found._on = "cpu"
    rows = np.float32([[0.6, 0.8], [1, 0], [0, -1]])
    assert found._with_torch(rows) == pytest.approx(found._with_numpy(rows), abs=1e-6)


def test_a_set_in_several_files_or_in_part(tmp_path):
    folder = tmp_path / "targets"
    folder.mkdir()
    rows = np.arange(1, 41, dtype=np.float16).reshape(20, 2)
    np.save(folder / "a.npy", rows[:7])
    np.save(folder / "b.npy", rows[7:])
    whole = np.concatenate(list(Targets(folder).blocks()))
    assert whole.shape == (20, 2)
    some = np.concatenate(list(Targets(folder, 0.25).blocks()))
    assert np.array_equal(some, whole[[0, 4, 8, 12, 16]])
    one = np.concatenate(list(Targets(folder, 0.001).blocks()))
    assert np.array_equal(one, whole[:1])
    scorer = LargestSimilarity(folder, "l14_img")
    assert scorer.digest() != LargestSimilarity(folder, "l14_img", 0.25).digest()
    np.save(folder / "c.npy", np.ones((2, 3), np.float16))
    with pytest.raises(DataError, match="files of features of 2 and 3 numbers each"):
        Targets(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("norm_sim:threshold=0.9", [0, 2, 3]),  # |cosine|: the opposite counts
        ("norm_sim:fraction=0.6", [0, 2, 3]),  # of the five that have features
        ("norm_sim:norm=l2,fraction=0.4", [0, 2]),  # ties: 0, 2 and 3 have the same norm
        ("vas:fraction=0.4", [0, 2]),
        ("vas:threshold=0.6", [0, 2, 3]),
        ("image_distance:threshold=0.9", [0, 2]),
        ("image_distance", [0]),
        ("decontaminate:features=l14_img,threshold=0.81", [1, 3, 6]),
    ],
)
def test_what_stays(features_of, target_file, text, expected):
    asset = "evaluation_features" if text.startswith("decon") else "target_embeddings"
    pool = features_of(3, l14_img=IMAGES.astype(np.float64))
    whole = f"{text}{',' if ':' in text else ':'}{asset}={target_file}"
    assert kept(pool, whole) == expected
    assert reasons(pool, whole)["no_features"] == 2


def test_listed_digests_are_dropped(features_of, tmp_path, target_file):
    digests = [f"{i:064x}" for i in range(7)]
    digests[3] = None
    pool = features_of(l14_img=IMAGES, columns={"sha256": digests})
    (tmp_path / "list.txt").write_text(f"{digests[1]}\n\n{'f' * 64}\n")
    text = f"decontaminate:sha256_file={tmp_path / 'list.txt'}"
    assert kept(pool, text) == [0, 2, 3, 4, 5, 6]
    both = f"{text},evaluation_features={target_file},features=l14_img,threshold=0.9"
    assert kept(pool, both) == [3, 6]
    assert reasons(pool, both) == {
        "evaluation_image": 1, "no_features": 2, "near_evaluation_image": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("abc\n", ":1: not a SHA-256"), ("\n", "lists no SHA-256"), (f"{'0' * 64}\nA", ":2: not")],
)
def test_a_list_that_is_none(features_of, tmp_path, content, complaint):
    path = tmp_path / "list.txt"
    path.write_text(content)
    pool = features_of(l14_img=IMAGES, columns={"sha256": ["x"] * 7})
    with pytest.raises(DataError, match=complaint):
        kept(pool, f"decontaminate:sha256_file={path}")


def test_what_is_missing_is_named(features_of, tmp_path):
    pool = features_of(l14_img=IMAGES)
    for name in ("norm_sim", "vas", "image_distance"):
        with pytest.raises(MissingError, match=f"^{name} needs the asset target_embeddings: the"):
            kept(pool, name)
    with pytest.raises(UsageError, match="give evaluation_features or sha256_file"):
        registry.create("decontaminate", {})
    with pytest.raises(MissingError, match="no such list of SHA-256"):
        kept(pool, f"decontaminate:sha256_file={tmp_path / 'no.txt'}")
    np.save(tmp_path / "other.npy", np.ones((2, 5), np.float32))
    with pytest.raises(DataError, match=r"l14_img have 2 numbers each, but the target set in .* 5"):
        kept(pool, f"vas:target_embeddings={tmp_path / 'other.npy'}")


def test_no_usable_features(features_of, target_file):
    pool = features_of(l14_img=np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="no sample has a score"):
        kept(pool, f"vas:target_embeddings={target_file}")
