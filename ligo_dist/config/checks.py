"""What has to hold between the keys of a configuration, and between it and the number of ranks."""

from __future__ import annotations

from typing import Any

from ligo_dist.config.data_checks import data_faults, tokenizer_faults
from ligo_dist.config.deepspeed_keys import deepspeed_faults
from ligo_dist.config.faults import parse_section
from ligo_dist.config.model_checks import known_architecture, model_faults
from ligo_dist.config.schema import Config, Data, Model, Tokenizer
from ligo_dist.config.stage_checks import stage_faults
from ligo_dist.config.ways import learn_batch, learn_steps
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
    deepspeed = raw.get("deepspeed")
    faults += deepspeed_faults(deepspeed) if isinstance(deepspeed, dict) else []
    return faults


def check_world_size(config: Config, world_size: int) -> list[Fault]:
    """Batches that do not divide into micro-batches over this many ranks."""
    faults = []
    for index, stage in enumerate(config.stages):
        if stage.train is None:
            continue
        batches = [(f"stages[{index}].train", stage.train.batch_size, stage.train.micro_batch_size)]
        learn = stage.grow.learn if stage.grow and learn_steps(stage.grow) else None
        if learn is not None and (learn.batch_size or learn.micro_batch_size):
            batches.append((f"stages[{index}].grow.learn", *learn_batch(learn, stage.train)))
        for path, batch, micro in batches:
            if batch % (micro * world_size):
                wrong = f"{batch} is no multiple of {micro} (micro_batch_size) x {world_size} (ranks)"
                nearest = max(1, round(batch / (micro * world_size))) * micro * world_size
                faults.append(Fault(f"{path}.batch_size", f"{wrong}; {nearest} would be right"))
    return faults


def _has_source(raw: dict[str, Any]) -> bool:
    """Whether the first stage says where its model is; a value that is no text is told elsewhere."""
    stages = raw.get("stages")
    first = stages[0] if isinstance(stages, list) and stages else None
    return isinstance(first, dict) and first.get("from") is not None
