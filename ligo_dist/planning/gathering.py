"""Which weights there are, module by module, and which of them ZeRO-3 gathers when: DeepSpeed's own rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from ligo_dist.architectures import (
    LAYER,
    Architecture,
    ModelShape,
    ParameterSpec,
    Selection,
    every_parameter,
)
from ligo_dist.growth import GrowthLayout
from ligo_dist.runtime.optimizers import MATRICES
from ligo_dist.runtime.zero3 import Zero3


class Tensor(Protocol):
    """A weight, or what is said of one."""

    @property
    def numel(self) -> int: ...


def partition(tensor: Tensor, ranks: int) -> int:
    """Elements of a rank's partition, padding included."""
    return -(-tensor.numel // ranks)


def partitioned(tensors: Iterable[Tensor], ranks: int) -> int:
    """Elements of a rank's partitions of all these tensors, padding included."""
    return sum(partition(tensor, ranks) for tensor in tensors)


@dataclass(frozen=True)
class Weight:
    """One tensor that an engine trains; `group` is the optimizer's group that updates it: Muon that of the name
    `MATRICES`."""

    name: str
    numel: int
    group: str


@dataclass(frozen=True)
class Module:
    """Weights that are gathered at once: a block, by its number `layer`, or a module outside the blocks (None)."""

    weights: tuple[Weight, ...]
    layer: int | None

    @property
    def numel(self) -> int:
        return sum(weight.numel for weight in self.weights)


def all_weights(modules: Iterable[Module]) -> list[Weight]:
    """Each weight once."""
    return list({weight.name: weight for module in modules for weight in module.weights}.values())


def model_modules(architecture: Architecture, shape: ModelShape, *, muon: bool = False) -> list[Module]:
    """A model's modules in the order in which they are called; a tied embedding is at either end. `muon`: it trains the
    matrices of the blocks."""

    def weight(spec: ParameterSpec) -> Weight:
        if muon and spec.is_block_matrix:
            return Weight(spec.name, spec.numel, MATRICES)
        return Weight(spec.name, spec.numel, "matrices" if len(spec.shape) > 1 else "vectors")

    gathered: dict[str | int, list[ParameterSpec]] = {}
    for spec in _in_order(architecture, shape):
        place = spec.name.rpartition(".")[0] if spec.layer is None else spec.layer
        gathered.setdefault(place, []).append(spec)
    modules = [Module(tuple(map(weight, specs)), specs[0].layer) for specs in gathered.values()]
    if shape.tied:
        modules.append(Module(tuple(map(weight, tied_specs(architecture, shape))), None))
    return modules


def generated_modules(layout: GrowthLayout) -> list[Module]:
    """The modules whose weights are generated while an operator is learned, with the operator's parameters that make
    them: the blocks, and before and behind them each outermost module that owns a parameter."""
    shared: list[Weight] = []
    own: dict[int, list[Weight]] = {layer: [] for layer in range(layout.target.layers)}
    for parameter in layout.operator_parameters:
        weight = Weight(parameter.name, parameter.numel, parameter.kind)
        (shared if parameter.layer is None else own[parameter.layer]).append(weight)
    places = dict.fromkeys(
        _outermost(spec.name, layout) if spec.layer is None else spec.layer
        for spec in _in_order(layout.architecture, layout.target)
    )
    modules = [
        Module((*shared, *own[place]), place) if isinstance(place, int) else Module(tuple(shared), None)
        for place in places
    ]
    if layout.target.tied:
        modules.append(Module(tuple(shared), None))
    return modules


def source_parts(
    layout: GrowthLayout, selection: Selection = every_parameter
) -> tuple[list[ParameterSpec], list[ParameterSpec]]:
    """The source's parameters of one block, and those outside the blocks; all, or some."""
    specs = [spec for spec in layout.source_by_role.values() if selection(spec)]
    return [spec for spec in specs if spec.layer is not None], [spec for spec in specs if spec.layer is None]


def tied_specs(architecture: Architecture, shape: ModelShape) -> list[ParameterSpec]:
    """The parameters that a tied head shares with the rest of the model, and so are used once more."""
    if not shape.tied:
        return []
    specs = architecture.parameters(shape)
    return [spec for spec in specs if any(s.axis.name == "vocab" for dim in spec.dims for s in dim)]


def _in_order(architecture: Architecture, shape: ModelShape) -> list[ParameterSpec]:
    """The table lists what lies before the blocks, a block, and what lies behind them."""
    roles = list(architecture.table(shape))
    blocks = [index for index, role in enumerate(roles) if LAYER in role]

    def place(spec: ParameterSpec) -> tuple[int, int, int]:
        index = roles.index(spec.role)
        return (blocks[0] if spec.layer is not None else index, spec.layer or 0, index)

    return sorted(architecture.parameters(shape), key=place)


def _outermost(name: str, layout: GrowthLayout) -> str:
    """The outermost module on the way to a parameter that owns one itself."""
    owners = {spec.name.rpartition(".")[0] for spec in layout.target_parameters if spec.layer is None}
    parts = name.split(".")[:-1]
    prefixes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next(prefix for prefix in prefixes if prefix in owners)


def forward_and_backward(modules: Sequence[Module], *, checkpointed: bool) -> list[Module]:
    """The modules as a micro-step uses them; a block that is checkpointed runs again in the backward pass."""
    uses = list(modules)
    for module in reversed(modules):
        again = checkpointed and module.layer is not None
        uses += [module, module] if again else [module]
    return uses


@dataclass(frozen=True)
class Trained:
    """The weights that an engine trains, and what one micro-step gathers of them.

    Attributes:
        weights: each once.
        counts: how often each weight that does not stay whole is gathered, by name.
        persistent: elements of the weights that stay whole between steps.
        most: elements that are whole at once, at most, those that are gathered ahead included.
        at_loss: elements that are whole between the forward and the backward pass.
        in_flight: elements of the largest group of several weights that is gathered at once: its copies are there
            twice for a while.
    """

    weights: list[Weight]
    counts: dict[str, int]
    persistent: int
    most: int
    at_loss: int
    in_flight: int

    @classmethod
    def of(cls, modules: Sequence[Module], zero3: Zero3, *, checkpointed: bool = False) -> Trained:
        """Of an engine that calls these modules one after the other."""
        weights = all_weights(modules)
        sizes = {
            weight.name: weight.numel for weight in weights if weight.numel > zero3.persistence_threshold
        }
        persistent = sum(weight.numel for weight in weights if weight.name not in sizes)
        uses = forward_and_backward(modules, checkpointed=checkpointed)
        counts = dict.fromkeys(sizes, 0)
        changes = [0] * (len(uses) + 1)
        for weight, first, last in _stays(uses, zero3.reuse_distance):
            if weight.name in sizes:
                counts[weight.name] += 1
                changes[first] += weight.numel
                changes[last + 1] -= weight.numel
        whole, total = list(accumulate(changes)), sum(sizes.values())
        ahead = zero3.prefetch_bucket + max(sizes.values(), default=0)
        return cls(
            weights,
            counts,
            persistent,
            most=min(max(whole) + ahead, total) + persistent,
            at_loss=whole[len(modules) - 1] + persistent,
            in_flight=min(zero3.prefetch_bucket, total),
        )

    @property
    def numel(self) -> int:
        return sum(weight.numel for weight in self.weights)

    @property
    def matrices(self) -> list[Weight]:
        """What Muon trains of them."""
        return [weight for weight in self.weights if weight.group == MATRICES]

    def moments(self, ranks: int) -> int:
        """Elements of a rank's partitions of the optimizer's moments: AdamW keeps two numbers for each weight, Muon
        one."""
        return 2 * partitioned(self.weights, ranks) - partitioned(self.matrices, ranks)

    def sub_groups(self, ranks: int, most: int) -> dict[str, list[int]]:
        """Elements of the partitions that the optimizer updates at a time, by its groups: one is full where it has
        `most`."""
        sizes: dict[str, list[int]] = {}
        for weight in self.weights:
            group = sizes.setdefault(weight.group, [0])
            if group[-1] >= most:
                group.append(0)
            group[-1] += partition(weight, ranks)
        return sizes


def _stays(uses: Sequence[Module], reuse_distance: int) -> Iterator[tuple[Weight, int, int]]:
    """Each stay of a weight as a whole: the weight, and the first and the last use that it serves."""
    passed = [0, *accumulate(module.numel for module in uses)]
    begun: dict[str, tuple[Weight, int, int]] = {}
    for index, module in enumerate(uses):
        for weight in module.weights:
            if weight.name in begun:
                _, first, last = begun[weight.name]
                between = passed[index] - passed[last + 1]
                if between < reuse_distance or index == last + 1:
                    begun[weight.name] = (weight, first, index)
                    continue
                yield begun[weight.name]
            begun[weight.name] = (weight, index, index)
    yield from begun.values()
