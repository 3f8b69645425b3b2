"""A whole comparison on a tiny corpus, interrupted and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from statistics import fmean
from typing import Any

import pytest

from runs import ROOT, Site, environment, launcher

pytestmark = pytest.mark.slow

METHODS = ("scratch", "ligo")


class Comparison:
    """A comparison and what it leaves behind."""

    def __init__(self, site: Site) -> None:
        files = site.config("set", "two stages")
        self.root = files.run_dir / "seed-0"
        self.command = launcher(
            *("compare", str(files.config), "--nproc", "1", "--methods", ",".join(METHODS), "--seeds", "1"),
            *("stages[1].grow.optimizer_state=fresh", "stages[1].train.steps=12", "evaluation.every_steps=2"),
        )

    def start(self) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command, env=environment(), cwd=ROOT, text=True, **pipes)

    def has_finished(self, name: str) -> bool:
        return (self.root / name / "summary.json").exists()

    def launches(self, name: str) -> int:
        """How often a run has been started."""
        return len(list((self.root / name / "logs").glob("*")))


@pytest.fixture(scope="module")
def comparison(site: Site) -> Comparison:
    return Comparison(site)


@pytest.fixture(scope="module")
def interrupted(comparison: Comparison) -> tuple[int, str]:
    """Exit code and standard error of a comparison that is stopped once scratch has finished."""
    process = comparison.start()
    deadline = time.monotonic() + 300
    while not comparison.has_finished("scratch") and process.poll() is None:
        assert time.monotonic() < deadline, "scratch did not finish"
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.fixture(scope="module")
def finished(comparison: Comparison, interrupted: tuple[int, str]) -> str:
    """What is printed once the same command has been typed again."""
    process = comparison.start()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out


def test_a_signal_stops_it(comparison: Comparison, interrupted: tuple[int, str]) -> None:
    code, err = interrupted
    assert code == 75, err
    assert err.endswith("ligo-dist: the comparison has stopped; the same command goes on\n")


def test_what_had_finished_was_not_run_again(comparison: Comparison, finished: str) -> None:
    assert [comparison.launches(name) for name in ("source", "scratch")] == [1, 1]
    assert all(comparison.has_finished(name) for name in ("source", *METHODS))


def test_it_ends_with_a_report_and_says_where_it_is(comparison: Comparison, finished: str) -> None:
    directory = comparison.root.parent / "report"
    assert sorted(path.name for path in directory.iterdir()) == ["report.json", "report.png"]
    assert str(directory / "report.png") in finished
    assert {run["label"] for run in report(comparison)["runs"]} == set(METHODS)


@pytest.mark.parametrize("measure", ["flops", "seconds"])
def test_the_savings_are_those_of_the_metrics(comparison: Comparison, finished: str, measure: str) -> None:
    """Computed again from the lines of `metrics.jsonl`, by another formula."""
    whole = f"cumulative/{measure}"
    scratch = curve(comparison, "scratch", whole)
    goal = scratch[-1][1]
    of_scratch = crossing(scratch, goal)
    of_source = lines(comparison, "source")[-1][whole]
    compared = 0
    for run in report(comparison)["runs"]:
        began = before_target(comparison, run["label"], whole)
        needed = crossing(
            [(cost - began, loss) for cost, loss in curve(comparison, run["label"], whole)], goal
        )
        saved = run["comparison"][measure]
        if run["comparison"]["outcome"] != "reached":
            assert needed is None or run["comparison"]["outcome"].startswith("below from")
            continue
        assert needed is not None
        assert of_scratch is not None
        # Looking at the model that it was given took a run no FLOPs, but time.
        spent_before = 0 if run["label"] == "scratch" else of_source + began
        assert saved["excluded"] == pytest.approx(1 - needed / of_scratch)
        assert saved["included"] == pytest.approx(1 - (needed + spent_before) / of_scratch)
        compared += 1
    assert compared >= 2, "runs that never get there show nothing"


def report(comparison: Comparison) -> dict[str, Any]:
    return json.loads((comparison.root.parent / "report" / "report.json").read_text())


def lines(comparison: Comparison, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (comparison.root / name / "metrics.jsonl").read_text().splitlines()]


def before_target(comparison: Comparison, name: str, whole: str) -> float:
    """What a run had spent where its last stage began."""
    before = [line[whole] for line in lines(comparison, name) if line["stage"] == "small" and whole in line]
    return before[-1] if before else 0.0


def curve(comparison: Comparison, name: str, whole: str) -> list[tuple[float, float]]:
    """Cost and loss at each evaluation of the last stage's model."""
    return [
        (line[whole], line["evaluate/loss"])
        for line in lines(comparison, name)
        if line["stage"] == "large" and line["phase"] != "learn" and "evaluate/loss" in line
    ]


def crossing(points: list[tuple[float, float]], goal: float) -> float | None:
    """Where the falling curve nearest to the points meets a loss."""
    costs, losses = zip(*points, strict=True)
    count = len(points)
    falling = [
        min(max(fmean(losses[a : b + 1]) for b in range(i, count)) for a in range(i + 1))
        for i in range(count)
    ]
    for i, value in enumerate(falling):
        if value <= goal:
            part = 0.0 if i == 0 else (falling[i - 1] - goal) / (falling[i - 1] - value)
            return costs[i - 1] + part * (costs[i] - costs[i - 1]) if i else costs[0]
    return None
