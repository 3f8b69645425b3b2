"""The check of all machines before a launch, and what it found."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.doctor.checks import (
    NAMES,
    THIS_MACHINE,
    Check,
    Expected,
    disk_held,
    judge,
    judge_names,
    judge_this_machine,
    rank_memory,
)
from launcher.doctor.inspection import Questions, Visit, visit
from launcher.doctor.probe import code_digest, package_versions
from launcher.fleet import Fleet
from ligo_dist.config import begun_directories, recorded_precision, resolve_precision
from ligo_dist.planning import needs
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.machine import has_native_bf16
from ligo_dist.schedule import Plan

_MOST_ROWS = 20
"""Of more machines than these, only those that fail are shown."""
_WIDEST = 1000
_FAILED = "FAILS"


@dataclass(frozen=True)
class DoctorReport:
    """All checks of all machines.

    Attributes:
        nodes: the machines, in the order of the host file.
        checks: what was looked at on them, of a machine that does not answer that alone; and on this machine.
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
        found: dict[tuple[str, str], list[str]] = {}
        for check in self.checks:
            found.setdefault((check.node, check.name), []).append(check.found if check.ok else _FAILED)
        for node in self.nodes if len(self.nodes) <= _MOST_ROWS else self._failing():
            table.add_row(node, *(_cell(found.get((node, name), [])) for name in NAMES))
        return table

    def _failing(self) -> list[str]:
        failing = {check.node for check in self.failures}
        return [node for node in self.nodes if node in failing]

    def _verdict(self) -> str:
        failing, total = len(self._failing()), len(self.nodes)
        nodes = "node" if total == 1 else "nodes"
        verdict = f"{failing} of {total} {nodes} not ready" if failing else f"{total} {nodes} ready"
        if all(check.node != THIS_MACHINE for check in self.failures):
            return verdict
        return f"{verdict}, {'and' if failing else 'but'} this machine cannot start the run"


def _cell(found: Sequence[str]) -> str:
    """A word or two; `-` where it could not be looked at."""
    return _FAILED if _FAILED in found else ", ".join(dict.fromkeys(found)) or "-"


def run_preflight(fleet: Fleet, plan: Plan, master_port: int) -> DoctorReport:
    """Look at this machine, and at all of the run at the same time. Nothing that is made for it stays.

    Args:
        fleet: the machines, and how they are reached.
        plan: of the run.
        master_port: where the ranks will meet, on the first machine.

    Raises:
        LigoError: the launcher itself cannot write into the run directory, or lacks what reaches the others.
    """
    environment = {**os.environ, **fleet.cluster.environment}  # what the ranks will find set
    wants_processors = environment.get("DS_ACCELERATOR") == "cpu"
    questions = Questions(
        directory=str(fleet.directory),
        run_dir=plan.config.run_dir,
        python_path=[path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path],
        master_address=fleet.meeting_address,
        master_port=master_port,
        torch_seconds=None if wants_processors else fleet.cluster.preflight_seconds / 3,
    )
    answers = visit(fleet, questions)
    visits = [answer for answer in answers if isinstance(answer, Visit)]
    no_accelerators = not any(visit.accelerators for visit in visits)
    on_processors = no_accelerators or wants_processors
    expected = _expected(plan, questions, visits, on_processors=on_processors)
    checks = list(judge_this_machine(fleet, questions.run_dir))
    for node, answer in zip(fleet.nodes, answers, strict=True):
        checks += judge(node, answer, expected)
    if fleet.kind == "hosts":
        checks += judge_names(fleet.nodes, answers, on_processors)
    return DoctorReport([node.name for node in fleet.nodes], checks)


def _expected(plan: Plan, questions: Questions, visits: Sequence[Visit], *, on_processors: bool) -> Expected:
    run_dir = Path(questions.directory, questions.run_dir)
    native = [
        has_native_bf16(visit.processor_flags, visit.capabilities, on_processors=on_processors)
        for visit in visits
    ]
    recorded = recorded_precision([run_dir, *begun_directories(plan.config, Path(questions.directory))])
    plan = replace(plan, config=resolve_precision(plan.config, native, recorded)[0])
    needed = needs(plan, on_gpu=not on_processors)
    written = needed.checkpoints + needed.exports
    return Expected(
        python=platform.python_version(),
        packages=_packages(visits),
        code=code_digest(),
        disk=max(0, written - disk_held(run_dir)),
        memory=rank_memory(plan, needed, on_processors=on_processors),
        on_processors=on_processors,
        is_alone=len(visits) == 1,
        questions=questions,
    )


def _packages(visits: Sequence[Visit]) -> dict[str, str | None]:
    """The launcher's versions; what it has not itself should be everywhere as on the first machine that has it."""
    expected = package_versions()
    for name, version in expected.items():
        there = [visit.packages[name] for visit in visits if visit.packages[name]]
        expected[name] = version or next(iter(there), None)
    return expected
