"""What recording the metrics costs a run: nothing, JSON lines alone, MLflow in an SQLite file, and an MLflow server.

    python -m benchmarks.logging_cost

All ways train the same model in one process, in turns, several rounds of them. Three things are measured: how long
the training itself, the main thread, is kept by recording, which is what every step waits for; what processor time the
other threads of the process take, which deliver; and how long the steps of a round take on average, against those of
the round in which nothing is recorded. The last has all that threads and a server on the same machine take from the
training, and the machine's noise.

Training takes one processor here and leaves another to the rest, as training on an accelerator does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import run_on_ranks
from benchmarks.provenance import commit, processor
from launcher.command import free_port
from ligo_dist.config.schema import Tracking

WAYS = ("nothing", "JSON lines", "MLflow, SQLite", "MLflow, server")

_START_SECONDS = 180


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12, help="of each way")
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--log-every", type=int, default=Tracking().log_every_steps, help="steps")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as uri:
        arguments = {
            "width": options.width,
            "layers": options.layers,
            "rounds": options.rounds,
            "steps": options.steps,
            "log_every": options.log_every,
            "directory": folder,
            "server": uri,
        }
        (measured,) = run_on_ranks("benchmarks.logging_cost_rank", 1, arguments, keeps_memory=True)
    lines = [*_heading(options, measured["parameters"]), "", *_table(measured, options.steps)]
    print("\n".join(lines), flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


@contextmanager
def _server(directory: Path) -> Iterator[str]:
    """An MLflow server over an SQLite file; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{directory / 'server.db'}"]
    command += ["--artifacts-destination", str(directory / "artifacts")]
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((directory / "server.log").read_text())
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def _heading(options: argparse.Namespace, parameters: int) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "mlflow"))
    return [
        f"{date.today()}, commit {commit()}; gpt2, {parameters / 1e6:.1f} M parameters, fp32, one rank with one thread"
        f" on {os.cpu_count()} {processor()} cores",
        f"{versions}; not measured: accelerators, several ranks, a server on another machine",
        f"{options.rounds} rounds of {options.steps} steps of each way; a record every {options.log_every} steps, with"
        f" the load of the node every {Tracking().system_metrics_every_seconds:g} s",
        "a step: the median over the rounds of the mean of a round's steps; ratio: the median over the rounds of a"
        " round's mean to that of nothing (quartiles)",
    ]


def _table(measured: dict[str, Any], steps: int) -> list[str]:
    lines = [
        "                                                 the main thread is kept     other threads work",
        "recorded in     a step, ms        ratio          a record, ms   % of a step   ms a step   % of a step",
    ]
    of_nothing = [sum(seconds) / steps for seconds in measured["steps"]["nothing"]]
    for way in WAYS:
        means = [sum(seconds) / steps for seconds in measured["steps"][way]]
        line = f"{way:<16}{1000 * statistics.median(means):>10.2f}"
        if way != "nothing":
            ratios = [mean / nothing for mean, nothing in zip(means, of_nothing, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            records = measured["records"][way]
            share = sum(records) / sum(map(sum, measured["steps"][way]))
            line += f"   {middle:.4f} ({low:.4f} to {high:.4f})"
            line += f"{1000 * statistics.median(records):>10.3f}{100 * share:>14.3f}"
            idle, busy = (statistics.median(measured["beside"][which]) / steps for which in ("nothing", way))
            line += f"{1000 * (busy - idle):>12.3f}{100 * (busy - idle) / statistics.median(means):>14.3f}"
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
