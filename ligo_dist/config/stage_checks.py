"""What has to hold among the stages: which sections each has, their names, and from one stage to the next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ligo_dist.architectures import Architecture
from ligo_dist.config.faults import parse_section
from ligo_dist.config.phase_checks import (
    grow_faults,
    moments_faults,
    objective_faults,
    train_faults,
)
from ligo_dist.config.schema import Data, Grow, Model, Size, Train
from ligo_dist.config.shapes import model_shape, rotary_part
from ligo_dist.config.size_checks import Sized, growth_faults, size_faults
from ligo_dist.config.ways import ways_to_grow
from ligo_dist.errors import Fault
from ligo_dist.growth.claims import refusals
from ligo_dist.growth.names import DEPTHS, WIDTHS

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class _Stage:
    """What could be read of one stage; a section is None where it is absent or at fault itself."""

    path: str
    raw: Mapping[str, Any]
    size: Size | None
    train: Train | None
    grow: Grow | None

    def has(self, key: str) -> bool:
        return self.raw.get(key) is not None


def stage_faults(
    raw_stages: list[Any], model: Model | None, architecture: Architecture | None, data: Data | None
) -> list[Fault]:
    """Cross-field faults of the stages; sizes are checked where the model (and so its family) is known."""
    stages = [_read(f"stages[{i}]", raw) for i, raw in enumerate(raw_stages) if isinstance(raw, dict)]
    faults = _name_faults(stages)
    before: Sized | None = None
    for index, stage in enumerate(stages):
        faults += _presence_faults(stage, architecture, is_first=index == 0)
        faults += train_faults(f"{stage.path}.train", stage.train) if stage.train else []
        if stage.grow is not None:
            faults += grow_faults(f"{stage.path}.grow", stage.grow)
            if index and stages[index - 1].has("train") == (stages[index - 1].train is not None):
                faults += moments_faults(f"{stage.path}.grow", stage.grow, stages[index - 1].train)
        now: Sized | None = None
        if architecture is not None:
            faults += objective_faults(stage.path, architecture, stage.train, stage.grow)
        if architecture is not None and model is not None and stage.size is not None:
            path = f"{stage.path}.size"
            inner = size_faults(path, stage.size, architecture, rotary_part(architecture, model))
            # The vocabulary never changes between stages, so any will do to compare their shapes.
            now = Sized(path, model_shape(model, data or Data(), stage.size, vocab=1), not inner)
            faults += inner
            if before is not None:
                faults += growth_faults(before, now, architecture) or _refusals(stage, before, now)
        before = now
    return faults


def _refusals(stage: _Stage, before: Sized, now: Sized) -> list[Fault]:
    """Why the method cannot make this model out of the one before."""
    ways = ways_to_grow(stage.grow) if stage.grow else None
    if ways is None or ways[0] not in DEPTHS or ways[1] not in WIDTHS:
        return []
    reasons = refusals(before.shape, now.shape, *ways)
    return [Fault(f"{stage.path}.grow.method", reason) for reason in reasons]


def _read(path: str, raw: Mapping[str, Any]) -> _Stage:
    return _Stage(
        path,
        raw,
        size=parse_section(Size, raw.get("size")),
        train=parse_section(Train, raw.get("train")),
        grow=parse_section(Grow, raw.get("grow")),
    )


def _name_faults(stages: list[_Stage]) -> list[Fault]:
    faults = []
    seen: dict[str, str] = {}
    for stage in stages:
        name = stage.raw.get("name")
        if not isinstance(name, str) or not name:
            continue
        path = f"{stage.path}.name"
        if not _SAFE_NAME.fullmatch(name):
            wrong = (
                "should be up to 64 letters, digits, '.', '_' or '-', a letter or digit first: it names files"
            )
            faults.append(Fault(path, f"{name!r} {wrong}"))
        # Some file systems do not tell capitals apart.
        elif (other := seen.setdefault(name.lower(), path)) != path:
            faults.append(Fault(path, f"{name!r} is the name at {other} already; each stage needs its own"))
    return faults


def _presence_faults(stage: _Stage, architecture: Architecture | None, is_first: bool) -> list[Fault]:
    faults = []
    if stage.has("from") and not is_first:
        wrong = f"{stage.raw['from']!r}: only the first stage can begin from a model that exists; remove it"
        faults.append(Fault(f"{stage.path}.from", wrong))
    only_grown = architecture is not None and architecture.objective == "features"
    if architecture is not None and only_grown and is_first and not stage.has("from"):
        wrong = f"is missing; {architecture.name} is only grown, from a Hugging Face directory"
        faults.append(Fault(f"{stage.path}.from", wrong))
    if not (is_first and stage.has("from")):
        for key in ("size", "train"):
            if not stage.has(key):
                wrong = "is missing; only a first stage with `from` can do without it"
                faults.append(Fault(f"{stage.path}.{key}", wrong))
    if is_first and stage.has("grow"):
        wrong = "the first stage has nothing to grow from; remove it"
        faults.append(Fault(f"{stage.path}.grow", wrong))
    if is_first and stage.has("nodes"):
        wrong = (
            f"{stage.raw['nodes']!r}: the first stage takes the nodes that the run is started on, as there is no stage"
            " before it at whose end the run could stop for more; remove it"
        )
        faults.append(Fault(f"{stage.path}.nodes", wrong))
    if not is_first and not stage.has("grow"):
        wrong = "is missing; every stage but the first grows (`grow: {}`: by default)"
        faults.append(Fault(f"{stage.path}.grow", wrong))
    return faults
