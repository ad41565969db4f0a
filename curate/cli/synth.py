"""``datacomp synth``: sets of images by formula."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import emit_json, examples, json_option

if TYPE_CHECKING:
    from ...pools.synthetic.contract import Generator

KINDS = {
    "visualatom": "VisualAtom: orbits that wave.",
    "rcdb": "RCDB: radial contours.",
    "fractaldb": "FractalDB: fractals of affine maps.",
    "exfractaldb": "ExFractalDB: views of 3-D fractals.",
}
_EXAMPLES = {
    "visualatom": (
        "datacomp synth visualatom atoms --classes 100 --instances 100",
        "datacomp synth visualatom atoms --preset visualatom-1k --workers 8",
        "datacomp synth visualatom atoms --mode exact --processes 20 --format folder",
    ),
    "rcdb": ("datacomp synth rcdb contours --classes 100 --instances 100 --size 224",),
    "fractaldb": ("datacomp synth fractaldb fractals --classes 10 --instances 100",),
    "exfractaldb": ("datacomp synth exfractaldb views --classes 10 --instances 145",),
}


class _Kinds(click.Group):
    """Makes a kind's command from its dataclass when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the kinds, then the other commands."""
        return [*KINDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        return _command(cmd_name) if cmd_name in KINDS else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing the generators."""
        others = {name: one.get_short_help_str(100) for name, one in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl([*KINDS.items(), *others.items()])


@click.group(cls=_Kinds)
def synth() -> None:
    """Make sets of images by formula, to pre-train on."""


def _command(kind: str) -> click.Command:
    """Return ``datacomp synth KIND``: every parameter of the formula is an option."""
    from ...pools.synthetic import generator_class
    from ...pools.synthetic.build import FORMATS, PER_SHARD

    names = [one.name for one in fields(generator_class(kind))]

    def run(
        out: Path, preset: str | None, workers: int | None, format: str, per_shard: int,
        dry_run: bool, as_json: bool, **given: Any,
    ) -> None:  # fmt: skip
        from ...pools.parallel import default_workers
        from ...pools.synthetic.build import Plan, build
        from ...pools.synthetic.presets import make_generator

        asked = {name: given[name] for name in names if given[name] is not None}
        plan = Plan(make_generator(kind, preset, asked), out, format, per_shard)
        if dry_run:
            emit = {**plan.identity(), "estimated_bytes": plan.bytes_estimate()}
            click.echo(plan.describe(workers or default_workers())) if not as_json else emit_json(
                emit
            )
            return
        report = build(plan, workers)
        if as_json:
            emit_json(report.to_dict())
        else:
            click.echo(f"{out}: {report.images:,} images, {report.drawn:,} drawn now")

    own: list[click.Parameter] = [
        click.Argument(["out"], type=click.Path(path_type=Path)),
        click.Option(["--preset"], metavar="NAME", help=_presets(kind)),
        *(_option(generator_class(kind), name) for name in names),
        click.Option(["--format"], type=click.Choice(FORMATS), default="shards",
                     show_default=True, help="WebDataset shards, or the authors' folders."),
        click.Option(["--per-shard"], type=int, default=PER_SHARD, show_default=True,
                     help="Images in a shard."),
        click.Option(["--workers"], type=int, metavar="N",
                     help="Processes that draw; the images do not depend on it.  "
                     "[default: one per processor]"),
        click.Option(["--dry-run"], is_flag=True, help="Only say what would be made."),
    ]  # fmt: skip
    command = click.Command(
        kind, params=own, callback=run, epilog=examples(*_EXAMPLES[kind]),
        help=f"Make a set of {KINDS[kind].split(':')[0]} images in OUT, or go on with it.\n\n"
        "What it takes is printed before it begins. A folder that holds another set is refused.",
        short_help=KINDS[kind],
    )  # fmt: skip
    return json_option(command)


def _presets(kind: str) -> str:
    from ...pools.synthetic.presets import PRESETS

    known = [f"{name} ({one.text})" for name, one in PRESETS.items() if one.kind == kind]
    return f"A published set: {'; '.join(known)}. Other options change it."


def _option(generator: type[Generator], name: str) -> click.Option:
    """Return the command line's option for a parameter; None stands for not given."""
    found = next(one for one in fields(generator) if one.name == name)
    default, text = found.default, str(found.metadata["help"])
    flag = f"--{name.replace('_', '-')}"
    help_text = f"{text[0].upper()}{text[1:]}.  [default: {default!s}]" if default != "" else text
    if isinstance(default, bool):
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=help_text)
    choices = found.metadata.get("choices")
    kind = click.Choice(choices) if choices else type(default)
    return click.Option([flag, name], type=kind, default=None, help=help_text)


@synth.command(
    epilog=examples(
        "datacomp synth show visualatom -o atoms.html",
        "datacomp synth show visualatom --sweep frequency1 -o waves.html",
        "datacomp synth show rcdb --preset rcdb-1k-authors -o contours.html",
        "datacomp synth show atoms -o atoms.html",
    )
)
@click.argument("what")
@click.option("-o", "--output", default="synth.html", show_default=True,
              type=click.Path(path_type=Path), help="Page to write.")  # fmt: skip
@click.option("--classes", type=click.IntRange(1, 100), default=8, show_default=True,
              help="How many classes to show.")  # fmt: skip
@click.option("--instances", type=click.IntRange(1, 50), default=6, show_default=True,
              help="How many images of each.")  # fmt: skip
@click.option("--sweep", metavar="PARAMETER", help="Parameter of a class to vary; see the page.")
@click.option("--preset", metavar="NAME", help="A published set of the kind.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE",
              help="An option of the kind; may be repeated.")  # fmt: skip
def show(
    what: str, output: Path, classes: int, instances: int, sweep: str | None,
    preset: str | None, options: tuple[str, ...],
) -> None:  # fmt: skip
    """Write a page of what a kind draws, or what the set in a folder holds.

    WHAT is a kind, such as visualatom, or the folder of a set. The page shows classes by
    instances, and what becomes of one class when one parameter is varied.
    """
    from ..report.formulas import open_generator, write_formula_page
    from .common import parse_options

    generator, folder = open_generator(what, parse_options(options), preset)
    shown = write_formula_page(generator, output, classes, instances, sweep, folder=folder)
    click.echo(f"{output}: {shown:,} images")
