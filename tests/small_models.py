"""Small models as plain `transformers` has them, with weights that hide nothing: no gain is 1, no bias is 0."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ligo_dist.architectures import Architecture, ModelShape, get_architecture

VOCAB = 101
POSITIONS = 32

Sizes = tuple[int, int, int, int, int]
"""layers, width, heads, key/value heads, ffn"""


def model_shape(sizes: Sizes, tied: bool) -> ModelShape:
    return ModelShape(*sizes, vocab=VOCAB, positions=POSITIONS, tied=tied)


def library_config(architecture: Architecture, shape: ModelShape, **extra: Any) -> PretrainedConfig:
    """The library's configuration from the table's keys alone, dropout off."""
    config_class = getattr(transformers, architecture.config_class)
    no_dropout = {
        name: 0.0
        for name in config_class().to_dict()
        if name.endswith(("_pdrop", "_dropout", "_dropout_prob"))
    }
    keys = {**no_dropout, **architecture.library_keys(shape), "bos_token_id": 1, "eos_token_id": 2, **extra}
    return config_class(**keys, use_cache=False, attn_implementation="eager")


def library_model(family: str, shape: ModelShape, seed: int = 0, **extra: Any) -> PreTrainedModel:
    """A model with random weights at a scale at which every part matters for the logits."""
    architecture = get_architecture(family)
    model = getattr(transformers, architecture.model_class)(library_config(architecture, shape, **extra))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.data = noise * 0.7 / parameter.shape[-1] ** 0.5
        else:
            parameter.data = parameter.data + 0.3 * noise
    return model.eval()


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """A model's parameters by name; a tied head counts once."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def load_weights(model: PreTrainedModel, weights: dict[str, Tensor]) -> PreTrainedModel:
    """The same model with other weights; all of them must be there."""
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(weights)
    for name, parameter in parameters.items():
        assert parameter.shape == weights[name].shape, name
        parameter.data = weights[name].clone()
    return model.eval()


def token_ids(sequences: int, length: int = 16, vocab: int = VOCAB, seed: int = 1) -> Tensor:
    """Random tokens [sequences, length]."""
    return torch.randint(0, vocab, (sequences, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits_of(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    return model(input_ids=input_ids).logits
