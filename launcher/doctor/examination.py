"""The check of all machines before a launch."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from launcher.doctor.checks import Expected, judge
from launcher.doctor.conversation import working_directory
from launcher.doctor.needs import disk_held, planned, rank_memory
from launcher.doctor.probe import code_digest, file_digest, package_versions
from launcher.doctor.report import Report
from launcher.doctor.ssh_failures import Failure
from launcher.doctor.visits import Questions, Visit, visit
from launcher.hosts import Node
from launcher.remote import RemoteCommand, ssh_command
from ligo_dist.config import Config
from ligo_dist.config.cluster import Cluster


def run_preflight(
    nodes: Sequence[Node],
    config: Config,
    config_path: str,
    cluster: Cluster,
    master_address: str,
    master_port: int,
    remote: RemoteCommand = ssh_command,
) -> Report:
    """Look at all machines at the same time. Nothing that is made for it stays.

    Args:
        nodes: the machines; `localhost` alone is this one, and asked without ssh.
        config: a checked configuration, completed from its source.
        config_path: its file, as the launcher was given it.
        cluster: how the machines are reached, and where they work; that of `config` does not count.
        master_address, master_port: where the ranks will meet, on the first machine.
        remote: how a command is typed for a machine.

    Raises:
        LigoError: the launcher itself cannot write into the run directory, or lacks what reaches the others.
    """
    python_path = _environment(cluster).get("PYTHONPATH", "").split(os.pathsep)
    questions = Questions(
        config=config_path,
        run_dir=config.run_dir,
        python_path=[path for path in python_path if path],
        master_address=master_address,
        master_port=master_port,
    )
    answers = visit(nodes, cluster, questions, remote)
    expected = _expected(nodes, config, cluster, questions, answers)
    checks = [
        check for node, answer in zip(nodes, answers, strict=True) for check in judge(node, answer, expected)
    ]
    return Report([node.name for node in nodes], checks)


def _expected(
    nodes: Sequence[Node],
    config: Config,
    cluster: Cluster,
    questions: Questions,
    answers: Sequence[Visit | Failure],
) -> Expected:
    visits = [answer for answer in answers if isinstance(answer, Visit)]
    no_accelerators = not any(visit.look.accelerators for visit in visits)
    on_processors = no_accelerators or _environment(cluster).get("DS_ACCELERATOR") == "cpu"
    num_ranks = sum(node.num_ranks for node in nodes)
    plan = planned(config, num_ranks, on_processors=on_processors)
    written = plan.checkpoints + plan.exports
    return Expected(
        python=platform.python_version(),
        packages=_packages(visits),
        code=code_digest(),
        config_path=questions.config,
        config=file_digest(questions.config),
        directory=working_directory(cluster),
        run_dir=questions.run_dir,
        disk=max(0, written - disk_held(Path(working_directory(cluster), questions.run_dir))),
        memory=rank_memory(config, num_ranks, plan, on_processors=on_processors),
        on_processors=on_processors,
        master_address=questions.master_address,
        master_port=questions.master_port,
    )


def _packages(visits: Sequence[Visit]) -> dict[str, str | None]:
    """The launcher's versions; what it has not itself should be everywhere as on the first machine that has it."""
    expected = package_versions()
    for name, version in expected.items():
        there = [visit.look.packages[name] for visit in visits if visit.look.packages[name]]
        expected[name] = version or next(iter(there), None)
    return expected


def _environment(cluster: Cluster) -> dict[str, str]:
    """What the ranks will find set, as far as it bears on the checks."""
    return {**os.environ, **cluster.environment}
