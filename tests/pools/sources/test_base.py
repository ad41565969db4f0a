import pytest
from datacomp.errors import UsageError
from datacomp.pools.schema import CORE_COLUMNS
from datacomp.pools.sources import KINDS, open_source, source_class
from datacomp.pools.sources.base import (
    MAX_CAPTION_BYTES,
    SetAside,
    caption_of,
    caption_of_values,
    json_object,
    scalars,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_there(kind, tmp_path):
    source = open_source(kind, tmp_path)
    assert type(source) is source_class(kind)
    assert (source.kind, source.path) == (kind, tmp_path)
    assert all(isinstance(v, str | int | float) for v in source.options().values())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("fodler", {}, "unknown kind of source 'fodler' (did you mean 'folder'?); "
         f"there are: {', '.join(KINDS)}"),
        ("folder", {"a": 1}, "source folder: unknown option 'a'; it has no options"),
        ("glyphs", {"sample": 1}, "source glyphs: unknown option 'sample' (did you mean "
         "'samples'?); options: verify, samples, seed, spoiled"),
        ("glyphs", {"samples": "many"}, "source glyphs: option samples is 'many', expected int"),
        ("glyphs", {"samples": True}, "source glyphs: option samples is True, expected int"),
        ("glyphs", {"samples": 0}, "source glyphs: samples is 0, expected at least 1"),
        ("glyphs", {"spoiled": 2}, "source glyphs: spoiled is 2, expected 0 to 1"),
        ("csv", {"url_column": 3}, "source csv: option url_column is 3, expected str"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_clear_line(kind, options, message):
    with pytest.raises(UsageError) as caught:
        open_source(kind, "x", **options)
    assert str(caught.value) == message


def test_a_signature_changes_with_the_files(tmp_path):
    (tmp_path / "a").write_text("x")
    source = open_source("folder", tmp_path)
    before = source.signature()
    assert open_source("folder", tmp_path).signature() == before
    (tmp_path / "a").write_text("xy")
    changed = source.signature()
    (tmp_path / "b").touch()
    assert len({before, changed, source.signature()}) == 3
    assert open_source("csv", tmp_path / "a").signature() != before


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_captions_lose_only_line_ends_nuls_and_the_byte_order_mark(text):
    bare = text.removeprefix("\ufeff")
    assert caption_of(text.encode()) == bare.replace("\0", "").strip("\r\n")
    assert caption_of(b"\xef\xbb\xbf" + bare.encode()) == bare.replace("\0", "").strip("\r\n")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(b"caf\xe9", "caption_not_utf8"), (b"x" * (MAX_CAPTION_BYTES + 1), "caption_too_long")],
)
def test_what_cannot_be_a_caption(raw, reason):
    with pytest.raises(ValueError, match=rf"^{reason}$"):
        caption_of(raw)


def test_captions_in_values_are_held_to_the_same():
    assert caption_of_values({"caption": "b\n", "alt": "c"}) == "b"
    assert caption_of_values({"text": 3, "alt": "c"}) == "c"
    assert caption_of_values({"title": "x"}) is None
    assert caption_of_values({"text": None}) == ""
    assert caption_of_values({"text": None, "alt": "c"}) == "c"
    with pytest.raises(ValueError, match="caption_not_utf8"):
        caption_of_values({"text": "\ud800"})


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_broken_json_has_one_reason(raw):
    with pytest.raises(ValueError, match=r"^json_broken$"):
        json_object(raw)


def test_only_plain_values_under_plain_names_become_columns():
    values = {
        "Year": 1999, "score": 0.5, "ok": True, "note": "\ud800x", "list": [1], "none": None,
        "a b": 1, "_hidden": 1, "rowid": 1, "ROWID": 2, "x" * 65: 1, "long": "y" * 5000, "key": 1,
        'x"; DROP TABLE samples; --': 1, **dict.fromkeys(CORE_COLUMNS, 1), "Text": "taken",
    }  # fmt: skip
    assert scalars(values, ("key",)) == {"year": 1999, "score": 0.5, "ok": True, "note": "\\ud800x"}


def test_what_is_set_aside_can_be_stored():
    assert SetAside("a\udcff.jpg", "r").item == "a\\udcff.jpg"
