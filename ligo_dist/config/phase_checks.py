"""What has to hold inside a stage's `train` and `grow`: names, batches, schedules."""

from __future__ import annotations

from ligo_dist.architectures import Architecture
from ligo_dist.config.faults import suggestion
from ligo_dist.config.schema import Grow, Learn, Schedule, Train
from ligo_dist.config.ways import learn_steps, ways_to_grow
from ligo_dist.errors import Fault
from ligo_dist.growth.names import DEPTHS, MAY_BE_TIED, METHODS, WIDTHS


def train_faults(path: str, train: Train) -> list[Fault]:
    """Faults inside one `train`."""
    return schedule_faults(f"{path}.schedule", train.schedule, train.steps) if train.steps else []


def grow_faults(path: str, grow: Grow) -> list[Fault]:
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
    ways = ways_to_grow(grow)
    if ways is None and grow.method in METHODS:
        for key in ("depth", "width"):
            if getattr(grow, key) is not None:
                wrong = f"{getattr(grow, key)!r}: {grow.method!r} has no operator; null would be right"
                faults.append(Fault(f"{path}.{key}", wrong))
        if grow.learn.steps:
            wrong = f"{grow.learn.steps}: {grow.method!r} has no operator to learn; null would be right"
            faults.append(Fault(f"{path}.learn.steps", wrong))
    elif ways is not None and not faults:
        faults += _operator_faults(path, grow, ways[1])
    if learn_steps(grow):
        faults += _learn_faults(f"{path}.learn", grow.learn, learn_steps(grow))
    return faults


def objective_faults(
    path: str, architecture: Architecture, train: Train | None, grow: Grow | None
) -> list[Fault]:
    """A family that is trained for nothing (`features`) can only be grown, from a model that exists."""
    if architecture.objective != "features":
        return []
    steps = {"grow.learn.steps": learn_steps(grow) if grow else 0, "train.steps": train.steps if train else 0}
    wrong = f"{architecture.name} has no objective to be trained for and is only grown; 0 would be right"
    return [Fault(f"{path}.{key}", f"{value}: {wrong}") for key, value in steps.items() if value]


def moments_faults(path: str, grow: Grow, train_before: Train | None) -> list[Fault]:
    """Whether there are moments to grow."""
    if grow.optimizer_state == "fresh" or (train_before is not None and train_before.steps):
        return []
    wrong = f"{grow.optimizer_state!r}: the stage before is not trained and has no moments to grow"
    return [Fault(f"{path}.optimizer_state", f"{wrong}; 'fresh' would be right")]


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


def _learn_faults(path: str, learn: Learn, steps: int) -> list[Fault]:
    faults = schedule_faults(f"{path}.schedule", learn.schedule, steps)
    if learn.depth is not None:
        faults += schedule_faults(f"{path}.depth.schedule", learn.depth.schedule, steps)
    if learn.sweep is not None:
        rates = learn.sweep.learning_rates
        twice = sorted({rate for rate in rates if rates.count(rate) > 1})
        if twice:
            wrong = f"{', '.join(map(str, twice))} is there more than once; each candidate is tried once"
            faults.append(Fault(f"{path}.sweep.learning_rates", wrong))
    return faults


def schedule_faults(path: str, schedule: Schedule, steps: int) -> list[Fault]:
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
