"""What a run takes, in bytes, from its plan: enough to see that it cannot fit, not that it will."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher.preflight import vocabulary_size
from ligo_dist.accounting import parameter_count
from ligo_dist.architectures import get_architecture
from ligo_dist.config import Config, stage_shapes
from ligo_dist.files import EXPORTS_DIRECTORY
from ligo_dist.planning import Needs, needs
from ligo_dist.zero3 import Zero3

TOLERANCE = 0.15
"""The plan's memory is right to within this part (docs/accounting.md): with so much less a run may still fit."""

_FP32 = 4
_TRAINED = 4 * _FP32
"""Weights, gradient and AdamW's two moments of a parameter."""
_COMPUTED = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class Memory:
    """The least that a rank holds: bytes beside the processors, and bytes on its accelerator (0 where it has none)."""

    host: int
    device: int


def planned(config: Config, num_ranks: int, *, on_processors: bool) -> Needs:
    """What the plan says of a checked configuration.

    Args:
        config: the configuration.
        num_ranks: that the models are spread over.
        on_processors: whether the ranks have no accelerators.
    """
    shapes = stage_shapes(config, vocabulary_size(config))
    return needs(config, shapes, num_ranks, on_gpu=not on_processors)


def rank_memory(config: Config, num_ranks: int, plan: Needs, *, on_processors: bool) -> Memory:
    """The least that one rank holds at the plan's fullest moment. Where DeepSpeed offloads, which the plan leaves out,
    the partitions of the largest model alone."""
    if not Zero3.from_keys(config.deepspeed).offloads:
        memory = int(plan.memory * (1 - TOLERANCE))
        return Memory(memory, 0) if on_processors else Memory(0, memory)
    share = -(-_largest_model(config) // num_ranks)
    trained, computed = _TRAINED * share, _COMPUTED[config.precision] * share
    if on_processors or _offloads_weights(config):
        return Memory(trained + computed, 0)
    return Memory(trained, computed)


def disk_held(run_dir: Path) -> int:
    """Bytes that a run which is resumed has there already; it will not take them twice."""
    files = [path for name in ("checkpoints", EXPORTS_DIRECTORY) for path in (run_dir / name).rglob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def _largest_model(config: Config) -> int:
    """Parameters of it."""
    architecture = get_architecture(config.model.family)
    return max(
        parameter_count(architecture, shape) for shape in stage_shapes(config, vocabulary_size(config))
    )


def _offloads_weights(config: Config) -> bool:
    section = (config.deepspeed.get("zero_optimization") or {}).get("offload_param")
    return isinstance(section, dict) and section.get("device") == "cpu"
