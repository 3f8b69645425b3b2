"""Bytes on one rank, moment by moment: `docs/accounting.md` has the formulas line by line.

What lies on a rank through a phase (partitions of weights, gradients and moments, after Rajbhandari et al. 2020, arXiv
1910.02054, section 3) is exact. What comes and goes is counted at the moments that can be the fullest, and tests hold
the fullest of them against what torch allocates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ligo_dist.planning.gathering import Gathered
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.planning.traffic import sub_groups
from ligo_dist.planning.weights import Weight, partitioned

_MOMENTS = 2
"""AdamW keeps two numbers for each weight."""

_STEP_TENSORS = 3
"""Of the size of what the optimizer updates at a time: a copy of its gradients, and two temporaries of AdamW."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank at one moment, by what they hold.

    Attributes:
        moment: its name.
        parameters: partitions of weights: in the precision of the arithmetic, in fp32, and those of a source.
        gradients: partitions of gradients, what is reduced, and what waits for it.
        optimizer: partitions of AdamW's moments, and its temporaries.
        activations: what is kept for the backward pass, and what is made of it.
        whole: weights that are whole: gathered, or generated, with what generates them.
        copies: of partitions, on their way to a checkpoint or into an engine.
    """

    moment: str
    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    whole: int = 0
    copies: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.whole + self.copies

    def plus(self, moment: str, **more: int) -> Memory:
        """Another moment, with more of some kinds."""
        return replace(self, moment=moment, **{kind: getattr(self, kind) + n for kind, n in more.items()})


@dataclass(frozen=True)
class EngineMemory:
    """What an engine holds, and what its steps add.

    Attributes:
        setting: how it computes.
        weights: that it trains.
        gathered: what its micro-steps gather.
    """

    setting: Setting
    weights: Sequence[Weight]
    gathered: Gathered

    def held(self, *, moments: bool = True) -> Memory:
        """Between two steps; `moments`: whether the optimizer has its own yet."""
        setting, own = self.setting, self._own
        return Memory(
            "held",
            parameters=own * (setting.number + FP32),
            gradients=own * FP32 + setting.zero3.reduce_bucket * setting.number,
            optimizer=own * FP32 * _MOMENTS if moments else 0,
            whole=self.whole(self.gathered.persistent),
        )

    def whole(self, elements: int) -> int:
        """Bytes of gathered weights; a rank alone has them whole anyway."""
        return elements * self.setting.number if self.setting.ranks > 1 else 0

    @property
    def gathered_more(self) -> tuple[int, int]:
        """Bytes of gathered weights at most, and at the loss, beyond those that stay whole."""
        stay = self.gathered.persistent
        return self.whole(self.gathered.most - stay), self.whole(self.gathered.at_loss - stay)

    @property
    def in_flight(self) -> int:
        """Bytes of what is gathered at once and then copied weight by weight."""
        return self.whole(self.gathered.in_flight)

    @property
    def waiting_gradients(self) -> int:
        """Bytes of whole gradients outside the bucket: the newest; and where one is larger than the bucket, another
        that waits for its turn."""
        largest = max((weight.numel for weight in self.weights), default=0)
        times = 2 if largest > self.setting.zero3.reduce_bucket else 1
        return times * largest * self.setting.number

    @property
    def reduced(self) -> int:
        """Bytes that a reduce-scatter makes: a bucket in the order of the ranks, and the own part of it in fp32."""
        setting = self.setting
        bucket = min(setting.zero3.reduce_bucket, sum(weight.numel for weight in self.weights))
        converted = FP32 if setting.number < FP32 else 0
        return bucket * setting.number + bucket // setting.ranks * converted

    @property
    def updating(self) -> int:
        """Bytes that an optimizer step makes."""
        groups = sub_groups(self.weights, self.setting.ranks, self.setting.zero3)
        return _STEP_TENSORS * FP32 * max(groups, default=0)

    @property
    def snapshot(self) -> int:
        """Bytes of the copies that go into a checkpoint: weights and moments."""
        return self._own * FP32 * (1 + _MOMENTS)

    @property
    def _own(self) -> int:
        return partitioned(self.weights, self.setting.ranks)


def fullest(moments: Sequence[Memory]) -> Memory:
    return max(moments, key=lambda memory: memory.total)
