"""Hugging Face models as this system builds them: partitioned from the first parameter on, or on the meta device."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # loaded here: importing it under zero.Init fails, as that replaces torch.Tensor.__new__
import transformers
from torch import Tensor, nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ligo_dist.architectures import Architecture, ModelShape, is_dropout
from ligo_dist.engine import (
    Shards,
    World,
    partitioned_parameters,
    partitioned_shapes,
    partitions,
    seed_everything,
)
from ligo_dist.huggingface.separation import heed_positions
from ligo_dist.huggingface.versions import initialize_partitioned
from ligo_dist.runtime.errors import CheckpointError, LigoError

GENERATION_FILE = "generation_config.json"
"""What the library calls the file that says how a model generates text."""


def huggingface_config(
    architecture: Architecture,
    shape: ModelShape,
    extra: Mapping[str, Any],
    epsilon_factor: float = 1.0,
    attention: str | None = None,
) -> PretrainedConfig:
    """The library's configuration of a model in training: what the shape sets, the user's further keys, no dropout
    unless those ask for it, no key-value cache.

    Args:
        architecture: the family.
        shape: of the model.
        extra: further keys.
        epsilon_factor: what the norms' epsilon is multiplied by (`growth.preserves.epsilon_factor`).
        attention: how it is computed, in the library's names; None: as the library does by itself.
    """
    no_dropout = _no_dropout(getattr(transformers, architecture.config_class))
    no_cache = {"use_cache": False} if architecture.objective == "causal_lm" else {}
    computed = {} if attention is None else {"attn_implementation": attention}
    keys = {**no_dropout, **architecture.library_keys(shape), **extra, **no_cache, **computed}
    return _library_config(architecture, keys, epsilon_factor)


def exported_config(
    architecture: Architecture, shape: ModelShape, extra: Mapping[str, Any], epsilon_factor: float = 1.0
) -> PretrainedConfig:
    """The library's configuration of a model as others get it: nothing in it is of how it was trained here.

    The arguments are those of `huggingface_config`; what neither they nor the shape say is the library's own default.
    """
    keys = {"dtype": "float32", **extra, **architecture.library_keys(shape)}
    return _library_config(architecture, keys, epsilon_factor)


def _library_config(
    architecture: Architecture, keys: Mapping[str, Any], epsilon_factor: float
) -> PretrainedConfig:
    config_class = getattr(transformers, architecture.config_class)
    # The class completes a mapping in its place, which is the user's.
    config = config_class(**copy.deepcopy({**keys, "architectures": [architecture.model_class]}))
    key = architecture.norm_epsilon
    if key is not None and not hasattr(config, key):
        raise LigoError(
            f"norm_epsilon of {architecture.name} is {key!r}, which {architecture.config_class} does not have; None is"
            " right where it has no such key"
        )
    if epsilon_factor != 1.0:
        assert key is not None, "nothing claims to keep the function then"
        setattr(config, key, getattr(config, key) * epsilon_factor)
    return config


def generation_config(
    architecture: Architecture, config: PretrainedConfig, directory: Path | None, ids: Mapping[str, Any]
) -> str | None:
    """The `generation_config.json` of an export; None where there is none to write.

    Args:
        architecture: the family.
        config: of the model to be exported.
        directory: of the first stage's model, whose file is taken as it is, if it has one; None: the library's own.
        ids: ids of special tokens that this file must say now, as the tokenizer is not that of the directory.

    Raises:
        CheckpointError: the directory's file cannot be read.
    """
    if directory is None:
        generates = architecture.objective == "causal_lm"
        return GenerationConfig.from_model_config(config).to_json_string() if generates else None
    path = directory / GENERATION_FILE
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        said = json.loads(text)
        changed = {key: value for key, value in ids.items() if key in said and said[key] != value}
        return json.dumps({**said, **changed}, indent=2) + "\n" if changed else text
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _no_dropout(config_class: type[PretrainedConfig]) -> dict[str, float]:
    """Dropout off unless the user asks for it: pre-training sees each token once or a few times."""
    defaults = config_class().to_dict()
    return {name: 0.0 for name, value in defaults.items() if is_dropout(name) and isinstance(value, float)}


def build_partitioned_model(
    architecture: Architecture, shape: ModelShape, config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """A model whose parameters are ZeRO-3 partitions with unset values: every one of them must be written.

    Raises:
        ArchitectureError: if its parameters do not fit the family's table.
    """
    model = _untied_partitioned_model(architecture, config, dtype)
    model.tie_weights()
    architecture.check_model(shape, partitioned_shapes(model))
    _take_losses_in_fp32(architecture, model)
    heed_positions(architecture, model, dtype)
    return model


def build_meta_model(
    architecture: Architecture,
    shape: ModelShape,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A model whose parameters have shapes and a dtype only, while its buffers (rotary frequencies) are real.

    The dtype is that of the weights it will be called with: a vision model gives its pixels that of its parameters.

    Raises:
        ArchitectureError: if its parameters do not fit the family's table.
    """
    model = _untied_meta_model(architecture, config, device)
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    architecture.check_model(shape, {name: tuple(p.shape) for name, p in model.named_parameters()})
    _take_losses_in_fp32(architecture, model)
    heed_positions(architecture, model, dtype)
    return model


def build_whole_model(
    architecture: Architecture,
    shape: ModelShape,
    config: PretrainedConfig,
    weights: Mapping[str, Tensor],
    device: torch.device,
) -> PreTrainedModel:
    """A model of the library that has these weights, in their dtype, as `from_pretrained` would give it.

    Raises:
        ArchitectureError: if its parameters do not fit the family's table.
    """
    model = _untied_meta_model(architecture, config, device)
    model.load_state_dict(dict(weights), strict=False, assign=True)
    model.tie_weights()
    architecture.check_model(shape, {name: tuple(p.shape) for name, p in model.named_parameters()})
    return model.eval()


def _take_losses_in_fp32(architecture: Architecture, model: PreTrainedModel) -> None:
    """Let the head give fp32: the library takes the loss of causal models in fp32, of others in the head's precision,
    in which bf16 rounds a loss of 6 to steps of 0.03."""
    if architecture.objective in ("masked_lm", "image_classification"):
        head = model.get_output_embeddings() or model.get_submodule("classifier")
        head.register_forward_hook(lambda module, inputs, output: output.float())


def initial_shards(
    architecture: Architecture,
    config: PretrainedConfig,
    seeds: tuple[int, ...],
    world: World,
    layers: int | None = None,
) -> Shards:
    """The library's own initialisation of a model, partitioned: the same for every number of ranks.

    The first rank initialises module by module, in fp32, from the seeds alone; nothing larger than a module and its
    direct children is ever whole.

    Args:
        architecture: the family.
        config: of the model.
        seeds: what the random numbers are drawn by.
        world: the ranks.
        layers: of the model that these layers will be a part of, where that is another one: some families draw what
            writes to the residual stream the smaller, the more layers do.
    """
    # Tied after it, as the library does: a tied weight would be drawn twice.
    model = _untied_partitioned_model(architecture, config, torch.float32)
    if layers is not None:
        (key,) = (key for key, attribute in architecture.config_keys.items() if attribute == "layers")
        setattr(model.config, key, layers)
    seed_everything(*seeds)
    initialize_partitioned(model)
    model.tie_weights()
    return partitions(model, world)


def _untied_partitioned_model(
    architecture: Architecture, config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    model_class = getattr(transformers, architecture.model_class)
    with no_init_weights(), partitioned_parameters(dtype):
        model = model_class(config)
    # zero.Init rounds all that it sees made, the factors of rotary frequencies too.
    rounded = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    if rounded:
        exact = _untied_meta_model(architecture, config, torch.device("cpu"))
        for name, buffer in rounded.items():
            buffer.data = exact.get_buffer(name).to(buffer.device)
    return model


def _untied_meta_model(
    architecture: Architecture, config: PretrainedConfig, device: torch.device
) -> PreTrainedModel:
    model_class = getattr(transformers, architecture.model_class)
    with no_init_weights(), device, _parameters_on_meta():
        return model_class(config)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move every parameter to the meta device as it is registered; buffers stay where they are made."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
