"""A module that a filter needs is missed before the work begins."""

import re
import tomllib
from pathlib import Path

import pytest
from datacomp.filters import registry

ROOT = Path(__file__).parents[2]
CODE = """\
from datacomp.filters import Decision, Filter

class Mine(Filter):
    "Keep all."
    needs = {"no_such_module": "text"}
    def decide(self, view):
        return [Decision("never", "true")]
"""


@pytest.mark.parametrize("words", ["{mine}", "( no_filter or not {mine} )"])
def test_it_is_told_before_any_filter_judges(tmp_path, monkeypatch, command, commonpool, words):
    (tmp_path / "mine.py").write_text(CODE)
    folder = commonpool(tmp_path / "metadata", files=2, rows=10)
    monkeypatch.chdir(tmp_path)
    words = words.format(mine="mine.py:Mine").split()
    for more in ((), ("--workers", "2")):
        code, _, errors = command("filter", "run", folder, *words, "-o", "out.npy", *more)
        assert (code, errors) == (
            1,
            "error: filter mine.py:Mine needs no_such_module, which is not installed: "
            "pip install -e '.[text]'\n",
        )
        assert not list(tmp_path.glob("*out*"))


def test_filters_by_clusters_need_faiss():
    found = {name: dict(registry.get(name).needs) for name in registry.names()}
    by_clusters = {name for name, needs in found.items() if "faiss" in needs}
    assert by_clusters == {
        "cluster_sampling", "d4", "density", "facility_location", "hierarchical", "semdedup",
        "ssl_prototypes",
    }  # fmt: skip
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {(one, extra) for needs in found.values() for one, extra in needs.items()}
    for module, extra in known:
        package = {"faiss": "faiss-cpu", "open_clip": "open_clip_torch"}.get(module, module)
        wanted = extras["optional-dependencies"][extra]
        assert any(re.match(rf"{package}[>=]", line) for line in wanted), (module, extra)


def test_the_demo_installs_what_its_filters_need():
    study = tomllib.loads((ROOT / "datacomp.toml").read_text())
    sections = [*study["truth"]["filters"], *(f for d in study["dataset"] for f in d["filters"])]
    needed = {extra for one in sections for extra in registry.get(one["use"]).needs.values()}
    line = re.search(r"\$\(VENV\)/demo-.*\n.*'\.\[(.*)\]'", (ROOT / "Makefile").read_text())
    assert line is not None
    assert "clusters" in needed
    assert needed <= set(line[1].split(","))
