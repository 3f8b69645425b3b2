"""Which variables of the launcher's environment the ranks on other machines get."""

from __future__ import annotations

from collections.abc import Mapping

from ligo_dist.config.cluster import Cluster

_PREFIXES = (
    "NCCL_", "GLOO_", "TORCH_", "CUDA_", "DEEPSPEED_", "DS_", "OMP_", "MKL_", "UCX_", "FI_",
    "MLFLOW_", "DATABRICKS_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "TOKENIZERS_", "LIGO_DIST_", "PYTHON",
)  # fmt: skip
_ONLY_HERE = ("CUDA_VISIBLE_DEVICES", "PYTHONHOME")
"""What holds for this machine alone."""


def ranks_environment(cluster: Cluster, environ: Mapping[str, str], everything: bool) -> dict[str, str]:
    """The variables that a job carries to the ranks: those of the configuration before the launcher's.

    Args:
        cluster: `environment`, `forward` and the interfaces of NCCL and gloo are read.
        environ: the launcher's environment.
        everything: the ranks inherit the launcher's environment anyway: only what the configuration adds is given.
    """
    passed: dict[str, str] = {}
    if not everything:
        passed = {
            name: value
            for name, value in environ.items()
            if name not in _ONLY_HERE and (name.startswith(_PREFIXES) or name in cluster.forward)
        }
    interfaces = {"NCCL_SOCKET_IFNAME": cluster.nccl_interface, "GLOO_SOCKET_IFNAME": cluster.gloo_interface}
    passed |= {name: value for name, value in interfaces.items() if value is not None}
    return passed | cluster.environment
