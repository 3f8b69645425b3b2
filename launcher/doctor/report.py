"""What was found on all machines: a table, a line for each failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.doctor.checks import NAMES, Check
from ligo_dist.errors import LigoError

_MOST_ROWS = 20
"""Of more machines than these, only those that fail are shown."""
_WIDEST = 1000
_FAILED = "FAILS"


@dataclass(frozen=True)
class Report:
    """All checks of all machines.

    Attributes:
        nodes: the machines, in the order of the host file.
        checks: what was looked at on them; of a machine that does not answer, that alone.
    """

    nodes: Sequence[str]
    checks: Sequence[Check]

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.ok]

    def raise_if_failed(self) -> None:
        """
        Raises:
            LigoError: something is not as it should be; it has a line for each failure.
        """
        if self.failures:
            lines = "\n".join(f"  {check}" for check in self.failures)
            raise LigoError(f"{self._verdict()}\n{lines}")

    def print(self, file: TextIO | None = None) -> None:
        """The table, the failures, and in a last line how many machines are well."""
        file = file or sys.stdout
        table = self._table()
        if table.row_count:
            width = None if file.isatty() else _WIDEST
            Console(file=file, width=width, markup=False, highlight=False).print(table)
        for check in self.failures:
            print(check, file=file)
        print(self._verdict(), file=file)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
        for name in ("node", *NAMES):
            table.add_column(name, no_wrap=name == "node", overflow="fold")
        failing = self._failing()
        for node in self.nodes if len(self.nodes) <= _MOST_ROWS else failing:
            table.add_row(node, *(self._cell(node, name) for name in NAMES))
        return table

    def _cell(self, node: str, name: str) -> str:
        """What was found, in a word or two; `-` where it could not be looked at."""
        checks = [check for check in self.checks if (check.node, check.name) == (node, name)]
        if not all(check.ok for check in checks):
            return _FAILED
        return ", ".join(dict.fromkeys(check.found for check in checks)) or "-"

    def _failing(self) -> list[str]:
        return list(dict.fromkeys(check.node for check in self.failures))

    def _verdict(self) -> str:
        failing, total = len(self._failing()), len(self.nodes)
        nodes = "node" if total == 1 else "nodes"
        return f"{failing} of {total} {nodes} not ready" if failing else f"{total} {nodes} ready"
