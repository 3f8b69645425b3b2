"""Documents of one sequence kept apart in the library's models: what `position_ids` that begin anew come to for each
way to compute attention.

Most of the library's decoders see by the positions where a document begins, and mask what lies before it, in every way
of theirs (`transformers.masking_utils`) but flash attention's, which sees it in a single row alone. Encoders, and
decoders of which their table says it, do not look.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from ligo_dist.architectures import Architecture


def heed_positions(architecture: Architecture, model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Let a model keep apart what positions that begin anew separate, when it is called with `position_ids`
    [rows, positions]: each run of positions that rise by one attends to itself alone. Called without, it does what it
    does.

    Args:
        architecture: the family.
        model: of it; its parameters may be made when it is called.
        dtype: that it computes in.
    """
    is_causal = architecture.objective == "causal_lm"

    def before(module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        positions = inputs.get("position_ids")
        if positions is None:
            return None
        attention = model.config._attn_implementation
        if attention.startswith("flash_attention"):
            return args, {**inputs, **_lengths(positions)}
        if is_causal and architecture.masks_by_positions:
            return None
        # Of the embeddings, which are not there yet, their precision and their first dims alone are looked at.
        like = torch.empty((*positions.shape, 0), dtype=dtype, device=positions.device)
        mask = _causal_mask if is_causal else _mask
        return args, {**inputs, "attention_mask": mask(model, positions, like)}

    model.register_forward_pre_hook(before, with_kwargs=True)


def document_numbers(positions: Tensor) -> Tensor:
    """[rows, positions], the number of each position's document in its row, from positions that begin anew."""
    begins = positions.diff(dim=-1, prepend=positions[:, :1] - 1) != 1
    return begins.cumsum(-1)


def _causal_mask(model: PreTrainedModel, positions: Tensor, like: Tensor) -> Any:
    """The mask of a decoder, as its attention takes it."""
    return create_causal_mask(
        config=model.config,
        inputs_embeds=like,
        attention_mask=None,
        past_key_values=None,
        position_ids=positions,
    )


def _mask(model: PreTrainedModel, positions: Tensor, like: Tensor) -> Any:
    """The block-diagonal mask of an encoder, as its attention takes it."""
    numbers = document_numbers(positions)

    def is_together(row: Any, head: Any, one: Any, other: Any) -> Any:
        return numbers[row, one] == numbers[row, other]

    return create_bidirectional_mask(model.config, like, None, and_mask_function=is_together)


def _lengths(positions: Tensor) -> dict[str, Any]:
    """What flash attention takes of documents: where they begin in all rows one after the other, and the most tokens
    that one can have, which no host has to wait for."""
    begins = positions.diff(dim=-1, prepend=positions[:, :1]) != 1  # true in the first column too
    ends = torch.tensor([positions.numel()], device=positions.device)
    bounds = torch.cat([begins.flatten().nonzero().flatten(), ends]).to(torch.int32)
    longest = positions.shape[-1]
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
