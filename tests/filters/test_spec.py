import pytest
from datacomp.errors import UsageError
from datacomp.filters import FilterSpec, parse
from datacomp.filters.sampling import RandomSubset
from hypothesis import given
from hypothesis import strategies as st

NAME = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
WORD = st.from_regex(r"[a-z/_. -]{0,10}[a-z]", fullmatch=True).filter(
    lambda w: w.strip() == w and w not in ("true", "false", "nan", "inf", "infinity")
    and w.lstrip("-") not in ("nan", "inf", "infinity")
)  # fmt: skip
VALUE = st.booleans() | st.integers() | st.floats(allow_nan=False) | WORD


@given(st.one_of(NAME, NAME.map(lambda n: f"dir/{n}.py:Mine")), st.dictionaries(NAME, VALUE))
def test_the_text_form_reads_back(use, parameters):
    spec = FilterSpec(use, parameters)
    assert parse(spec.label()) == spec


@pytest.mark.parametrize(
    ("text", "use", "parameters"),
    [
        ("basic_filter", "basic_filter", {}),
        (" clip_score : arch = l14 , fraction=0.3", "clip_score", {"arch": "l14", "fraction": 0.3}),
        ("a:", "a", {}),
        ("my/f.py:Sharp:min=3,on=true", "my/f.py:Sharp", {"min": 3, "on": True}),
        ("language:model=/x/odd.py:y", "language", {"model": "/x/odd.py:y"}),
        ("a:b=c=d", "a", {"b": "c=d"}),
    ],
)
def test_forms(text, use, parameters):
    assert parse(text) == FilterSpec(use, parameters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "filter '': expected NAME or NAME:parameter=value,..."),
        (":a=1", "filter ':a=1': expected NAME or NAME:parameter=value,..."),
        ("a:b", "filter 'a:b': 'b' is not parameter=value"),
        ("a:=1", "filter 'a:=1': '=1' is not parameter=value"),
        ("a:b=1,b=2", "filter 'a:b=1,b=2': parameter b is given twice"),
    ],
)
def test_what_is_no_filter_is_one_clear_line(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_a_title_stands_for_the_text_form():
    spec = FilterSpec("f.py:Mine", {"checkpoint": "/home/me/a.pt"}, "f.py:Mine:checkpoint=a.pt")
    assert spec.label() == "f.py:Mine:checkpoint=a.pt"
    assert spec.is_file
    assert not parse("clip_score:arch=l14").is_file


def test_a_spec_makes_its_filter():
    assert parse("random_subset:fraction=0.5,seed=3").make() == RandomSubset(fraction=0.5, seed=3)
