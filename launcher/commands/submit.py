"""`ligo-dist submit`: write an sbatch file for a run and hand it to Slurm."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.arguments import add_cluster, add_config, read_config
from launcher.preflight import check_before_start
from launcher.slurm import sbatch_file, submit
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import replace_text


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("submit", help="write an sbatch file for a run, with requeue, and submit it")
    add_config(parser)
    add_cluster(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the file; write and submit nothing")


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    slurm = config.cluster.slurm
    num_ranks = (slurm.nodes or 1) * (slurm.ranks_per_node or slurm.gpus_per_node or 1)
    check_before_start(config, num_ranks, None, arguments.config)
    run_dir = Path(config.cluster.directory or ".", config.run_dir).absolute()
    text = sbatch_file(config.cluster, arguments.config, arguments.overrides, run_dir, run_dir.name)
    if arguments.dry_run:
        print(text, end="")
        return 0
    file = run_dir / "job.sbatch"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        replace_text(file, text)
    except OSError as error:
        raise LigoError(f"run_dir: {str(file)!r} cannot be written: {error.strerror}") from None
    print(f"job {submit(file)}, written to {file}; its output goes to {run_dir / 'slurm-JOB.log'}")
    return 0
