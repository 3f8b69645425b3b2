"""From the command to the end of the first optimizer step, part by part, beside a bare `deepspeed` script.

    python -m benchmarks.startup --n 5

`ligo-dist run` and the script (`benchmarks.startup_bare`, which imports the same libraries and takes one step of such a
model) are started alternately, on two ranks of this machine. The corpus is prepared. Of each part the time
of the slowest rank is taken, of all starts the median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from benchmarks.launch_cost import spread, write_config
from benchmarks.provenance import commit, processor
from launcher.command import free_port

MARKS_VARIABLE = "LIGO_DIST_STARTUP_MARKS"
"""Names the directory where ranks mark what they have come to."""

OURS = {
    "command": "the launcher: configuration, checks, preflight",
    "process": "DeepSpeed's two processes",
    "anew": "the rank begins anew, with the variables of its launch",
    "preparation": "imports",
    "start": "configuration, corpus; the ranks meet",
    "small start": "run directory, records, export rehearsed",
    "small train": "model and engine",
    "step": "the first step",
}
"""Parts of a start by the marks that end them."""

BARE = {
    "process": "DeepSpeed's two processes",
    "imports": "imports",
    "met": "the ranks meet",
    "engine": "model and engine",
    "step": "the first step",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=5, help="starts of each")
    parser.add_argument("--nproc", type=int, default=2, help="ranks")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    starts: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        directory = Path(name)
        wrapper = [sys.executable, "-m", "benchmarks.startup_rank"]
        config = write_config(directory, cluster={"wrapper": wrapper})
        for number in range(options.n + 1):
            run_dir = directory / f"run-{number}"
            deepspeed = str(Path(sys.executable).with_name("deepspeed"))
            bare = [deepspeed, "--num_nodes", "1", "--num_gpus", str(options.nproc), "--no_local_rank"]
            bare += ["--master_port", str(free_port()), "--quiet", "--module", "benchmarks.startup_bare"]
            ours = [sys.executable, "-m", "launcher", "run", str(config), "--nproc", str(options.nproc)]
            ours += [f"run_dir={run_dir}"]
            for way, command, parts in (("bare", bare, BARE), ("ours", ours, OURS)):
                seconds = _start(command, parts, directory / f"{way}-{number}", run_dir, options.nproc)
                if number:  # the first ones prepare the corpus, and the system's caches
                    starts[way].append(seconds)
                    print(f"{number:>3}  {way}  {sum(seconds.values()):6.1f} s", flush=True)
    whole = {way: [sum(seconds.values()) for seconds in found] for way, found in starts.items()}
    ratios = [ours / bare for ours, bare in zip(whole["ours"], whole["bare"], strict=True)]
    lines = [
        f"{date.today()}, commit {commit()}; {options.nproc} ranks on {os.cpu_count()} {processor()} cores,"
        f" {options.n} pairs",
        f"ligo-dist run / bare deepspeed script: {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f})",
        *_table("bare deepspeed script", starts["bare"], BARE),
        *_table("ligo-dist run", starts["ours"], OURS),
    ]
    print("\n" + "\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    return 0


def _start(
    command: list[str], parts: dict[str, str], marks: Path, run_dir: Path, nproc: int
) -> dict[str, float]:
    """Seconds of each part of one start.

    Raises:
        RuntimeError: the command failed, or a rank has not come to an end of a part.
    """
    marks.mkdir()
    environ = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", MARKS_VARIABLE: str(marks)}
    began = time.time()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    found = read_marks(marks, nproc)
    if "command" in parts:  # what the launcher writes last before it starts anything
        found["command"] = (
            (run_dir / "logs" / "001" / "config.yaml").stat().st_mtime if run_dir.exists() else 0.0
        )
    if done.returncode or not parts.keys() <= found.keys():
        raise RuntimeError(f"{command} came to {list(found)}:\n{done.stdout}{done.stderr}")
    seconds = {}
    for mark in parts:
        seconds[mark], began = found[mark] - began, found[mark]
    return seconds


def read_marks(directory: Path, ranks: int) -> dict[str, float]:
    """When the last of the ranks came to each mark, in seconds since the epoch; those that all have come to."""
    times: dict[str, list[float]] = {}
    for path in directory.iterdir():
        for line in path.read_text().splitlines():
            when, _, mark = line.partition(" ")
            times.setdefault(mark, []).append(float(when))
    return {mark: max(of_mark) for mark, of_mark in times.items() if len(of_mark) == ranks}


def make_mark(mark: str) -> None:
    """On a rank: write down that it has come so far."""
    path = Path(os.environ[MARKS_VARIABLE], os.environ["RANK"])
    with path.open("a") as file:
        file.write(f"{time.time()} {mark}\n")


def _table(title: str, starts: list[dict[str, float]], parts: dict[str, str]) -> list[str]:
    lines = ["", f"{title}: {spread([sum(seconds.values()) for seconds in starts]).strip()}"]
    for mark, what in parts.items():
        lines.append(f"  {statistics.median(seconds[mark] for seconds in starts):6.2f} s  {what}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
