"""Calling a frozen model whose weights lie in partitions, or are still to be generated: module by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import PretrainedConfig

from ligo_dist.architectures import Architecture, ModelShape, ParameterSpec
from ligo_dist.engine import Shards, World, gather_tensor, max_over_ranks
from ligo_dist.growth.algebra import AxisMap
from ligo_dist.growth.learner import GeneratedModule, WeightGenerator, parameters_by_module
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.sharded import SourceShards
from ligo_dist.growth.transfer import OperatorValues
from ligo_dist.huggingface import build_meta_model
from ligo_dist.runtime.heartbeat import beat

TOLERANCE = 1e-4
"""Largest difference of an output, as a part of the largest output, that fp32 rounding explains: some 1e-6 in a small
model, more in a deep one."""

Weights = Callable[[dict[str, ParameterSpec]], dict[str, Tensor]]
"""Gives the whole weights of one module by local name; collective."""


@torch.no_grad()
def model_output(
    architecture: Architecture,
    shape: ModelShape,
    config: PretrainedConfig,
    weights: Weights,
    inputs: Mapping[str, Tensor],
    device: torch.device,
) -> Tensor:
    """What a model computes in fp32: its logits, or the last hidden states of one without a head. Collective.

    At any time one module's weights (a block's, at most) are whole.
    """
    model = build_meta_model(architecture, shape, config, device).eval()
    for path, parameters in parameters_by_module(architecture, shape, model).items():
        module = GeneratedModule(model.get_submodule(path), [], _ignoring_operator(weights, parameters))
        model.set_submodule(path, module)
    output = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    result: Tensor = output[0]
    return result.float()


def gathered_weights(shards: Shards, world: World) -> Weights:
    """The weights of a model that lies in partitions."""
    return lambda parameters: {
        name: gather_tensor(shards[spec.name], spec.shape, world) for name, spec in parameters.items()
    }


def generated_weights(
    growth: Growth, source: SourceShards, operator: OperatorValues, world: World
) -> Weights:
    """The weights of the target that an operator makes."""

    def generate(parameters: dict[str, ParameterSpec]) -> dict[str, Tensor]:
        layer = next(iter(parameters.values())).layer
        names = {name for spec in parameters.values() for name in growth.matrices_of(spec)}
        names |= set(growth.depth_names(layer)) if layer is not None else set()
        values = {name: operator(name) for name in sorted(names)}
        return WeightGenerator(growth, source, parameters, torch.float32, world)(values)

    return generate


def output_difference(
    growth: Growth, before: Tensor, after: Tensor, start: OperatorValues, world: World
) -> float:
    """The largest difference between what source and target compute, as a part of the largest output. Collective.

    Args:
        growth: the pair of models.
        before, after: outputs of the source and of the target for this rank's samples.
        start: values that the operator starts from.
        world: the ranks.
    """
    widens = growth.target.width > growth.source.width
    if growth.architecture.objective == "features" and widens:  # the outputs are the residual stream itself
        before = AxisMap(start("hidden.out")).apply(before, -1)
    difference = max_over_ranks(float((after - before).abs().max()), world)
    return difference / max_over_ranks(float(before.abs().max()), world)


def _ignoring_operator(
    weights: Weights, parameters: dict[str, ParameterSpec]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def generate(operator: dict[str, Tensor]) -> dict[str, Tensor]:
        beat("comparing with the source")
        return weights(parameters)

    return generate
