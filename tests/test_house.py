"""The house stands: who may import whom, what is packaged, what no file may mention."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]

FLOORS = {
    "pools": set(),
    "filters": {"pools"},
    "evaluate": {"pools"},
    "distribution": {"pools"},
    "curate": {"pools", "filters", "evaluate", "distribution"},
}
"""Which other floors each may import. The modules at the root are for everyone."""

HEAVY = ("torch", "open_clip", "duckdb", "polars", "pyarrow", "pandas", "pydantic", "numpy",
         "matplotlib", "sklearn", "webdataset", "PIL")  # fmt: skip

NOT_PACKAGED = ("tests", "docs", "examples", "build", "dist", "demo")


def packages() -> list[str]:
    """Return the dotted names of all packages that lie below the root, the root first."""
    found = [path.parent.relative_to(ROOT).parts for path in files(".py", "__init__.py")]
    return sorted(".".join(("datacomp", *parts)) for parts in found)


def files(suffix: str, name: str | None = None) -> Iterator[Path]:
    """Yield the files of the package with a suffix."""
    for path in sorted(ROOT.rglob(name or f"*{suffix}")):
        parts = path.relative_to(ROOT).parts
        if parts[0] not in NOT_PACKAGED and not any(_is_hidden(part) for part in parts[:-1]):
            yield path


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__" or part.endswith(".egg-info")


MODULES = list(files(".py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield what a module imports from the package, from the root: ``("pools", "pool")``.

    Imports inside functions count, and so do those under TYPE_CHECKING. ``from . import x`` and
    ``from .a import x`` both yield x as the last part, since it may be a module.
    """
    package = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            kept = len(package) - (node.level - 1)
            assert kept >= 0, f"{_name(path)}:{node.lineno} leaves the package"
            base = (*package[:kept], *(node.module.split(".") if node.module else ()))
            for name in node.names:
                yield (*base, name.name)


def test_the_modules_are_found() -> None:
    names = {_name(path) for path in MODULES}
    assert {"__init__.py", "errors.py", "pools/pool.py", "curate/cli/pool.py"} <= names
    assert len(names) > 60


def test_imports_are_found() -> None:
    assert ("pools", "pool", "Pool") in set(imports(ROOT / "curate/cli/pool.py"))  # in a function
    assert ("errors", "DatacompError") in set(imports(ROOT / "curate/cli/__init__.py"))
    assert ("__version__",) in set(imports(ROOT / "curate/cli/__init__.py"))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_floors(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    allowed = {own} | FLOORS[own] if own in FLOORS else set()
    for target in imports(path):
        if target[0] in FLOORS:
            assert target[0] in allowed, f"{_name(path)} imports {'.'.join(target)}"


def test_every_floor_is_known() -> None:
    assert {name.split(".")[1] for name in packages() if "." in name} == set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_of_the_package_are_relative(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] != "datacomp", f"{_name(path)}:{node.lineno}"


def test_the_package_list_is_complete() -> None:
    assert sorted(SETUPTOOLS["packages"]) == packages()


def test_package_data_is_complete() -> None:
    """Every pattern finds a file, and every file that is not code is found by one."""
    packaged: set[Path] = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            found = set(folder.glob(pattern))
            assert found, f"{package}: {pattern} matches nothing"
            packaged |= found
    there = {
        path
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*")
        if path.is_file() and path.suffix != ".py"
        and not any(_is_hidden(part) for part in path.relative_to(ROOT).parts)
    }  # fmt: skip
    assert there <= packaged, f"not packaged: {sorted(map(str, there - packaged))}"


def test_the_root_module_imports_nothing() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


HELP = """
import sys, time
started = time.process_time()
from datacomp.curate.cli import cli
try:
    cli.main(sys.argv[1:] + ["--help"], prog_name="datacomp")
except SystemExit as stop:
    assert stop.code == 0, stop.code
seconds = time.process_time() - started
print("HEAVY", *sorted(set(sys.modules) & set({heavy!r})), file=sys.stderr)
print("SECONDS", seconds, file=sys.stderr)
"""


def run_help(*command: str) -> tuple[str, list[str], float]:
    """Return the text of a command's help, the heavy modules it imported, and its CPU seconds."""
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(heavy=HEAVY), *command],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    heavy, seconds = done.stderr.splitlines()
    return done.stdout, heavy.split()[1:], float(seconds.split()[1])


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    text, heavy, _ = run_help()
    assert "Curate image-text datasets" in text
    assert heavy == []
    # CPU time, since others may use the machine; half a second is what it should take.
    assert min(run_help()[2] for _ in range(3)) < 1.5


def test_help_of_commands_imports_nothing_heavy() -> None:
    from datacomp.curate.cli import COMMANDS

    for name in COMMANDS:
        text, heavy, _ = run_help(name)
        assert text.startswith(f"Usage: datacomp {name}")
        assert heavy == [], name


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every text file of the repository that is not made by a tool."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if parts[0] in ("build", "dist", "demo") or "node_modules" in parts:
            continue
        if any(_is_hidden(part) for part in parts):
            continue
        if path.is_file() and path.stat().st_size < 1 << 20:
            try:
                yield path, path.read_text()
            except UnicodeDecodeError:
                continue


def test_no_file_mentions_a_registry_or_a_machine() -> None:
    # Written in parts, so that this file does not mention them either.
    folders = "|".join(("root", "work"))
    forbidden = re.compile(rf"://{'py' + 'pi'}|(?<![\w.])/({folders})/")
    seen = 0
    for path, text in texts():
        seen += 1
        found = forbidden.search(text)
        assert found is None, f"{_name(path)} mentions {found[0] if found else ''}"
    assert seen > 100


def test_constraints_are_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 50
    for line in lines:
        assert re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.!]+", line), line
    versions: dict[str, str] = {}
    for line in lines:
        name, version = line.split("==")
        assert versions.setdefault(name, version) == version, f"two versions of {name}"


def test_every_dependency_is_pinned() -> None:
    project = PYPROJECT["project"]
    asked = [*project["dependencies"], *PYPROJECT["dependency-groups"]["dev"]]
    for extra in project["optional-dependencies"].values():
        asked += [item for item in extra if not item.startswith("datacomp[")]
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for item in asked:
        name = re.split(r"[<>=~!\[; ]", item)[0].lower().replace("_", "-")
        assert name in pinned, f"{name} is not in constraints.txt"
