"""The command line: ``datacomp NOUN VERB``. Every command parses, calls the library, prints.

Commands are loaded when they are called, so that ``datacomp --help`` answers at once.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 finished with samples set aside, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from ... import __version__
from ...errors import DatacompError, suggest
from ...progress import set_verbosity

COMMANDS = {
    "demo": ("study:demo", "The whole workflow on the built-in pool."),
    "run": ("study:run", "All stages of a datacomp.toml."),
    "doctor": ("doctor:doctor", "What this machine has, and what is missing for which feature."),
    "pool": ("pool:pool", "Make, fill, ask and look at pools of candidate samples."),
    "filter": ("filter:filter_", "List, show, run and compare filters."),
    "subset": ("subset:subset", "Set algebra on subset files."),
    "shards": ("shards:shards", "Index, view, build and check WebDataset shards."),
    "synth": ("synth:synth", "Make sets of images by formula, to pre-train on."),
    "train": ("train:train", "Train CLIP on shards with a fixed recipe."),
    "slurm": ("slurm:slurm", "A batch file for training on a Slurm cluster."),
    "pretrain": ("vision:pretrain", "Pre-train a vision encoder on class labels."),
    "finetune": ("vision:finetune", "Fine-tune a vision encoder and measure it."),
    "evaluate": ("evaluate:evaluate", "Evaluate a checkpoint zero-shot on a suite of tasks."),
    "evalsets": ("evaluate:evalsets", "List and build evaluation sets."),
    "results": ("results:results", "Show results of runs."),
    "soup": ("soup:soup", "Average checkpoints of one architecture into a new run."),
    "submit": ("submit:submit", "Put a dataset's runs on a leaderboard."),
    "leaderboard": ("leaderboard:leaderboard", "Check submissions, host a leaderboard of them."),
    "cid": ("cid:cid", "The CID of a file or a folder, as IPFS names it."),
    "release": ("release:release", "Publish versions of a dataset, take samples back."),
    "serve": ("serve:serve", "Serve releases over HTTP, to browsers, peers and IPFS."),
    "seed": ("seed:seed", "Seed releases over BitTorrent."),
    "get": ("get:get", "Get a dataset from mirrors, peers and gateways at once."),
    "channels": ("channels:channels", "Compare HTTP, BitTorrent and IPFS on the same shards."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        return _talkative(getattr(importlib.import_module(f".{module}", __package__), name))

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """Answer an unknown command with the nearest known one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = suggest(args[0], list(COMMANDS))
            raise click.UsageError(f"No such command {args[0]!r}{hint}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


_SAYING = (("-v", "--verbose", 1, "Say more about what is done."),
           ("-q", "--quiet", -1, "Say nothing but results, warnings and errors."))  # fmt: skip


def _talkative(command: click.Command) -> click.Command:
    """Let -v and -q stand after a command and its parts too, not only before.

    Let its paths refuse URLs, too.
    """
    from .common import keep_local

    for parameter in command.params:
        keep_local(parameter)
    if not any("--quiet" in parameter.opts for parameter in command.params):
        command.params += [_saying(*option) for option in _SAYING]
    if isinstance(command, click.Group):
        for part in command.commands.values():
            _talkative(part)
    return command


def _saying(short: str, long: str, level: int, text: str) -> click.Option:
    def say(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            set_verbosity(level)

    return click.Option([short, long], is_flag=True, expose_value=False, callback=say, help=text)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start here: 'datacomp demo' shows the whole idea in minutes.",
)
@click.version_option(__version__, prog_name="datacomp")
@click.option("-v", "--verbose", is_flag=True, help=_SAYING[0][3])
@click.option("-q", "--quiet", is_flag=True, help=_SAYING[1][3])
def cli(verbose: bool, quiet: bool) -> None:
    """Curate image-text datasets and prove what the curation is worth."""
    set_verbosity(-1 if quiet else 1 if verbose else 0)


def main() -> None:
    """Run the command line; an error on purpose is one line and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except DatacompError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("interrupted; run the same command again to go on", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
