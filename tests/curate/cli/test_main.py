"""The command line as a whole: exit codes, one-line errors, help."""

import subprocess
import sys

import click
import pytest
from datacomp import __version__, progress
from datacomp.curate.cli import COMMANDS, cli
from datacomp.curate.cli.common import emit_table, parse_options
from datacomp.errors import UsageError


def datacomp(*arguments, **more):
    command = [sys.executable, "-m", "datacomp.curate.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


def test_version_and_help():
    assert datacomp("--version").stdout == f"datacomp, version {__version__}\n"
    text = datacomp("--help").stdout
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["poool"], 2, "Error: No such command 'poool' (did you mean 'pool'?).\n"),
        (["pool", "info", "none.duckdb"], 1, "error: none.duckdb: no such pool, and no folder "
         "of metadata; make a pool with 'datacomp pool create none.duckdb'\n"),
        (["run", "-c", "none.toml"], 1, "error: none.toml: no such file; "),
        (["train"], 2, "Error: give SHARDS and --output (or --list-scales)\n"),
        (["train", "none", "-o", "run"], 1, "error: none: no such folder of shards; "),
        (["train", "none", "-o", "run", "--scale", "tiny"], 2, "error: unknown scale 'tiny'"),
        (["filter", "show", "clip_scor"], 2, "error: unknown filter 'clip_scor' (did you mean "
         "'clip_score'?); "),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_an_exit_code(tmp_path, arguments, code, message):
    found = datacomp(*arguments, cwd=tmp_path)
    assert found.returncode == code
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_first_add_that_fails_leaves_no_pool(tmp_path):
    (tmp_path / "empty").mkdir()
    found = datacomp("pool", "add", "new.duckdb", "empty", "--kind", "folder", cwd=tmp_path)
    assert found.returncode == 1
    assert "no images found" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_reader_that_leaves_is_no_error_to_tell():
    found = subprocess.run(
        f"{sys.executable} -m datacomp.curate.cli train --list-scales | head -c 0",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("code", [0, 3, None])
def test_the_process_ends_with_what_was_to_be_done_at_its_end(code):
    """An error that nobody foresaw (None) ends it as it ends any program of Python."""
    script = (
        "import atexit, sys, threading, time\n"
        "import datacomp.curate.cli.__main__ as cli\n"
        "def main():\n"
        "    atexit.register(print, 'at the end')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('a thread'))).start()\n"
        "    print('x' * 100_000)\n"
        f"    sys.exit({code}) if {code} is not None else 1 / 0\n"
        "class Slow:\n"
        "    def __del__(self): print('taken apart')\n"
        "kept = Slow()\n"
        "cli.main = main\n"
        "cli.start()\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == (1 if code is None else code)
    said = "x" * 100_000 + "\na thread\nat the end\n"
    assert found.stdout == said + ("taken apart\n" if code is None else "")
    assert ("ZeroDivisionError" in found.stderr) is (code is None)


def test_output_that_is_closed_is_no_error_to_tell():
    found = subprocess.run(
        f"{sys.executable} -m datacomp.curate.cli --version >&-",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")


def test_output_that_cannot_be_written_is_a_failure():
    script = (
        "import datacomp.curate.cli.__main__ as cli\n"
        "cli.main = lambda: print('x') or exit(0)\n"
        "cli.start()\n"
    )
    with open("/dev/full", "w") as full:
        pipes = {"stdout": full, "stderr": subprocess.PIPE}
        found = subprocess.run([sys.executable, "-E", "-c", script], **pipes, text=True)
    assert found.returncode == 120
    assert "No space left on device" in found.stderr


def test_every_command_can_be_loaded():
    context = click.Context(cli)
    for name in COMMANDS:
        assert isinstance(cli.get_command(context, name), click.Command)


@pytest.mark.parametrize(
    "arguments",
    [("-v", "filter", "list"), ("filter", "-v", "list"), ("filter", "list", "--verbose")],
)
def test_how_much_is_said_may_stand_anywhere(command, arguments):
    try:
        assert command(*arguments)[0] == 0
        assert progress._Settings.verbosity == 1
        quiet = [{"-v": "-q", "--verbose": "--quiet"}.get(word, word) for word in arguments]
        assert command(*quiet)[0] == 0
        assert progress._Settings.verbosity == -1
        assert command("filter", "list")[0] == 0
        assert progress._Settings.verbosity == 0
    finally:
        progress.set_verbosity(0)


def test_every_command_takes_it():
    def walk(command):
        yield command
        for part in getattr(command, "commands", {}).values():
            yield from walk(part)

    context = click.Context(cli)
    for name in COMMANDS:
        for command in walk(cli.get_command(context, name)):
            flags = [flag for option in command.params for flag in option.opts]
            assert flags.count("-q") == flags.count("-v") == 1, command.name


def test_options_become_values():
    assert parse_options(["a=1", "b=0.5", "c=true", "d=x=y"]) == {
        "a": 1, "b": 0.5, "c": True, "d": "x=y",
    }  # fmt: skip
    with pytest.raises(UsageError, match="--option 'a': expected NAME=VALUE"):
        parse_options(["a"])


def test_tables_align_numbers_to_the_right(capsys):
    emit_table([["a", 5], ["long", 100]], ["name", "count"])
    assert capsys.readouterr().out == "name  count\n----  -----\na         5\nlong    100\n"


def test_the_doctor_says_what_is_there():
    found = datacomp("doctor")
    assert found.returncode == 0
    assert "duckdb" in found.stdout
    assert "free disk here" in found.stdout
