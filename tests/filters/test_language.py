import pytest
from datacomp.durable import sha256_file
from datacomp.errors import DataError, MissingError
from datacomp.filters import parse, run_filters
from datacomp.filters.language import LanguageScorer, embedded_model
from datacomp.pools.uids import to_hex

TEXTS = [
    "a photo of a brown dog on the beach", "ein Foto von einem braunen Hund am Strand",
    "une photo d'un chien brun sur la plage", "a photo of\na brown dog", "", "\r\n", "漢字漢字漢字",
]  # fmt: skip


def labels(pool):
    rows = pool.sql("SELECT s.text, v.value FROM samples s JOIN score_values_1 v USING (uid)")
    return dict(rows.fetchall())


def test_labels_are_those_of_fasttext_on_text_without_line_breaks(pool_of):
    import fasttext

    pool = pool_of(text=TEXTS)
    chosen = run_filters(pool, [parse("language:language=en")])
    model = fasttext.load_model(str(embedded_model()))
    expected = {}
    for text in filter(None, TEXTS):
        found, _ = model.predict(text.replace("\n", " "))
        expected[text] = found[0].removeprefix("__label__") if found else None
    assert labels(pool) == expected
    assert [expected[text] for text in TEXTS[:3]] == ["en", "de", "fr"]
    english = [i for i, text in enumerate(TEXTS) if expected.get(text) == "en"]
    assert chosen.steps[0].reasons["no_caption"] == 1
    assert [int(uid, 16) for uid in to_hex(chosen.uids)] == english


def test_a_score_names_its_model_by_digest(pool_of):
    pool = pool_of(text=TEXTS[:2])
    (score,) = run_filters(pool, [parse("language")]).scores
    assert score == {
        "name": "language", "digest": LanguageScorer().digest(),
        "model": "lid.176.ftz (embedded)", "sha256": sha256_file(embedded_model()),
    }  # fmt: skip


def test_a_model_of_ones_own_is_another_column(pool_of):
    pool = pool_of(text=TEXTS[:2])
    run_filters(pool, [parse("language")])
    found = run_filters(pool, [parse(f"language:language=de,model={embedded_model()}")])
    assert len(found.uids) == 1
    assert pool.scalar("SELECT count(*) FROM scores") == 2


def test_a_model_that_is_not_there_or_none_is_one_clear_line(pool_of, tmp_path):
    pool = pool_of(text=TEXTS[:2])
    with pytest.raises(MissingError) as caught:
        run_filters(pool, [parse("language:model=/none/lid.bin")])
    assert str(caught.value) == (
        "language identification finds nothing at /none/lid.bin for the asset fasttext_lid: "
        "fastText's language model lid.176.bin (126 MB, CC BY-SA 3.0); get it from "
        "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.bin ('datacomp filter "
        "assets fasttext_lid -o DIR' does); give it as --asset fasttext_lid=PATH, or under "
        "[assets] in datacomp.toml (it serves basic_filter, language, laion2b, text_based, "
        "image_based, image_based_intersect_clip_score)"
    )
    (tmp_path / "model.bin").write_bytes(b"no model" * 10)
    with pytest.raises(DataError) as caught:
        run_filters(pool, [parse(f"language:model={tmp_path / 'model.bin'}")])
    assert str(caught.value).startswith(f"{tmp_path / 'model.bin'}: not a fastText model: ")
    assert "\n" not in str(caught.value)


def test_quotes_in_a_language_are_only_text(pool_of):
    pool = pool_of(text=TEXTS[:2])
    assert len(run_filters(pool, [parse("language:language=e'n' OR true --")]).uids) == 0
