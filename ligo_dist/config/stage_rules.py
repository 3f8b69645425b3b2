"""What has to hold in the stages: which sections each has, names, sizes and phases, and from one stage to the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.config.faults import suggestion
from ligo_dist.config.resolve import groups_heads, learn_steps, method_of, model_shape, rotary_part
from ligo_dist.config.schema import Config, Grow, Schedule, Size, Stage, Train
from ligo_dist.growth import DEPTHS, MAY_BE_TIED, METHODS, WIDTHS, nothing_kept, refusals
from ligo_dist.runtime.errors import Fault

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEVER_SHRINKS = ("layers", "width", "heads", "key_value_heads", "ffn")


@dataclass(frozen=True)
class _Sized:
    """The shape of a stage's model; `divides` is false where the size is at fault itself."""

    path: str
    shape: ModelShape
    divides: bool


def stage_faults(config: Config) -> list[Fault]:
    """Faults in the stages of a configuration whose family is known."""
    faults = _name_faults(config.stages)
    before: _Sized | None = None
    for index, stage in enumerate(config.stages):
        path = f"stages[{index}]"
        faults += _presence_faults(path, stage, config.architecture, is_first=index == 0)
        faults += _train_faults(f"{path}.train", stage.train) if stage.train else []
        if stage.grow is not None:
            faults += _grow_faults(f"{path}.grow", stage.grow)
            if index:
                faults += _moments_faults(f"{path}.grow", stage, config.stages[index - 1].train)
        faults += _objective_faults(path, config.architecture, stage)
        now: _Sized | None = None
        if stage.size is not None:
            now, inner = _sized(f"{path}.size", stage.size, config)
            faults += inner
            if before is not None:
                faults += _growth_faults(before, now, config.architecture) or _refusals(
                    path, stage, config.architecture, before, now
                )
        if stage.train is not None and (stage.train.freeze or stage.train.new_rate != 1):
            faults += _new_faults(f"{path}.train", stage, before, now)
        before = now
    return faults


def _sized(path: str, size: Size, config: Config) -> tuple[_Sized, list[Fault]]:
    """The shape that a size stands for, and what is wrong with the size itself."""
    architecture = config.architecture
    faults = _size_faults(path, size, architecture, rotary_part(architecture, config.model))
    # The vocabulary never changes between stages, so any will do to compare their shapes.
    return _Sized(path, model_shape(config.model, config.data, size, vocab=1), not faults), faults


def _refusals(
    path: str, stage: Stage, architecture: Architecture, before: _Sized, now: _Sized
) -> list[Fault]:
    """Why the method cannot make this model out of the one before."""
    method = method_of(stage.grow) if stage.grow else None
    if stage.grow is None or method is None or method.depth not in DEPTHS or method.width not in WIDTHS:
        return []
    reasons = refusals(
        architecture,
        before.shape,
        now.shape,
        depth=method.depth,
        width=method.width,
        share_depth=stage.grow.share_depth,
    )
    return [Fault(f"{path}.grow.method", reason) for reason in reasons]


def _name_faults(stages: Sequence[Stage]) -> list[Fault]:
    faults = []
    seen: dict[str, str] = {}
    for index, stage in enumerate(stages):
        name, path = stage.name, f"stages[{index}].name"
        if not _SAFE_NAME.fullmatch(name):
            wrong = (
                "should be up to 64 letters, digits, '.', '_' or '-', a letter or digit first: it names files"
            )
            faults.append(Fault(path, f"{name!r} {wrong}"))
        # Some file systems do not tell capitals apart.
        elif (other := seen.setdefault(name.lower(), path)) != path:
            faults.append(Fault(path, f"{name!r} is the name at {other} already; each stage needs its own"))
    return faults


def _presence_faults(path: str, stage: Stage, architecture: Architecture, is_first: bool) -> list[Fault]:
    faults = []
    if stage.from_ is not None and not is_first:
        wrong = f"{stage.from_!r}: only the first stage can begin from a model that exists; remove it"
        faults.append(Fault(f"{path}.from", wrong))
    if architecture.objective == "features" and is_first and stage.from_ is None:
        wrong = f"is missing; {architecture.name} is only grown, from a Hugging Face directory"
        faults.append(Fault(f"{path}.from", wrong))
    if not (is_first and stage.from_ is not None):
        for key in ("size", "train"):
            if getattr(stage, key) is None:
                wrong = "is missing; only a first stage with `from` can do without it"
                faults.append(Fault(f"{path}.{key}", wrong))
    if is_first and stage.grow is not None:
        faults.append(Fault(f"{path}.grow", "the first stage has nothing to grow from; remove it"))
    if is_first and stage.nodes is not None:
        wrong = (
            f"{stage.nodes!r}: the first stage takes the nodes that the run is started on, as there is no stage"
            " before it at whose end the run could stop for more; remove it"
        )
        faults.append(Fault(f"{path}.nodes", wrong))
    if not is_first and stage.grow is None:
        wrong = "is missing; every stage but the first grows (`grow: {}`: by default)"
        faults.append(Fault(f"{path}.grow", wrong))
    return faults


def _train_faults(path: str, train: Train) -> list[Fault]:
    """Faults inside one `train`."""
    faults = _schedule_faults(f"{path}.schedule", train.schedule, train.steps) if train.steps else []
    optimizer = train.optimizer
    for key in ("muon_learning_rate", "muon_momentum") if optimizer.kind != "muon" else ():
        value = getattr(optimizer, key)
        if value is not None:
            wrong = f"{value:g} has a meaning for muon only, not for {optimizer.kind}; null would be right"
            faults.append(Fault(f"{path}.optimizer.{key}", wrong))
    return faults


def _grow_faults(path: str, grow: Grow) -> list[Fault]:
    """Faults inside one `grow`."""
    faults = []
    for key, name, names in (
        ("method", grow.method, METHODS),
        ("depth", grow.depth, DEPTHS),
        ("width", grow.width, WIDTHS),
    ):
        if name is not None and name not in names:
            what = "method" if key == "method" else f"way to grow in {key}"
            faults.append(Fault(f"{path}.{key}", f"{name!r} is no {what}{suggestion(name, names)}"))
    method = method_of(grow)
    if method is None and grow.method in METHODS:
        for key in ("depth", "width"):
            if getattr(grow, key) is not None:
                wrong = f"{getattr(grow, key)!r}: {grow.method!r} has no operator; null would be right"
                faults.append(Fault(f"{path}.{key}", wrong))
        if grow.learn.steps:
            wrong = f"{grow.learn.steps}: {grow.method!r} has no operator to learn; null would be right"
            faults.append(Fault(f"{path}.learn.steps", wrong))
    elif method is not None and not faults:
        faults += _operator_faults(path, grow, method.width)
    if learn_steps(grow):
        faults += _schedule_faults(f"{path}.learn.schedule", grow.learn.schedule, learn_steps(grow))
    return faults


def _objective_faults(path: str, architecture: Architecture, stage: Stage) -> list[Fault]:
    """A family that is trained for nothing (`features`) can only be grown, from a model that exists."""
    if architecture.objective != "features":
        return []
    grow, train = stage.grow, stage.train
    steps = {"grow.learn.steps": learn_steps(grow) if grow else 0, "train.steps": train.steps if train else 0}
    wrong = f"{architecture.name} has no objective to be trained for and is only grown; 0 would be right"
    return [Fault(f"{path}.{key}", f"{value}: {wrong}") for key, value in steps.items() if value]


def _moments_faults(path: str, stage: Stage, train_before: Train | None) -> list[Fault]:
    """Whether there are moments to grow, and the stage's optimizer has those too."""
    assert stage.grow is not None
    state = stage.grow.optimizer_state
    if state == "fresh":
        return []
    why = None
    if train_before is None or not train_before.steps:
        why = "the stage before is not trained and has no moments to grow"
    elif stage.train is not None and stage.train.optimizer.kind != train_before.optimizer.kind:
        kinds = f"{train_before.optimizer.kind} and this one with {stage.train.optimizer.kind}"
        why = f"the stage before is trained with {kinds}, which keep other moments"
    return (
        [] if why is None else [Fault(f"{path}.optimizer_state", f"{state!r}: {why}; 'fresh' would be right")]
    )


def _new_faults(path: str, stage: Stage, before: _Sized | None, now: _Sized | None) -> list[Fault]:
    """Whether it has a meaning which layers and units are new."""
    train, grow, method = stage.train, stage.grow, method_of(stage.grow) if stage.grow else None
    assert train is not None
    given = {"freeze": (train.freeze, 0), "new_rate": (train.new_rate, 1.0)}
    why = None
    if grow is None:
        why = "the stage is not grown, so nothing in it is new"
    elif method is None:
        why = f"{grow.method!r} takes nothing over, so all of it is new"
    elif learn_steps(grow):
        why = "the operator is learned, so that each layer and unit is a mixture of the source's"
    elif before is not None and now is not None:
        why = nothing_kept(before.shape, now.shape, method.depth, method.width)
        if why is None and before.shape == now.shape:
            why = "the model is as large as the one before, so nothing in it is new"
    faults = []
    for key, (value, right) in given.items():
        if value == right:
            continue
        if why is not None:
            faults.append(Fault(f"{path}.{key}", f"{value}: {why}; {right:g} would be right"))
        elif key == "freeze" and value > train.steps:
            faults.append(Fault(f"{path}.{key}", f"{value} is more than the {train.steps} steps there are"))
    return faults


def _operator_faults(path: str, grow: Grow, width: str) -> list[Fault]:
    """Structures of the operator that a way to grow in width does not allow."""
    faults = []
    if grow.tied and width not in MAY_BE_TIED:
        wrong = f"true cannot be: width {width!r} copies where an axis is written and splits where it is read"
        faults.append(Fault(f"{path}.tied", f"{wrong}; false or null would be right"))
    if grow.identity == "fixed" and width != "identity-random":
        wrong = f"'fixed' cannot be: width {width!r} has no rows that are the identity by themselves"
        faults.append(Fault(f"{path}.identity", f"{wrong}; 'learned' or null would be right"))
    return faults


def _schedule_faults(path: str, schedule: Schedule, steps: int) -> list[Fault]:
    """Whether warm-up and decay fit into the steps of the phase."""
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


def _size_faults(path: str, size: Size, architecture: Architecture, rotary_part: float) -> list[Fault]:
    """Faults inside one `size`; `rotary_part` is the part of each head that rotates."""
    heads = _head_faults(path, size, architecture)
    if heads:
        return heads
    faults = _rotary_faults(path, size, architecture, rotary_part) if architecture.rotary else []
    groups = size.key_value_heads
    if groups is not None and size.heads % groups:
        wrong = f"{groups} key/value heads do not divide the {size.heads} heads"
        faults.append(Fault(f"{path}.key_value_heads", wrong))
    elif groups not in (None, size.heads) and not groups_heads(architecture):
        wrong = f"{groups}: {architecture.name} has a key/value head for every head"
        faults.append(Fault(f"{path}.key_value_heads", f"{wrong}; null or {size.heads} would be right"))
    return faults


def _head_faults(path: str, size: Size, architecture: Architecture) -> list[Fault]:
    """Whether the width is shared out among the heads, where it has to be."""
    if size.head_size is not None and architecture.free_head_size:
        return []
    if size.width % size.heads:
        near = [n for n in range(1, size.width + 1) if size.width % n == 0]
        best = min(near, key=lambda n: abs(n - size.heads))
        wrong = f"{size.heads} heads do not divide the width {size.width}; {best} would"
        return [Fault(f"{path}.heads", wrong)]
    if size.head_size not in (None, size.width // size.heads):
        wrong = f"{size.head_size}: the head size of {architecture.name} is width / heads"
        right = f"null or {size.width // size.heads} would be right"
        return [Fault(f"{path}.head_size", f"{wrong}; {right}")]
    return []


def _rotary_faults(path: str, size: Size, architecture: Architecture, part: float) -> list[Fault]:
    """Whether the elements of a head that rotate can do so in pairs."""
    elements = size.head_size or size.width // size.heads
    if _rotates_pairs(elements, part):
        return []
    key, wrong = "head_size", f"{elements} elements"
    if size.head_size is None:
        key, wrong = "heads", f"{size.heads} heads of a width of {size.width} have {elements} elements each"
    if part != 1:
        wrong += f", of which {int(elements * part)} rotate"
    wrong += f"; rotary positions ({architecture.name}) need an even number"
    near = [
        other
        for other in range(1, 2 * elements + 64)
        if _rotates_pairs(other, part) and (other * part).is_integer()
    ]
    if near:
        wrong += f"; heads of {min(near, key=lambda other: abs(other - elements))} would be right"
    return [Fault(f"{path}.{key}", wrong)]


def _rotates_pairs(elements: int, part: float) -> bool:
    rotating = int(elements * part)  # as the library rounds it
    return 0 < rotating <= elements and rotating % 2 == 0


def _growth_faults(before: _Sized, now: _Sized, architecture: Architecture) -> list[Fault]:
    """Whether one model can grow into the next."""
    source, target = before.shape, now.shape
    shrinking = [name for name in _NEVER_SHRINKS if getattr(target, name) < getattr(source, name)]
    if "heads" in shrinking or not now.divides:
        # The heads' own fault says it already: key/value heads follow them unless they are given.
        shrinking = [name for name in shrinking if name != "key_value_heads"]
    faults = []
    for name in shrinking:
        small, large = getattr(source, name), getattr(target, name)
        wrong = f"{large} is less than the {small} of {before.path}; a stage only grows"
        faults.append(Fault(f"{now.path}.{name}", wrong))
    if target.layers == 0 and source.layers == 0:
        faults.append(Fault(f"{now.path}.layers", "0: a model that is grown has at least 1 layer"))
    if faults or not (before.divides and now.divides):
        return faults
    if target.queries_per_group < source.queries_per_group:
        wrong = f"{target.queries_per_group} heads share one, {source.queries_per_group} do in {before.path}"
        right = f"at most {target.heads // source.queries_per_group} would be right"
        faults.append(Fault(f"{now.path}.key_value_heads", f"{target.key_value_heads}: {wrong}; {right}"))
    if target.head_size != source.head_size:
        faults.append(_head_size_fault(source, target, now.path, architecture))
    return faults


def _head_size_fault(source: ModelShape, target: ModelShape, path: str, architecture: Architecture) -> Fault:
    if architecture.free_head_size:
        wrong = f"would change from {source.head_size} to {target.head_size}; growing keeps it and adds heads"
        return Fault(f"{path}.head_size", f"{wrong}; {source.head_size} would be right")
    wrong = f"the head size (width / heads) would change from {source.head_size} to {target.head_size}"
    right = f"growing keeps it and adds heads; {target.width} / {source.head_size}"
    if target.width % source.head_size == 0:
        right += f" = {target.width // source.head_size} heads would be right"
    else:
        right += f" is no whole number, so the width has to be a multiple of {source.head_size} too"
    return Fault(f"{path}.heads", f"{target.heads}: {wrong}; {right}")
