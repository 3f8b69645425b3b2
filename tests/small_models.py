"""Small models as plain `transformers` has them, with weights that hide nothing: no gain is 1, no bias is 0."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ligo_dist.architectures import Architecture, ModelShape, get_architecture

VOCAB = 101
POSITIONS = 32

Sizes = tuple[int, int, int, int, int]
"""layers, width, heads, key/value heads, ffn"""

EXTRAS = {
    "vocab": VOCAB,
    "positions": POSITIONS,
    "token_types": 2,
    "labels": 7,
    "image_size": 12,
    "patch_size": 4,
    "channels": 3,
    "attention_bias": False,
    "mlp_bias": False,
}
"""What a shape has beside its sizes; a family takes those that its configuration has a key for."""


def model_shape(sizes: Sizes, tied: bool) -> ModelShape:
    return ModelShape(*sizes, vocab=VOCAB, positions=POSITIONS, tied=tied)


def small_shape(
    family: str,
    layers: int = 2,
    heads: int = 6,
    *,
    width: int | None = None,
    ffn: int | None = None,
    tied: bool | None = None,
    key_value_heads: int | None = None,
    head_size: int = 8,
    **extras: int,
) -> ModelShape:
    """A small model of any family: heads of 8, six to the width, three of them to a key/value head where the family
    groups them (a number of heads that three does not divide: one to each)."""
    architecture = get_architecture(family)
    groups = any(axis.grouped for axis in architecture.axes.values())
    if key_value_heads is None:
        key_value_heads = heads // 3 if groups and heads % 3 == 0 else heads
    has = set(architecture.config_keys.values())
    return ModelShape(
        layers=layers,
        width=heads * head_size if width is None else width,
        heads=heads,
        key_value_heads=key_value_heads,
        ffn=2 * heads * head_size + 5 if ffn is None else ffn,
        tied=architecture.tied_by_default if tied is None else tied,
        head_size=head_size,
        **{name: extras.get(name, size) for name, size in EXTRAS.items() if name in has},
    )


def library_config(architecture: Architecture, shape: ModelShape, **extra: Any) -> PretrainedConfig:
    """The library's configuration from the table's keys alone, dropout off."""
    config_class = getattr(transformers, architecture.config_class)
    no_dropout = {
        name: 0.0
        for name in config_class().to_dict()
        if name.endswith(("_pdrop", "dropout", "_dropout_prob"))
    }
    specials = (
        {"bos_token_id": 1, "eos_token_id": 2} if shape.vocab and not architecture.position_offset else {}
    )
    keys = {**no_dropout, **architecture.library_keys(shape), **specials, **extra}
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


def random_inputs(
    family: str, shape: ModelShape, samples: int, length: int = 16, seed: int = 1
) -> dict[str, Tensor]:
    """What a model of the family is called with: tokens [samples, length] (and their types), or images [samples,
    channels, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    if shape.image_size:
        size = (samples, shape.channels, shape.image_size, shape.image_size)
        return {"pixel_values": torch.randn(size, generator=generator)}
    # RoBERTa's padding token, just before its first position, has no position of its own.
    first = get_architecture(family).position_offset
    inputs = {"input_ids": torch.randint(first, shape.vocab, (samples, length), generator=generator)}
    if shape.token_types > 1:
        inputs["token_type_ids"] = torch.randint(0, shape.token_types, (samples, length), generator=generator)
    return inputs


def real_inputs(family: str, shape: ModelShape, samples: int, length: int = 16) -> dict[str, Tensor]:
    """The same of real data: characters of a file of the standard library, or scikit-learn's handwritten digits."""
    if shape.image_size:
        from sklearn.datasets import load_digits

        images = torch.tensor(load_digits().images[:samples, None], dtype=torch.float32) / 8 - 1
        images = torch.nn.functional.interpolate(images, size=shape.image_size, mode="bilinear")
        return {"pixel_values": images.expand(-1, shape.channels, -1, -1)}
    inputs = random_inputs(family, shape, samples, length)
    text = inspect.getsource(textwrap)[: samples * length]
    # One id for each printable character, one for all others.
    characters = [ord(c) - 32 if c.isascii() and c.isprintable() else 95 for c in text]
    ids = torch.tensor(characters).view(samples, length) + get_architecture(family).position_offset
    return {**inputs, "input_ids": ids}


def random_batch(
    family: str, shape: ModelShape, samples: int, length: int = 16, seed: int = 1
) -> dict[str, Tensor]:
    """The same with labels: what the family is trained on. A masked model predicts every fourth token."""
    inputs = random_inputs(family, shape, samples, length, seed)
    objective = get_architecture(family).objective
    if objective == "image_classification":
        generator = torch.Generator().manual_seed(seed)
        return {**inputs, "labels": torch.randint(0, shape.labels, (samples,), generator=generator)}
    labels = inputs["input_ids"].clone()
    if objective == "masked_lm":
        labels[:, torch.arange(length) % 4 != 0] = -100
    return {**inputs, "labels": labels}


@dataclass(frozen=True)
class GivenSamples:
    """The rows of a batch as samples."""

    labelled: ClassVar[bool] = True

    batch: dict[str, Tensor]
    tokens_per_sample: int = 1

    def __len__(self) -> int:
        return len(self.batch["labels"])

    def weights(self, indices: Any) -> Any:
        return np.ones(len(indices), dtype=np.int64)

    def read(self, indices: Any, draws: Any) -> dict[str, Tensor]:
        return {name: tensor[[int(index) for index in indices]] for name, tensor in self.batch.items()}

    def finish(self, inputs: Any) -> Any:
        return inputs


@torch.no_grad()
def outputs_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Logits, or the last hidden state of a model that has none."""
    outputs = model(**inputs)
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state


@torch.no_grad()
def logits_of(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    return model(input_ids=input_ids).logits
