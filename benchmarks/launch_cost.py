"""What `ligo-dist run` takes longer than the bare `deepspeed` command, on the same work.

    python -m benchmarks.launch_cost --n 5

A whole run of a few steps on two ranks of this machine, from the command to its end, alternately started by both. The
configuration has keys of the library, which the launcher looks up in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from benchmarks.provenance import commit, processor
from launcher.command import free_port


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=5, help="runs of each")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    deepspeed = str(Path(sys.executable).with_name("deepspeed"))
    with tempfile.TemporaryDirectory(prefix="launch-cost-") as directory:
        config = write_config(Path(directory))
        seconds: dict[str, list[float]] = {"deepspeed": [], "ligo-dist run": []}
        for number in range(options.n + 1):
            bare = [deepspeed, "--num_nodes", "1", "--num_gpus", "2", "--master_port", str(free_port())]
            bare += ["--no_local_rank", "--quiet", "--module", "ligo_dist", str(config)]
            ours = [sys.executable, "-m", "launcher", "run", str(config), "--nproc", "2"]
            for name, command in (("deepspeed", bare), ("ligo-dist run", ours)):
                took = _time([*command, f"run_dir={directory}/{name.split()[0]}-{number}"])
                if number:  # the first ones prepare the corpus, and the system's caches
                    seconds[name].append(took)
                    print(f"{number:>3}  {name:<14}{took:6.1f} s", flush=True)
    pairs = zip(seconds["ligo-dist run"], seconds["deepspeed"], strict=True)
    more = [ours - bare for ours, bare in pairs]
    lines = [
        f"{date.today()}, commit {commit()}; 2 ranks on {os.cpu_count()} {processor()} cores, {options.n} pairs",
        *(f"{name:<14}{spread(values)}" for name, values in seconds.items()),
        f"{'difference':<14}{spread(more)}",
    ]
    print("\n" + "\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    return 0


def write_config(directory: Path, **keys: Any) -> Path:
    """The file of a configuration of a few steps, whose corpus lies in the directory too; `keys` take the places of
    its own."""
    path = directory / "config.yaml"
    data = {**_DATA, "cache_dir": str(directory / "cache")}
    path.write_text(yaml.safe_dump({**_CONFIG, "data": data, **keys}))
    return path


def spread(values: Sequence[float]) -> str:
    """Their median and range, which are seconds."""
    return f"{statistics.median(values):6.1f} s (from {min(values):.1f} to {max(values):.1f})"


def _time(command: Sequence[str]) -> float:
    began = time.monotonic()
    environ = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


_DATA: dict[str, Any] = {
    "source": "stdlib",
    "max_documents": 60,
    "validation_fraction": 0.1,
    "sequence_length": 32,
    "workers": 1,
}
_CONFIG: dict[str, Any] = {
    "run_dir": "replaced",
    "precision": "fp32",
    "model": {"family": "gpt2", "max_positions": 32, "huggingface": {"embd_pdrop": 0.0, "resid_pdrop": 0.0}},
    "defaults": {"train": {"batch_size": 4, "micro_batch_size": 2, "optimizer": {"learning_rate": 1.0e-3}}},
    "stages": [{"name": "small", "size": {"layers": 1, "width": 16, "heads": 1}, "train": {"steps": 3}}],
    "tokenizer": {"vocab_size": 420},
    "evaluation": {"every_steps": 3, "sequences": 2, "micro_batch_size": 2},
    "tracking": {"mlflow": False, "pictures": False},
}


if __name__ == "__main__":
    sys.exit(main())
