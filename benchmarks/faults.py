"""A fault campaign: whole runs that are killed at random moments, and whether they end as if nothing had happened.

    python -m benchmarks.faults --n 50

One schedule (train, learn, grow, train) is run undisturbed; then n times more, each with a fault at a moment drawn
evenly from the time that takes:

    rank        one rank gets SIGKILL
    node        the agent and all ranks of the machine get SIGKILL
    launcher    the launcher gets SIGKILL; the same command is typed again
    warning     the launcher gets SIGTERM, as before a preemption; the same command is typed again
    frozen      one rank gets SIGSTOP

For each: whether the run finished, how many steps had to be taken again, how far its validation losses are from the
undisturbed ones, and how much longer it took. What lies between two checkpoints is all that may be lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil
import yaml

from benchmarks.provenance import commit, processor
from ligo_dist.exit_codes import FINISHED, REQUEUE
from ligo_dist.tracking import METRICS_FILE, read_records

FAULTS = ("rank", "node", "launcher", "warning", "frozen")
CHECKPOINT_EVERY = 4
_HANG_SECONDS = 20.0
_STEP = re.compile(r"(\w+) (train|learn) +(\d+)/\d+ ")


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        fault: what happened to it; None: nothing.
        moment: seconds after its start.
        struck: whether the run was still going on then.
        code: exit code of the last launch.
        seconds: from the first start to the last end.
        repeated: optimizer steps that were taken more than once.
        losses: validation losses by (stage, phase, step).
        error: what it printed last, if it did not finish.
    """

    fault: str | None
    moment: float
    struck: bool
    code: int
    seconds: float
    repeated: int
    losses: dict[tuple[str, str, int], float]
    error: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10, help="disturbed runs")
    parser.add_argument("--nproc", type=int, default=2, help="ranks")
    parser.add_argument("--seed", type=int, default=0, help="of faults and moments")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        campaign = Campaign(Path(directory), options.nproc)
        campaign.run("first", None, 0.0)  # the corpus is cached after it
        undisturbed = campaign.run("undisturbed", None, 0.0)
        if undisturbed.code != FINISHED:
            print(undisturbed.error)
            return 1
        print(
            f"undisturbed: {undisturbed.seconds:.0f} s, {len(undisturbed.losses)} validation losses",
            flush=True,
        )
        trials: list[Trial] = []
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: what there is by then is reported
            for number in range(options.n):
                fault, moment = FAULTS[number % len(FAULTS)], chance.uniform(0.0, 0.9 * undisturbed.seconds)
                trial = campaign.run(f"trial-{number}", fault, moment, chance.randrange(options.nproc))
                trials.append(trial)
                print(f"{number + 1:>3} {_line(trial, undisturbed)}", flush=True)
    lines = _report(trials, undisturbed, options)
    print("\n" + "\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    return 0 if len(trials) == options.n and all(_is_well(trial, undisturbed) for trial in trials) else 1


class Campaign:
    """Runs that share a corpus."""

    def __init__(self, directory: Path, num_ranks: int) -> None:
        self._directory, self._num_ranks = directory, num_ranks

    def run(self, name: str, fault: str | None, moment: float, victim: int = 0) -> Trial:
        """Take a run to its end, with a fault at a moment; type the command again where the launcher was ended."""
        run_dir = self._directory / name
        config = self._directory / f"{name}.yaml"
        config.write_text(yaml.safe_dump({**_CONFIG, "run_dir": str(run_dir)}))
        began = time.monotonic()
        struck = False
        with (self._directory / f"{name}.out").open("w+") as output:
            while True:
                process = self._start(config, output.fileno())
                while fault is not None and not struck and process.poll() is None:
                    if time.monotonic() - began > moment:
                        struck = _strike(fault, process, victim)
                    time.sleep(0.01)
                code = process.wait()
                # One that is struck before it listens dies of the warning; a scheduler starts both again.
                if not (struck and code in (REQUEUE, -signal.SIGKILL, -signal.SIGTERM)):
                    break
            output.seek(0)
            said = output.read()
        log = run_dir / "run.log"
        steps = Counter(_STEP.findall(log.read_text() if log.exists() else ""))
        losses = {
            (record["stage"], record["phase"], record["step"]): record["evaluate/loss"]
            for record in read_records(run_dir / METRICS_FILE)
            if "evaluate/loss" in record
        }
        return Trial(
            fault=fault,
            moment=moment,
            struck=struck,
            code=code,
            seconds=time.monotonic() - began,
            repeated=sum(steps.values()) - len(steps),
            losses=losses,
            error="" if code == FINISHED else said[-2000:],
        )

    def _start(self, config: Path, output: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "launcher", "run", str(config), "--nproc", str(self._num_ranks)]
        cache = f"data.cache_dir={self._directory / 'cache'}"
        environ = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, cache], stdout=output, stderr=output, env=environ)


def _strike(fault: str, launcher: subprocess.Popen[bytes], victim: int) -> bool:
    """Do it; False if there is nobody yet to do it to, or nobody any more."""
    if fault in ("launcher", "warning"):
        launcher.send_signal(signal.SIGKILL if fault == "launcher" else signal.SIGTERM)
        return True
    try:
        (agent,) = psutil.Process(launcher.pid).children()
        ranks = [child for child in agent.children() if "ligo_dist" in child.cmdline()]
        if len(ranks) <= victim:
            return False
        if fault == "node":
            for process in (agent, *ranks):
                process.kill()
        elif fault == "frozen":
            ranks[victim].suspend()
        else:
            ranks[victim].kill()
    except (psutil.Error, ValueError):
        return False
    return True


def _difference(trial: Trial, undisturbed: Trial) -> float:
    """Largest difference of a validation loss; infinite if one is missing."""
    if trial.losses.keys() != undisturbed.losses.keys():
        return float("inf")
    return max(abs(loss - undisturbed.losses[place]) for place, loss in trial.losses.items())


def _is_well(trial: Trial, undisturbed: Trial) -> bool:
    return trial.code == FINISHED and _difference(trial, undisturbed) == 0.0


def _line(trial: Trial, undisturbed: Trial) -> str:
    end = "finished" if trial.code == FINISHED else f"ended with exit code {trial.code}"
    when = f"at {trial.moment:4.0f} s" if trial.struck else "missed   "
    difference = _difference(trial, undisturbed)
    return (
        f"{trial.fault:<9} {when}  {end}  {trial.repeated} steps again  losses differ by {difference:g}"
        f"  {trial.seconds - undisturbed.seconds:+.0f} s"
    )


def _report(trials: list[Trial], undisturbed: Trial, options: argparse.Namespace) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    lines = [
        f"{date.today()}, commit {commit()}; {options.nproc} ranks, gloo on {os.cpu_count()} {processor()} cores",
        f"{versions}; seed {options.seed}; not measured: accelerators, several machines (make test-cluster has them)",
        f"a checkpoint every {CHECKPOINT_EVERY} steps; undisturbed: {undisturbed.seconds:.0f} s",
        "",
        "fault      runs  struck  finished  steps taken again   largest difference   more time, median",
        "                                   median      most    of a loss",
    ]
    for fault in (*FAULTS, "all"):
        chosen = [trial for trial in trials if fault in (trial.fault, "all")]
        if not chosen:
            continue
        repeated = [trial.repeated for trial in chosen]
        worst = max(_difference(trial, undisturbed) for trial in chosen)
        extra = statistics.median(trial.seconds - undisturbed.seconds for trial in chosen)
        lines.append(
            f"{fault:<9}{len(chosen):>6}{sum(trial.struck for trial in chosen):>8}"
            f"{sum(trial.code == FINISHED for trial in chosen):>10}{statistics.median(repeated):>12.1f}"
            f"{max(repeated):>10}{worst:>13g}{extra:>22.0f} s"
        )
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
        {"name": "small", "size": {"layers": 2, "width": 48, "heads": 3}, "train": {"steps": 24}},
        {
            "name": "large",
            "size": {"layers": 3, "width": 80, "heads": 5},
            "grow": {"method": "ligo", "optimizer_state": "grown", "learn": {"steps": 12}},
            "train": {"steps": 20},
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
    "evaluation": {"every_steps": 5, "sequences": 8, "micro_batch_size": 4, "compare_random": False},
    "tracking": {"mlflow": False, "log_every_steps": 1},
    "checkpoints": {"every_steps": CHECKPOINT_EVERY},
    "cluster": {"backoff_seconds": 0.5, "hang_seconds": _HANG_SECONDS},
}


if __name__ == "__main__":
    sys.exit(main())
