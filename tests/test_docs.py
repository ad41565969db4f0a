"""The pages tell the truth: everything there is, is told; everything told, is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from datacomp.curate.cli import cli
from datacomp.curate.workflow import load_study
from datacomp.curate.workflow.study import STAGES
from datacomp.errors import DatacompError
from datacomp.evaluate.scales import SCALES
from datacomp.evaluate.tasks import load_tasks
from datacomp.filters import registry
from datacomp.pools import Pool
from datacomp.pools.schema import CORE_COLUMNS
from datacomp.pools.sources import KINDS, source_class

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _load_generator()
COMMANDS = dict(generate.commands())


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(page: str, heading: str) -> str:
    """Return a section of a page: from its heading to the next of the same or a higher level."""
    lines = (DOCS / page).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if re.fullmatch(rf"#+ {heading}", line))
    level = len(lines[start]) - len(lines[start].lstrip("#"))
    body = []
    for line in lines[start + 1 :]:
        mark = re.match(r"#+ ", line)
        if mark and len(mark[0]) - 1 <= level:
            break
        body.append(line)
    return "\n".join(body)


# -- everything there is, is told ----------------------------------------------------------


def test_generated_parts_are_current() -> None:
    done = subprocess.run(  # the tests before have changed what this process would say
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_generated_part_stands_on_a_page() -> None:
    told = re.findall(r"<!-- generated: (\w+) -->", "".join(p.read_text() for p in PAGES))
    assert sorted(told) == sorted(generate.PARTS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_told(name: str) -> None:
    text = section("cli.md", name)
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            for flag in parameter.opts:
                assert re.search(rf"(^|[\s,]){flag}\b", text), f"{name} {flag}"
            assert parameter.help or parameter.name in ("batch_size",), f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example_that_works(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    lines = (command.epilog or "").splitlines()
    assert lines[:2] == ["\b", "Examples:"], f"{name} has no example"
    assert len(lines) > 2
    assert any(line.strip().startswith(name) for line in lines[2:])
    for line in lines[2:]:
        check_line(line.strip(), whole=True)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_filter_and_parameter_is_told(name: str) -> None:
    text = section("filters.md", name)
    assert registry.get(name).rule() in text.replace("`", "")
    for parameter in registry.parameters(registry.get(name)):
        assert f"| `{parameter.name}` |" in text
        assert parameter.help, f"{name}: {parameter.name} has no description"


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_and_option_is_told(kind: str) -> None:
    text = section("pools.md", kind)
    for option in source_class(kind).option_names():
        assert f"| `{option}` |" in text


@pytest.mark.parametrize("title", generate.SECTIONS)
def test_every_configuration_key_is_told(title: str) -> None:
    text = section("configuration.md", re.escape(f"`{title}`"))
    for key, field in generate.SECTIONS[title].model_fields.items():
        assert f"| `{field.alias or key}` |" in text
        assert field.description, f"{title}: {key} has no description"


def test_every_section_of_the_configuration_is_told() -> None:
    from datacomp.curate.workflow import Study

    told = {title.strip("[]").split(".")[0] for title in generate.SECTIONS}
    assert told == set(Study.model_fields)


def test_every_stage_and_scale_and_task_is_told() -> None:
    for stage in STAGES:
        assert f"`{stage}`" in (DOCS / "configuration.md").read_text()
    for scale in SCALES:
        assert f"| `{scale}` |" in (DOCS / "training.md").read_text()
    for task in load_tasks().values():
        assert f"| `{task.key}` | {task.name} |" in section("tasks.md", task.suite)


def test_every_reason_of_a_source_is_told() -> None:
    """Reasons are arguments of SetAside and its helper, or the message of a ValueError."""
    places = {"SetAside": 1, "ValueError": 0, "_take_out": 3}
    reasons = set()
    for path in (ROOT / "pools" / "sources").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = places.get(node.func.id)
            if place is not None and len(node.args) > place:
                value = node.args[place]
                if isinstance(value, ast.Constant):
                    reasons.add(value.value)
    assert {"image_broken", "caption_not_utf8", "no_url"} <= reasons
    told = set(re.findall(r"`(\w+)`", section("pools.md", "Set aside")))
    assert reasons <= told, f"not told: {sorted(reasons - told)}"


def test_every_table_and_column_of_a_pool_is_told(tmp_path: Path) -> None:
    told = set(re.findall(r"`(\w+)`", section("formats.md", "Pool")))
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        tables = {row[0] for row in pool.sql("SHOW TABLES").fetchall()}
    assert tables <= told
    assert set(CORE_COLUMNS) <= told


# -- everything told, is there -------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_point_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.is_relative_to(ROOT), link
        assert path.exists(), f"{link} in {_name(page)}"
        if anchor:
            assert anchor in anchors(path), f"{link} in {_name(page)}"


def test_every_page_is_on_the_map() -> None:
    for page in DOCS.glob("*.md"):
        if page.name != "index.md":
            assert f"({page.name})" in (DOCS / "index.md").read_text()
            assert f"(docs/{page.name})" in (ROOT / "README.md").read_text()


def check_line(line: str, whole: bool) -> None:
    """Parse a command line without running it; ``whole`` says that no argument may be missing."""
    words = shlex.split(line, comments=True)
    if "-m" in words and "datacomp.curate.cli" in words:
        words = ["datacomp", *words[words.index("datacomp.curate.cli") + 1 :]]
    assert words[0] == "datacomp", line
    command: click.Command = cli
    context = click.Context(cli, info_name="datacomp", **cli.context_settings)
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"no such command: {line}"
        command = found
        context = click.Context(command, parent=context, info_name=rest.pop(0))
    if isinstance(command, click.Group):
        return
    try:
        with command.make_context(context.info_name, rest, parent=context.parent):
            pass
    except click.exceptions.Exit:  # --help
        pass
    except click.UsageError as error:
        if whole or not isinstance(error, click.MissingParameter):
            pytest.fail(f"{line}: {error.format_message()}")


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of indented and fenced blocks, continuation lines joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    fenced = [line for kind, body in FENCE.findall(text) if kind in ("", "bash", "console")
              for line in body.splitlines()]  # fmt: skip
    indented = re.findall(r"^ {4}(.*)$", FENCE.sub("", text), re.MULTILINE)
    yield from (line.removeprefix("$ ") for line in [*fenced, *indented])


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_command_lines_exist(page: Path) -> None:
    text = page.read_text()
    for line in code_lines(text):
        if re.match(r"datacomp [a-z-]|torchrun ", line):
            check_line(line, whole=True)
    for line in re.findall(r"`(datacomp [^`\n]+)`", FENCE.sub("", text)):
        check_line(line, whole=False)


def test_command_lines_are_checked_at_all() -> None:
    with pytest.raises(AssertionError, match="no such command"):
        check_line("datacomp pool fill pool.duckdb", whole=True)
    with pytest.raises(pytest.fail.Exception, match="No such option"):
        check_line("datacomp pool info pool.duckdb --jason", whole=True)
    with pytest.raises(pytest.fail.Exception, match="Missing argument"):
        check_line("datacomp pool info", whole=True)
    lines = [line for page in PAGES for line in code_lines(page.read_text())]
    assert sum(line.startswith("datacomp ") for line in lines) > 40


def filter_names(text: str) -> Iterator[str]:
    for line in code_lines(text):
        words = shlex.split(line, comments=True) if line.startswith("datacomp filter run ") else []
        for word in words[4:]:
            if word.startswith("-"):
                break
            yield word


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_filters_on_command_lines_can_be_made(page: Path) -> None:
    from datacomp.filters import parse
    from datacomp.filters.expression import COMBINE
    from datacomp.filters.spec import NOT

    for text in filter_names(page.read_text()):
        if text in (NOT, "(", ")", *COMBINE):
            continue
        spec = parse(text)
        if ".py:" in spec.use and not (ROOT / spec.use.split(":")[0]).is_file():
            continue  # a file the reader writes; tested below
        parse(text.replace("examples/", f"{ROOT}/examples/")).make()


BASE = {
    "pool": '[pool]\n[[pool.source]]\nkind = "glyphs"\n',
    "dataset": '[[dataset]]\nname = "all"\nfilters = [{ use = "no_filter" }]\n',
}

TOML = [(p, body) for p in PAGES for kind, body in FENCE.findall(p.read_text()) if kind == "toml"]


@pytest.mark.parametrize(("page", "text"), TOML, ids=lambda value: _name(value)
                         if isinstance(value, Path) else "")  # fmt: skip
def test_configurations_are_valid(page: Path, text: str, tmp_path: Path) -> None:
    given = tomllib.loads(text)
    if "project" in given:
        assert list(given["project"]["entry-points"]) == [registry.GROUP]
        return
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = tmp_path / "datacomp.toml"
    path.write_text(text + "\n" + "".join(BASE[key] for key in BASE if key not in given))
    study = load_study(path)
    assert [dataset.name for dataset in study.dataset] == [
        dataset["name"] for dataset in given.get("dataset", [{"name": "all"}])
    ]


def test_configurations_are_shown_at_all() -> None:
    assert any("[[dataset]]" in text for _, text in TOML)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=_name)
def test_examples_are_valid_studies(path: Path) -> None:
    study = load_study(path)
    assert len(study.dataset) > 1


PYTHON = [(p, body) for p in PAGES for kind, body in FENCE.findall(p.read_text())
          if kind == "python"]  # fmt: skip


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=lambda value: _name(value)
                         if isinstance(value, Path) else "")  # fmt: skip
def test_python_imports_what_exists(page: Path, text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("datacomp"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module}.{name.name}"


# -- the examples do what the pages say ----------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Four photos: a sharp one, a smooth one, a sharp one with a loud caption, a broken file."""
    import numpy as np
    from datacomp.pools.sources import open_source
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    smooth = np.broadcast_to(np.linspace(90, 110, 40, dtype=np.uint8)[:, None], (40, 40))
    pictures = {"sharp": noise, "smooth": smooth, "loud": noise[::-1]}
    captions = {"sharp": "a lot of noise", "smooth": "mist!", "loud": "buy! now! it is noise!"}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(captions[name])
    (folder / "broken.png").write_bytes(b"\x89PNG")
    (folder / "broken.txt").write_text("a broken picture")
    with Pool.create(folder / "pool.duckdb") as made:
        assert made.add(open_source("folder", folder)).set_aside == {"image_broken": 1}
        yield made


def _kept(pool: Pool, text: str) -> tuple[set[str], dict[str, int]]:
    from datacomp.filters import parse, run_filters
    from datacomp.pools.uids import to_hex

    chosen = run_filters(pool, [parse(text)])
    names = dict(pool.sql("SELECT printf('%032x', uid), url FROM samples").fetchall())
    return {names[uid] for uid in to_hex(chosen.uids)}, chosen.steps[0].reasons


def test_the_sharpness_example_keeps_sharp_images(pool: Pool) -> None:
    example = f"{ROOT}/examples/sharpness.py:Sharpness"
    assert _kept(pool, example) == ({"sharp.png", "loud.png"}, {"blurred": 1})
    assert _kept(pool, f"{example}:min=0") == ({"sharp.png", "smooth.png", "loud.png"}, {})
    with pytest.raises(DatacompError, match="expected at least 0"):
        _kept(pool, f"{example}:min=-1")


def test_the_sharpness_example_gives_no_score_to_what_it_cannot_see() -> None:
    module = registry.get(f"{ROOT}/examples/sharpness.py:Sharpness").__module__
    sharpness = sys.modules[module].sharpness
    assert sharpness(b"no image") is None


def test_the_loud_caption_of_the_page_works(pool: Pool, tmp_path: Path) -> None:
    text = next(text for _, text in PYTHON if "class LoudCaption" in text)
    (tmp_path / "loud.py").write_text(text)
    use = f"{tmp_path}/loud.py:LoudCaption"
    assert _kept(pool, use) == ({"sharp.png", "smooth.png"}, {"loud": 1})
    assert _kept(pool, f"{use}:marks=0") == ({"sharp.png"}, {"loud": 2})


def test_the_page_shows_the_sharpness_example_as_it_is() -> None:
    """Apart from imports, hints and docstrings of methods."""
    shown = next(text for _, text in PYTHON if "class SharpnessScorer" in text)
    real = (ROOT / "examples" / "sharpness.py").read_text()

    def bare(text: str) -> dict[str, str]:
        found = {}
        for node in ast.parse(text).body:
            if not isinstance(node, ast.ClassDef):
                continue
            node.bases = []
            for part in ast.walk(node):
                if isinstance(part, ast.FunctionDef):
                    part.returns = None
                    for argument in part.args.args:
                        argument.annotation = None
                if isinstance(part, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(part):
                    part.body = part.body[1:]
            found[node.name] = ast.unparse(node)
        return found

    assert bare(shown) == bare(real)
    assert len(bare(real)) == 2


def test_the_report_picture_is_small_and_sound() -> None:
    from PIL import Image

    path = DOCS / "report.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.width > 1000


def test_the_demo_table_of_the_readme_is_whole() -> None:
    table = re.search(r"<!-- demo -->(.*?)<!-- /demo -->", (ROOT / "README.md").read_text(), re.S)
    assert table is not None
    config = tomllib.loads((ROOT / "datacomp.toml").read_text())
    told = re.findall(r"^\| \d+=? \| (\w+) \|", table[1], re.MULTILINE)
    assert sorted(told) == sorted(dataset["name"] for dataset in config["dataset"])
