"""Which variables the ranks get, and which DeepSpeed's launcher does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from launcher.fleet import ssh_words
from ligo_dist.config import Cluster
from ligo_dist.runtime.launch import HANG_VARIABLE, VARIABLE, LaunchDirectory
from ligo_dist.runtime.redaction import names_secret

_PREFIXES = (
    "NCCL_", "GLOO_", "TORCH_", "CUDA_", "DEEPSPEED_", "DS_", "OMP_", "MKL_", "UCX_", "FI_",
    "MLFLOW_", "DATABRICKS_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "TOKENIZERS_", "LIGO_DIST_", "PYTHON",
)  # fmt: skip
_ONLY_HERE = ("CUDA_VISIBLE_DEVICES", "PYTHONHOME", VARIABLE)
"""What holds for this machine, or this launch, alone."""

_DEEPSPEED_ENV = "DS_ENV_FILE"


def ranks_environment(cluster: Cluster, environ: Mapping[str, str], inherits: bool) -> dict[str, str]:
    """What every rank gets through the directory of the launch: the configuration's variables before the launcher's.

    Args:
        cluster: `environment`, `forward` and the interfaces of NCCL and gloo are read.
        environ: the launcher's environment.
        inherits: the ranks inherit the environment of what starts them: only what that does not get is given.
    """
    passed = {
        name: value
        for name, value in environ.items()
        if name not in _ONLY_HERE
        and (_is_kept_back(name) if inherits else name.startswith(_PREFIXES) or name in cluster.forward)
    }
    interfaces = {"NCCL_SOCKET_IFNAME": cluster.nccl_interface, "GLOO_SOCKET_IFNAME": cluster.gloo_interface}
    passed |= {name: value for name, value in interfaces.items() if value is not None}
    return passed | cluster.environment | {HANG_VARIABLE: str(cluster.hang_seconds)}


def launcher_environment(
    cluster: Cluster, environ: Mapping[str, str], launch: LaunchDirectory, on_processors: bool
) -> dict[str, str]:
    """What DeepSpeed's launcher gets: nothing secret, as it writes variables onto command lines.

    Leaves a file in the directory of the launch, in the place of a `.deepspeed_env`, whose lines it takes over.
    """
    kept = {name: value for name, value in environ.items() if not _is_kept_back(name)}
    exported = {VARIABLE: str(launch.path)}
    accelerator = cluster.environment.get("DS_ACCELERATOR") or environ.get("DS_ACCELERATOR")
    if accelerator or on_processors:
        exported["DS_ACCELERATOR"] = accelerator or "cpu"
    lines = [*_own_lines(environ), *(f"{name}={value}" for name, value in exported.items())]
    with os.fdopen(
        os.open(launch.exports, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8"
    ) as exports:
        exports.write("\n".join(lines) + "\n")
    ssh = " ".join([environ.get("PDSH_SSH_ARGS_APPEND", ""), shlex.join(ssh_words(cluster))]).strip()
    return {**kept, **exported, _DEEPSPEED_ENV: str(launch.exports), "PDSH_SSH_ARGS_APPEND": ssh}


def _is_kept_back(name: str) -> bool:
    """Whether it may be a secret. DeepSpeed's launcher writes all that begin with MLFLOW onto a command line."""
    return name.startswith(("MLFLOW", "DATABRICKS_")) or names_secret(name)


def _own_lines(environ: Mapping[str, str]) -> list[str]:
    """Those of the user's own file of DeepSpeed's, from the places where that looks for it."""
    lines: list[str] = []
    for directory in (Path.home(), Path.cwd()):
        with suppress(OSError):
            text = (directory / environ.get(_DEEPSPEED_ENV, ".deepspeed_env")).read_text(encoding="utf-8")
            lines += [line for line in text.splitlines() if "=" in line and line not in lines]
    return lines
