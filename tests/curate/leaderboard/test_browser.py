"""The site as a real browser shows it, from the disk and from the live server."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from datacomp.curate.leaderboard.server import tokens
from datacomp.curate.leaderboard.site import build_site
from datacomp.evaluate.leaderboard.store import add

# The driver of Chromium stands with the report's tests.
_PATH = Path(__file__).parents[1] / "report" / "test_browser.py"
_SPEC = importlib.util.spec_from_file_location("_report_browser", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
driver = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(driver)

pytestmark = driver.pytestmark

HOSTILE = "<img src=x onerror=alert(1)> & \"'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = driver.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory, submissions):
    root = tmp_path_factory.mktemp("site")
    for folder in [*submissions(7), *submissions(1, seeds=(0, 1)), *submissions(2, "medium"),
                   *submissions(1, method=HOSTILE)]:  # fmt: skip
        add(root / "store", folder)
    return build_site(root / "store", root / "site", "A board").path


PAGES = ("index.html", "small.html", "medium.html", "xlarge.html", "small-compare.html",
         "small-tasks.html", "scaling.html", "about.html")  # fmt: skip


def entry(site, n=0):
    return sorted((site / "entries").iterdir())[n].relative_to(site).as_posix()


def names(browser):
    return browser.eval(
        "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden)"
        ".map(r => r.querySelector('th .fit > *').textContent)"
    )


@pytest.mark.parametrize("page", [*PAGES, "entry"])
def test_nothing_is_asked_of_others_and_nothing_complains(browser, site, page):
    page = entry(site) if page == "entry" else page
    browser.show(site / page)
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert all(url.startswith(site.as_uri()) for url in asked), asked
    assert browser.complaints() == []
    assert browser.eval("document.documentElement.classList.contains('script')") is True
    assert browser.eval("getComputedStyle(document.body).marginTop") == "0px"


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("page", [*PAGES, "entry"])
def test_no_page_scrolls_sideways(browser, site, page, width):
    browser.show(site / (entry(site) if page == "entry" else page), width)
    browser.eval(driver.OPEN_ALL)
    assert browser.eval("document.documentElement.scrollWidth") <= width


def test_sorting(browser, site):
    browser.show(site / "small.html")
    before = names(browser)
    assert len(before) == 16
    shown, way = driver.click(browser, "Samples")
    assert way == "descending"
    assert names(browser)[0] == "No filtering"
    assert driver.click(browser, "Rank")[1] == "ascending"
    assert names(browser) == before
    del shown


def test_filtering(browser, site):
    browser.show(site / "small.html")
    count = "document.getElementById('shown').textContent"
    assert browser.eval(count) == "16 of 16 rows"
    browser.eval("document.getElementById('cited').click()")
    assert browser.eval(count) == "9 of 16 rows"
    browser.eval(
        "(t => { t.value = 'byod'; t.dispatchEvent(new Event('input')) })"
        "(document.getElementById('track'))"
    )
    rows = "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden)"
    assert browser.eval(f"{rows}.every(r => r.dataset.track === 'byod')") is True
    assert browser.eval(f"{rows}.length") == 5
    # What is chosen stands in the address and comes back with it.
    address = browser.eval("location.href")
    assert address.endswith("#track=byod&cited=no")
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=address)
    driver.time.sleep(0.5)
    assert browser.eval(count) == "5 of 16 rows"


def test_searching_by_keyboard(browser, site):
    browser.show(site / "small.html")
    browser.eval("document.getElementById('find').focus()")
    for letter in "text-b":
        browser.press(letter, 0, letter)
    assert names(browser) == ["Text-based"]
    for _ in range(4):  # track, baselines, table region, first heading
        browser.press("Tab", 9)
    assert browser.eval("document.activeElement.textContent") == "Rank"
    assert browser.eval("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_ties_are_told_to_those_who_cannot_see(browser, site):
    browser.show(site / "small.html")
    ranks = browser.eval("[...document.querySelectorAll('#board td.rank')].map(c => c.textContent)")
    assert any("= tied with" in rank for rank in ranks)
    assert browser.eval("document.querySelector('#shown').getAttribute('role')") == "status"
    landmarks = "['nav', 'main', 'header'].every(n => document.querySelector(n))"
    assert browser.eval(landmarks) is True
    assert browser.eval("[...document.querySelectorAll('svg[role=img]')].every(s => "
                        "s.getAttribute('aria-label'))") is True  # fmt: skip


def test_every_task_stands_beside_the_published_baselines(browser, site):
    page = next(p for p in (site / "entries").iterdir() if "Scale small" in p.read_text())
    browser.show(page)
    heads = browser.eval(
        "[...document.querySelectorAll('#task-table thead th')].map(h => h.textContent)"
    )
    assert heads[4:6] == ["LAION-2B filtering", "CLIP score (L/14 30%)"]
    cells = browser.eval(
        "[...document.querySelectorAll('#task-table tbody tr')]"
        ".map(r => [r.cells[4].textContent, r.cells[5].textContent])"
    )
    assert len(cells) == 38
    assert cells[1] == ["0.336", "0.477"]  # CIFAR-10


def test_comparing_two(browser, site):
    browser.show(site / "small-compare.html")
    verdict = "document.getElementById('verdict').textContent"
    rows = "document.querySelectorAll('#task-table tbody tr').length"
    assert browser.eval(rows) == 38
    pick = "(s, i) => { s.value = window.board.rows.filter(r => !r.cited)[i].id; " \
           "s.dispatchEvent(new Event('input')) }"  # fmt: skip
    browser.eval(f"({pick})(document.getElementById('a'), 0)")
    browser.eval(f"({pick})(document.getElementById('b'), 8)")
    first = browser.eval(verdict)
    assert "A is higher" in first or "too close to call" in first
    difference = browser.eval("document.querySelectorAll('#groups tbody td')[2].textContent")
    browser.eval("document.getElementById('swap').click()")
    swapped = browser.eval("document.querySelectorAll('#groups tbody td')[2].textContent")
    assert {difference[0], swapped[0]} == {"+", "−"}
    assert difference[1:] == swapped[1:]
    assert browser.eval("location.hash").startswith("#a=")
    # The table sorts, also after other rows were chosen.
    found, way = driver.click(browser, "B − A", "task-table")
    assert way == "descending"
    values = (
        "[...document.querySelectorAll('#task-table tbody tr')].map(r => +r.cells[3].dataset.value)"
    )
    ordered = browser.eval(values)
    assert ordered == sorted(ordered, reverse=True)
    assert browser.complaints() == []
    del found


def test_the_choice_to_compare_can_be_shared(browser, site):
    browser.show(site / "small-compare.html")
    ids = browser.eval("window.board.rows.filter(r => !r.cited).map(r => r.id)")
    page = (site / "small-compare.html").as_uri()
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=f"{page}#a={ids[3]}&b={ids[1]}")
    driver.time.sleep(0.5)
    assert browser.eval("document.getElementById('a').value") == ids[3]
    assert browser.eval("document.getElementById('b').value") == ids[1]


def test_script_in_a_name_stays_text(browser, site):
    for page in ("small.html", "small-compare.html", "index.html"):
        browser.show(site / page)
        assert browser.eval("document.querySelectorAll('img').length") == 0
        assert browser.complaints() == []
    browser.show(site / "small.html")
    assert HOSTILE in names(browser)


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_are_readable(browser, site, dark):
    browser.show(site / "small.html", dark=dark)
    for selector in ("h1", ".note", "nav a", "td small", ".cited td", ".cited th .fit", "caption",
                     "#shown", "svg .tick", "svg .label", ".badge"):  # fmt: skip
        assert driver.contrast(browser, selector) >= 4.5, selector
    browser.show(site / "small-compare.html", dark=dark)
    for selector in (".higher", ".tie", ".lower"):
        if browser.eval(f"!!document.querySelector('{selector}')"):
            assert driver.contrast(browser, selector) >= 4.5, selector


def test_every_link_leads_somewhere(site):
    import re

    pages = [*site.glob("*.html"), *site.glob("entries/*.html")]
    for page in pages:
        for target in re.findall(r'(?:href|src)="([^"#:]+)"', page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_submit_over_the_api_and_see_it_in_the_browser(
    browser, start_server, submissions, tar_of, tmp_path
):
    import urllib.request

    server = start_server(tmp_path / "store")
    token = tokens.create(server.store, "tester")
    (folder,) = submissions(1, method="Seen at last")

    class Page:
        def as_uri(self):
            return server.url + "small.html"

    browser.show(Page())
    assert "Seen at last" not in names(browser)
    request = urllib.request.Request(
        server.url + "api/submissions", tar_of(folder), method="POST",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-tar"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201
    browser.show(Page())
    assert "Seen at last" in names(browser)
    browser.eval("[...document.querySelectorAll('#board a')].find("
                 "a => a.textContent == 'Seen at last').click()")  # fmt: skip
    driver.time.sleep(0.5)
    assert browser.eval("document.querySelector('h1').textContent") == "Seen at last"
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert all(url.startswith(server.url) for url in asked)
    assert browser.complaints() == []


def test_building_again_replaces_the_site_and_nothing_else(site, tmp_path):
    from datacomp.errors import UsageError

    store = site.parent / "store"
    again = build_site(store, tmp_path / "again", "A board").path
    one = {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()}
    two = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert one == two
    (again / "stale.html").write_text("old")
    build_site(store, again, "A board")
    assert not (again / "stale.html").exists()
    shutil.rmtree(again)
    again.mkdir()
    (again / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="no leaderboard"):
        build_site(store, again)
