"""The target model with generated weights: what is trained while the growth operator is learned.

The Hugging Face model of the target lies on the meta device; each module that owns parameters is replaced by a
`GeneratedModule`, which makes the weights from the source's partitions and the operator inside an
activation-checkpointed region and calls the module with them. So one module's generated weights are alive at any
time, forward and backward. The operator's matrices are ordinary parameters of this module tree; ZeRO-3 shards them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ligo_dist.architectures import Architecture, ModelShape, ParameterSpec
from ligo_dist.engine import partitioned_parameters
from ligo_dist.engine.world import World
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.sharded import SourceShards


class LearnedGrowth(nn.Module):
    """The target model as a function of the operator: called like the model itself.

    Its parameters are the operator's, under their own names with `.` replaced by `/` (`operator_name` undoes it); they
    are created as partitions, unset: they must be written before use.

    Args:
        growth: the pair of models.
        source: this rank's partitions of the source.
        target: the target model on the meta device (`models.build_meta_model`); its modules are replaced.
        dtype: compute precision of the generated weights.
        world: the ranks that share the source.
    """

    def __init__(
        self, growth: Growth, source: SourceShards, target: PreTrainedModel, dtype: torch.dtype, world: World
    ) -> None:
        super().__init__()
        layers = range(growth.target.layers)
        with partitioned_parameters(dtype):
            self.shared = OperatorMatrices(growth, None)
            own = {layer: OperatorMatrices(growth, layer) for layer in layers}
        modules = []
        for path, parameters in parameters_by_module(growth.architecture, growth.target, target).items():
            layer = next(iter(parameters.values())).layer
            matrices = [self.shared] if layer is None else [self.shared, own[layer]]
            generate = WeightGenerator(growth, source, parameters, dtype, world)
            generated = GeneratedModule(target.get_submodule(path), matrices, generate)
            target.set_submodule(path, generated)
            modules.append(generated)
        self.own = nn.ModuleList(own.values())
        self.generated = nn.ModuleList(modules)
        self._hidden = (target,)  # in a tuple, so that the meta parameters are no part of this module

    def forward(self, **inputs: Any) -> Any:
        return self._hidden[0](**inputs)

    def train(self, mode: bool = True) -> LearnedGrowth:
        super().train(mode)
        self._hidden[0].train(mode)
        return self

    def external_parameters(self) -> Iterator[tuple[nn.Module, nn.Parameter]]:
        """(module, parameter) pairs: each generated module uses parameters that operator modules own."""
        for module in self.generated:
            assert isinstance(module, GeneratedModule)
            for matrices in module.matrices:
                for parameter in matrices.parameters():
                    yield module, parameter


class OperatorMatrices(nn.Module):
    """The operator's parameters of one target layer, or (None) of the whole model; unset."""

    def __init__(self, growth: Growth, layer: int | None) -> None:
        super().__init__()
        for parameter in growth.operator_parameters:
            if parameter.layer == layer:
                empty = nn.Parameter(torch.empty(parameter.shape))
                self.register_parameter(parameter.name.replace(".", "/"), empty)

    def tensors(self) -> dict[str, Tensor]:
        return {operator_name(name): getattr(self, name) for name in self._parameters}


def operator_name(parameter_name: str) -> str:
    """The operator's name of a parameter in the module tree: `shared.hidden/out` is `hidden.out`."""
    return parameter_name.rsplit(".", 1)[-1].replace("/", ".")


@dataclass(frozen=True)
class WeightGenerator:
    """Makes the weights of one target module from the operator.

    Attributes:
        growth: the pair of models.
        source: this rank's partitions of the source.
        parameters: the module's parameters by local name; all of one block, or all outside the blocks.
        dtype: precision of the weights.
        world: the ranks that share the source.
    """

    growth: Growth
    source: SourceShards
    parameters: dict[str, ParameterSpec]
    dtype: torch.dtype
    world: World

    def __call__(self, operator: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights by local name. Collective; differentiable in the operator."""
        layer = next(iter(self.parameters.values())).layer
        mixed: list[dict[str, Tensor]] = []
        if layer is not None:
            rows = [self.growth.depth_rows(operator[name]) for name in self.growth.depth_names(layer)]
            mixed = [self.source.mixed_layer(depth_RK, self.dtype, self.world) for depth_RK in rows]
        weights = {}
        for local_name, spec in self.parameters.items():
            if spec.layer is None:
                small = [self.source.outside_tensor(spec.name, self.dtype, self.world)]
            else:
                small = [by_role.pop(spec.role) for by_role in mixed]
            weights[local_name] = self.growth.expand(spec, small, operator)
        return weights


class GeneratedModule(nn.Module):
    """One module of the target model, called with weights that are generated for the call and dropped after it.

    Args:
        target: the module on the meta device.
        matrices: the operator modules that its weights are made with; their parameters are gathered for it.
        generate: makes its weights by local name from the operator's matrices, such as a `WeightGenerator`.
    """

    def __init__(
        self,
        target: nn.Module,
        matrices: list[OperatorMatrices],
        generate: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    ) -> None:
        super().__init__()
        # In a tuple, so that neither the meta module nor the operator modules are children of this one.
        self._hidden = (target, matrices)
        self._generate = generate

    @property
    def matrices(self) -> list[OperatorMatrices]:
        return self._hidden[1]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self._generate_and_call, *args, use_reentrant=False, **kwargs)

    def train(self, mode: bool = True) -> GeneratedModule:
        super().train(mode)
        self._hidden[0].train(mode)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # The library's model may ask its block for an attribute, such as the kind of its attention.
            return getattr(self.__dict__["_hidden"][0], name)

    def _generate_and_call(self, *args: Any, **kwargs: Any) -> Any:
        operator = {name: tensor for part in self.matrices for name, tensor in part.tensors().items()}
        # Tied parameters come one by one, each generated for its own use.
        return functional_call(self._hidden[0], self._generate(operator), args, kwargs, tie_weights=False)


def parameters_by_module(
    architecture: Architecture, shape: ModelShape, model: PreTrainedModel
) -> dict[str, dict[str, ParameterSpec]]:
    """Path of each module to replace -> its parameters by local name: the blocks, and outside them the outermost
    modules that own a parameter themselves (with all that is inside them).

    A tied head appears with the embedding's spec, so both are generated from the same source tensor.
    """
    specs = {spec.name: spec for spec in architecture.parameters(shape)}
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    blocks = [f"{architecture.layers_path}.{layer}" for layer in range(shape.layers)]
    in_block = {name: path for name in names for path in blocks if name.startswith(path + ".")}
    owners = {name.rpartition(".")[0] for name in names if name not in in_block}
    modules: dict[str, dict[str, ParameterSpec]] = {}
    for name in names:
        path = in_block.get(name) or next(prefix for prefix in _prefixes(name) if prefix in owners)
        parameter = model.get_parameter(name)
        modules.setdefault(path, {})[name[len(path) + 1 :]] = specs[canonical[id(parameter)]]
    return modules


def _prefixes(name: str) -> Iterator[str]:
    """`a`, `a.b`, `a.b.c`, ... up to the module that owns a parameter."""
    parts = name.split(".")[:-1]
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])
