"""A report on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from .report import Report
from .tables import Table, tables


def show(console: Console, report: Report) -> None:
    """Print what came of the comparison, the tables and the notes; fits 100 columns."""
    for table in tables(report):
        console.print(_rich(table))
    for case in report.cases:
        if case.verdict:
            console.print(_said(case.label, case.verdict))
    for note in report.notes:
        console.print(_said("note", note))


def _said(about: str, what: str) -> Padding:
    return Padding(Text.assemble((f"{about}: ", "bold"), what), (0, 0, 0, 2))


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        collapse_padding=True,
    )
    for index, head in enumerate(table.heads):
        if index < table.num_names:
            shown.add_column(head, style="bold" if index == 0 else "", overflow="fold", vertical="bottom")
        else:
            shown.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    for row in table.rows:
        shown.add_row(*row)
    return shown
