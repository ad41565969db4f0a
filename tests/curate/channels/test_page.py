"""The page and the table, from figures made up for it."""

import dataclasses
import re

import pytest
from click.testing import CliRunner
from datacomp.curate.channels import Comparison, Conditions, Row, Run, all_cases, write_page
from datacomp.curate.cli.channels import _tell, channels


def run(seconds, whole=True, joules=None):
    cpu = {"get": 0.5, "origin": 0.25, "peers": 0.125}
    trouble = None if whole else "<b>gone</b>"
    return Run(whole, seconds, 4_000_000, 3_000_000, 1_000_000, cpu, joules, trouble)


@pytest.fixture
def found():
    rows = [
        Row(case, (run(2.0 + number), run(3.0 + number, not case.killed)))
        for number, case in enumerate(all_cases(1))
    ]
    machine = {"system": "<script>x</script>", "cpus": 2}
    conditions = Conditions(peers=1, rate=2e6, ping=0.048, repeats=2)
    return Comparison("birds", "7", 4, 4_000_000, conditions, machine, None, tuple(rows))


def test_the_page_stands_alone_and_escapes(found, tmp_path):
    for name in ("a", "b"):
        write_page(found, tmp_path / name)
    page = (tmp_path / "a").read_text()
    assert page == (tmp_path / "b").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "Fastest: HTTP, 2.50 ± 0.71 s. The origin sends least with HTTP: 75\u00a0%." in page
    assert "With the origin killed half-way, 0 of 4 ended whole." in page
    assert "3.0 + 1.0 MB" in page
    assert "1 of 2 not whole" in page


def test_energy_is_told_only_where_it_was_estimated(found, tmp_path):
    write_page(found, tmp_path / "without")
    page = (tmp_path / "without").read_text()
    assert "What it costs in energy" not in page
    assert '<th scope="col">J</th>' not in page
    assert "energy" not in found.to_dict()["rows"][0]
    assert "joules" not in str(found.to_dict()["rows"])
    rows = tuple(Row(row.case, (run(2.0, joules=30.0),)) for row in found.rows)
    write_page(dataclasses.replace(found, energy="codecarbon 3", rows=rows), tmp_path / "with")
    page = (tmp_path / "with").read_text()
    assert "What it costs in energy" in page
    assert "30 J" in page
    assert '<th scope="col">J</th>' in page


def test_the_table_names_what_was_not_whole(found, capsys):
    _tell(found, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["channel", "origin", "whole", "s", "±", "MB/s", "origin", "MB",
                                "peers", "MB", "CPU", "s"]  # fmt: skip
    assert lines[2].split() == ["HTTP", "stays", "2/2", "2.5", "0.71", "1.7", "3.0", "1.0", "0.88"]
    assert "not whole: HTTP, origin killed: <b>gone</b>" in lines
    assert "energy: not known: pip install -e '.[energy]'" in lines


def test_wrong_use_is_one_line(tmp_path):
    result = CliRunner().invoke(channels, ["compare", str(tmp_path), "--peers", "99"])
    assert result.exit_code == 2
    assert "99 is not in the range 1<=x<=16" in result.output
