"""DataComp's seven baselines: the subset files its own tools wrote for the same metadata.

The digests are those of the files that mlfoundations/datacomp (4a8df19) wrote with numpy 1.26.4,
pandas 1.5.3, nltk 3.8.1, gcld3 3.0.13 and WordNet 3.0, on a CPU in place of its GPU; the language
model was the one embedded here.
"""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from datacomp.curate.cli import cli
from datacomp.errors import DataError, IntegrityError, MissingError, UsageError
from datacomp.evaluate.scales import SCALES
from datacomp.filters import FilterSpec, parse, registry, run_filters
from datacomp.filters.assets import ASSETS, locate, parse_assets, with_assets
from datacomp.pools import Pool
from datacomp.pools.uids import to_hex

SUBSETS = {
    "no_filter": "d587044fc5462f94c131b71747f19d829fce10791be7d9a6a9d053ccde1a9cc6",
    "basic_filter": "0530e0732a9698b18cd363b6bf865592e81a3838c8add1fb1eaa31368d6ba1cf",
    "clip_score:arch=l14,fraction=0.3":
        "bfc4322439d95ce0f9b6b79f287356cd44fd95f3399d17030fa009f210b68974",
    "clip_score:arch=b32,threshold=0.28":
        "7cb811ea94e0133e69e5cb14b0778f4eeca29ccab02584d64b52b83c013989e6",
    "laion2b": "0fdb43161110c9dd63f40662dd00f8d3b50058af91eb6b07b59eb04d132ef8c5",
    "text_based": "7e7f1779ac936354a50cdc13575a139eff9f8bce30cb981d7cce4c79c1f45f15",
    "image_based": "28c0983535a8797c1efb103c72321307345dab02672f51effebaf6548e3cffb7",
    "image_based_intersect_clip_score:arch=b32,fraction=0.3":
        "212af0ed82966a7af7cde94ccd3da121a88de2dc8a1e147beb262af4ce921d8f",
    "image_based_intersect_clip_score:arch=l14,threshold=0.28":
        "6dbe10f0784940faedae3363fbd730ab571824497c7f3790ddb0575ecd7f1e4f",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep what filters remember out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pool(metadata):
    with Pool.open(metadata) as pool:
        yield pool


def run(pool, text, assets):
    return run_filters(pool, [with_assets(parse(text), assets)])


@pytest.mark.parametrize("text", SUBSETS)
def test_a_baseline_writes_the_file_that_datacomp_writes(metadata, baseline_assets, tmp_path, text):
    if text == "laion2b" and importlib.util.find_spec("gcld3") is None:
        pytest.skip("laion2b needs gcld3, which must be built: pip install gcld3")
    given = [f"--asset={name}={path}" for name, path in baseline_assets.items()]
    output = tmp_path / "subset.npy"
    result = CliRunner().invoke(
        cli, ["filter", "run", str(metadata), text, *given, "-o", str(output)]
    )
    assert result.exit_code == 0, result.output
    assert hashlib.sha256(output.read_bytes()).hexdigest() == SUBSETS[text]


@pytest.mark.skipif(importlib.util.find_spec("gcld3") is not None, reason="gcld3 is installed here")
def test_without_cld3_laion2b_says_how_to_get_it_or_asks_fasttext(pool):
    with pytest.raises(MissingError) as caught:
        run(pool, "laion2b", {})
    assert str(caught.value) == (
        "laion2b needs the package gcld3: apt-get install protobuf-compiler libprotobuf-dev, then "
        "pip install gcld3; or detector=fasttext, which selects other samples"
    )


def test_laion2b_joins_similarity_and_language(pool):
    laion = run(pool, "laion2b:detector=fasttext", {}).uids
    clip = run(pool, "clip_score:arch=b32,threshold=0.28", {}).uids
    english = run(pool, "language", {}).uids
    assert 0 < len(laion) < min(len(clip), len(english))
    assert laion.tolist() == np.intersect1d(clip, english).tolist()


def test_the_sane_forms_differ_where_they_should(pool, baseline_assets):
    # A word is found without its comma; the verb abdicate is no thing.
    captions = {
        f"{uid:032x}": text for uid, text in pool.sql("SELECT uid, text FROM samples").fetchall()
    }
    exact, sane = (
        {captions[uid] for uid in to_hex(run(pool, text, baseline_assets).uids)}
        for text in ("text_based", "text_based:exact=false")
    )
    assert all("abdicated" in text for text in exact - sane)
    assert exact - sane
    assert all(re.search(r"dog,|cat's|-", text) for text in sane - exact)
    assert sane - exact
    # Two tokens are enough for DataComp's tools, where its paper asks for three words.
    exact, sane = (
        {captions[uid] for uid in to_hex(run(pool, text, baseline_assets).uids)}
        for text in ("image_based", "image_based:exact=false")
    )
    assert any(len(text.split()) == 2 for text in exact)
    assert all(len(text.split()) > 2 for text in sane)


def test_an_image_without_features_drops_out_and_is_told(
    metadata, baseline_assets, tmp_path, capsys
):
    shutil.copytree(metadata, tmp_path / "copy")
    gone = sorted((tmp_path / "copy").glob("*.npz"))[1]
    gone.unlink()
    with Pool.open(tmp_path / "copy") as pool:
        found = run(pool, "image_based", baseline_assets)
    assert found.steps[0].reasons["no_features"] > 0
    told = f"left out {gone.with_suffix('.parquet').name}: "
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "assets", "error", "message"),
    [
        ("clip_score:arch=l14,fraction=0", {}, UsageError,
         "filter clip_score: parameter fraction is 0, expected more than 0.0"),
        ("clip_score:arch=l14,fraction=1.5", {}, UsageError,
         "filter clip_score: parameter fraction is 1.5, expected at most 1.0"),
        ("image_based_intersect_clip_score:fraction=0.3,threshold=0.2", {}, UsageError,
         "filter image_based_intersect_clip_score: give fraction or threshold, not both"),
        ("text_based", {}, MissingError,
         "text_based needs the asset wordnet: the folder of WordNet 3.0's database files "
         "(index.noun, noun.exc, ...); get it from apt-get install wordnet-base "
         "(/usr/share/wordnet), or nltk's data package wordnet; give it as --asset wordnet=PATH, "
         "or under [assets] in datacomp.toml (it serves text_based, text_sampling)"),
        ("image_based", {"target_embeddings": "/none"}, MissingError,
         "image_based finds nothing at /none for the asset target_embeddings: "),
        ("image_based_intersect_clip_score", {"target_embeddings": "."}, MissingError,
         "image_based_intersect_clip_score needs the asset pool_centroids: "),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_one_clear_line(pool, text, assets, error, message):
    with pytest.raises(error) as caught:
        run(pool, text, assets)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_centroids_of_other_features_are_refused(pool, baseline_assets, tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((3, 9), np.float32))
    centroids = baseline_assets["pool_centroids"]
    with pytest.raises(DataError) as caught:
        run(pool, "image_based", baseline_assets | {"pool_centroids": str(tmp_path / "wide.npy")})
    assert str(caught.value) == (
        f"the pool's features l14_img have 8 numbers each, but the centroids in "
        f"{tmp_path / 'wide.npy'} have 9: they are of other features"
    )
    wide = baseline_assets | {"target_embeddings": str(tmp_path / "wide.npy")}
    with pytest.raises(DataError) as caught:
        run(pool, "image_based", wide)
    assert str(caught.value) == (
        f"the target embeddings in {tmp_path / 'wide.npy'} have 9 numbers each, but the centroids "
        f"in {centroids} have 8: they are of other features"
    )
    with pytest.raises(
        MissingError,
        match=r"no features 'b32_img'; there are: l14_img; .* needs b32_img; .*'datacomp pool ",
    ):
        run(pool, "image_based:features=b32_img", baseline_assets)


def test_a_pool_without_features_says_so(pool_of, baseline_assets):
    with pytest.raises(MissingError) as caught:
        run(pool_of(text=["a photo of a dog"]), "image_based", baseline_assets)
    assert (
        "the pool does not know where its samples' features are; add DataComp's metadata with "
        "--kind commonpool, or compute features with 'datacomp pool embed'; cluster needs l14_img; "
        "features come with DataComp's metadata ('datacomp pool download small DIR --features')"
    ) in str(caught.value)


def test_null_captions_drop_out_under_their_reason(pool_of, baseline_assets):
    pool = pool_of(
        text=[None, "a photo of a brown dog on the beach"],
        original_width=[300, 300], original_height=[300, 300],
        clip_b32_similarity_score=[0.3, 0.3],
    )  # fmt: skip
    for text in (
        "language", "caption_length", "basic_filter", "text_based", "laion2b:detector=fasttext"
    ):  # fmt: skip
        found = run(pool, text, baseline_assets)
        assert found.steps[0].reasons == {"no_caption": 1}, text


def test_the_clusters_of_the_target_set_are_remembered(pool, baseline_assets, cache):
    before = run(pool, "image_based", baseline_assets).uids
    (kept,) = (cache / "datacomp").glob("targets-*.json")
    kept.write_text("[]")
    assert len(run(pool, "image_based", baseline_assets).uids) == 0
    kept.write_text("damaged")
    assert run(pool, "image_based", baseline_assets).uids.tolist() == before.tolist()


# -- assets --------------------------------------------------------------------------------------


def test_assets_are_read_as_name_and_path():
    assert parse_assets(["wordnet = /a=b", "fasttext_lid=x"]) == {
        "wordnet": "/a=b", "fasttext_lid": "x"
    }  # fmt: skip
    for pairs, message in (
        (["wordnet"], "asset 'wordnet': expected NAME=PATH"),
        (["wordnet=a", "wordnet=b"], "asset wordnet is given twice"),
        (["wordne=a"], "unknown asset 'wordne' (did you mean 'wordnet'?); there are: "
                       + ", ".join(ASSETS)),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            parse_assets(pairs)
        assert str(caught.value) == message


def test_a_filter_takes_the_assets_it_knows_and_keeps_its_own_and_its_title():
    given = {"fasttext_lid": "lid.bin", "wordnet": "wn"}
    assert with_assets(parse("basic_filter:min_words=2"), given) == FilterSpec(
        "basic_filter", {"min_words": 2, "model": "lid.bin"}, "basic_filter:min_words=2"
    )
    own = with_assets(parse("text_based:wordnet=mine"), given)
    assert own.parameters == {"wordnet": "mine", "model": "lid.bin"}
    assert own.make().files() == {"wordnet": "mine", "model": "lid.bin"}


def test_a_file_of_a_published_name_must_have_its_bytes(pool, baseline_assets, tmp_path):
    shutil.copy(baseline_assets["pool_centroids"], tmp_path / "small_centroids_l14.pt")
    given = baseline_assets | {"pool_centroids": str(tmp_path / "small_centroids_l14.pt")}
    with pytest.raises(IntegrityError) as caught:
        run(pool, "image_based", given)
    assert str(caught.value) == (
        f"{tmp_path / 'small_centroids_l14.pt'}: not the small_centroids_l14.pt that was published "
        "(SHA-256 23c66a05e49ad77283c1e2b33355c7eb088ac332a944c97ff85d5dfd48a5b251); get it again, "
        "or rename a file of your own"
    )


def test_timm_carries_the_list_of_synsets_that_datacomp_used():
    path = locate("text_based", "imagenet21k_synsets", None)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == ASSETS["imagenet21k_synsets"].published["imagenet21k_wordnet_ids.txt"]


# -- what filters say of themselves --------------------------------------------------------------


def test_show_prints_what_papers_report_and_where_assets_come_from():
    result = CliRunner().invoke(cli, ["filter", "show", "text_based"])
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert ["ImageNet-21k", "small", "3.2M", "0.046", "0.157", "arXiv", "2304.14108"] in lines
    assert "asset wordnet: the folder of WordNet 3.0's database files" in result.output
    shown = json.loads(CliRunner().invoke(cli, ["filter", "show", "laion2b", "--json"]).output)
    assert shown["published"][0] == {
        "variant": "", "scale": "small", "imagenet": 0.031, "average": 0.133, "samples": "1.3M",
        "source": "arXiv 2304.14108", "note": "",
    }  # fmt: skip
    assert [asset["name"] for asset in shown["assets"]] == ["fasttext_lid"]


def test_show_says_where_nothing_is_reported():
    result = CliRunner().invoke(cli, ["filter", "show", "d4"])
    assert result.output.endswith("\nnot reported on DataComp: the paper trains language models\n")
    shown = json.loads(CliRunner().invoke(cli, ["filter", "show", "d4", "--json"]).output)
    assert (shown["published"], shown["not_reported"]) == ([], "the paper trains language models")
    shown = json.loads(CliRunner().invoke(cli, ["filter", "show", "laion2b", "--json"]).output)
    assert shown["not_reported"] is None


@pytest.mark.parametrize("name", sorted({text.partition(":")[0] for text in SUBSETS}))
def test_every_baseline_has_its_numbers_at_every_scale_they_are_known_of(name):
    rows = registry.get(name).published
    assert {"small", "medium", "large"} <= {row.scale for row in rows}
    for row in rows:
        assert row.scale in SCALES
        assert row.imagenet is not None
        assert 0 < row.imagenet < 1
        assert row.average is not None
        assert 0 < row.average < 1


PANDAS = """
import sys
from pathlib import Path
from datacomp.curate.selection import select
from datacomp.filters import parse
from datacomp.pools import Pool
with Pool.open(sys.argv[1]) as pool:
    setting = "SELECT current_setting('disable_parquet_prefetching')"
    before = pool.scalar(setting)
    select(pool, [parse("clip_score:arch=l14,fraction=0.3")], Path(sys.argv[2]))
    assert pool.scalar(setting) == before
assert "pandas" not in sys.modules, "importing pandas takes longer than a million samples"
"""


def test_a_score_filter_costs_no_pandas_and_leaves_the_connection_as_it_was(metadata, tmp_path):
    command = [sys.executable, "-c", PANDAS, str(metadata), str(tmp_path / "some.npy")]
    subprocess.run(command, check=True)
    found = hashlib.sha256((tmp_path / "some.npy").read_bytes()).hexdigest()
    assert found == SUBSETS["clip_score:arch=l14,fraction=0.3"]
