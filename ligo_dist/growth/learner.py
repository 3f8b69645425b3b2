"""The target model with generated weights: what is trained while the growth operator is learned.

The Hugging Face model of the target lies on the meta device; each module that owns parameters is replaced by a
`GeneratedModule`, which makes the weights from the source's partitions and the operator inside an
activation-checkpointed region and calls the module with them. So one module's generated weights are alive at any
time, forward and backward. The operator's matrices are ordinary parameters of this module tree; ZeRO-3 shards them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ligo_dist.architectures import ParameterSpec
from ligo_dist.distributed import World
from ligo_dist.growth.algebra import expand_width
from ligo_dist.growth.operators import Growth, OperatorParameter
from ligo_dist.growth.sharded import SourceShards


class LearnedGrowth(nn.Module):
    """The target model as a function of the operator: called like the model itself.

    Its parameters are the operator's, under their own names with `.` replaced by `/` (`operator_name` undoes it); they
    are created unset and must be written before use.

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
        specs = {spec.name: spec for spec in growth.target_parameters}
        by_module = _parameters_by_module(growth, target, specs)
        shared = [p for p in growth.operator_parameters if p.layer is None]
        self.shared = OperatorMatrices(shared, dtype)
        modules = []
        for path, parameters in by_module.items():
            layer = next(iter(parameters.values())).layer
            own = [p for p in growth.operator_parameters if p.layer is not None and p.layer == layer]
            generated = GeneratedModule(
                growth, source, target.get_submodule(path), parameters, OperatorMatrices(own, dtype), self.shared,
                dtype, world,
            )  # fmt: skip
            target.set_submodule(path, generated)
            modules.append(generated)
        self.generated = nn.ModuleList(modules)
        self._hidden = (target,)  # in a tuple, so that the meta parameters are no part of this module

    def forward(self, **inputs: Any) -> Any:
        return self._hidden[0](**inputs, use_cache=False)

    def train(self, mode: bool = True) -> LearnedGrowth:
        super().train(mode)
        self._hidden[0].train(mode)
        return self

    def external_parameters(self) -> Iterator[tuple[nn.Module, nn.Parameter]]:
        """(module, parameter) pairs where a module uses a parameter that another one owns."""
        for module in self.generated:
            for parameter in self.shared.parameters():
                yield module, parameter


class OperatorMatrices(nn.Module):
    """Some of the operator's parameters, unset."""

    def __init__(self, parameters: list[OperatorParameter], dtype: torch.dtype) -> None:
        super().__init__()
        for parameter in parameters:
            empty = nn.Parameter(torch.empty(parameter.shape, dtype=dtype))
            self.register_parameter(parameter.name.replace(".", "/"), empty)

    def tensors(self) -> dict[str, Tensor]:
        return {operator_name(name): getattr(self, name) for name in self._parameters}


def operator_name(parameter_name: str) -> str:
    """The operator's name of a parameter in the module tree: `shared.hidden/out` is `hidden.out`."""
    return parameter_name.rsplit(".", 1)[-1].replace("/", ".")


class GeneratedModule(nn.Module):
    """One module of the target model, called with weights that are generated for the call and dropped after it."""

    def __init__(
        self,
        growth: Growth,
        source: SourceShards,
        target: nn.Module,
        parameters: dict[str, ParameterSpec],
        own: OperatorMatrices,
        shared: OperatorMatrices,
        dtype: torch.dtype,
        world: World,
    ) -> None:
        super().__init__()
        self.own = own
        self._growth, self._source, self._dtype, self._world = growth, source, dtype, world
        self._parameter_specs = parameters
        self._hidden = (target, shared)

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
            return getattr(self._hidden[0], name)

    def _generate_and_call(self, *args: Any, **kwargs: Any) -> Any:
        target, shared = self._hidden
        operator = {**shared.tensors(), **self.own.tensors()}
        weights = self._generate(operator)
        return functional_call(target, weights, args, kwargs)

    def _generate(self, operator: dict[str, Tensor]) -> dict[str, Tensor]:
        layer = next(iter(self._parameter_specs.values())).layer
        mixed = {}
        if layer is not None:
            depth_RK = operator[self._growth.depth_name(layer)]
            mixed = self._source.mixed_layer(depth_RK, self._dtype, self._world)
        weights = {}
        for local_name, spec in self._parameter_specs.items():
            if spec.layer is None:
                small = self._source.outside_tensor(spec.name, self._dtype, self._world)
            else:
                small = mixed.pop(spec.role)
            weights[local_name] = expand_width(small, self._growth.dim_maps(spec, operator))
        return weights


def _parameters_by_module(
    growth: Growth, target: PreTrainedModel, specs: dict[str, ParameterSpec]
) -> dict[str, dict[str, ParameterSpec]]:
    """Path of each module to replace -> its parameters by local name; blocks are whole, the rest leaf by leaf.

    A tied head appears with the embedding's spec, so both are generated from the same source tensor.
    """
    canonical = {id(parameter): name for name, parameter in target.named_parameters()}
    modules: dict[str, dict[str, ParameterSpec]] = {}
    blocks = tuple(f"{growth.architecture.layers_path}.{layer}" for layer in range(growth.target.layers))
    for name, parameter in target.named_parameters(remove_duplicate=False):
        block = next((path for path in blocks if name.startswith(path + ".")), None)
        path = block or name.rpartition(".")[0]
        modules.setdefault(path, {})[name[len(path) + 1 :]] = specs[canonical[id(parameter)]]
    return modules
