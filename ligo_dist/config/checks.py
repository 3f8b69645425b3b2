"""What has to hold between the keys of a configuration, and between it and the number of ranks."""

from __future__ import annotations

from typing import Any

from ligo_dist.config.compare import Compare, compare_faults
from ligo_dist.config.data_checks import data_faults, tokenizer_faults
from ligo_dist.config.deepspeed_keys import deepspeed_faults
from ligo_dist.config.faults import parse_section
from ligo_dist.config.model_checks import known_architecture, model_faults
from ligo_dist.config.schema import Config, Data, Model, Stage, Tokenizer, Tracking
from ligo_dist.config.stage_checks import stage_faults
from ligo_dist.config.tracking_checks import tracking_faults
from ligo_dist.config.ways import learn_steps
from ligo_dist.errors import Fault


def cross_field_faults(raw: dict[str, Any]) -> list[Fault]:
    """Faults between keys, as far as the sections concerned are right in themselves.

    Args:
        raw: the plain values of a configuration, its stages with what they inherit.
    """
    has_source = _has_source(raw)
    model = parse_section(Model, raw.get("model"))
    architecture = known_architecture(model.family) if model else None
    faults = model_faults(model, has_source) if model else []
    data = parse_section(Data, raw.get("data", {}))
    faults += data_faults(data, model, architecture, has_source) if data else []
    tokenizer = parse_section(Tokenizer, raw.get("tokenizer", {}))
    faults += tokenizer_faults(tokenizer, architecture, has_source) if tokenizer else []
    stages = raw.get("stages")
    if isinstance(stages, list):
        faults += stage_faults(stages, model, architecture, data)
    compare = parse_section(Compare, raw.get("compare", {}))
    faults += compare_faults(compare) if compare else []
    tracking = parse_section(Tracking, raw.get("tracking", {}))
    faults += tracking_faults(tracking) if tracking else []
    deepspeed = raw.get("deepspeed")
    faults += deepspeed_faults(deepspeed) if isinstance(deepspeed, dict) else []
    return faults


def check_world_size(config: Config, world_size: int) -> list[Fault]:
    """Batches too small for every rank to have a sample of them."""
    faults = []
    for index, stage in enumerate(config.stages):
        for key, batch in _batch_sizes(stage).items():
            if batch < world_size:
                wrong = f"{batch} is less than one sample for each of {world_size} ranks"
                right = f"at least {world_size}, or at most {batch} ranks, would be right"
                faults.append(Fault(f"stages[{index}].{key}", f"{wrong}; {right}"))
    return faults


def _batch_sizes(stage: Stage) -> dict[str, int]:
    """The batches that a stage's steps take, by the key that says them."""
    train = stage.train
    if train is None:
        return {}
    sizes = {}
    if stage.grow is not None and learn_steps(stage.grow):
        own = stage.grow.learn.batch_size
        sizes["grow.learn.batch_size" if own else "train.batch_size"] = own or train.batch_size
    if train.steps:
        sizes["train.batch_size"] = train.batch_size
    return sizes


def _has_source(raw: dict[str, Any]) -> bool:
    """Whether the first stage says where its model is; a value that is no text is told elsewhere."""
    stages = raw.get("stages")
    first = stages[0] if isinstance(stages, list) and stages else None
    return isinstance(first, dict) and first.get("from") is not None
