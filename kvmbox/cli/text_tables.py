"""A table for people: in colour on a terminal, where rich is installed, and as plain columns elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kvmbox.cli.click_types import has_rich

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str]) -> None:
    """Print it on stdout. `styles` are rich's, by what is in a cell."""
    if sys.stdout.isatty() and has_rich():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headings, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
