"""``datacomp synth``: every parameter is an option, what it takes is said before."""

import json
from dataclasses import fields

import pytest
from click.testing import CliRunner
from datacomp.curate.cli.synth import KINDS, synth
from datacomp.errors import MissingError, UsageError
from datacomp.pools.synthetic import KINDS as GENERATORS
from datacomp.pools.synthetic import generator_class


def invoke(*arguments):
    return CliRunner().invoke(synth, list(map(str, arguments)), catch_exceptions=False)


def test_every_kind_has_a_command():
    assert list(KINDS) == list(GENERATORS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_an_option(kind):
    command = synth.get_command(None, kind)
    options = {name for one in command.params for name in one.opts}
    for one in fields(generator_class(kind)):
        assert f"--{one.name.replace('_', '-')}" in options


def test_a_set_is_made(tmp_path):
    out = tmp_path / "set"
    size = ("--classes", 3, "--instances", 2, "--size", 32)
    done = invoke("visualatom", out, *size, "--frequency1-max", 4, "--workers", 1)
    assert done.stdout == f"{out}: 6 images, 6 drawn now\n"
    assert done.stderr.startswith("visualatom: 6 images (3 classes x 2) of 32 px, about 0.1 MB and")
    marker = json.loads((out / "synth.json").read_text())
    assert marker["options"]["frequency1_max"] == 4
    again = invoke("visualatom", out, *size, "--frequency1-max", 4, "--workers", 1, "--json")
    assert json.loads(again.stdout)["drawn"] == 0
    with pytest.raises(UsageError, match="frequency1_max is 4 there, 20 was asked for"):
        invoke("visualatom", out, *size)


def test_presets_and_dry_runs(tmp_path):
    out = tmp_path / "set"
    done = invoke("visualatom", out, "--preset", "visualatom-21k", "--dry-run", "--workers", 4)
    assert done.stdout.startswith(
        "visualatom: 21,000,000 images (21,000 classes x 1,000) of 512 px, about "
    )
    assert done.stdout.endswith(" with 4 workers\n")
    exact = invoke("rcdb", out, "--preset", "rcdb-1k-authors", "--size", 256, "--dry-run", "--json")
    found = json.loads(exact.stdout)
    assert (found["options"]["mode"], found["options"]["processes"]) == ("exact", 40)
    assert found["options"]["size"] == 256
    assert found["estimated_bytes"] > 1e9
    assert not out.exists()
    with pytest.raises(UsageError, match="no preset 'atoms'"):
        invoke("visualatom", out, "--preset", "atoms")


def test_show(tmp_path):
    page = tmp_path / "page.html"
    done = invoke("show", "visualatom", "-o", page, "--classes", 2, "--instances", 3,
                  "--sweep", "orbits", "--option", "size=64")  # fmt: skip
    assert done.stdout == f"{page}: 13 images\n"
    text = page.read_text()
    assert text.count("<img ") == 13
    assert "a visual atom of 184 orbits with 978 vertices, waves of frequency 8 and 17" in text
    invoke("rcdb", tmp_path / "set", "--classes", 3, "--instances", 2, "--size", 32)
    done = invoke("show", tmp_path / "set", "-o", page)
    assert page.read_text().count("<img ") == 3 * 2 + 21
    again = page.read_bytes()
    invoke("show", tmp_path / "set", "-o", page)
    assert page.read_bytes() == again


def test_show_refuses(tmp_path):
    with pytest.raises(MissingError) as caught:
        invoke("show", "visualatm")
    assert str(caught.value) == (
        "visualatm: neither a kind nor the folder of a synthetic set (did you mean 'visualatom'?); "
        "kinds: visualatom, rcdb, fractaldb, exfractaldb"
    )
    with pytest.raises(UsageError) as sweep:
        invoke("show", "rcdb", "--sweep", "orbit", "-o", tmp_path / "page.html")
    assert str(sweep.value) == (
        "rcdb: no parameter 'orbit' to vary (did you mean 'orbits'?); there are: orbits, vertices, "
        "noise"
    )
