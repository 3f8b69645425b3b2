"""The weights of a model or of an operator, as the modules that use them: in the order in which a forward pass does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ligo_dist.architectures import Architecture, ModelShape, ParameterSpec
from ligo_dist.architectures.table import LAYER
from ligo_dist.growth.layout import GrowthLayout


@dataclass(frozen=True)
class Weight:
    """One tensor that lies in partitions.

    Attributes:
        name: its name.
        shape: of the whole tensor.
        group: the optimizer's group that updates it.
    """

    name: str
    shape: tuple[int, ...]
    group: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def partition(self, ranks: int) -> int:
        """Elements of a rank's partition, padding included."""
        return -(-self.numel // ranks)


@dataclass(frozen=True)
class Module:
    """Weights that are used at once; `layer` is the block they belong to, None outside the blocks."""

    weights: tuple[Weight, ...]
    layer: int | None

    @property
    def numel(self) -> int:
        return sum(weight.numel for weight in self.weights)


def partitioned(weights: Iterable[Weight], ranks: int) -> int:
    """Elements of a rank's partitions of all these weights, padding included."""
    return sum(weight.partition(ranks) for weight in weights)


def all_weights(modules: Iterable[Module]) -> list[Weight]:
    """Each weight once."""
    return list({weight.name: weight for module in modules for weight in module.weights}.values())


def model_modules(architecture: Architecture, shape: ModelShape) -> list[Module]:
    """A model's modules in their order; a tied embedding is used at either end."""
    modules = [
        Module(tuple(_model_weight(spec) for spec in specs), specs[0].layer)
        for specs in _by_owner(_in_order(architecture, shape))
    ]
    if shape.tied:
        modules.append(Module(tuple(map(_model_weight, tied_specs(architecture, shape))), None))
    return modules


def generated_modules(layout: GrowthLayout) -> list[Module]:
    """The modules whose weights are generated while an operator is learned, with the operator's parameters that make
    them: the blocks, and before and behind them each outermost module that owns a parameter."""
    shared: list[Weight] = []
    own: dict[int, list[Weight]] = {layer: [] for layer in range(layout.target.layers)}
    for parameter in layout.operator_parameters:
        weight = Weight(parameter.name, parameter.shape, parameter.kind)
        (shared if parameter.layer is None else own[parameter.layer]).append(weight)
    modules: list[Module] = []
    seen: set[str | int] = set()
    for spec in _in_order(layout.architecture, layout.target):
        place = _outermost(spec.name, layout) if spec.layer is None else spec.layer
        if place not in seen:
            seen.add(place)
            mine = [] if spec.layer is None else own[spec.layer]
            modules.append(Module((*shared, *mine), spec.layer))
    if layout.target.tied:
        modules.append(Module(tuple(shared), None))
    return modules


def tied_specs(architecture: Architecture, shape: ModelShape) -> list[ParameterSpec]:
    """The parameters that a tied head shares with the rest of the model, and so are used once more."""
    if not shape.tied:
        return []
    specs = architecture.parameters(shape)
    return [spec for spec in specs if any(s.axis.name == "vocab" for dim in spec.dims for s in dim)]


def _model_weight(spec: ParameterSpec) -> Weight:
    return Weight(spec.name, spec.shape, "matrices" if len(spec.shape) > 1 else "vectors")


def _in_order(architecture: Architecture, shape: ModelShape) -> list[ParameterSpec]:
    """The table lists what lies before the blocks, a block, and what lies behind them."""
    roles = list(architecture.table(shape))
    blocks = [index for index, role in enumerate(roles) if LAYER in role]

    def place(spec: ParameterSpec) -> tuple[int, int, int]:
        index = roles.index(spec.role)
        return (blocks[0] if spec.layer is not None else index, spec.layer or 0, index)

    return sorted(architecture.parameters(shape), key=place)


def _by_owner(specs: list[ParameterSpec]) -> Iterable[list[ParameterSpec]]:
    """The parameters that one module owns, module by module as each first comes."""
    owned: dict[str, list[ParameterSpec]] = {}
    for spec in specs:
        owned.setdefault(spec.name.rpartition(".")[0], []).append(spec)
    return owned.values()


def _outermost(name: str, layout: GrowthLayout) -> str:
    """The outermost module on the way to a parameter that owns one itself."""
    owners = {spec.name.rpartition(".")[0] for spec in layout.target_parameters if spec.layer is None}
    parts = name.split(".")[:-1]
    prefixes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next(prefix for prefix in prefixes if prefix in owners)
