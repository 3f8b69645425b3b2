"""What has to hold inside a stage, and from one stage to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.config.faults import parse_section, suggestion
from ligo_dist.config.schema import Grow, Learn, Model, Schedule, Size, Train
from ligo_dist.config.shapes import groups_heads, model_shape
from ligo_dist.errors import Fault
from ligo_dist.growth.names import METHODS

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEVER_SHRINKS = ("layers", "width", "heads", "key_value_heads", "ffn")
_Sized = tuple[str, ModelShape, bool]


@dataclass(frozen=True)
class _Stage:
    """What could be read of one stage; None where that section is at fault itself."""

    path: str
    name: object
    size: Size | None
    train: Train | None
    grow: Grow | None
    grows: bool


def stage_faults(raw_stages: list[Any], model: Model | None) -> list[Fault]:
    """Cross-field faults of the stages; sizes are checked where the model (and so its family) is known."""
    stages = [_read(f"stages[{i}]", raw) for i, raw in enumerate(raw_stages) if isinstance(raw, dict)]
    faults = _name_faults(stages)
    before: _Sized | None = None
    for index, stage in enumerate(stages):
        faults += _presence_faults(stage, is_first=index == 0)
        faults += _train_faults(f"{stage.path}.train", stage.train) if stage.train else []
        faults += _grow_faults(f"{stage.path}.grow", stage.grow, stage.train) if stage.grow else []
        now: _Sized | None = None
        if model is not None and stage.size is not None:
            path = f"{stage.path}.size"
            inner = _size_faults(path, stage.size, model)
            # The vocabulary never changes between stages, so any will do to compare their shapes.
            now = path, model_shape(model, stage.size, vocab=1), not inner
            faults += inner
        if before is not None and now is not None:
            faults += _growth_faults(before, now)
        before = now
    return faults


def learn_batch(learn: Learn, train: Train) -> tuple[int, int]:
    """Batch and micro-batch with which the operator is learned: its own, else the stage's."""
    return learn.batch_size or train.batch_size, learn.micro_batch_size or train.micro_batch_size


def _read(path: str, raw: dict[str, Any]) -> _Stage:
    grow = raw.get("grow")
    return _Stage(
        path=path,
        name=raw.get("name"),
        size=parse_section(Size, raw.get("size")),
        train=parse_section(Train, raw.get("train")),
        grow=None if grow is None else parse_section(Grow, grow),
        grows=grow is not None,
    )


def _name_faults(stages: list[_Stage]) -> list[Fault]:
    faults = []
    seen: dict[str, str] = {}
    for stage in stages:
        if not isinstance(stage.name, str) or not stage.name:
            continue
        path = f"{stage.path}.name"
        if not _SAFE_NAME.fullmatch(stage.name):
            wrong = (
                "should be up to 64 letters, digits, '.', '_' or '-', a letter or digit first: it names files"
            )
            faults.append(Fault(path, f"{stage.name!r} {wrong}"))
        # Some file systems do not tell capitals apart.
        elif (other := seen.setdefault(stage.name.lower(), path)) != path:
            faults.append(
                Fault(path, f"{stage.name!r} is the name at {other} already; each stage needs its own")
            )
    return faults


def _presence_faults(stage: _Stage, is_first: bool) -> list[Fault]:
    if is_first and stage.grows:
        return [Fault(f"{stage.path}.grow", "the first stage has nothing to grow from; remove it")]
    if not is_first and not stage.grows:
        return [
            Fault(
                f"{stage.path}.grow", "is missing; every stage but the first grows (`grow: {}`: by default)"
            )
        ]
    return []


def _size_faults(path: str, size: Size, model: Model) -> list[Fault]:
    architecture = get_architecture(model.family)
    if size.width % size.heads:
        near = [n for n in range(1, size.width + 1) if size.width % n == 0]
        best = min(near, key=lambda n: abs(n - size.heads))
        wrong = f"{size.heads} heads do not divide the width {size.width}; {best} would"
        return [Fault(f"{path}.heads", wrong)]
    faults = []
    if architecture.rotary and (size.width // size.heads) % 2:
        wrong = f"{size.heads} heads of a width of {size.width} have {size.width // size.heads} elements each"
        faults.append(
            Fault(f"{path}.heads", f"{wrong}; rotary positions ({model.family}) need an even number")
        )
    groups = size.key_value_heads
    if groups is not None and size.heads % groups:
        wrong = f"{groups} key/value heads do not divide the {size.heads} heads"
        faults.append(Fault(f"{path}.key_value_heads", wrong))
    elif groups not in (None, size.heads) and not groups_heads(architecture):
        wrong = f"{groups}: {model.family} has a key/value head for every head"
        faults.append(Fault(f"{path}.key_value_heads", f"{wrong}; null or {size.heads} would be right"))
    return faults


def _growth_faults(before: _Sized, now: _Sized) -> list[Fault]:
    (path_before, source, source_divides), (path, target, target_divides) = before, now
    shrinking = [name for name in _NEVER_SHRINKS if getattr(target, name) < getattr(source, name)]
    if "heads" in shrinking or not target_divides:
        # The heads' own fault says it already: key/value heads follow them unless they are given.
        shrinking = [name for name in shrinking if name != "key_value_heads"]
    faults = []
    for name in shrinking:
        small, large = getattr(source, name), getattr(target, name)
        wrong = f"{large} is less than the {small} of {path_before}; a stage only grows"
        faults.append(Fault(f"{path}.{name}", wrong))
    if faults or not (source_divides and target_divides):
        return faults
    if target.queries_per_group < source.queries_per_group:
        wrong = f"{target.queries_per_group} heads share one, {source.queries_per_group} do in {path_before}"
        right = f"at most {target.heads // source.queries_per_group} would be right"
        faults.append(Fault(f"{path}.key_value_heads", f"{target.key_value_heads}: {wrong}; {right}"))
    if target.head_size != source.head_size:
        wrong = f"the head size (width / heads) would change from {source.head_size} to {target.head_size}"
        right = f"growing keeps it and adds heads; {target.width} / {source.head_size}"
        if target.width % source.head_size == 0:
            right += f" = {target.width // source.head_size} heads would be right"
        else:
            right += f" is no whole number, so the width has to be a multiple of {source.head_size} too"
        faults.append(Fault(f"{path}.heads", f"{target.heads}: {wrong}; {right}"))
    return faults


def _train_faults(path: str, train: Train) -> list[Fault]:
    faults = _schedule_faults(f"{path}.schedule", train.schedule, train.steps)
    return faults + _batch_faults(path, train.batch_size, train.micro_batch_size)


def _grow_faults(path: str, grow: Grow, train: Train | None) -> list[Fault]:
    faults = []
    if grow.method not in METHODS:
        faults.append(
            Fault(f"{path}.method", f"{grow.method!r} is no method{suggestion(grow.method, METHODS)}")
        )
    if grow.method == "lossless" and grow.tied:
        wrong = "true cannot be: a lossless start copies where an axis is written and splits where it is read"
        faults.append(Fault(f"{path}.tied", f"{wrong}; false or null would be right"))
    if grow.learn.steps:
        faults += _schedule_faults(f"{path}.learn.schedule", grow.learn.schedule, grow.learn.steps)
        if train is not None and (grow.learn.batch_size or grow.learn.micro_batch_size):
            faults += _batch_faults(f"{path}.learn", *learn_batch(grow.learn, train))
    return faults


def _batch_faults(path: str, batch: int, micro: int) -> list[Fault]:
    if batch % micro == 0:
        return []
    wrong = f"{batch} is no multiple of the micro_batch_size {micro}"
    return [Fault(f"{path}.batch_size", f"{wrong}; {max(1, round(batch / micro)) * micro} would be right")]


def _schedule_faults(path: str, schedule: Schedule, steps: int) -> list[Fault]:
    faults = []
    if schedule.warmup_steps > steps:
        wrong = f"{schedule.warmup_steps} is more than the {steps} steps there are"
        faults.append(Fault(f"{path}.warmup_steps", wrong))
    if schedule.kind != "wsd":
        if schedule.decay_steps is not None:
            wrong = f"{schedule.decay_steps} has a meaning for wsd only, not for {schedule.kind}"
            faults.append(Fault(f"{path}.decay_steps", f"{wrong}; null would be right"))
    elif schedule.decay_steps is None:
        faults.append(Fault(f"{path}.decay_steps", "is missing; wsd needs the steps of its final fall"))
    elif schedule.decay_steps > steps:
        wrong = f"{schedule.decay_steps} is more than the {steps} steps there are"
        faults.append(Fault(f"{path}.decay_steps", wrong))
    elif schedule.warmup_steps + schedule.decay_steps > steps:
        wrong = (
            f"{schedule.decay_steps}, with {schedule.warmup_steps} of warm-up, is more than the {steps} steps"
        )
        faults.append(Fault(f"{path}.decay_steps", wrong))
    return faults
