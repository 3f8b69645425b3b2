"""`ligo-dist submit`: write an sbatch file for a run and hand it to Slurm."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.arguments import add_cluster, add_config, read_config
from launcher.preflight import check_before_start
from launcher.sbatch import sbatch_file, submission_faults, submit
from ligo_dist.config import Config
from ligo_dist.runtime.errors import ConfigError, LigoError
from ligo_dist.runtime.files import replace_text


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("submit", help="write an sbatch file for a run, with requeue, and submit it")
    add_config(parser)
    add_cluster(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the file; write and submit nothing")


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    run_dir = Path(config.cluster.directory or ".", config.run_dir).absolute()
    _check(config, arguments.config)
    cluster_file = [] if arguments.cluster is None else ["--cluster", arguments.cluster]
    text = sbatch_file(config.cluster, [arguments.config, *cluster_file, *arguments.overrides], run_dir)
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


def _check(config: Config, source: str) -> None:
    """
    Raises:
        ConfigError: every fault of the run and of what is asked of Slurm, together.
    """
    slurm = config.cluster.slurm
    faults = submission_faults(config.cluster)
    try:
        check_before_start(config, (slurm.nodes or 1) * slurm.ranks, None, source)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults, source)
