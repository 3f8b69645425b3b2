"""What all phases of a plan share: the ranks, the precision, and how the library computes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ligo_dist.architectures import Architecture, is_dropout
from ligo_dist.config import PASSES_OVER, attention_of
from ligo_dist.runtime.zero3 import Zero3
from ligo_dist.schedule import Plan

FP32 = 4
"""Bytes of a number of master weights, gradients, moments, and of everything that growing makes."""


@dataclass(frozen=True)
class Setting:
    """How the phases of a run are computed.

    Attributes:
        architecture: the family.
        ranks: how many work together.
        number: bytes of a number in the precision of the arithmetic: 2 (bf16) or 4 (fp32).
        on_gpu: dropout keeps a byte of each number that it meets; on processors a factor.
        fused: attention keeps no scores.
        masked: attention is given a mask, of documents that are kept apart.
        hidden_dropout, attention_dropout: some of it is dropped.
        activation: the library's name of the feed-forward blocks' activation; None: the family's own.
        zero3: sizes by which weights are gathered and gradients reduced.
    """

    architecture: Architecture
    ranks: int = 1
    number: int = 2
    on_gpu: bool = True
    fused: bool = True
    masked: bool = False
    hidden_dropout: bool = False
    attention_dropout: bool = False
    activation: str | None = None
    zero3: Zero3 = field(default_factory=Zero3)

    @classmethod
    def of(cls, plan: Plan, *, on_gpu: bool = True) -> Setting:
        """The setting of a plan, on its number of ranks. A precision that is `auto` still is taken for bf16, which
        every accelerator computes natively that can be planned for."""
        config = plan.config
        precision = "fp32" if config.precision == "fp32" else "bf16"
        attention = attention_of(config.model, precision, on_processors=not on_gpu)
        keys = config.model.huggingface
        dropped = [name for name, part in keys.items() if is_dropout(name) and part]
        drops_scores = any("att" in name for name in dropped)
        return cls(
            plan.architecture,
            plan.world_size,
            number=2 if precision == "bf16" else 4,
            on_gpu=on_gpu,
            # torch's fused attention drops nothing on processors: it is written out there.
            fused=attention != "eager" and (on_gpu or not drops_scores),
            masked=config.data.separate_documents and attention not in PASSES_OVER,
            hidden_dropout=any("att" not in name for name in dropped),
            attention_dropout=drops_scores,
            activation=keys.get("activation_function", keys.get("hidden_act")),
            zero3=Zero3.from_keys(config.deepspeed),
        )
