"""The live pages as a real browser shows them."""

import importlib.util
import time
from pathlib import Path

import pytest

# The driver of Chromium stands with the report's tests.
_PATH = Path(__file__).parents[1] / "report" / "test_browser.py"
_SPEC = importlib.util.spec_from_file_location("_report_browser", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
driver = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(driver)

pytestmark = driver.pytestmark


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = driver.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def show(browser, server):
    """Return a way to open a page of the server."""

    class Page:
        def __init__(self, path):
            self.path = path

        def as_uri(self):
            return server.url + self.path

    return lambda path, *arguments, **more: browser.show(Page(path), *arguments, **more)


def until(browser, expression):
    """Wait until an expression is true in the page."""
    for _ in range(1200):
        if browser.eval(expression):
            return
        time.sleep(0.05)
    raise AssertionError(expression)


PATHS = ["", "?words=shoe", "?where=widht", "overview", "sql", "sql?q=FROM+samples", "SAMPLE",
         "alike?uid=SAMPLE&features=tiny_img"]  # fmt: skip


def real(path, known):
    return path.replace("SAMPLE", known.uid(5)) if "?" in path else path.replace(
        "SAMPLE", "sample/" + known.uid(5)
    )  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_asked_of_others_nothing_complains_and_nothing_scrolls_sideways(
    browser, show, server, known, path
):
    for width in (320, 390, 1280):
        show(real(path, known), width)
        browser.eval(driver.OPEN_ALL)
        assert browser.eval("document.documentElement.scrollWidth") <= width
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert all(url.startswith(server.url) for url in asked), asked
    status = [e for e in browser.complaints() if "404" not in str(e) and "400" not in str(e)]
    assert status == []
    assert browser.eval("document.querySelectorAll('img[src=x]').length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_are_readable(browser, show, known, dark):
    for path, selectors in (
        ("?words=shoe", ("nav a", ".note", ".said", ".fact", "label", "summary")),
        ("?where=widht", (".error",)),
        ("sql?q=FROM+samples", ("h1", "th", "td", "td code", "textarea")),
        ("sample/" + known.uid(5), ("dt", "dd", ".caption")),
    ):
        show(path, dark=dark)
        for selector in selectors:
            assert driver.contrast(browser, selector) >= 4.5, (path, selector)


def test_searching_by_keyboard(browser, show):
    show("")
    browser.press("/", 191, "/")
    assert browser.eval("document.activeElement.id") == "words"
    for letter in "shoes":
        browser.press(letter, 0, letter)
    browser.press("Enter", 13, "\r")
    until(browser, "location.search.includes('words=shoes')")
    until(browser, "document.querySelector('#count')?.textContent == 'All that match: 23.'")
    cards = browser.eval("document.querySelectorAll('.gallery.live a').length")
    assert cards == 23
    browser.eval("document.activeElement.blur()")
    browser.press("ArrowRight", 39)
    browser.press("j", 74, "j")
    place = "[...document.querySelectorAll('.gallery.live a')].indexOf(document.activeElement)"
    assert browser.eval(place) == 1
    assert browser.eval("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13, "\r")
    until(browser, "location.pathname.startsWith('/sample/')")


def test_the_next_page_by_key(browser, show, known):
    show("")
    # The page of a sample that the test before went to may have been loaded only now.
    until(browser, "location.pathname == '/' && document.readyState == 'complete'")
    browser.press("n", 78, "n")
    until(browser, "location.search == '?after=48'")
    until(browser, "document.querySelectorAll('.gallery.live a').length == 48")
    first = browser.eval("document.querySelector('.gallery.live a').getAttribute('href')")
    assert first == "/sample/" + known.uid(48)


def test_images_are_shown_and_broken_ones_named(browser, show):
    show("")
    until(browser, "document.querySelectorAll('.broken').length == 2")
    broken = browser.eval("[...document.querySelectorAll('.broken')].map(b => b.textContent)")
    assert broken == ["no readable image", "image not at hand"]
    until(browser, "document.images[0].naturalWidth > 0")


def test_sql_is_run_from_the_keyboard(browser, show):
    show("sql")
    browser.eval("document.querySelector('textarea').focus()")
    for letter in "SELECT 6*7 AS a":
        browser.press(letter, 0, letter)
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", modifiers=2,
                 windowsVirtualKeyCode=13)  # fmt: skip
    until(browser, "document.querySelector('td')?.textContent == '42'")
    assert browser.eval("document.querySelector('textarea').value") == "SELECT 6*7 AS a"


def test_an_image_from_the_disk_is_searched_by(browser, show, known, tmp_path):
    file = tmp_path / "mine.png"
    file.write_bytes(known.picture(30))
    show("")
    # Not by the number of a node: numbers are given anew whenever the document is.
    found = browser.call("Runtime.evaluate", expression="document.querySelector('#file')")
    browser.call("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=[str(file)])
    until(browser, "document.querySelector('h1').textContent == 'Like your image'")
    first = browser.eval("document.querySelector('.gallery.live a').getAttribute('href')")
    assert first == "/sample/" + known.uid(30)


def test_pages_say_what_they_are_to_those_who_cannot_see(browser, show, known):
    for path in PATHS:
        show(real(path, known))
        assert browser.eval("document.documentElement.lang") == "en"
        assert browser.eval("document.querySelectorAll('h1').length") == 1
        assert browser.eval("!!document.querySelector('nav') && !!document.querySelector('main')")
        fields = "[...document.querySelectorAll('input, select, textarea')]"
        assert browser.eval(f"{fields}.every(f => f.labels.length == 1)") is True
        assert browser.eval("[...document.images].every(i => i.alt)") is True
