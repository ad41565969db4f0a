import tomllib

import pytest
from datacomp.curate.workflow.location import line_of

TEXT = """\
# a comment with [brackets] and x = 1
title = '''
[not]
a = "header"
'''

[a]
x = 1
"quoted key" = { deep = 1, er = [
  2,
  3] }
y.z = 4

[[d]]
y = 1

[[d]]
f = [
  { u = "{" },  # {
  { u = 2, v = 3 },
]

[d.inner]
w = 5

[[d.list]]
k = 6

[[d.list]]
k = 7
"""


def test_the_text_is_toml():
    assert tomllib.loads(TEXT)["d"][1]["list"][1]["k"] == 7


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("title",), 2), (("a",), 7), (("a", "x"), 8), (("a", "quoted key"), 9),
        (("a", "quoted key", "deep"), 9), (("a", "y", "z"), 12), (("a", "y", "none"), 12),
        (("d",), 14), (("d", 0), 14), (("d", 0, "y"), 15), (("d", 1), 17), (("d", 1, "f"), 18),
        (("d", 1, "f", 0, "u"), 19), (("d", 1, "f", 1), 20), (("d", 1, "f", 1, "v"), 20),
        (("d", 1, "f", 7), 18), (("d", 1, "inner"), 23), (("d", 1, "inner", "w"), 24),
        (("d", 1, "list", 0, "k"), 27), (("d", 1, "list", 1), 29), (("d", 1, "list", 1, "k"), 30),
        (("d", 1, "missing"), 17), (("d", 5), 1), (("nowhere",), 1), ((), 1),
    ],
)  # fmt: skip
def test_a_key_has_its_line(location, line):
    assert line_of(TEXT, location) == line
    assert line_of(TEXT.replace("\n", "\r\n"), location) == line


def test_what_is_no_toml_has_a_line_all_the_same():
    assert line_of("[a]\nx = 1\n[a\ny = 2\n", ("a", "x")) == 2
    assert line_of("x = [1,\n", ("x",)) == 1
    assert line_of("", ("x",)) == 1
