"""Taking a comparison to its end: what is started, what is not started again, what is said of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher.comparison import execution
from launcher.comparison.execution import run_comparison
from launcher.comparison.runs import ComparedRun, comparison_root, derive_runs
from launcher.signals import Signals
from ligo_dist.config import Config, load_config
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.quantities import duration
from ligo_dist.schedule import Plan

ALL = [f"{method} seed {seed}" for seed in (0, 4) for method in ("source", "scratch", "stack", "ligo")]


@dataclass
class Stand:
    """Stands in for the launcher and for the report.

    Attributes:
        codes: exit codes of runs by name; the others finish.
        started: names of the runs in the order in which they were started.
        reports: the commands of the reports.
        meanwhile: called while a run goes on.
    """

    codes: dict[str, int] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    reports: list[list[str]] = field(default_factory=list)
    report_code: int = 0
    meanwhile: Callable[[str], None] = lambda name: None

    def start(self, run: ComparedRun, plan: Plan) -> int:
        assert plan.config is run.config
        self.started.append(run.name)
        assert load_config(run.file).values() == run.config.values()
        self.meanwhile(run.name)
        code = self.codes.get(run.name, 0)
        if not code:
            (run.directory / "summary.json").touch()
        return code

    def report(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        self.reports.append(command)
        return subprocess.CompletedProcess(command, self.report_code)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand()
    monkeypatch.setattr(execution.subprocess, "run", stand.report)
    return stand


def run_all(file: Path, stand: Stand, *overrides: str) -> int:
    config = load_config(file, overrides)
    return run_comparison(planned(config), config.compare.baseline, comparison_root(config), stand.start)


def planned(config: Config) -> list[tuple[ComparedRun, Plan]]:
    return [(run, Plan.of(run.config, 512, 1)) for run in derive_runs(config, "set.yaml")]


def test_all_run_and_the_report_holds_them_against_scratch(config_file: Path, stand: Stand, capsys) -> None:
    assert run_all(config_file, stand) == 0
    assert stand.started == ALL
    runs = [f"runs/set/seed-{seed}/{method}" for seed in (0, 4) for method in ("scratch", "stack", "ligo")]
    (command,) = stand.reports
    assert command == [
        *(sys.executable, "-m", "ligo_dist.report", *runs),
        *("--baseline", "runs/set/seed-0/scratch", "--output", "runs/set/report"),
    ]
    err = capsys.readouterr().err
    assert "ligo-dist: 1/8 source seed 0: in runs/set/seed-0/source\n" in err


def test_what_is_left_goes_by_the_flops(
    config_file: Path, stand: Stand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(config_file, ["compare.seeds=[0]", "compare.methods=[scratch, stack]"])
    source, scratch, stack = (plan.cost.flops for _, plan in planned(config))
    now = 0.0
    monkeypatch.setattr(execution.time, "monotonic", lambda: now)

    def work(_name: str) -> None:
        nonlocal now
        now += 100.0

    stand.meanwhile = work
    assert run_comparison(planned(config), "scratch", comparison_root(config), stand.start) == 0
    err = capsys.readouterr().err
    assert "1/3 source seed 0: in runs/set/seed-0/source\n" in err
    assert f"seed-0/scratch; about {duration(100 * (scratch + stack) / source)} left\n" in err
    assert f"seed-0/stack; about {duration(200 * stack / (source + scratch))} left\n" in err


def test_another_baseline(config_file: Path, stand: Stand) -> None:
    assert run_all(config_file, stand, "compare.baseline=stack") == 0
    assert "runs/set/seed-0/stack" in stand.reports[0][stand.reports[0].index("--baseline") :]


def test_what_has_finished_is_not_run_again(config_file: Path, stand: Stand, capsys) -> None:
    assert run_all(config_file, stand, "compare.methods=[scratch, stack]", "compare.seeds=[0]") == 0
    stand.started.clear()
    assert run_all(config_file, stand) == 0
    assert stand.started == ["ligo seed 0", *ALL[4:]]
    assert "2/8 scratch seed 0: has finished before, in runs/set/seed-0/scratch\n" in capsys.readouterr().err


def test_one_that_fails_is_told_and_the_rest_goes_on(config_file: Path, stand: Stand, capsys) -> None:
    stand.codes = {"stack seed 0": 3}
    assert run_all(config_file, stand) == 1
    assert stand.started == ALL
    assert len([word for word in stand.reports[0] if word.endswith("/stack")]) == 1
    err = capsys.readouterr().err
    assert "ligo-dist: 3/8 stack seed 0: failed with exit code 3\n" in err
    assert err.endswith("ligo-dist: failed: stack seed 0; the same command tries again\n")


def test_one_that_cannot_be_started_is_a_failure_too(config_file: Path, stand: Stand, capsys) -> None:
    def refuse(name: str) -> None:
        if name == "stack seed 0":
            raise LigoError("beta: no such host")

    stand.meanwhile = refuse
    assert run_all(config_file, stand) == 1
    assert stand.started == ALL
    assert (
        "ligo-dist: beta: no such host\nligo-dist: 3/8 stack seed 0: failed with exit code 2"
        in capsys.readouterr().err
    )


def test_a_directory_that_cannot_be_made_is_a_failure_too(config_file: Path, stand: Stand, capsys) -> None:
    Path("runs/set/seed-4").mkdir(parents=True)
    Path("runs/set/seed-4/ligo").touch()
    assert run_all(config_file, stand) == 1
    assert stand.started == ALL[:-1]
    assert "ligo-dist: runs/set/seed-4/ligo cannot be written: File exists\n" in capsys.readouterr().err


def test_without_its_source_a_method_is_left_out(config_file: Path, stand: Stand, capsys) -> None:
    stand.codes = {"source seed 4": 1}
    assert run_all(config_file, stand) == 1
    assert stand.started == ALL[:6]  # scratch needs none
    assert "ligo-dist: 7/8 stack seed 4: left out, as its source failed\n" in capsys.readouterr().err


def test_no_report_without_a_baseline(config_file: Path, stand: Stand, capsys) -> None:
    stand.codes = {"scratch seed 0": 1, "scratch seed 4": 1}
    assert run_all(config_file, stand) == 1
    assert stand.reports == []
    assert "no report: no run of the baseline 'scratch' has finished\n" in capsys.readouterr().err


def test_the_baseline_of_another_seed_takes_its_place(config_file: Path, stand: Stand) -> None:
    stand.codes = {"scratch seed 0": 1}
    assert run_all(config_file, stand) == 1
    assert "runs/set/seed-4/scratch" in stand.reports[0][stand.reports[0].index("--baseline") :]


def test_a_report_that_fails_is_a_failure(config_file: Path, stand: Stand, capsys) -> None:
    stand.report_code = 2
    assert run_all(config_file, stand) == 1
    assert capsys.readouterr().err.endswith(
        "no report: what failed has been said; the same command tries again\n"
    )


@pytest.mark.parametrize("code", [75, 76])
def test_an_orderly_stop_ends_it(config_file: Path, stand: Stand, code: int, capsys) -> None:
    stand.codes = {"stack seed 0": code}
    assert run_all(config_file, stand) == code
    assert stand.started == ALL[:3]
    assert stand.reports == []
    assert capsys.readouterr().err.endswith("the comparison has stopped; the same command goes on\n")


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_ends_it_even_where_the_run_still_finished(
    config_file: Path, stand: Stand, signum: int, code: int
) -> None:
    def interrupt(name: str) -> None:
        with Signals() as of_run:  # as the supervisor of a run does
            if name == "scratch seed 0":
                os.kill(os.getpid(), signum)
                assert of_run.received == [signum]

    stand.meanwhile = interrupt
    assert run_all(config_file, stand) == code
    assert stand.started == ALL[:2]
    stand.meanwhile = lambda name: None
    assert run_all(config_file, stand) == 0
    assert stand.started == ALL
