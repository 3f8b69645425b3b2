"""A whole comparison on a tiny corpus, interrupted and resumed."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from runs import ROOT, Site, environment, launcher

pytestmark = pytest.mark.slow

METHODS = ("scratch", "stack", "ligo")


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
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return Comparison(Site.make(tmp_path_factory.mktemp("comparison")))


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
def finished(comparison: Comparison, interrupted: tuple[int, str]) -> Path:
    """The directory of its runs, once the same command has been typed again."""
    process = comparison.start()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return comparison.root


def test_a_signal_stops_it(comparison: Comparison, interrupted: tuple[int, str]) -> None:
    code, err = interrupted
    assert code == 75, err
    assert err.endswith("ligo-dist: the comparison has stopped; the same command goes on\n")


def test_what_had_finished_was_not_run_again(comparison: Comparison, finished: Path) -> None:
    assert [comparison.launches(name) for name in ("source", "scratch")] == [1, 1]
    assert all(comparison.has_finished(name) for name in ("source", *METHODS))
