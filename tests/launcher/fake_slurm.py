"""Stands in for Slurm: links named `srun`, `sbatch` and `scontrol` to this file do what they would, on this machine.

Each call is noted in the file `slurm-calls` of the working directory: its words, and of srun the number of tasks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    name = Path(sys.argv[0]).name
    with open(os.environ.get("SLURM_CALLS", "slurm-calls"), "a") as file:
        file.write(json.dumps([name, *sys.argv[1:]]) + "\n")
    return {"srun": srun, "sbatch": sbatch, "scontrol": scontrol}[name](sys.argv[1:])


def srun(words: list[str]) -> int:
    """As many tasks as are asked for on each node."""
    options = dict(
        word.removeprefix("--").split("=") for word in words if word.startswith("--") and "=" in word
    )
    command = words[next(index for index, word in enumerate(words) if not word.startswith("--")) :]
    count, per_node = int(options["ntasks"]), int(options["ntasks-per-node"])
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": count, "SLURM_STEP_NODELIST": options["nodelist"]}
    tasks = []
    for number in range(count):
        place = {**step, "SLURM_PROCID": number, "SLURM_LOCALID": number % per_node}
        environ = {**os.environ, **{name: str(value) for name, value in place.items()}}
        tasks.append(subprocess.Popen(command, env=environ))
    return max(task.wait() for task in tasks)


def sbatch(words: list[str]) -> int:
    text = Path(words[-1]).read_text()
    if "--partition=closed" in text:
        print("sbatch: error: invalid partition specified: closed", file=sys.stderr)
        return 1
    print("4711;cluster")
    return 0


def scontrol(words: list[str]) -> int:
    return 0


if __name__ == "__main__":
    sys.exit(main())
