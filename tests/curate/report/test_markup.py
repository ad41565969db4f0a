import base64
import hashlib

import pytest
from datacomp.curate.report.markup import (
    Html,
    breakable,
    decimal,
    document,
    el,
    escape,
    join,
    number,
    percent,
    shorten,
)
from hypothesis import given
from hypothesis import strategies as st


def test_plain_text_is_escaped_and_html_is_not():
    assert join("<b>", Html("<i>x</i>"), 3, None, ["&", Html("<br>")]) == (
        "&lt;b&gt;<i>x</i>3&amp;<br>"
    )


def test_element_attributes():
    made = el(
        "p", "x", class_="a", aria_label='"q"', hidden=True, title=None, open=False, tabindex=0
    )
    assert made == '<p class="a" aria-label="&quot;q&quot;" hidden tabindex="0">x</p>'
    assert el("br") == "<br>"
    assert el("meta", name="x", content=1.5) == '<meta name="x" content="1.5">'


def test_what_cannot_be_shown_is_replaced():
    assert escape("a\x00b\x1b\ud800c\n\t\uffff") == "a\ufffdb\ufffd\ufffdc\n\t\ufffd"


@given(st.text())
def test_any_text_comes_back_from_the_page(text):
    from html.parser import HTMLParser

    said: list[str] = []
    seen: list[str | None] = []

    class Parser(HTMLParser):
        def handle_data(self, data):
            said.append(data)

        def handle_starttag(self, tag, attrs):
            assert tag == "p"
            seen.append(dict(attrs)["title"])

    parser = Parser()
    made = el("p", text, title=text)
    made.encode()
    parser.feed(made)
    parser.close()
    assert seen == ["".join(said)]
    assert len(seen[0] or "") == len(text)


@given(st.lists(st.text()))
def test_breakable_keeps_the_text(parts):
    name = "_".join(parts)
    assert breakable(name).replace("<wbr>", "") == escape(name)


def test_breakable_offers_breaks_after_separators():
    assert breakable("a_b__c=1") == "a_<wbr>b__<wbr>c=<wbr>1"


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.5, "0.5"), (-0.5, "-0.5"), (-0.001, "0"), (100.0, "100")]
)
def test_number(value, text):
    assert number(value) == text


def test_scores_and_shares():
    assert decimal(0.12345) == "0.123"
    assert decimal(None) == decimal(float("nan")) == "–"
    assert percent(0.125) == "12.5 %"
    assert percent(None) == "–"


def test_shorten():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abc defg", 5) == "abc…"


def test_document_allows_its_own_style_and_script_only(parse):
    page = parse(document("<t>", Html("<p>x</p>"), "let a = '<' + 1;"))
    style, script = page.one("style").text, page.one("script").text
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    assert page.one("title").text == "<t>"
    assert page.one("html").attributes["lang"] == "en"
    assert "url(" not in style
    assert "@import" not in style


def test_document_without_a_script_allows_none(parse):
    page = parse(document("t", Html("")))
    assert page.all("script") == []
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert "script-src" not in policy
