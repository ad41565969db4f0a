"""The pages as a real browser shows them, driven over Chromium's own protocol."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datacomp.curate.report import collect_sheets, write_contact_sheet, write_report
from datacomp.pools import Pool

NAMES = (
    "chromium", "chromium-browser", "chromium-headless-shell", "chrome", "chrome-headless-shell",
    "google-chrome", "google-chrome-stable", "headless_shell", "microsoft-edge",
)  # fmt: skip
PLACES = (
    "/usr/lib/chromium/chromium", "/usr/lib64/chromium-browser/chromium-browser",
    "/snap/bin/chromium", "/opt/google/chrome/chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip


def find_browser(given: str = "", places: tuple[str, ...] = PLACES) -> str | None:
    """Return the browser given (CHROME_BIN), else the first of the usual names and places."""
    candidates = [given] if given else [*NAMES, *places]
    return next((found for name in candidates if (found := shutil.which(name))), None)


BINARY = find_browser(os.environ.get("CHROME_BIN", ""))
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60

# The protocol's pipes are descriptors 3 and 4, which Popen cannot assign by itself.
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no Chromium found; docs/development.md says how to get it"
)


class Browser:
    """One tab of a headless Chromium: commands out on a pipe, answers and events back."""

    def __init__(self, profile: Path) -> None:
        out_end, self.commands = os.pipe()
        self.answers, in_end = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (out_end, in_end)]
        command = [str(BINARY), *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, ends), *command],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (out_end, in_end, *ends):
            os.close(end)
        self.buffer, self.number, self.events = b"", 0, []
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _receive(self):
        until = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], until - time.monotonic())
            assert ready, "the browser does not answer"
            data = os.read(self.answers, 1 << 20)
            assert data, "the browser is gone"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def show(self, page: Path, width: int = 1280, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        loader = self.call("Page.navigate", url=page.as_uri())["loaderId"]
        # Of this page: a page before it may say only now that it was loaded.
        while not any(
            event["method"] == "Page.lifecycleEvent"
            and (event["params"]["loaderId"], event["params"]["name"]) == (loader, "load")
            for event in self.events
        ):
            self.events.append(self._receive())

    def eval(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text,
                      windowsVirtualKeyCode=code)  # fmt: skip

    def complaints(self) -> list:
        bad = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in bad]

    def requests(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self.session = None
        self.call("Browser.close")
        self.process.wait(SECONDS)
        os.close(self.commands)
        os.close(self.answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def report(tmp_path, pool, chosen, make_results):
    results = make_results(["first", "second", "third"], tasks=3)
    results["datasets"][1]["scores"]["t0"]["mean"] = None
    results["datasets"][2]["size"], results["datasets"][1]["size"] = 9, 80
    uids = [r[0] for r in pool.sql("SELECT printf('%032x', uid) FROM samples").fetchall()]
    dataset = chosen("first", uids[:20], [(uid, "f", "too_small") for uid in uids[20:]])
    path = tmp_path / "report.html"
    write_report(path, results, collect_sheets(pool, [dataset], per_sheet=50))
    return path


@pytest.fixture
def large(tmp_path, make_results):
    names = [f"dataset_{i:02d}_".ljust(80, "x") for i in range(20)]
    path = tmp_path / "large.html"
    write_report(path, make_results(names, tasks=38, seeds=3, groups=5), [])
    return path


@pytest.fixture
def contact(tmp_path, pool):
    path = tmp_path / "contact.html"
    pool.close()
    with Pool.open(pool.path, read_only=True, confined=True) as confined:
        write_contact_sheet(confined, path)
    return path


ORDER = "[...document.querySelectorAll('#{} tbody th')].map(th => th.textContent).join()"
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


def order(browser: Browser, table: str = "board") -> str:
    """Return the datasets in the order of a table's rows."""
    return browser.eval(ORDER.format(table))


def click(browser: Browser, title: str, table: str = "board") -> tuple[str, str]:
    """Click a heading; return the order of rows and the heading's aria-sort."""
    buttons = f"[...document.querySelectorAll('#{table} thead button')]"
    button = f"{buttons}.find(b => b.textContent == '{title}')"
    browser.eval(f"{button}.click()")
    return order(browser, table), browser.eval(f"{button}.closest('th').getAttribute('aria-sort')")


@pytest.mark.parametrize("name", ["report", "contact"])
def test_no_request_and_no_complaint(browser, request, name):
    page = request.getfixturevalue(name)
    browser.show(page)
    browser.eval(OPEN_ALL)
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []
    images = "[...document.images]"
    assert browser.eval(f"{images}.length") == 42
    assert browser.eval(f"{images}.every(i => i.complete && i.naturalWidth > 0)") is True


def test_sorting_by_click(browser, report):
    browser.show(report)
    assert order(browser) == "first,second,third"
    assert click(browser, "Size") == ("first,second,third", "descending")
    assert click(browser, "Size") == ("third,second,first", "ascending")
    assert click(browser, "Dataset") == ("first,second,third", "ascending")
    assert click(browser, "Dataset") == ("third,second,first", "descending")
    assert click(browser, "Rank") == ("first,second,third", "ascending")
    assert browser.eval("document.querySelectorAll('[aria-sort]').length") == 1


def test_rows_without_a_value_stay_last(browser, report):
    browser.show(report)
    assert click(browser, "Task 0", "scores") == ("first,third,second", "descending")
    assert click(browser, "Task 0", "scores") == ("third,first,second", "ascending")
    assert order(browser) == "first,second,third"


def test_sorting_by_keyboard(browser, report):
    browser.show(report)
    browser.eval("document.querySelector('.scroll').focus()")
    for _ in range(4):
        browser.press("Tab", 9)
    assert browser.eval("document.activeElement.textContent") == "Size"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.eval(outline) == "solid"
    browser.press("Enter", 13, "\r")
    browser.press("Enter", 13, "\r")
    assert order(browser) == "third,second,first"
    assert order(browser, "scores") == "first,second,third"


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
@pytest.mark.parametrize("name", ["report", "large", "contact"])
def test_the_page_never_scrolls_sideways(browser, request, name, width):
    browser.show(request.getfixturevalue(name), width)
    browser.eval(OPEN_ALL)
    assert browser.eval("document.documentElement.scrollWidth") <= width
    if name == "large":
        region = "document.querySelector('#scores').parentElement"
        assert browser.eval(f"(s => s.scrollWidth > s.clientWidth)({region})") is True


def test_what_decides_is_seen_without_scrolling(browser, report):
    browser.show(report, 1200)
    fits = "(s => s.scrollWidth <= s.clientWidth)(document.querySelector('#board').parentElement)"
    assert browser.eval(fits) is True


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overlaps_in_the_charts(browser, large, width):
    browser.show(large, width)
    overlaps = """(() => {
      const found = [];
      for (const svg of document.querySelectorAll('#size svg, #tasks details[open] svg')) {
        if (!svg.checkVisibility()) continue;
        const boxes = [...svg.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()]);
        boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
          if (p.left + 1 < q.right && q.left + 1 < p.right && p.top + 3 < q.bottom
              && q.top + 3 < p.bottom) found.push(a.textContent + ' | ' + b.textContent);
        }));
      }
      return found;
    })()"""
    assert browser.eval(overlaps) == []


def contrast(browser: Browser, selector: str) -> float:
    """Return the WCAG contrast of an element's text against the page."""
    function = """selector => {
      const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
          .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const node = document.querySelector(selector);
      const style = getComputedStyle(node);
      const ink = light(node.closest('svg') ? style.fill : style.color);
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    }"""
    return browser.eval(f"({function})({json.dumps(selector)})")


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_are_readable(browser, report, dark):
    browser.show(report, dark=dark)
    paper = browser.eval("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(19, 21, 24)") is dark
    for selector in (
        "h1", ".note", "nav a", "tfoot td", "thead small", "svg .tick", "svg .label", ".eyebrow",
        ".truth.clean", ".truth.spoiled", "caption", "td small",
    ):  # fmt: skip
        assert contrast(browser, selector) >= 4.5, selector
