"""What pool embed wrote is what neighbours, pool show and pool browse look among."""

import numpy as np
import pytest
from datacomp.curate.browse.alike import Alike, Embedder
from datacomp.curate.browse.app import Browse
from datacomp.curate.browse.lending import Lender
from datacomp.curate.cli import cli
from datacomp.errors import UsageError
from datacomp.pools import Pool
from datacomp.pools.embedding.embed import embed_pool
from datacomp.pools.features import Features
from datacomp.pools.neighbours import build, find, names_of, vector_of


@pytest.fixture
def embedded(pictures, recipe):
    """Return the path of a pool of 20 samples whose images were embedded in two runs."""
    pool = pictures(20, broken=(3,))
    embed_pool(pool, recipe, "b", device="cpu", batch_size=7)
    pool.close()
    return pool.path


def expected(path, uid, name="b_img"):
    """Return the uids by their cosines, computed here, most alike first."""
    with Pool.open(path, read_only=True) as pool:
        ((uids, vectors),) = Features(pool, name).batches()
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    numbers = uids["f1"].tolist()
    cosines = wide @ wide[numbers.index(uid)]
    return [numbers[n] for n in np.argsort(-cosines, kind="stable")], np.sort(cosines)[::-1]


def test_neighbours_by_what_was_embedded(embedded):
    order, cosines = expected(embedded, 7)
    with Pool.open(embedded, read_only=True, confined=True) as pool:
        assert names_of(pool) == ["b_img", "b_txt"]
        wanted = vector_of(Features(pool, "b_img"), 7)
        exact = find(pool, "b_img", wanted, 30)
        build(pool, "b_img")
        sketched = find(pool, "b_img", wanted, 30)
    assert (exact.sketched, sketched.sketched) == (False, True)
    assert (exact.compared, sketched.compared) == (19, 19)  # not the broken one
    for found in (exact, sketched):
        assert found.uids["f1"].tolist()[0] == 7 == order[0]
        np.testing.assert_allclose(found.cosines, cosines, atol=1e-5)


def test_pages_of_what_is_alike(embedded, tiny, picture):
    spec = tiny(0)
    browse = Browse(Lender(embedded), Alike(Embedder(spec, "b_img", "cpu")), seconds=60)
    try:
        order, _ = expected(embedded, 7)
        status, page = browse.like_sample(f"{7:032x}", "b_img")
        places = [page.index(f"/sample/{uid:032x}") for uid in order[1:]]
        assert status == 200
        assert f"/sample/{7:032x}" not in page
        assert places[0] == min(places)
        assert "of 19 samples compared exactly" in page
        status, page = browse.like_image(picture(7, width=40, height=34))
        assert page.index(f"/sample/{7:032x}") == page.index("/sample/")
        assert browse.like_text("a picture of number 4")[0] == 200
        assert "Most like it by b_img" in browse.sample(f"{7:032x}")[1]
    finally:
        browse.lender.close()


def test_a_model_of_other_weights_is_refused(embedded, tiny):
    with Pool.open(embedded, read_only=True) as pool:
        Alike(Embedder(tiny(0), "b_img", "cpu")).check(pool)
        with pytest.raises(UsageError, match="'b_img' were made by other weights than"):
            Alike(Embedder(tiny(1), "b_img", "cpu")).check(pool)


def test_a_shown_page_has_what_is_alike(embedded, tmp_path):
    out = tmp_path / "page.html"
    arguments = ["pool", "show", embedded, "--like", f"{7:032x}", "--features", "b_img", "-o", out]
    cli.main(list(map(str, arguments)), standalone_mode=False)
    order, cosines = expected(embedded, 7)
    page = out.read_text()
    assert "b_img" in page
    assert f"{order[1]:032x}" in page
    assert f"{cosines[1]:.3f}" in page
