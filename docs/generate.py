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
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest import mock

import click
import numpy as np
from datacomp.curate.cli import cli
from datacomp.curate.fetching import REASONS
from datacomp.curate.workflow import config
from datacomp.evaluate.scales import CHECKPOINTS, SCALES
from datacomp.evaluate.tasks import Suite, Task, load_suites, load_tasks
from datacomp.filters import FilterSpec, registry
from datacomp.filters.assets import ASSETS, assets_of, needing, with_assets
from datacomp.pools.sources import KINDS, source_class
from datacomp.pools.synthetic import KINDS as SYNTHETIC
from datacomp.pools.synthetic import generator_class
from datacomp.pools.synthetic.build import PER_SHARD
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent
ROOT = DOCS.parent
WIDTH = 96

SECTIONS: dict[str, type[BaseModel]] = {
    "[study]": config.StudySection,
    "[pool]": config.PoolSection,
    "[assets]": config.AssetsSection,
    "[[pool.source]]": config.SourceSection,
    "[[dataset]]": config.DatasetSection,
    "dataset.filters": config.FilterSection,
    "dataset.filters: a group": config.GroupSection,
    "[truth]": config.TruthSection,
    "[shards]": config.ShardsSection,
    "[train]": config.TrainSection,
    "[evaluate]": config.EvaluateSection,
    "[engine]": config.EngineSection,
}

FILTER_EXAMPLES: dict[str, dict[str, Any]] = {
    "clip_score": {"arch": "l14", "fraction": 0.3},
    "random_subset": {"fraction": 0.1},
    "decontaminate": {"evaluation_features": "evaluation.npy"},
    "metaclip": {"entries_file": "metadata.json", "t": 20000},
    "flipped_clip_score": {"checkpoint": "runs/clip", "fraction": 0.3},
    "digit_masked_clip_score": {"checkpoint": "runs/clip", "fraction": 0.4},
    "text_masked_clip_score": {"checkpoint": "runs/clip", "fraction": 0.5},
    "dfn": {"checkpoint": "runs/dfn", "fraction": 0.15},
    "aesthetic": {"weights_file": "aesthetic.safetensors", "min": 5},
    "nsfw": {"weights_file": "nsfw.safetensors"},
    "soft_cap": {"column": "quality", "size": 128000000},
}
"""Parameters for the examples; the other filters need none."""

_A_FILE = str(ROOT / "README.md")
NEEDS_NOTHING: dict[str, dict[str, Any]] = {
    "laion2b": {"detector": "fasttext"},
    "metaclip": {"entries_file": _A_FILE},
    "aesthetic": {"weights_file": _A_FILE},
    "nsfw": {"weights_file": _A_FILE},
    "flipped_clip_score": {"checkpoint": _A_FILE, "model": "ViT-B-32"},
    "digit_masked_clip_score": {"checkpoint": _A_FILE, "model": "ViT-B-32"},
    "text_masked_clip_score": {"checkpoint": _A_FILE, "model": "ViT-B-32"},
    "dfn": {"checkpoint": _A_FILE, "model": "ViT-B-32"},
}
"""Parameters with which a filter can be made here, without what has to be installed first, or
given: no filter reads its files before it scores."""

SOURCE_OPTIONS = {
    ("webdataset", "verify"): "decode every image to its last byte; false reads headers only",
    ("commonpool", "link"): "read the files where they are, copy nothing",
    ("parquet", "url_column"): "column of the URL; else the first of `url`, `URL`, `image_url`",
    ("parquet", "text_column"): "column of the caption; else `text`, `caption`, `TEXT` or `alt`",
    ("csv", "url_column"): "column of the URL; else the first of `url`, `URL`, `image_url`",
    ("csv", "text_column"): "column of the caption; else `text`, `caption`, `TEXT` or `alt`",
    ("coco", "file"): "the JSON file, relative to the path; else the only one there",
    ("coco", "images"): "folder of the images, relative to the path",
    ("huggingface", "verify"): "decode every image to its last byte; false reads headers only",
    ("huggingface", "data"): "file or folder of the dataset's parquet files; must be given",
    ("huggingface", "image_column"): "column of the images; else the one that holds bytes",
    ("huggingface", "text_column"): "column of the captions; else `text`, `caption` or classes",
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
    """Return rule, parameters, reasons, assets, numbers and source of every built-in filter."""
    told: set[str] = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict("os.environ", XDG_CACHE_HOME=folder),
    ):
        given = _stand_in_assets(Path(folder))
        return "\n\n".join(_filter(name, told, given) for name in registry.BUILT_IN)


def _stand_in_assets(folder: Path) -> dict[str, str]:
    """Return assets that filters can be made with, to ask them for their reasons."""
    np.save(folder / "one.npy", np.ones((1, 1), np.float32))
    wordnet = ROOT / "tests" / "filters" / "wordnet"
    return {
        "wordnet": str(wordnet), "pool_centroids": str(folder / "one.npy"),
        "target_embeddings": str(folder / "one.npy"),
        "evaluation_features": str(folder / "one.npy"),
    }  # fmt: skip


def _filter(name: str, told: set[str], assets: dict[str, str]) -> str:
    """Return one filter's section; ``told`` are the sources that were named already."""
    found = registry.get(name)
    parameters = FILTER_EXAMPLES.get(name, {})
    inside = ",".join(f"{key}={value}" for key, value in parameters.items())
    rows = [
        (f"`{p.name}`", p.type, "required" if p.required else _value(p.default), _code(p.help))
        for p in registry.parameters(found)
    ]
    given = parameters | NEEDS_NOTHING.get(name, {})
    # An asset of the example is given as any other.
    given = {key: value for key, value in given.items() if key not in assets_of(found)}
    made = with_assets(FilterSpec(name, given), assets).make()
    reasons = [f"`{decision.reason}`" for decision in made.decide(_AnyPool())]  # pyright: ignore[reportArgumentType]
    if made.weight(_AnyPool()) is not None:  # pyright: ignore[reportArgumentType]
        reasons.append("`not_drawn`")
    whole = "the whole pool" if found.set_level else "each sample by itself"
    lines = [
        f"### {name}",
        _code(inspect.cleandoc(found.__doc__ or "")),
        f"Example: `{name}{':' if inside else ''}{inside}`. Looks at {whole}. "
        f"Reasons: {', '.join(reasons) or 'none, it drops nothing'}.",
    ]
    if rows:
        lines.append(_table(("parameter", "type", "default", "meaning"), rows))
    if found.published:
        rows = [
            (row.variant or "as published", row.scale, row.samples or "-", _score(row.imagenet),
             _score(row.average), ", ".join(filter(None, (row.source, row.note))))
            for row in found.published
        ]  # fmt: skip
        header = ("reported", "scale", "kept", "ImageNet", "average of 38", "source")
        lines.append(_table(header, rows))
    elif found.not_reported:
        lines.append(f"Not reported on DataComp: {found.not_reported}.")
    source = _source_of(found)
    if source and source not in told:
        told.add(source)
        lines.append(source)
    return "\n\n".join(lines)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def assets_part() -> str:
    """Return what every asset is, where it comes from and what needs it."""
    rows = [
        (f"`{name}`", asset.what, _linked(asset.get), ", ".join(f"`{f}`" for f in needing(name)))
        for name, asset in ASSETS.items()
    ]
    return _table(("asset", "what it is", "get it from", "serves"), rows)


def _linked(text: str) -> str:
    return re.sub(r"https://[^\s;,]+", lambda found: f"<{found[0]}>", text)


def _source_of(found: type) -> str:
    module = inspect.getmodule(found)
    text = inspect.cleandoc(getattr(module, "__doc__", None) or "")
    told = ("Source:", "The exact form")
    return _code("\n\n".join(p for p in text.split("\n\n") if p.startswith(told)))


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

    def first(self, *columns: str) -> str:
        return "true"

    def count(self, where: str = "true") -> int:
        return 100

    def nth(self, value: str, place: int, **_: Any) -> int:
        return 100

    def kind(self, column: str) -> str:
        return "FLOAT"


def sources_part() -> str:
    """Return every kind of source with its options."""
    parts = []
    for kind in KINDS:
        found = source_class(kind)
        rows = []
        if kind in SYNTHETIC:
            rows = list(_generator_options(kind))
        for option in () if kind in SYNTHETIC else fields(found):
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


def _generator_options(kind: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the options of a synthetic source: those of its generator, preset and per_shard."""
    for option in fields(generator_class(kind)):
        yield (f"`{option.name}`", type(option.default).__name__, _value(option.default),
               _code(str(option.metadata["help"])))  # fmt: skip
    yield "`preset`", "str", "", "a published set; other options change it"
    yield "`per_shard`", "int", _value(PER_SHARD), "images in a shard"


def config_part() -> str:
    """Return every section and key of datacomp.toml."""
    parts = []
    for title, model in SECTIONS.items():
        rule = inspect.cleandoc(model.__doc__ or "").removeprefix(f"{title}: ")
        rows = [
            (f"`{field.alias or name}`", _type(field.annotation), _value(field.get_default()),
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
    """Return a type for people: `str`, `list of int`, the values of a choice; None goes unsaid."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType) and all(get_origin(part) is Annotated for part in arguments):
        return "tables"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in arguments if part is not NoneType)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    return "tables" if issubclass(annotation, BaseModel) else annotation.__name__


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
        (f"`{t.key}`", t.name, f"{t.size:,}", t.classes or "", t.main_metric or "",
         "" if t.chance is None else f"{t.chance:.4f}", "yes" if t.near_chance else "")
        for t in tasks
    ]  # fmt: skip
    head = ("key", "name", "images", "classes", "main metric", "chance", "near chance")
    terms = [
        (f"`{t.key}`", t.licence, t.gate, t.licence_read or "nowhere: unverified") for t in tasks
    ]
    groups = [
        (name, ", ".join(f"`{key}`" for key in keys) if len(keys) < 15 else f"{len(keys)} tasks")
        for name, keys in suite.groups.items()
    ]
    return "\n\n".join([
        f"### {suite.name}",
        f"{suite.title}, version {suite.version}: {len(tasks)} tasks.",
        _table(head, rows),
        _table(("group", "mean of the main metrics of"), groups),
        _table(
            ("task", "licence of the images", "asked for by those who made them", "read in"), terms
        ),
    ])  # fmt: skip


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


def reasons_part() -> str:
    """Return why URLs fail."""
    rows = [(f"`{name}`", meaning) for name, meaning in REASONS.items()]
    status = ("`http_404`, ...", "the server answered with this status")
    return _table(("reason", "meaning"), [*rows[:-1], status, rows[-1]])


PARTS: dict[str, Callable[[], str]] = {
    "cli": cli_part,
    "filters": filters_part,
    "assets": assets_part,
    "sources": sources_part,
    "config": config_part,
    "reasons": reasons_part,
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
