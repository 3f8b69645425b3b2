"""What a run takes at the least, in bytes: enough to see that it cannot fit, not that it will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.preflight import vocabulary_size
from ligo_dist.accounting import parameter_count
from ligo_dist.architectures import get_architecture
from ligo_dist.config import Config, stage_shapes

_FP32 = 4
_CHECKPOINT = 3 * _FP32
"""Weights and AdamW's two moments."""
_TRAINED = 4 * _FP32
"""The same, and the gradient."""
_COMPUTED = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class Memory:
    """What a rank holds: bytes beside the processors, and bytes on its accelerator (0 where it has none)."""

    host: int
    device: int


def largest_model(config: Config) -> int:
    """Parameters of the largest model of a checked configuration."""
    architecture = get_architecture(config.model.family)
    return max(
        parameter_count(architecture, shape) for shape in stage_shapes(config, vocabulary_size(config))
    )


def disk_needed(parameters: int, keep: int) -> int:
    """Bytes of the run directory: the checkpoints that are kept, the one that is being written, and an export."""
    return (keep + 1) * _CHECKPOINT * parameters + _FP32 * parameters


def disk_held(run_dir: Path) -> int:
    """Bytes that a run which is resumed has there already; it will not take them twice."""
    files = [path for name in ("checkpoints", "export") for path in (run_dir / name).rglob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def rank_memory(
    parameters: int, num_ranks: int, precision: str, deepspeed: Mapping[str, Any], on_processors: bool
) -> Memory:
    """Bytes of one rank's partitions while a model is trained, without activations and buffers.

    Args:
        parameters: of the model.
        num_ranks: that it is spread over.
        precision: `bf16` or `fp32`.
        deepspeed: the keys for DeepSpeed, which may offload the optimizer or everything.
        on_processors: whether the ranks have no accelerators.
    """
    share = -(-parameters // num_ranks)
    trained, computed = _TRAINED * share, _COMPUTED[precision] * share
    if on_processors or _offloads(deepspeed, "offload_param"):
        return Memory(trained + computed, 0)
    if _offloads(deepspeed, "offload_optimizer"):
        return Memory(trained, computed)
    return Memory(0, trained + computed)


def _offloads(deepspeed: Mapping[str, Any], key: str) -> bool:
    section = (deepspeed.get("zero_optimization") or {}).get(key)
    return isinstance(section, dict) and section.get("device") == "cpu"
