"""What a run saves on the way to the final loss of a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .curves import cost_to_reach, falling
from .groups import Group, Member, same_seed
from .runs import Cost, Evaluation

Outcome = Literal["reached", "not reached", "below from its first evaluation"]


@dataclass(frozen=True)
class Saved:
    """Parts of the baseline's cost that a run needs less of: 0.3 is 30 %; negative if it needs more.

    Attributes:
        excluded: the training of the run's source not counted.
        included: counted; None where it is not known.
    """

    excluded: float
    included: float | None


@dataclass(frozen=True)
class Comparison:
    """A run held against a baseline.

    Attributes:
        baseline: the baseline's label.
        loss: the baseline's final one, to be reached.
        outcome: whether the run's curve crosses it.
        needed: to reach it, from where the target begins; None if it is not reached.
        needed_in_all: the same with the source's training; None if that is not known.
        baseline_needed: what the baseline run spent on reaching it, a source that it trained itself included.
        baseline_needed_in_all: the same with what trained the model that it began with; None if that is not known.
        flops, seconds: what is saved; None unless the curves cross, and where it is not known.
        best: the lowest loss the run came to.
        first: its first evaluation, from where the target begins.
    """

    baseline: str
    loss: float
    outcome: Outcome
    needed: Cost | None
    needed_in_all: Cost | None
    baseline_needed: Cost
    baseline_needed_in_all: Cost | None
    flops: Saved | None
    seconds: Saved | None
    best: Evaluation
    first: Evaluation


def compare(member: Member, baseline: Member) -> Comparison:
    """A run held against a baseline's final loss."""
    curve, reference = curve_of(member), curve_of(baseline)
    loss = reference[-1].loss
    needed = _needed(curve, loss)
    # Its falling curve ends at its final loss or below, but for the rounding of means.
    base = (_needed(reference, loss) or reference[-1].cost) + baseline.source.own
    before = baseline.source.before
    outcome: Outcome = "reached" if needed is not None else "not reached"
    if falling([evaluation.loss for evaluation in curve])[0] <= loss:
        outcome, needed = "below from its first evaluation", None
    total = member.source.total
    in_all = None if needed is None or total is None else needed + total
    base_in_all = None if before is None else base + before
    return Comparison(
        baseline=baseline.label,
        loss=loss,
        outcome=outcome,
        needed=needed,
        needed_in_all=in_all,
        baseline_needed=base,
        baseline_needed_in_all=base_in_all,
        flops=_saved(lambda cost: cost.flops, needed, in_all, base, base_in_all),
        seconds=_saved(lambda cost: cost.seconds, needed, in_all, base, base_in_all),
        best=min(curve, key=lambda evaluation: evaluation.loss),
        first=curve[0],
    )


def compare_group(group: Group, baseline: Group) -> dict[str, Comparison]:
    """The runs of a group by label, each held against the baseline of its own seed where there are several."""
    pairs = ((member, same_seed(baseline, member.run.seed)) for member in group.members)
    return {member.label: compare(member, other) for member, other in pairs if other is not None}


def curve_of(member: Member) -> list[Evaluation]:
    """A run's evaluations, costs counted from where its target begins: learning and growing are in them, what trained
    its source is not."""
    target = member.run.target
    return [Evaluation(each.cost - target.begins, each.loss, each.phase) for each in target.curve]


def _needed(curve: Sequence[Evaluation], loss: float) -> Cost | None:
    """Where the falling curve meets a loss; the seconds are None if they are not known of all its points."""
    losses = [evaluation.loss for evaluation in curve]

    def reached(costs: Sequence[float | None]) -> float | None:
        known = [cost for cost in costs if cost is not None]
        return cost_to_reach(known, losses, loss) if len(known) == len(costs) else None

    flops = reached([evaluation.cost.flops for evaluation in curve])
    if flops is None:
        return None
    return Cost(flops, reached([evaluation.cost.seconds for evaluation in curve]))


def _saved(
    measure: Callable[[Cost], float | None],
    needed: Cost | None,
    in_all: Cost | None,
    base: Cost,
    base_in_all: Cost | None,
) -> Saved | None:
    excluded = _part(measure, needed, base)
    return None if excluded is None else Saved(excluded, _part(measure, in_all, base_in_all))


def _part(measure: Callable[[Cost], float | None], cost: Cost | None, base: Cost | None) -> float | None:
    if cost is None or base is None:
        return None
    spent, whole = measure(cost), measure(base)
    return 1 - spent / whole if spent is not None and whole else None
