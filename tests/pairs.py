"""Pairs of small models, and what a method makes of one: densely, on one process, as plain `transformers` has it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch import Tensor
from transformers import PreTrainedModel

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.growth import Growth, Method, epsilon_factor, get_method, initial_value
from small_models import library_model, load_weights, small_shape, weights_of


def method_named(name: str, depth: str | None = None, width: str | None = None, noise: float = 0.0) -> Method:
    """A method that has an operator."""
    method = get_method(name, depth, width, noise)
    assert method is not None
    return method


def pair_of(family: str, source: ModelShape, target: ModelShape, method: str | Method, **choices) -> Growth:
    if isinstance(method, str):
        method = method_named(method)
    return Growth.for_method(get_architecture(family), source, target, method, **choices)


def small_pair(
    family: str,
    method: str | Method,
    layers: tuple[int, int],
    heads: tuple[int, int],
    groups: tuple[int, int] | None = None,
    tied_embeddings: bool | None = None,
    **choices,
) -> Growth:
    """Of models with heads of four units and inner widths that do not divide; `groups`: key and value heads."""
    source, target = (
        small_shape(
            family,
            layers[index],
            heads[index],
            ffn=(19, 31)[index],
            head_size=4,
            tied=tied_embeddings,
            key_value_heads=groups and groups[index],
        )
        for index in range(2)
    )
    return pair_of(family, source, target, method, **choices)


def start(growth: Growth, method: str | Method, seed: int = 0) -> dict[str, Tensor]:
    """The operator's first values."""
    if isinstance(method, str):
        method = method_named(method)
    return {p.name: initial_value(growth, method, p, f"{seed}") for p in growth.operator_parameters}


def source_weights(growth: Growth) -> dict[str, Tensor]:
    """Random weights of the source, and of the fresh layers that follow its own."""
    shape = replace(growth.source, layers=growth.source.layers + growth.fresh_layers)
    return weights_of(library_model(growth.architecture.name, shape))


@cache
def empty_target(family: str, target: ModelShape, factor: float) -> PreTrainedModel:
    """A model to be given weights; the norms' epsilon is the library's, multiplied."""
    key = get_architecture(family).norm_epsilon
    model = library_model(family, target, seed=5)
    return (
        model
        if factor == 1
        else library_model(family, target, 5, **{key: getattr(model.config, key) * factor})
    )


def grown_model(growth: Growth, method: Method, weights: dict[str, Tensor], seed: int = 0) -> PreTrainedModel:
    """The target as the method starts it. The model is used again: one that was asked for before changes."""
    architecture = growth.architecture
    factor = epsilon_factor(architecture, growth.source, growth.target, method.width)
    model = empty_target(architecture.name, growth.target, factor)
    return load_weights(model, growth.grow_dense(weights, start(growth, method, seed)))
