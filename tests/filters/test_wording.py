from typing import Literal

import pytest
from datacomp.filters.wording import accepted, complaint, found
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    whole: int = Field(1, ge=1, lt=10)
    number: float = Field(1, gt=0, le=2)
    switch: bool = True
    text: str = "a"
    items: list[int] = Field([1], min_length=1)
    table: dict[str, int] = {}
    choice: Literal["left", "right"] = "left"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("whole", "a", "a whole number"), ("whole", 0, "at least 1"),
        ("whole", 10, "less than 10"), ("number", "a", "a number"),
        ("number", 0.0, "more than 0.0"), ("number", 3.0, "at most 2.0"),
        ("switch", 1, "true or false"), ("text", 1, "a text in quotes"),
        ("items", 1, "a list"), ("items", [], "at least 1 of them"), ("table", 1, "a table"),
        ("choice", "rihgt", "'left' or 'right' (did you mean 'right'?)"),
        ("choice", 3, "'left' or 'right'"),
    ],
)  # fmt: skip
def test_types_are_told_in_plain_words(name, value, words):
    with pytest.raises(ValidationError) as error:
        Model(**{name: value})
    assert accepted(complaint(error.value)) == words


def test_a_misspelt_name_is_told_before_what_is_missing_for_it():
    class Needs(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str

    with pytest.raises(ValidationError) as error:
        Needs(**{"nam": "x"})
    assert complaint(error.value)["loc"] == ("nam",)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (3, "3"), ("a", "'a'"), ([1, 2], "[1, 2]"), ({"a": 1}, "a table"),
        ([{"a": 1}], "a list of tables"), ("a\nb", r"'a\nb'"), ("x" * 99, "'" + "x" * 59 + "..."),
    ],
)  # fmt: skip
def test_what_was_found_is_short_and_one_line(value, text):
    assert found(value) == text
