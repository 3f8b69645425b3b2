"""Growing a model in Python, with no run around it: what `ligo_dist.grow` does."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ligo_dist.architectures import Architecture, ModelShape, architecture_of_class, get_architecture
from ligo_dist.config import source_config_of
from ligo_dist.engine import (
    Shards,
    World,
    gather_tensor,
    is_partitioned,
    padded,
    partition_size,
    partitions,
    present_world,
    write_partitions,
)
from ligo_dist.growth import (
    DEPTHS,
    METHODS,
    SIZES,
    TOLERANCE,
    WIDTHS,
    Growth,
    GrowthLayout,
    Method,
    OperatorValues,
    SourceShards,
    gathered_weights,
    get_method,
    grown_shards,
    initial_operator,
    model_output,
    output_difference,
    target_shape,
)
from ligo_dist.huggingface import (
    build_partitioned_model,
    build_whole_model,
    exported_config,
    huggingface_config,
    initial_shards,
)
from ligo_dist.runtime.errors import ArchitectureError, LigoError, PreservationError, did_you_mean

_STAGE = 1
"""What grows in a run is its second stage, after which the random numbers of fresh layers are named."""

_SAMPLES, _TOKENS = 2, 32
"""On which source and target are held against each other."""


def grow(
    model: PreTrainedModel,
    target: Mapping[str, int] | PretrainedConfig,
    method: str = "lossless-dense",
    *,
    depth: str | None = None,
    width: str | None = None,
    noise: float = 0.0,
    tied: bool | None = None,
    identity: str | None = None,
    share_depth: bool = False,
    share_width: bool = False,
    seed: int = 0,
    name: str = "large",
    family: str | None = None,
    check: bool = True,
) -> PreTrainedModel:
    """A larger model made of a model, which stays as it is: what a run makes of a stage whose operator is not learned.

    A process alone takes and gives whole models. In a process group it is collective: every rank gives the same model,
    makes its own part of the grown one, and gets it as the source came: whole, or, where that was built under
    `deepspeed.zero.Init`, in ZeRO-3's partitions; no rank then ever has a whole model. It computes in fp32; the grown
    weights have the model's dtype.

    Args:
        model: of a family of `ligo-dist architectures`.
        target: its sizes: `layers`, `width`, `heads`, `key_value_heads`, `ffn`; those that are left out stay, or follow
            the width as far as they have to. Or its configuration, whose keys that are not the class's own defaults
            count before those of the model.
        method: one of `ligo-dist methods` that learns nothing.
        depth, width, noise, tied, identity, share_depth, share_width: as the keys of `grow` in a configuration.
        seed: of what is random; with `name`, the stage's in a run, it gives the numbers of that run.
        name: see `seed`.
        family: a table of one's own, as `package.module:NAME`; None: that of the model's class.
        check: where the method keeps the function for this pair, call both models on a few random samples.

    Raises:
        LigoError: what is asked for cannot be done: an unknown size, method or family, a method that has to be learned,
            a model that cannot grow so.
        PreservationError: the grown model should compute what the model computes, and does not.
    """
    architecture = architecture_of_class(type(model).__name__) if family is None else get_architecture(family)
    said = source_config_of(architecture, model.config, f"the {type(model).__name__}")
    source = architecture.shape_from(said.values)
    shape, keys = _target(architecture, source, target, said.said)
    start = _method(method, depth, width, noise)
    numbered = any(keys.get(key) for key in architecture.numbering_keys)
    layout = GrowthLayout.for_method(
        architecture,
        source,
        shape,
        start,
        tied=tied,
        identity=identity,
        share_depth=share_depth,
        share_width=share_width,
        numbered=numbered,
    )
    growth = Growth.of(layout)
    config = exported_config(architecture, shape, keys, layout.epsilon_factor(start))
    config.dtype = model.dtype
    world = present_world(model.device)
    operator = initial_operator(growth, start, f"{seed}/{name}", world)
    fresh = _fresh_layers(growth, keys, seed, world)
    shards = SourceShards.build(growth, partitions(model, world), world, fresh)
    numels = {spec.name: spec.numel for spec in growth.target_parameters}
    grown = {
        name: padded(shard, partition_size(numels[name], world.size))
        for name, shard in grown_shards(growth, shards, operator, world)
    }
    if check and not layout.obstacles(start):
        _check(growth, start, (model.config, shards.unstacked()), (config, grown), operator, world)
    made = _assembled(growth, config, grown, world, whole=not any(map(is_partitioned, model.parameters())))
    if model.can_generate():
        made.generation_config = copy.deepcopy(model.generation_config)
    return made.train(model.training)


def _target(
    architecture: Architecture,
    source: ModelShape,
    target: Mapping[str, int] | PretrainedConfig,
    said: Mapping[str, object],
) -> tuple[ModelShape, dict[str, object]]:
    """The shape of the target, and the further keys of its configuration; `said`: those of the source."""
    if isinstance(target, PretrainedConfig):
        if type(target).__name__ != architecture.config_class:
            wrong = (
                f"target: a {type(target).__name__}, and {architecture.name} has {architecture.config_class}"
            )
            raise ArchitectureError(f"{wrong}; a model only grows within its family")
        own = source_config_of(architecture, target, "target")
        return architecture.shape_from(own.values), {**said, **own.said}
    for key, value in target.items():
        if key not in SIZES:
            wrong = f"target: no size {key!r}; there are {', '.join(SIZES)}"
            raise ArchitectureError(wrong + did_you_mean(key, SIZES))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ArchitectureError(f"target: {key}: {value!r} should be a whole number, at least 1")
    return target_shape(architecture, source, **target), dict(said)


def _method(name: str, depth: str | None, width: str | None, noise: float) -> Method:
    """The method that the arguments name.

    Raises:
        LigoError: it is unknown, starts anew, or has to be learned.
    """
    for key, value, names in (("method", name, METHODS), ("depth", depth, DEPTHS), ("width", width, WIDTHS)):
        if value is not None and value not in names:
            wrong = f"{key}: {value!r} is unknown; there are {', '.join(names)}"
            raise LigoError(wrong + did_you_mean(value, names))
    method = get_method(name, depth, width, noise)
    if method is None:
        raise LigoError(
            f"method: {name!r} takes nothing over from a model; transformers makes one with random values"
        )
    steps = METHODS[name].learn_steps
    if steps:
        raise LigoError(
            f"method: {name!r} is learned on data, for {steps} steps, which a run does (`ligo-dist init`); where it"
            f" starts is depth={method.depth!r} with width={method.width!r} of any other method"
        )
    return method


def _fresh_layers(growth: Growth, keys: Mapping[str, object], seed: int, world: World) -> Shards | None:
    """The layers, as the library initialises them, that the growth mixes in, drawn as in a run."""
    if not growth.fresh_layers:
        return None
    shape = replace(growth.source, layers=growth.fresh_layers)
    config = huggingface_config(growth.architecture, shape, keys)
    with _random_numbers_kept():
        return initial_shards(growth.architecture, config, (seed, _STAGE), world, growth.target.layers)


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """What the caller draws afterwards is what it would have drawn."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def _assembled(
    growth: Growth, config: PretrainedConfig, grown: Shards, world: World, *, whole: bool
) -> PreTrainedModel:
    """The grown model of its partitions, whole or partitioned by ZeRO-3."""
    architecture, shape = growth.architecture, growth.target
    if not whole:
        assert isinstance(config.dtype, torch.dtype), "that of the model's weights"
        model = build_partitioned_model(architecture, shape, config, config.dtype)
        write_partitions(model, grown)
        return model
    weights = {
        spec.name: gather_tensor(grown.pop(spec.name), spec.shape, world).to(config.dtype)
        for spec in growth.target_parameters
    }
    return build_whole_model(architecture, shape, config, weights, world.device)


def _check(
    growth: Growth,
    method: Method,
    before: tuple[PretrainedConfig, Shards],
    after: tuple[PretrainedConfig, Shards],
    start: OperatorValues,
    world: World,
) -> None:
    """Hold source and target, each by its configuration and partitions, against each other, as a run does.

    Raises:
        PreservationError: they should compute the same, and do not.
    """
    inputs = _samples(growth.architecture, growth.source)
    before_output, after_output = (
        model_output(
            growth.architecture, shape, config, gathered_weights(shards, world), inputs, world.device
        )
        for shape, (config, shards) in ((growth.source, before), (growth.target, after))
    )
    error = output_difference(growth, before_output, after_output, start, world)
    if not error <= TOLERANCE:
        raise PreservationError(
            f"{method.name} should leave what the model computes as it is, but an output differs by {error:.1e} of the"
            f" largest one, more than the {TOLERANCE:g} that rounding may do; a configuration as target has to compute"
            " as the model's own does"
        )


def _samples(architecture: Architecture, shape: ModelShape) -> dict[str, Tensor]:
    """Random inputs, the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    if architecture.objective == "image_classification":
        sizes = (_SAMPLES, shape.channels, shape.image_size, shape.image_size)
        return {"pixel_values": torch.randn(sizes, generator=generator)}
    length = min(_TOKENS, shape.positions)
    # RoBERTa's padding token, just before its first position, has no position of its own.
    return {
        "input_ids": torch.randint(
            architecture.position_offset, shape.vocab, (_SAMPLES, length), generator=generator
        )
    }
