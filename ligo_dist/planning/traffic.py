"""Bytes that go through collectives, counted as a wrapper around torch.distributed's would.

A collective counts as the bytes of its whole tensor: what an all-gather gives, what a reduce-scatter takes, what an
all-reduce sums. Of those a rank sends and receives (N - 1) / N each, twice for an all-reduce, if they are done as well
as can be (Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69). One rank alone sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.growth import GrowthLayout
from ligo_dist.planning.gathering import Trained, partition, partitioned, source_parts, tied_specs
from ligo_dist.planning.setting import FP32, Setting

_SCALAR = 8
"""Bytes of a number that all ranks add up: the loss, the samples it is of, and each optimizer group's gradient norm, in
fp64."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of the tensors of all collectives, by their kind."""

    all_gather: int = 0
    reduce_scatter: int = 0
    all_reduce: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.all_gather + other.all_gather,
            self.reduce_scatter + other.reduce_scatter,
            self.all_reduce + other.all_reduce,
        )

    def __mul__(self, times: int) -> Traffic:
        return Traffic(times * self.all_gather, times * self.reduce_scatter, times * self.all_reduce)

    @property
    def total(self) -> int:
        return self.all_gather + self.reduce_scatter + self.all_reduce

    def sent(self, ranks: int) -> int:
        """Bytes that one rank sends, and as many that it receives."""
        once = self.all_gather + self.reduce_scatter + 2 * self.all_reduce
        return once * (ranks - 1) // ranks


def engine_traffic(setting: Setting, trained: Trained, micro_steps: int) -> Traffic:
    """One optimizer step of an engine: weights gathered for each micro-step, their gradients scattered after it; the
    small ones that stay whole are gathered once; the norms of the gradient, the loss and the samples are added up."""
    ranks, number, counts = setting.ranks, setting.number, trained.counts
    if ranks == 1:
        return Traffic()
    fetched = sum(partition(weight, ranks) * counts.get(weight.name, 0) for weight in trained.weights)
    stay = partitioned((weight for weight in trained.weights if weight.name not in counts), ranks)
    groups = trained.sub_groups(ranks, setting.zero3.sub_group)
    return Traffic(
        all_gather=ranks * (micro_steps * fetched + stay) * number,
        reduce_scatter=ranks * micro_steps * partitioned(trained.weights, ranks) * number,
        all_reduce=_SCALAR * (2 + len(groups)),
    )


def generation_traffic(setting: Setting, layout: GrowthLayout, micro_steps: int) -> Traffic:
    """What generating the target's weights adds to an optimizer step of its operator: in each micro-step every block's
    mixed source layer is gathered for the forward pass and for its recomputation, and its gradient scattered; every
    source tensor outside the blocks is gathered as often, once for each of its uses."""
    ranks, number = setting.ranks, setting.number
    if ranks == 1:
        return Traffic()
    blocks, outside = _gathered_source(ranks, layout)
    outside += ranks * partitioned(tied_specs(layout.architecture, layout.source), ranks)
    return Traffic(2 * (blocks + outside) * number, blocks * number, 0) * micro_steps


def transfer_traffic(setting: Setting, layout: GrowthLayout, *, learned: bool) -> Traffic:
    """Applying the operator once, in fp32: each of its matrices is gathered, unless every rank makes it from the
    method's rule; then a mixed layer for each target block, and the source's tensors outside the blocks."""
    ranks = setting.ranks
    if ranks == 1:
        return Traffic()
    gathered = sum(_gathered_source(ranks, layout))
    if learned:
        gathered += ranks * partitioned(layout.operator_parameters, ranks)
    return Traffic(all_gather=FP32 * gathered)


def _gathered_source(ranks: int, layout: GrowthLayout) -> tuple[int, int]:
    """Elements of a mixed source layer for each target block, two where new units have coefficients of their own; and
    of the source's tensors outside the blocks."""
    layer, outside = (ranks * partitioned(specs, ranks) for specs in source_parts(layout))
    return layout.target.layers * layout.generations * layer, outside
