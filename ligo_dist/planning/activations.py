"""What a forward pass keeps for its backward pass, in bytes: docs/internals/accounting.md has the formulas.

After Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), adapted to what the library's blocks keep: tests hold
the counts here against the tensors that torch saves, family by family. A plan does not measure them itself: it would
take torch and the library, and a GPU for what a GPU keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.planning.setting import FP32, Setting

LOGIT_BYTES = 12
"""Of each logit while the loss is differentiated: its log-probability, the gradient of that, and its own, in fp32. As
many in an evaluation: a logit, its log-probability, and a logit of the micro-batch before; in bf16 a logit is there in
both precisions."""

_TEMPORARIES = 3
"""Tensors of a block's largest intermediate that its backward pass holds at a time."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch on one rank.

    Attributes:
        layers: blocks of the model.
        checkpointed: what is inside a block is dropped, and made again in the backward pass.
        block_input: the residual stream before a block: all that checkpointing keeps of it.
        block: what one block keeps.
        ends: what lies before and behind the blocks, logits aside.
        loss: of all logits while the loss is differentiated, or evaluated.
        logits: of all logits in the precision of the arithmetic.
        beside: what the backward pass of one block holds beside.
    """

    layers: int
    checkpointed: bool
    block_input: int
    block: int
    ends: int
    loss: int
    logits: int
    beside: int

    @property
    def kept(self) -> int:
        """After the forward pass of all blocks."""
        return self.layers * (self.block_input if self.checkpointed else self.block) + self.ends

    @property
    def in_backward(self) -> int:
        """While the last block's gradients are taken; its inner values are there again if they were dropped."""
        return self.kept + (self.block if self.checkpointed else 0) + self.beside

    @property
    def in_evaluation(self) -> int:
        """The larger of the logits' loss and a block; nothing is kept for a backward pass."""
        return max(self.loss, self.block_input + self.block)


def activation_bytes(
    setting: Setting, shape: ModelShape, length: int, sequences: int, *, checkpointed: bool = False
) -> Activations:
    """The activations of a micro-batch.

    Args:
        setting: how it is computed.
        shape: the model.
        length: positions that the blocks work on.
        sequences: sequences, or images, of the micro-batch.
        checkpointed: its blocks are.
    """
    tokens, architecture, number = length * sequences, setting.architecture, setting.number
    language_model = architecture.objective in ("causal_lm", "masked_lm")
    logits = tokens * shape.vocab if language_model else sequences * shape.labels
    head = 3 * shape.width * number if architecture.objective == "masked_lm" else 0
    return Activations(
        layers=shape.layers,
        checkpointed=checkpointed,
        block_input=tokens * shape.width * number,
        block=tokens * _block(setting, shape, length),
        ends=tokens * (_norm(setting, shape.width) + head),
        loss=LOGIT_BYTES * logits,
        logits=number * logits,
        beside=_TEMPORARIES * tokens * _largest(setting, shape, length),
    )


def _block(setting: Setting, shape: ModelShape, length: int) -> int:
    """One block, per token."""
    architecture, number = setting.architecture, setting.number
    norms = 2 * _norm(setting, shape.width)
    if architecture.parallel_branches:
        norms -= shape.width * number  # both norms read the same
    if any(axis.normed for axis in architecture.axes.values()):
        heads = shape.heads + shape.key_value_heads
        norms += heads * (shape.head_size * (FP32 + number) + FP32)
    inner = _inner_tensors(setting, shape) * shape.ffn
    dropped = 2 * shape.width * (1 if setting.on_gpu else number) if setting.hidden_dropout else 0
    return norms + _attention(setting, shape, length) + inner * number + dropped


def _inner_tensors(setting: Setting, shape: ModelShape) -> int:
    """Tensors of the inner width: what the activation reads, what it writes, twice that where one gates the other, and
    the parts of a GELU that is written out (`gelu_new`). ReLU keeps what it writes alone."""
    activation = setting.activation or setting.architecture.activation
    if activation == "gelu_new":
        return 5
    if _is_gated(setting.architecture, shape):
        return 4
    return 1 if activation == "relu" else 2


def _norm(setting: Setting, width: int) -> int:
    """A norm, per token: its input, its statistics, and its output, which the next product reads. RMSNorm keeps its
    input in fp32, and what it makes of it both before and after the gain."""
    if setting.architecture.normalization == "rms_norm":
        return width * (FP32 + 2 * setting.number) + FP32
    return (2 * width + 2) * setting.number


def _attention(setting: Setting, shape: ModelShape, length: int) -> int:
    """Attention, per token: queries, keys, values and its output; plain attention the scores' softmax too."""
    queries, number = shape.attention_width, setting.number
    if not setting.fused:
        return 4 * queries * number + shape.heads * length * _score(setting)
    numbers = 2 * queries + 2 * shape.key_value_heads * shape.head_size
    if (
        setting.masked
    ):  # the mask as numbers, in each block anew; with one the library repeats grouped keys and values
        numbers = 4 * queries + length
    if setting.architecture.rotary and _is_fused(setting.architecture, shape):
        numbers += 3 * queries  # the values are a view of the fused tensor, and the output is copied
    return numbers * number + FP32 * shape.heads


def _score(setting: Setting) -> int:
    """Bytes of one score of plain attention: its softmax, and what the values are multiplied with, where that is
    another tensor; dropout adds its factor."""
    number = setting.number
    taken = FP32 if setting.architecture.softmax_in_fp32 else number
    if setting.attention_dropout:
        return taken + 2 * number
    return taken + (number if taken != number else 0)


def _largest(setting: Setting, shape: ModelShape, length: int) -> int:
    """Bytes per token of a block's largest intermediate."""
    inner = shape.ffn * setting.number
    if setting.fused:
        return inner
    taken = FP32 if setting.architecture.softmax_in_fp32 else setting.number
    return max(inner, shape.heads * length * taken)


def _is_gated(architecture: Architecture, shape: ModelShape) -> bool:
    """Whether two matrices of a block write the inner units: one gates the other."""
    lines = architecture.table(shape)
    return sum(lines[role].startswith("ffn.out hidden.in") for role in architecture.layer_roles(shape)) > 1


def _is_fused(architecture: Architecture, shape: ModelShape) -> bool:
    """Whether queries, keys and values are made by one matrix."""
    lines = architecture.table(shape)
    return any("query.out" in lines[role] and "value.out" in lines[role] for role in lines)
