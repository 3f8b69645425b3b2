"""The target model with generated weights: what is trained while the growth operator is learned.

The Hugging Face model of the target lies on the meta device; each module that owns parameters is replaced by a
`GeneratedModule`, which makes the weights from the source's partitions and the operator and calls the module with them.
They are dropped after the call and made again for its backward pass. So one module's generated weights are alive at any
time, forward and backward. The operator's matrices are ordinary parameters of this module tree; ZeRO-3 shards them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ligo_dist.architectures import Architecture, ModelShape, ParameterSpec
from ligo_dist.engine import World, partitioned_parameters
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
        checkpointed: recompute each module's activations in the backward pass, rather than keep them.
    """

    def __init__(
        self,
        growth: Growth,
        source: SourceShards,
        target: PreTrainedModel,
        dtype: torch.dtype,
        world: World,
        *,
        checkpointed: bool = False,
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
            generated = GeneratedModule(target.get_submodule(path), matrices, generate, checkpointed)
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


Generate = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Makes a module's weights by local name from the operator's matrices, such as a `WeightGenerator`."""


class GeneratedModule(nn.Module):
    """One module of the target model, called with weights that are generated for the call and dropped after it.

    Args:
        target: the module on the meta device.
        matrices: the operator modules that its weights are made with; their parameters are gathered for it.
        generate: makes its weights.
        checkpointed: recompute its activations in the backward pass, rather than keep them.
    """

    def __init__(
        self,
        target: nn.Module,
        matrices: list[OperatorMatrices],
        generate: Generate,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        # In a tuple, so that neither the meta module nor the operator modules are children of this one.
        self._hidden = (target, matrices)
        self._generate, self._checkpointed = generate, checkpointed

    @property
    def matrices(self) -> list[OperatorMatrices]:
        return self._hidden[1]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        operator = self._operator()
        if not torch.is_grad_enabled() or not operator:
            return self._call(self._generate(operator), args, kwargs)
        if self._checkpointed:
            return checkpoint(self._generate_and_call, *args, use_reentrant=False, **kwargs)
        weights = GeneratedWeights(self._generate, operator)
        with torch.autograd.graph.saved_tensors_hooks(weights.pack, weights.unpack):
            return self._call(weights.make(), args, kwargs)

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

    def _operator(self) -> dict[str, Tensor]:
        return {name: tensor for part in self.matrices for name, tensor in part.tensors().items()}

    def _generate_and_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._generate(self._operator()), args, kwargs)

    def _call(self, weights: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Tied parameters come one by one, each generated for its own use.
        return functional_call(self._hidden[0], weights, args, kwargs, tie_weights=False)


class GeneratedWeights:
    """A module's weights for one call and its backward pass, which keeps none of them.

    What the call saves for its backward pass is kept as it is, but for generated weights, or views of them: of these it
    keeps the place alone. When the first one is asked for, all are made again, this time with a graph, and serve until
    that graph has led their gradients to the operator.

    Args:
        generate: makes them.
        operator: the operator's parameters that it takes; they are whole now, and in the module's backward pass.
    """

    def __init__(self, generate: Generate, operator: dict[str, Tensor]) -> None:
        self._generate, self._operator = generate, operator
        self._inputs: list[Tensor] = []
        self._again: list[Tensor] = []
        self._addresses: list[tuple[int, int, int]] = []

    def make(self) -> dict[str, Tensor]:
        """The weights by local name; differentiable in the operator."""
        names: list[str] = []
        made = _Generated.apply(self, names, *self._operator.values())
        # Places hold until the call is over, as long as the weights live.
        self._addresses = [_span(weight) for weight in made]
        return dict(zip(names, made, strict=True))

    def first(self) -> dict[str, Tensor]:
        return self._generate(self._operator)

    def pack(self, saved: Tensor) -> Any:
        """What is kept of a saved tensor: itself, or which weight it lies in, and where."""
        storage, start, _ = _span(saved)
        for index, (of_weight, first, last) in enumerate(self._addresses):
            if of_weight == storage and first <= start < last:
                offset = (start - first) // saved.element_size()
                return index, saved.size(), saved.stride(), offset
        return saved

    def unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        index, size, stride, offset = packed
        weight = self._made_again()[index].detach()
        return weight.as_strided(size, stride, weight.storage_offset() + offset)

    def gradients(self, of_weights: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """The gradients of the operator's parameters from those of the weights, which are dropped."""
        pairs = [
            (weight, gradient)
            for weight, gradient in zip(self._made_again(), of_weights, strict=True)
            if gradient is not None and weight.requires_grad
        ]
        inputs, self._again, self._inputs = self._inputs, [], []
        if not pairs:
            return (None,) * len(inputs)
        weights, gradients = zip(*pairs, strict=True)
        return torch.autograd.grad(weights, inputs, gradients, allow_unused=True)

    def _made_again(self) -> list[Tensor]:
        if not self._again:
            with torch.enable_grad():
                inputs = {name: tensor.detach().requires_grad_() for name, tensor in self._operator.items()}
                self._again = list(self._generate(inputs).values())
            self._inputs = list(inputs.values())
        return self._again


class _Generated(torch.autograd.Function):
    """`GeneratedWeights` as a function of the operator."""

    @staticmethod
    def forward(
        ctx: Any, weights: GeneratedWeights, names: list[str], *operator: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.weights = weights
        ctx.set_materialize_grads(False)
        made = weights.first()
        names += made
        return tuple(made.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.weights.gradients(gradients)


def _span(tensor: Tensor) -> tuple[int, int, int]:
    """Address of a tensor's storage, of its first element, and of what follows its last one."""
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size()


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
