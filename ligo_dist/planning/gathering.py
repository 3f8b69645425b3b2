"""Which weights ZeRO-3 gathers in a micro-step, how often, and how many are whole at a time.

What DeepSpeed 0.19.8 does once it knows the order of the modules (its `PartitionedParameterCoordinator`): a weight is
gathered when a module first uses it, or a little ahead, and dropped after a use unless a later module needs it before
`reuse_distance` elements of other weights have passed. So the weights of a model of less than half as many parameters
are gathered once for a forward and a backward pass, those of a larger one twice but for the last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ligo_dist.planning.weights import Module, Weight, all_weights
from ligo_dist.zero3 import Zero3


@dataclass(frozen=True)
class Use:
    """A module that is called, or differentiated; `held` if it is used again before it is done with."""

    module: Module
    held: bool = False


@dataclass(frozen=True)
class Gathered:
    """What one micro-step gathers.

    Attributes:
        counts: how often each weight that does not stay whole is gathered, by name.
        persistent: elements of the weights that stay whole between steps.
        most: elements that are whole at once, at most, those that are gathered ahead included.
        at_loss: elements that are whole between the forward and the backward pass.
        in_flight: elements of the largest group of several weights that is gathered at once: its copies are there
            twice for a while.
    """

    counts: dict[str, int]
    persistent: int
    most: int
    at_loss: int
    in_flight: int


def forward_and_backward(modules: Sequence[Module], *, checkpointed: bool) -> list[Use]:
    """The uses of a micro-step. Where a block is checkpointed its last module is met first in the backward pass, and
    that is what makes the block run again."""
    uses = [Use(module) for module in modules]
    for index in reversed(range(len(modules))):
        module = modules[index]
        is_last = module.layer is not None and (
            index + 1 == len(modules) or modules[index + 1].layer != module.layer
        )
        if checkpointed and is_last:
            block = [other for other in modules if other.layer == module.layer]
            uses += [Use(module, held=True), *map(Use, block)]
        else:
            uses.append(Use(module))
    return uses


def gathered(uses: Sequence[Use], calls: int, zero3: Zero3) -> Gathered:
    """What a micro-step gathers whose first `calls` uses are its forward pass."""
    weights = all_weights(use.module for use in uses)
    stay = {weight.name for weight in weights if weight.numel <= zero3.persistence_threshold}
    persistent = sum(weight.numel for weight in weights if weight.name in stay)
    counts = dict.fromkeys((weight.name for weight in weights if weight.name not in stay), 0)
    changes = [0] * (len(uses) + 1)
    for weight, first, last in _stays(uses, zero3.reuse_distance):
        if weight.name not in stay:
            counts[weight.name] += 1
            changes[first] += weight.numel
            changes[last + 1] -= weight.numel
    whole = list(accumulate(changes[:-1]))
    partitioned = [weight.numel for weight in weights if weight.name not in stay]
    ahead = min(zero3.prefetch_bucket + max(partitioned, default=0), sum(partitioned))
    return Gathered(
        counts,
        persistent,
        most=min(max(whole, default=0) + ahead, sum(partitioned)) + persistent,
        at_loss=(whole[calls - 1] if calls else 0) + persistent,
        in_flight=min(zero3.prefetch_bucket, sum(partitioned)),
    )


def _stays(uses: Sequence[Use], reuse_distance: int) -> Iterator[tuple[Weight, int, int]]:
    """Each stay of a weight as a whole: the weight, and the first and the last use that it serves."""
    passed = [0, *accumulate(use.module.numel for use in uses)]
    begun: dict[str, tuple[Weight, int, int]] = {}
    for index, use in enumerate(uses):
        for weight in use.module.weights:
            if weight.name in begun:
                _, first, last = begun[weight.name]
                between = passed[index] - passed[last + 1]
                if uses[last].held or between < reuse_distance or index == last + 1:
                    begun[weight.name] = (weight, first, index)
                    continue
                yield begun[weight.name]
            begun[weight.name] = (weight, index, index)
    yield from begun.values()
