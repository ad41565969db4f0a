"""Tables for other programs: CSV, one value a line, and LaTeX, to be pasted into a paper."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import click

from .common import emit_table

FORMATS = ("text", "csv", "latex")

format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
    help="Tables for people, CSV with one value a line, or LaTeX (booktabs).",
)  # fmt: skip

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "∩": r"$\cap$", "−": r"$-$",
}  # fmt: skip


def emit_csv(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Print rows as CSV (RFC 4180); None is an empty cell.

    A text that a spreadsheet would take for a formula is quoted with an apostrophe, as
    spreadsheets do it: names of runs may be a stranger's.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    click.echo(buffer.getvalue(), nl=False)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def emit_latex(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Print rows as a LaTeX tabular with booktabs' rules; a cell that ends with ``*`` is bold."""
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule",
        _line(header), r"\midrule", *(_line(row) for row in rows), r"\bottomrule",
        r"\end{tabular}",
    ]  # fmt: skip
    click.echo("\n".join(lines))


def _line(cells: Sequence[Any]) -> str:
    return f"{' & '.join(latex(str(cell)) for cell in cells)} \\\\"


def latex(text: str) -> str:
    """Write a cell in LaTeX: escaped, a sign before a number in math mode, the best in bold."""
    best = text.endswith(" *")
    text = "".join(_LATEX.get(letter, letter) for letter in text.removesuffix(" *"))
    text = re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", text)
    text = "--" if text == "-" else text
    return rf"\textbf{{{text}}}" if best else text


def emit(form: str, rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Print a table for people or for LaTeX."""
    (emit_latex if form == "latex" else emit_table)(rows, header)
