"""Write the generated parts of the pages from the code: ``python docs/generate.py [--check]``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``. With
``--check`` nothing is written; the exit code says whether every page is current. ``--demo
demo/results.json`` puts the table of a demo's results into the README.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
from datacomp.curate.cli import cli
from datacomp.curate.workflow import config
from datacomp.evaluate.scales import CHECKPOINTS, SCALES
from datacomp.evaluate.tasks import Suite, Task, load_suites, load_tasks
from datacomp.filters import registry
from datacomp.pools.sources import KINDS, source_class
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
ROOT = DOCS.parent
WIDTH = 96

SECTIONS: dict[str, type[BaseModel]] = {
    "[study]": config.StudySection,
    "[pool]": config.PoolSection,
    "[[pool.source]]": config.SourceSection,
    "[[dataset]]": config.DatasetSection,
    "dataset.filters": config.FilterSection,
    "[shards]": config.ShardsSection,
    "[train]": config.TrainSection,
    "[evaluate]": config.EvaluateSection,
}

FILTER_EXAMPLES: dict[str, dict[str, Any]] = {
    "clip_score": {"arch": "l14", "fraction": 0.3},
    "random_subset": {"fraction": 0.1},
}
"""Parameters for the examples; the other filters need none."""

SOURCE_OPTIONS = {
    ("webdataset", "verify"): "decode every image to its last byte; false reads headers only",
    ("parquet", "url_column"): "column of the URL; else the first of `url`, `URL`, `image_url`",
    ("parquet", "text_column"): "column of the caption; else `text`, `caption`, `TEXT` or `alt`",
    ("csv", "url_column"): "column of the URL; else the first of `url`, `URL`, `image_url`",
    ("csv", "text_column"): "column of the caption; else `text`, `caption`, `TEXT` or `alt`",
    ("glyphs", "verify"): "decode every image again; they were drawn just before",
    ("glyphs", "samples"): "how many samples to draw",
    ("glyphs", "seed"): "another seed draws another pool",
    ("glyphs", "spoiled"): "share of samples that get a defect, 0 to 1",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its full name."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield name, command
            return
        context = click.Context(command, info_name=name)
        for part in command.list_commands(context):
            found = command.get_command(context, part)
            assert found is not None
            yield from walk(f"{name} {part}", found)

    yield from walk("datacomp", cli)


def cli_part() -> str:
    """Return the help of every command, word for word."""
    parts = [_help("datacomp", cli)]
    for name, command in commands():
        parts.append(f"## {name}\n\n{_help(name, command)}")
    return "\n\n".join(parts)


def _help(name: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=name, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return f"```text\n{command.get_help(context).rstrip()}\n```"


def filters_part() -> str:
    """Return rule, parameters, reasons and source of every built-in filter."""
    told: set[str] = set()
    return "\n\n".join(_filter(name, told) for name in registry.BUILT_IN)


def _filter(name: str, told: set[str]) -> str:
    """Return one filter's section; ``told`` are the sources that were named already."""
    found = registry.get(name)
    parameters = FILTER_EXAMPLES.get(name, {})
    inside = ",".join(f"{key}={value}" for key, value in parameters.items())
    rows = [
        (f"`{p.name}`", p.type, "required" if p.required else _value(p.default), _code(p.help))
        for p in registry.parameters(found)
    ]
    made = found(**parameters)
    reasons = [f"`{decision.reason}`" for decision in made.decide(_AnyPool())]  # pyright: ignore[reportArgumentType]
    whole = "the whole pool" if found.set_level else "each sample by itself"
    lines = [
        f"### {name}",
        _code(inspect.cleandoc(found.__doc__ or "")),
        f"Example: `{name}{':' if inside else ''}{inside}`. Looks at {whole}. "
        f"Reasons: {', '.join(reasons) or 'none, it drops nothing'}.",
    ]
    if rows:
        lines.append(_table(("parameter", "type", "default", "meaning"), rows))
    source = _source_of(found)
    if source and source not in told:
        told.add(source)
        lines.append(source)
    return "\n\n".join(lines)


def _source_of(found: type) -> str:
    module = inspect.getmodule(found)
    text = inspect.cleandoc(getattr(module, "__doc__", None) or "")
    return _code(next((p for p in text.split("\n\n") if p.startswith("Source:")), ""))


class _AnyPool:
    """A view that has every column, so that a filter says which reasons it can give."""

    relation = "candidates"

    def has(self, column: str) -> bool:
        return True

    def require(self, column: str, hint: str = "") -> str:
        return column

    def score(self, scorer: object) -> str:
        return "score"

    def scalar(self, query: str) -> Any:
        return 100

    def count(self) -> int:
        return 1000


def sources_part() -> str:
    """Return every kind of source with its options."""
    parts = []
    for kind in KINDS:
        found = source_class(kind)
        rows = []
        for option in fields(found):
            if option.name == "path":
                continue
            default = None if option.default is MISSING else option.default
            kind_of = type(default).__name__
            rows.append((f"`{option.name}`", kind_of, _value(default),
                         SOURCE_OPTIONS[kind, option.name]))  # fmt: skip
        lines = [f"### {kind}", _code(inspect.cleandoc(found.__doc__ or ""))]
        table = _table(("option", "type", "default", "meaning"), rows) if rows else "No options."
        parts.append("\n\n".join([*lines, table]))
    return "\n\n".join(parts)


def config_part() -> str:
    """Return every section and key of datacomp.toml."""
    parts = []
    for title, model in SECTIONS.items():
        rule = inspect.cleandoc(model.__doc__ or "").removeprefix(f"{title}: ")
        rows = [
            (f"`{name}`", _type(field.annotation), _value(field.get_default()),
             _code(field.description or ""))
            for name, field in model.model_fields.items()
        ]  # fmt: skip
        text = rule[0].upper() + rule[1:]
        parts.append(
            f"### `{title}`\n\n{_code(text)}\n\n"
            + _table(("key", "type", "default", "meaning"), rows)
        )
    return "\n\n".join(parts)


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if hasattr(annotation, "__args__") and "Literal" in text:
        return " or ".join(f"`{value}`" for value in annotation.__args__)
    text = re.sub(r"[\w.]*\.(\w+Section)", "tables", text.replace(" | None", ""))
    return re.sub(r"list\[(\w+)\]", r"list of \1", text)


def scales_part() -> str:
    """Return the table of training scales."""
    rows = [
        (f"`{s.name}`", s.model, f"{s.samples_seen:,}", f"{s.batch_size:,}",
         f"{s.learning_rate:g}", f"{s.warmup:,}", s.beta2 or "0.98", s.weight_decay)
        for s in SCALES.values()
    ]  # fmt: skip
    head = ("scale", "model", "samples seen", "global batch", "learning rate", "warm-up steps",
            "beta2", "weight decay")  # fmt: skip
    return f"{_table(head, rows)}\n\nEach run is cut into {CHECKPOINTS} epochs."


def tasks_part() -> str:
    """Return the tasks of every suite and the groups they are averaged in."""
    tasks = load_tasks()
    return "\n\n".join(
        _suite(suite, [task for task in tasks.values() if task.suite == suite.name])
        for suite in load_suites().values()
    )


def _suite(suite: Suite, tasks: list[Task]) -> str:
    rows = [
        (f"`{t.key}`", t.name, f"{t.size:,}", t.classes or "", t.main_metric,
         "" if t.chance is None else f"{t.chance:.4f}", "yes" if t.near_chance else "")
        for t in tasks
    ]  # fmt: skip
    head = ("key", "name", "images", "classes", "main metric", "chance", "near chance")
    groups = [
        (name, ", ".join(f"`{key}`" for key in keys) if len(keys) < 15 else f"{len(keys)} tasks")
        for name, keys in suite.groups.items()
    ]
    lines = [
        f"### {suite.name}",
        f"{suite.title}, version {suite.version}: {len(tasks)} tasks.",
        _table(head, rows),
        _table(("group", "mean of the main metrics of"), groups),
    ]
    if suite.not_yet:
        left = ", ".join(f"`{key}`" for key in suite.not_yet)
        lines.append(f"Not evaluated here yet: {left}.")
    return "\n\n".join(lines)


def _value(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "":
        return ""
    if isinstance(value, BaseModel):
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`".replace("'", '"')


def _code(text: str) -> str:
    """Turn reStructuredText's double backquotes and roles into Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table, columns of numbers to the right."""
    columns = [[str(row[i]) for row in rows] for i in range(len(head))]
    numeric = [any(cells) and all(re.match(r"-?\d|$", cell) for cell in cells) for cells in columns]
    lines = [head, ["---:" if right else "---" for right in numeric], *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "or") for cell in line) + " |" for line in lines
    )


PARTS: dict[str, Callable[[], str]] = {
    "cli": cli_part,
    "filters": filters_part,
    "sources": sources_part,
    "config": config_part,
    "scales": scales_part,
    "tasks": tasks_part,
}

_MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def render(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return _MARKED.sub(lambda m: f"{m[1]}\n{PARTS[m[2]]()}\n\n{m[3]}", text)


def demo_table(results: dict[str, Any]) -> str:
    """Return the table of a study's results, as the report ranks them."""
    rows = []
    for row in results["datasets"]:
        # A tie shares the rank of the first dataset it is tied with.
        rank = min(
            [other["rank"] for other in results["datasets"] if other["name"] in row["tied_with"]]
            + [row["rank"]]
        )
        average = row["average"]
        rows.append((
            f"{rank}{'=' if row['tied_with'] else ''}", row["name"], f"{row['size']:,}",
            f"{row['precision']:.2f}", f"{row['recall']:.2f}",
            f"{average['mean']:.3f} ± {average['spread']:.3f}",
        ))  # fmt: skip
    head = ("rank", "dataset", "samples", "precision", "recall", "average of 5 tasks")
    return _table(head, rows)


def write_demo(path: str) -> None:
    """Put the table of a ``results.json`` into the README."""
    readme = ROOT / "README.md"
    table = demo_table(json.loads(Path(path).read_bytes()))
    marked = re.compile(r"(<!-- demo -->\n).*?(<!-- /demo -->)", re.DOTALL)
    readme.write_text(marked.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", readme.read_text()))


def main(check: bool) -> int:
    """Bring every page up to date, or say which are not."""
    stale = []
    for page in sorted([*DOCS.glob("*.md"), ROOT / "README.md"]):
        before = page.read_text()
        after = render(before)
        if before != after:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(after)
    for page in stale:
        print(f"{page}: {'not current; run docs/generate.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    if "--demo" in sys.argv[1:-1]:
        write_demo(sys.argv[sys.argv.index("--demo") + 1])
    sys.exit(main("--check" in sys.argv[1:]))
