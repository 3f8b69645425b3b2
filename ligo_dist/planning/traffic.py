"""Bytes that go through collectives, counted as a wrapper around torch.distributed's would.

A collective counts as the bytes of its whole tensor: what an all-gather gives, what a reduce-scatter takes, what an
all-reduce sums, what all ranks together bring to an all-to-all. Of those a rank sends and receives (N - 1) / N each,
twice for an all-reduce, if they are done as well as can be (Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69),
and an Nth of that of an all-to-all. One rank alone sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.architectures import Selection, every_parameter
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
    all_to_all: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.all_gather + other.all_gather,
            self.reduce_scatter + other.reduce_scatter,
            self.all_reduce + other.all_reduce,
            self.all_to_all + other.all_to_all,
        )

    def __mul__(self, times: int) -> Traffic:
        return Traffic(
            times * self.all_gather,
            times * self.reduce_scatter,
            times * self.all_reduce,
            times * self.all_to_all,
        )

    @property
    def total(self) -> int:
        return self.all_gather + self.reduce_scatter + self.all_reduce + self.all_to_all

    def sent(self, ranks: int) -> int:
        """Bytes that one rank sends, and as many that it receives."""
        once = self.all_gather + self.reduce_scatter + 2 * self.all_reduce
        return once * (ranks - 1) // ranks + self.all_to_all * (ranks - 1) // ranks**2


def engine_traffic(setting: Setting, trained: Trained, micro_steps: int) -> Traffic:
    """One optimizer step of an engine: weights gathered for each micro-step, their gradients scattered after it; the
    small ones that stay whole are gathered once; the norms of the gradient, the loss and the samples are added up. What
    Muon trains goes to the ranks that orthogonalize it and back."""
    ranks, number, counts = setting.ranks, setting.number, trained.counts
    if ranks == 1:
        return Traffic()
    fetched = sum(partition(weight, ranks) * counts.get(weight.name, 0) for weight in trained.weights)
    stay = partitioned((weight for weight in trained.weights if weight.name not in counts), ranks)
    groups = trained.sub_groups(ranks, setting.zero3.sub_group)
    return Traffic(
        all_gather=ranks * (micro_steps * fetched + stay) * number,
        reduce_scatter=ranks * micro_steps * partitioned(trained.weights, ranks) * number,
        all_reduce=_SCALAR * (2 + sum(map(len, groups.values()))),
        all_to_all=2 * ranks * partitioned(trained.matrices, ranks) * number,
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


def transfer_traffic(
    setting: Setting, layout: GrowthLayout, *, learned: bool, selection: Selection = every_parameter
) -> Traffic:
    """Applying the operator once, in fp32, to make all parameters or some: each of its matrices that makes them is
    gathered, unless every rank makes it from the method's rule; then a mixed layer for each target block, and the
    source's tensors outside the blocks."""
    ranks = setting.ranks
    if ranks == 1:
        return Traffic()
    gathered = sum(_gathered_source(ranks, layout, selection))
    if learned:
        made = [spec for spec in layout.target_parameters if selection(spec)]
        names = {name for spec in made for name in layout.matrices_of(spec)}
        names |= {name for spec in made if spec.layer is not None for name in layout.depth_names(spec.layer)}
        operator = [parameter for parameter in layout.operator_parameters if parameter.name in names]
        gathered += ranks * partitioned(operator, ranks)
    return Traffic(all_gather=FP32 * gathered)


def _gathered_source(
    ranks: int, layout: GrowthLayout, selection: Selection = every_parameter
) -> tuple[int, int]:
    """Elements of a mixed source layer for each target block, two where new units have coefficients of their own; and
    of the source's tensors outside the blocks."""
    layer, outside = (ranks * partitioned(specs, ranks) for specs in source_parts(layout, selection))
    return layout.target.layers * layout.generations * layer, outside
