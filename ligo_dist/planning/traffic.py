"""Bytes that go through collectives, counted as a wrapper around torch.distributed's would.

A collective counts as the bytes of its whole tensor: what an all-gather gives, what a reduce-scatter takes, what an
all-reduce sums. Of those a rank sends and receives (N - 1) / N each, twice for an all-reduce, if they are done as well
as can be (Patarasuk and Yuan 2009, J. Parallel Distrib. Comput. 69). One rank alone sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ligo_dist.architectures import ParameterSpec
from ligo_dist.growth.layout import GrowthLayout
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.planning.weights import (
    Gathered,
    Weight,
    all_weights,
    generated_modules,
    partitioned,
    tied_specs,
)
from ligo_dist.runtime.zero3 import Zero3

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


def engine_traffic(
    setting: Setting, weights: Sequence[Weight], gathered: Gathered, micro_steps: int
) -> Traffic:
    """One optimizer step of an engine: weights gathered for each micro-step, their gradients scattered after it; the
    small ones that stay whole are gathered once; the norms of the gradient, the loss and the samples are added up."""
    if setting.ranks == 1:
        return Traffic()
    ranks, number = setting.ranks, setting.number
    fetched = ranks * sum(weight.partition(ranks) * gathered.counts.get(weight.name, 0) for weight in weights)
    stay = ranks * partitioned((w for w in weights if w.name not in gathered.counts), ranks)
    return Traffic(
        all_gather=(micro_steps * fetched + stay) * number,
        reduce_scatter=micro_steps * ranks * partitioned(weights, ranks) * number,
        all_reduce=_SCALAR * (2 + len(sub_groups(weights, ranks, setting.zero3))),
    )


def generation_traffic(setting: Setting, layout: GrowthLayout, micro_steps: int) -> Traffic:
    """What generating the target's weights adds to an optimizer step of its operator: in each micro-step every block's
    mixed source layer is gathered for the forward pass and for its recomputation, and its gradient scattered; every
    source tensor outside the blocks is gathered as often."""
    if setting.ranks == 1:
        return Traffic()
    blocks = _mixed_layers(setting, layout)
    outside = _outside(setting, layout, uses=tied_specs(layout.architecture, layout.target))
    number = setting.number
    return Traffic(2 * (blocks + outside) * number, blocks * number, 0) * micro_steps


def transfer_traffic(setting: Setting, layout: GrowthLayout, *, learned: bool) -> Traffic:
    """Applying the operator once, in fp32: each of its matrices is gathered, unless every rank makes it from the
    method's rule; then a mixed layer for each target block, and the source's tensors outside the blocks."""
    if setting.ranks == 1:
        return Traffic()
    gathered = _mixed_layers(setting, layout) + _outside(setting, layout)
    if learned:
        gathered += setting.ranks * partitioned(all_weights(generated_modules(layout)), setting.ranks)
    return Traffic(all_gather=FP32 * gathered)


def sub_groups(weights: Iterable[Weight], ranks: int, zero3: Zero3) -> list[int]:
    """Elements of the partitions that the optimizer updates at a time."""
    sizes: dict[str, list[int]] = {}
    for weight in weights:
        group = sizes.setdefault(weight.group, [0])
        if group[-1] >= zero3.sub_group:
            group.append(0)
        group[-1] += weight.partition(ranks)
    return [size for group in sizes.values() for size in group]


def _mixed_layers(setting: Setting, layout: GrowthLayout) -> int:
    """Elements of a mixed source layer for each target block; two where new units have coefficients of their own."""
    layer = (spec for spec in layout.source_by_role.values() if spec.layer is not None)
    size = setting.ranks * sum(_partition(spec, setting.ranks) for spec in layer)
    return layout.target.layers * len(layout.depth_names(0)) * size


def _outside(setting: Setting, layout: GrowthLayout, uses: Iterable[ParameterSpec] = ()) -> int:
    """Elements of the source's tensors outside the blocks; those of `uses` count once more."""
    specs = [spec for spec in layout.source_by_role.values() if spec.layer is None]
    again = [layout.source_by_role[spec.role] for spec in uses]
    return setting.ranks * sum(_partition(spec, setting.ranks) for spec in (*specs, *again))


def _partition(spec: ParameterSpec, ranks: int) -> int:
    return -(-spec.numel // ranks)
