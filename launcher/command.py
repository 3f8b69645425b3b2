"""The `deepspeed` command that starts the same ranks by hand, without what watches over them."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping

from launcher.accelerators import count_accelerators
from launcher.fleet import Fleet
from launcher.supervisor import Launch

WORKER_MODULE = "ligo_dist"


def command_by_hand(
    launch: Launch, fleet: Fleet, hostfile: str | None, environ: Mapping[str, str] = os.environ
) -> str:
    """As it may be typed into a shell. DeepSpeed's runner reads what other machines need from `.deepspeed_env`.

    Args:
        launch: whose ranks are meant.
        fleet: the nodes.
        hostfile: None: there is none, and the ranks run on this machine.
        environ: the environment that the command inherits.
    """
    cluster = launch.cluster
    words = ["deepspeed"]
    if hostfile is not None:
        words += ["--hostfile", hostfile]
        words += ["--include", cluster.include] if cluster.include else []
        words += ["--exclude", cluster.exclude] if cluster.exclude else []
        words += ["--master_addr", launch.master_address]
    else:
        words += _devices(fleet.nodes[0].num_ranks, environ)
    words += ["--master_port", str(launch.master_port), "--no_local_rank", "--quiet"]
    words += ["--module", WORKER_MODULE, launch.config, *launch.overrides]
    on_processors = hostfile is None and count_accelerators(environ) == 0 and "DS_ACCELERATOR" not in environ
    return ("DS_ACCELERATOR=cpu " if on_processors else "") + shlex.join(words)


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _devices(num_ranks: int, environ: Mapping[str, str]) -> list[str]:
    """The runner's choice of devices. With `--num_gpus` it forgets CUDA_VISIBLE_DEVICES, so those are named
    to it."""
    visible = [
        device.strip() for device in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.strip()
    ]
    if count_accelerators(environ) and visible and all(device.isdecimal() for device in visible):
        return ["--include", "localhost:" + ",".join(visible[:num_ranks])]
    return ["--num_nodes", "1", "--num_gpus", str(num_ranks)]
