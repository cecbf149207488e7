"""What `kvmbox bench` shows and keeps: progress, tables, a picture, a page."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kvmbox.cli.click_types import has_rich

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmbox.tools.bench.result_tables import Table
    from kvmbox.tools.bench.results import Results
    from kvmbox.tools.bench.runner import Step


@contextmanager
def progress() -> Iterator[Any]:
    """A callback for each step that shows on a terminal's stderr how far it is, and nothing elsewhere."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    if not has_rich():

        def show(step: Step) -> None:
            sys.stderr.write(f"\r\x1b[K{_describe(step)}")
            sys.stderr.flush()

        try:
            yield show
        finally:
            sys.stderr.write("\r\x1b[K")
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    percentage, description = TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}")
    columns = (BarColumn(), percentage, TimeRemainingColumn(), description)
    # No thread that redraws: it would run beside what is measured.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=None)

        def advance(step: Step) -> None:
            progress.update(
                task, total=step.total, completed=step.number, description=_describe(step), refresh=True
            )

        yield advance


def _describe(step: Step) -> str:
    return f"round {step.round + 1}: {step.job}, {step.configuration.name}"


def show_results(results: Results, markdown: bool, *, each_row: bool) -> None:
    """Heading and tables of `results`: with `each_row` the long ones, and always those over many rows."""
    from kvmbox.tools.bench.answer import TABLES
    from kvmbox.tools.bench.result_tables import failure_table, heading, row_tables

    for line in heading(results):
        click.echo(line)
    click.echo()
    tables = [*(row_tables(results) if each_row else ()), failure_table(results)]
    tables += [table(results) for table in TABLES.values()]
    print_tables([table for table in tables if table is not None], markdown)


def print_tables(tables: Sequence[Table], markdown: bool) -> None:
    from kvmbox.tools.bench import result_tables as reports

    console = None
    if not markdown and has_rich():
        from rich.console import Console

        console = Console()
    # A file or a pipe is as wide as a table.
    if console is None or not console.is_terminal:
        for table in tables:
            click.echo(reports.markdown(table) if markdown else reports.plain(table))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    for table in tables:
        names = max((len(line[0]) for line in table.lines), default=0)
        shown = RichTable(box=SIMPLE_HEAD)
        for index, name in enumerate(table.columns):
            left = table.is_left(index)
            shown.add_column(
                name,
                justify="left" if left else "right",
                no_wrap=left,
                min_width=names if index == 0 else 0,
                overflow="fold",  # no figure is cut
            )
        for line in table.lines:
            shown.add_row(*(Text(text) for text in line))
        # Not as the table's own title, which would be broken at the table's width.
        console.print(Text(table.title, style="bold"), soft_wrap=True)
        console.print(shown)


def check_output(plot_path: str | None, page_path: str | None) -> None:
    """Before anything is measured: that the picture can be drawn, and that the page has its markers."""
    if plot_path is not None:
        from kvmbox.tools.bench.plot import check

        check(plot_path)
    if page_path is not None:
        from kvmbox.tools.bench import markdown_page

        markdown_page.check(page_path, markdown_page.read(page_path))


def keep_output(drawn: Results, plot_path: str | None, results: Results, page_path: str | None) -> None:
    """Draw the picture of `drawn`, and fill the page from `results`."""
    if plot_path is not None:
        from kvmbox.tools.bench.plot import draw

        draw(drawn, plot_path)
    if page_path is not None:
        from kvmbox.tools.bench import markdown_page

        markdown_page.fill(page_path, results)
