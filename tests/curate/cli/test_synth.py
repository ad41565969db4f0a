"""``datacomp synth``: every parameter is an option, what it takes is said before."""

import base64
import io
import json
import re
from dataclasses import fields

import numpy as np
import pytest
from click.testing import CliRunner
from datacomp.curate.cli.synth import KINDS, synth
from datacomp.errors import MissingError, UsageError
from datacomp.pools.synthetic import KINDS as GENERATORS
from datacomp.pools.synthetic import generator_class
from PIL import Image


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


def pictures(page):
    return re.findall(r'src="data:image/png;base64,([^"]+)"', page.read_text())


@pytest.mark.parametrize("processes", [2, 10])
def test_show_draws_the_first_classes_of_the_set_that_is_asked_for(tmp_path, processes):
    """In exact mode what a class is depends on how many there are, and on their instances."""
    page, other = tmp_path / "page.html", tmp_path / "set.html"
    asked = {"mode": "exact", "processes": processes, "classes": 20, "instances": 3, "size": 64}
    options = [one for name, value in asked.items() for one in ("--option", f"{name}={value}")]
    shown = ("--classes", 7, "--instances", 2, "--sweep", "orbits")
    invoke("show", "rcdb", "-o", page, *shown, *options)
    named = [one for name, value in asked.items() for one in (f"--{name}", value)]
    invoke("rcdb", tmp_path / "set", *named, "--workers", 1)
    invoke("show", tmp_path / "set", "-o", other, *shown)
    assert len(pictures(page)) == 7 * 2 + 7
    assert pictures(page) == pictures(other)
    generator = generator_class("rcdb")(**asked)
    for number, encoded in enumerate(pictures(page)[:14]):
        image = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert np.array_equal(image, generator.picture(*divmod(number, 2)).pixels)


def test_the_page_says_what_was_asked_for(tmp_path):
    page = tmp_path / "page.html"
    invoke("show", "visualatom", "-o", page, "--classes", 1, "--instances", 1, "--sweep", "orbits",
           "--option", "orbits_min=50", "--option", "drift=0.25", "--option", "size=32",
           "--option", "classes=30", "--option", "vertices_max=1000")  # fmt: skip
    facts = re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page.read_text())
    assert facts == [
        ("kind", "visualatom"), ("classes shown", "1 of 30"), ("images of each", "1 of 1,000"),
        ("side", "32 px"), ("seed", "0"), ("mode", "fast"), ("drift", "0.25"),
        ("orbits min", "50"),
    ]  # fmt: skip


def test_show_takes_presets(tmp_path):
    page = tmp_path / "page.html"
    few = ("--classes", 1, "--instances", 1, "--sweep", "noise", "--option", "instances=2")
    invoke("show", "rcdb", "-o", page, "--preset", "rcdb-1k-authors", "--option", "size=32", *few)
    facts = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page.read_text()))
    assert (facts["mode"], facts["processes"], facts["side"]) == ("exact", "40", "32 px")
    with pytest.raises(UsageError, match="rcdb: no preset 'rcdb'"):
        invoke("show", "rcdb", "-o", page, "--preset", "rcdb")


def test_a_folder_named_as_a_kind_is_shown_if_it_holds_a_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rcdb").mkdir()
    few = ("--classes", 1, "--instances", 1, "--sweep", "noise", "-o", "page.html")
    invoke("show", "rcdb", *few, "--option", "size=32")
    assert '<p class="eyebrow">datacomp synth</p>' in (tmp_path / "page.html").read_text()
    invoke("rcdb", "rcdb", "--classes", 2, "--instances", 1, "--size", 32)
    invoke("show", "rcdb", *few)
    assert '<p class="eyebrow">rcdb</p>' in (tmp_path / "page.html").read_text()
    for asked in (("--option", "size=64"), ("--preset", "rcdb-1k")):
        with pytest.raises(UsageError, match="rcdb: options are those of the set"):
            invoke("show", "rcdb", *few, *asked)


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
