"""A fault campaign: whole runs that are struck at random moments, and whether they end as if nothing had happened.

    python -m benchmarks.faults --n 200                # on this machine
    python -m benchmarks.faults --n 30 --cluster       # on three hosts made of network namespaces (needs root)

One schedule (train, learn, grow, train) is run undisturbed; then n times more through `ligo-dist run`, so through the
real `deepspeed`, each with a fault. Its moment is drawn evenly from one of the phases (start, train, learn,
grow, train, end), and counted from where the run's own log enters it, however busy the machine is.

    rank        one rank gets SIGKILL
    frozen      one rank gets SIGSTOP
    node        all of a node's processes get SIGKILL: its ranks, their watchdogs, DeepSpeed's own
    parent      DeepSpeed's process that has started the ranks of a node gets SIGKILL
    launcher    the launcher gets SIGKILL; the same command is typed again
    warning     the launcher gets SIGTERM, as before a preemption; the same command is typed again
    request     somebody makes the file `stop` in the run directory; the same command is typed again
    link        the cable of a host is pulled for some seconds (--cluster alone)

For each: whether the run finished, how many steps had to be taken again, how far its validation losses are from the
undisturbed ones, and how much longer it took. What lies between two checkpoints is all that may be lost.

`--record FILE` keeps each trial, and a campaign that was broken off goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.provenance import commit, processor
from ligo_dist.runtime.errors import FINISHED, REQUEUE
from ligo_dist.tracking import METRICS_FILE, read_records

FAULTS = ("rank", "frozen", "node", "parent", "launcher", "warning", "request")
PHASES = ("start", "small train", "large learn", "large grow", "large train", "end")
CHECKPOINT_EVERY = 3
_STEP = re.compile(r"(\w+) (train|learn) +(\d+)/\d+ ")
_ENTERS = {
    "small train": r"small train  \d+ steps",
    "large learn": r"large learn  \d+ steps",
    "large grow": r"large learn +(\d+)/\1 done",
    "large train": r"large train  \d+ steps",
    "end": r"exported large",
}
"""What a run's log says first in each phase but the start."""


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        fault: what happened to it; None: nothing.
        phase: in which phase of the run.
        moment: seconds after its start.
        victim: of which rank, or node.
        struck: whether the run was still going on then.
        code: exit code of the last launch.
        seconds: from the first start to the last end.
        repeated: optimizer steps that were taken more than once.
        difference: largest difference of a validation loss to the undisturbed run's; infinite: one is missing.
        left: processes of the run that were left at its end.
        error: what it printed last, if it did not finish.
        commit: of the code.
    """

    fault: str | None
    phase: str
    moment: float
    victim: int
    struck: bool
    code: int
    seconds: float
    repeated: int
    difference: float
    left: int
    error: str
    commit: str

    @property
    def is_well(self) -> bool:
        return self.code == FINISHED and self.difference == 0.0 and self.left == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10, help="disturbed runs")
    parser.add_argument("--cluster", action="store_true", help="on the hosts of tests/cluster")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of faults and moments")
    parser.add_argument(
        "--record", type=Path, help="keeps each trial; those that are there are not run again"
    )
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as directory, _machines(options.cluster) as machines:
        campaign = Campaign(Path(directory), machines)
        first = campaign.undisturbed(0)  # the corpus is cached after it
        with ThreadPoolExecutor(options.jobs) as pool:  # as fast as those that are disturbed
            measured = [first, *pool.map(campaign.undisturbed, range(1, options.jobs + 1))]
            lengths = {phase: min(one[phase] for one in measured) for phase in PHASES}
            whole = sum(lengths.values())
            shown = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in lengths.items())
            print(f"undisturbed: {whole:.0f} s ({shown})", flush=True)
            trials = _known(options.record)
            plan = _plan(options, lengths, machines.faults)[len(trials) :]
            for number, trial in enumerate(
                pool.map(lambda one: campaign.disturbed(*one), plan), len(trials) + 1
            ):
                trials.append(trial)
                print(f"{number:>3} {_line(trial, whole)}", flush=True)
                if options.record:
                    with options.record.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(trial)) + "\n")
    lines = _report(trials, whole, options, machines)
    print("\n" + "\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    return 0 if len(trials) >= options.n and all(trial.is_well for trial in trials) else 1


def _known(record: Path | None) -> list[Trial]:
    if record is None or not record.exists():
        return []
    return [Trial(**json.loads(line)) for line in record.read_text(encoding="utf-8").splitlines()]


Lengths = dict[str, float]
"""Phase -> its seconds in the undisturbed run."""


def _plan(
    options: argparse.Namespace, lengths: Lengths, faults: tuple[str, ...]
) -> list[tuple[int, str, str, float, int]]:
    """Number, fault, phase, seconds from the phase's beginning and victim of each trial."""
    plan = []
    for number in range(options.n):
        chance = random.Random(f"{options.seed} {number}")
        phase = PHASES[chance.randrange(len(PHASES))]
        delay = chance.uniform(0.0, lengths[phase])
        plan.append((number, faults[number % len(faults)], phase, delay, chance.randrange(3)))
    return plan


def _entered(log: Path, phase: str) -> float | None:
    """When a run came into a phase, as `time.time()` tells it; None: not yet."""
    text = log.read_text() if log.exists() else ""
    line = re.search(rf"^(.{{19}})  {_ENTERS[phase]}", text, re.MULTILINE)
    return None if line is None else time.mktime(time.strptime(line[1], "%Y-%m-%d %H:%M:%S"))


class Machines:
    """This machine, with two ranks on it."""

    faults: tuple[str, ...] = FAULTS
    words: tuple[str, ...] = ("--nproc", "2")
    ranks = 2
    shown = "2 ranks on this machine"

    def cut(self, victim: int, seconds: float) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def _machines(cluster: bool) -> Iterator[Machines]:
    if not cluster:
        yield Machines()
        return
    tests = Path(__file__).parents[1] / "tests"
    sys.path[:0] = [str(tests), str(tests / "cluster")]
    from testbed import Testbed

    with Testbed() as testbed:
        options = ",".join(f"'{word}'" for word in testbed.ssh_options)

        class Hosts(Machines):
            faults = (*FAULTS, "link")
            words = (
                *("--hostfile", str(testbed.hostfile()), f"cluster.ssh_options=[{options}]"),
                *(f"cluster.master_address={testbed.hosts['node1']}", "cluster.gloo_interface=eth0"),
            )
            ranks = 3
            shown = "3 ranks on three hosts (network namespaces, ssh, pdsh)"

            def cut(self, victim: int, seconds: float) -> None:
                node = f"node{victim % 3 + 1}"
                testbed.cut(node)
                threading.Timer(seconds, testbed.mend, [node]).start()

        yield Hosts()


class Campaign:
    """Runs that share a corpus."""

    def __init__(self, directory: Path, machines: Machines) -> None:
        self._directory, self._machines = directory, machines
        self._losses: dict[tuple[str, str, int], float] = {}

    def undisturbed(self, number: int) -> Lengths:
        """Run the schedule, and tell how long its phases are.

        Raises:
            RuntimeError: it does not finish.
        """
        name = f"undisturbed-{number}"
        began = time.time()
        code, seconds, said = self.run(name)
        if code != FINISHED:
            raise RuntimeError(said)
        self._losses = self._measured(name)
        log = self._directory / name / "run.log"
        entries = [began, *(_entered(log, phase) or began for phase in PHASES[1:]), began + seconds]
        return {
            phase: max(1.0, after - before)
            for phase, (before, after) in zip(PHASES, itertools.pairwise(entries), strict=True)
        }

    def disturbed(self, number: int, fault: str, phase: str, delay: float, victim: int) -> Trial:
        """A run with a fault."""
        name = f"trial-{number}"
        strike = _Strike(fault, phase, delay, victim, self._directory / name, self._machines)
        code, seconds, said = self.run(name, strike)
        log = self._directory / name / "run.log"
        steps = Counter(_STEP.findall(log.read_text() if log.exists() else ""))
        losses = self._measured(name)
        missing = losses.keys() != self._losses.keys()
        deadline = time.monotonic() + 60
        while (left := _ours(self._directory / name)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return Trial(
            fault=fault,
            phase=phase,
            moment=strike.moment,
            victim=victim,
            struck=strike.done,
            code=code,
            seconds=seconds,
            repeated=sum(steps.values()) - len(steps),
            difference=float("inf")
            if missing
            else max(abs(loss - self._losses[place]) for place, loss in losses.items()),
            left=len(left),
            error="" if code == FINISHED else said[-3000:],
            commit=commit(),
        )

    def run(self, name: str, strike: _Strike | None = None) -> tuple[int, float, str]:
        """Take a run to its end, typing the command again where it was stopped: exit code, seconds, what it said."""
        config = self._directory / f"{name}.yaml"
        config.write_text(yaml.safe_dump({**_CONFIG, "run_dir": str(self._directory / name)}))
        began = time.monotonic()
        with (self._directory / f"{name}.out").open("w+") as output:
            while True:
                process = self._start(config, output.fileno())
                while process.poll() is None:
                    if strike is not None and not strike.done:
                        strike.try_on(process)
                    time.sleep(0.05)
                # One that is struck before it listens dies of the warning; a scheduler starts both again.
                stopped = process.returncode in (REQUEUE, -signal.SIGKILL, -signal.SIGTERM)
                if not (strike is not None and strike.done and stopped):
                    break
            output.seek(0)
            return process.returncode, time.monotonic() - began, output.read()

    def _start(self, config: Path, output: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "launcher", "run", str(config), *self._machines.words]
        cache = f"data.cache_dir={self._directory / 'cache'}"
        environ = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, cache], stdout=output, stderr=output, env=environ)

    def _measured(self, name: str) -> dict[tuple[str, str, int], float]:
        """Validation losses by (stage, phase, step)."""
        return {
            (record["stage"], record["phase"], record["step"]): record["evaluate/loss"]
            for record in read_records(self._directory / name / METRICS_FILE)
            if "evaluate/loss" in record
        }


class _Strike:
    """A fault that waits for its moment.

    Attributes:
        done: whether it has come.
        moment: seconds from the run's start to it.
    """

    def __init__(
        self, fault: str, phase: str, delay: float, victim: int, run_dir: Path, machines: Machines
    ) -> None:
        self.moment, self.done = 0.0, False
        self._fault, self._victim, self._run_dir, self._machines = fault, victim, run_dir, machines
        self._phase, self._delay = phase, delay
        self._began = time.time()
        self._entered = self._began if phase == PHASES[0] else None

    def try_on(self, launcher: subprocess.Popen[bytes]) -> None:
        """Do it, if its moment has come and there is somebody to do it to."""
        if self._entered is None:
            self._entered = _entered(self._run_dir / "run.log", self._phase)
        if self._entered is None or time.time() < self._entered + self._delay:
            return
        with contextlib.suppress(psutil.Error):
            self.done = self._strike(launcher)
        self.moment = time.time() - self._began

    def _strike(self, launcher: subprocess.Popen[bytes]) -> bool:
        if self._fault in ("launcher", "warning"):
            launcher.send_signal(signal.SIGKILL if self._fault == "launcher" else signal.SIGTERM)
            return True
        if self._fault == "link":
            self._machines.cut(self._victim, 5.0 + 5.0 * self._victim)
            return True
        if self._fault == "request":
            stop = self._run_dir / "stop"
            if not (self._run_dir / "logs").exists():
                return False
            stop.touch()
            return True
        ours = _ours(self._run_dir)
        ranks = {int(process.environ()["RANK"]): process for process in ours if _has(process, "ligo_dist")}
        parents = [process for process in ours if _has(process, "deepspeed.launcher.launch")]
        if len(ranks) < self._machines.ranks or not parents:
            return False
        rank = ranks[self._victim % len(ranks)]
        if self._fault == "frozen":
            rank.suspend()
        elif self._fault == "rank":
            rank.kill()
        elif self._fault == "parent":
            rank.parent().kill()
        else:
            parent = rank.parent()
            for process in (parent, *parent.children(recursive=True)):
                process.kill()
        return True


def _ours(run_dir: Path) -> list[psutil.Process]:
    """The processes, on all hosts, of which this run is in the command line; no launcher of ours."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if (
            any(str(run_dir / "logs") in word for word in words)
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(process)
    return found


def _has(process: psutil.Process, module: str) -> bool:
    words = process.cmdline()
    return any(pair == ("-m", module) for pair in itertools.pairwise(words))


def _line(trial: Trial, seconds: float) -> str:
    end = "finished" if trial.code == FINISHED else f"ended with exit code {trial.code}"
    when = f"at {trial.moment:4.0f} s in {trial.phase}" if trial.struck else "missed"
    return (
        f"{trial.fault:<9}{when:<26}{end}  {trial.repeated} steps again  losses differ by {trial.difference:g}"
        f"  {trial.seconds - seconds:+.0f} s" + (f"  {trial.left} processes left" if trial.left else "")
    )


def _report(
    trials: list[Trial], seconds: float, options: argparse.Namespace, machines: Machines
) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    commits = ", ".join(sorted({trial.commit for trial in trials}))
    lines = [
        f"{date.today()}, commit {commits}; {machines.shown}, gloo on {os.cpu_count()} {processor()} cores",
        f"{versions}; seed {options.seed}, {options.jobs} runs at a time; not measured: accelerators, real machines",
        f"a checkpoint every {CHECKPOINT_EVERY} steps; undisturbed: {seconds:.0f} s",
        "",
        "fault      runs  struck  finished  steps taken again   largest difference   more time, median",
        "                                   median      most    of a loss",
    ]
    groups: list[tuple[str, Any]] = [
        (fault, lambda trial, f=fault: trial.fault == f) for fault in machines.faults
    ]
    groups += [(phase, lambda trial, p=phase: trial.struck and trial.phase == p) for phase in PHASES]
    for name, belongs in [*groups, ("all", lambda trial: True)]:
        chosen = [trial for trial in trials if belongs(trial)]
        if not chosen:
            continue
        repeated = [trial.repeated for trial in chosen]
        extra = statistics.median(trial.seconds - seconds for trial in chosen)
        lines.append(
            f"{name:<12}{len(chosen):>3}{sum(trial.struck for trial in chosen):>8}"
            f"{sum(trial.code == FINISHED for trial in chosen):>10}{statistics.median(repeated):>12.1f}"
            f"{max(repeated):>10}{max(trial.difference for trial in chosen):>13g}{extra:>22.0f} s"
        )
    lines.append(f"processes left at the end: {sum(trial.left for trial in trials)}")
    lines += [f"\n{trial.fault} at {trial.moment:.1f} s:\n{trial.error}" for trial in trials if trial.error]
    return lines


_CONFIG = {
    "precision": "fp32",
    "model": {"family": "gpt2", "max_positions": 32},
    "defaults": {
        "train": {
            "batch_size": 12,
            "micro_batch_size": 2,
            "optimizer": {"learning_rate": 3.0e-3},
            "schedule": {"kind": "wsd", "warmup_steps": 2, "decay_steps": 4},
        }
    },
    "stages": [
        {"name": "small", "size": {"layers": 2, "width": 48, "heads": 3}, "train": {"steps": 12}},
        {
            "name": "large",
            "size": {"layers": 3, "width": 80, "heads": 5},
            "grow": {"method": "ligo", "optimizer_state": "grown", "learn": {"steps": 8}},
            "train": {"steps": 10},
        },
    ],
    "data": {
        "source": "stdlib",
        "max_documents": 60,
        "validation_fraction": 0.1,
        "sequence_length": 32,
        "workers": 1,
    },
    "tokenizer": {"vocab_size": 420},
    "evaluation": {"every_steps": 4, "sequences": 6, "micro_batch_size": 3, "compare_random": False},
    "tracking": {"mlflow": False, "log_every_steps": 1, "pictures": False},
    "checkpoints": {"every_steps": CHECKPOINT_EVERY},
    "cluster": {"backoff_seconds": 0.5, "hang_seconds": 20.0, "lost_seconds": 10.0, "preflight": False},
}


if __name__ == "__main__":
    sys.exit(main())
