"""What `precision: auto` stands for: on the machines of a run, and in a run that has begun."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ligo_dist.config.rules import attention_faults
from ligo_dist.config.schema import Config
from ligo_dist.runtime.errors import ConfigError
from ligo_dist.runtime.files import CHECKPOINTS_DIRECTORY, MANIFEST


def resolve_precision(
    config: Config, native: Sequence[bool], recorded: str | None = None
) -> tuple[Config, str | None]:
    """A configuration that says its precision, and a line that tells why it is that; None where it was given.

    Args:
        config: a checked configuration.
        native: of each machine that computes, or of each rank, whether that computes bf16 natively.
        recorded: what the run began with; None: it has no checkpoint yet.

    Raises:
        ConfigError: what it asks for beside cannot be had in that precision.
    """
    if config.precision != "auto":
        return config, None
    here = "bf16" if all(native) else "fp32"
    line = f"precision: {recorded or here}, "
    if recorded is not None:
        line += "as the run began" + ("" if recorded == here else f"; begun here it would be {here}")
    elif here == "bf16":
        line += "which is native here"
    else:
        line += "as bf16 is not native " + ("here" if not any(native) else f"to {_part(native)}")
    resolved = config.model_copy(update={"precision": recorded or here})
    faults = attention_faults(resolved)
    if faults:
        raise ConfigError(faults)
    return resolved, line


def recorded_precision(run_dirs: Iterable[Path]) -> str | None:
    """What the checkpoints of runs were made with, the first that says it; None: none does. All of one run were made
    with the same."""
    for run_dir in run_dirs:
        for manifest in sorted((run_dir / CHECKPOINTS_DIRECTORY).glob(f"step-*/{MANIFEST}"), reverse=True):
            with suppress(
                OSError, ValueError, KeyError, TypeError
            ):  # a damaged one is told when it is gone on from
                return str(json.loads(manifest.read_text(encoding="utf-8"))["config"]["precision"])
    return None


def begun_directories(config: Config, directory: Path = Path()) -> list[Path]:
    """The run directories whose checkpoints say what a run began with: its own, and that of the run it begins from.
    `directory`: what relative paths begin at."""
    start = config.start_from
    return [directory / path for path in (config.run_dir, *([] if start is None else [start.run]))]


def _part(native: Sequence[bool]) -> str:
    return f"{len(native) - sum(native)} of {len(native)} ranks"
