"""The sharded path equals the dense oracle: loss, gradients of all operator parameters, grown weights, grown moments.

The oracle is one process of plain maths: `Growth.grow_dense` and the library's model called with the result. The
sharded path is the learner in a ZeRO-3 engine and `grown_shards`, on 1 to 4 ranks, with nothing kept whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from ligo_dist.architectures import (
    Selection,
    architecture_names,
    every_parameter,
    get_architecture,
    no_block_matrix,
)
from ligo_dist.corpus import Batches, MicroBatch
from ligo_dist.engine import World, gather_tensor, padded, partition_size, shard_of
from ligo_dist.growth import Growth, SourceShards, is_new_layer
from ligo_dist.schedule import BatchSplit
from pairs import method_named, small_pair, start
from ranks import run_ranks
from small_models import GivenSamples, library_config, library_model, random_batch, weights_of

SAMPLES, MICRO_BATCH = 11, 2
NOTHING_WHOLE = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
BETA = 0.5


@dataclass(frozen=True)
class Case:
    """A pair, and where its operator starts: layers and heads before and after, with heads of four elements.

    `through_engine`: the grown weights are written into an engine and read from there.
    """

    family: str
    layers: tuple[int, int] = (2, 3)
    heads: tuple[int, int] = (2, 3)
    groups: tuple[int, int] | None = None
    method: str = "ligo"
    tied_embeddings: bool | None = None
    choices: dict[str, Any] = field(default_factory=dict)
    through_engine: bool = False

    @property
    def growth(self) -> Growth:
        return small_pair(
            self.family,
            self.method,
            self.layers,
            self.heads,
            self.groups,
            self.tied_embeddings,
            **self.choices,
        )

    def source_weights(self) -> dict[str, Tensor]:
        """Of the source's layers, and of the fresh ones behind them."""
        growth = self.growth
        deeper = replace(growth.source, layers=growth.source.layers + growth.fresh_layers)
        return weights_of(library_model(self.family, deeper))

    def operator(self) -> dict[str, Tensor]:
        """The method's start, shaken, so that no coefficient is zero or shared by two sides."""
        generator = torch.Generator().manual_seed(2)
        return {
            name: value + 0.05 * torch.randn(value.shape, generator=generator)
            for name, value in start(self.growth, self.method).items()
        }

    def batch(self) -> dict[str, Tensor]:
        return random_batch(self.family, self.growth.target, SAMPLES)

    def micro_batches(self, world: World) -> Iterator[MicroBatch]:
        """A rank's part of the batch, which never divides: some are padded, one on four ranks wholly."""
        batches = Batches(GivenSamples(self.batch()), seed=0, batch_size=SAMPLES)
        return batches.micro_batches(0, world.rank, world.size, MICRO_BATCH)


GROUPS = {"heads": (4, 6), "groups": (2, 3)}
LARGER = {"heads": (4, 9), "groups": (2, 3)}

ON_ALL_WORLDS = {
    "gpt2, all tied": Case("gpt2", (3, 4), (3, 5), choices={"identity": "learned"}, through_engine=True),
    "llama, larger groups": Case(
        "llama", method="net2net", tied_embeddings=True, through_engine=True, **LARGER
    ),
}
FAMILIES = {
    family: Case(family, method="lossless-dense", **(LARGER if grouped else {}))
    for family in architecture_names()
    for grouped in [any(axis.grouped for axis in get_architecture(family).axes.values())]
    if family not in ("gpt2", "llama")
}
VARIANTS = {
    "gpt2, nothing tied": Case("gpt2", heads=(3, 5), tied_embeddings=False, choices={"tied": False}),
    "llama, all tied": Case("llama", tied_embeddings=True, **GROUPS, choices={"identity": "learned"}),
    "llama, nothing tied": Case("llama", method="lossless-dense", tied_embeddings=False, **GROUPS),
    "the paper's": Case("bert"),
    "own coefficients for new units": Case("llama", method="bert2bert-aki", **LARGER),
    "the same, fused and transposed": Case("gpt2", method="bert2bert-aki", choices={"share_depth": True}),
    "from no layer": Case("gpt2", (0, 2), method="progressive"),
    "from one layer": Case("bert", (1, 3), method="progressive"),
    "shared depth": Case("vit", method="interpolate", choices={"share_depth": True}),
    "shared width": Case("llama", choices={"share_width": True}, **GROUPS),
    "all shared": Case("gpt_neox", choices={"share_width": True, "share_depth": True, "tied": False}),
    "nothing wider": Case("gpt2", heads=(3, 3)),
}


@dataclass
class Numbers:
    """What both paths give: loss of the target, gradients of the operator, weights and moments of the target."""

    loss: float
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]
    moments: dict[tuple[bool, bool, Selection], dict[str, Tensor]]


def source_moments(case: Case) -> dict[str, Tensor]:
    """Positive numbers for every parameter of the source's own."""
    weights = weights_of(library_model(case.family, case.growth.source, seed=6))
    return {name: weight.square() for name, weight in weights.items()}


KINDS = [
    (False, False, every_parameter),
    (True, True, every_parameter),
    (True, False, no_block_matrix),  # Muon's second moments
]
"""(squared, asymmetric, parameters that have such moments)"""


@cache
def dense(case_key: str) -> Numbers:
    case = ALL_CASES[case_key]
    growth = case.growth
    operator = {key: value.requires_grad_() for key, value in case.operator().items()}
    weights = growth.grow_dense(case.source_weights(), operator)
    before = source_moments(case)
    moments = {kind: dense_moments(case, before, *kind) for kind in KINDS}
    if growth.architecture.objective == "features":  # no loss to learn from
        return Numbers(0.0, {}, {key: value.detach() for key, value in weights.items()}, moments)
    target = library_model(case.family, growth.target, seed=9)
    tied = {"tie_weights": True} if growth.target.tied else {}
    loss = functional_call(target, weights, kwargs=case.batch(), **tied).loss
    loss.backward()
    gradients = {}
    for key, value in operator.items():
        assert value.grad is not None, f"{key} has no part in the loss"
        gradients[key] = value.grad
    return Numbers(loss.item(), gradients, {key: value.detach() for key, value in weights.items()}, moments)


@torch.no_grad()
def dense_moments(
    case: Case, before: dict[str, Tensor], squared: bool, asymmetric: bool, selection: Selection
) -> dict[str, Tensor]:
    """Moments through the dense path: all that the source has not is zero there, the unit layer too."""
    growth = case.growth
    operator = {name: value.square() if squared else value for name, value in case.operator().items()}
    moments = dict(before)
    roles = growth.source_by_role
    for layer in range(growth.source.layers, growth.source.layers + growth.fresh_layers):
        moments |= {role.format(layer=layer): torch.zeros(roles[role].shape) for role in growth.layer_roles}
    if growth.unit_layer:  # its coefficients, in the last column, have nothing to act on
        growth = replace(growth, unit_layer=False)
        operator = {n: v[:, :-1] if n.endswith("depth") else v for n, v in operator.items()}
    grown = growth.grow_dense(moments, operator)
    if asymmetric:
        depth = method_named(case.method).depth
        for spec in growth.target_parameters:
            old = torch.ones(roles[spec.role].shape)
            if spec.layer is not None and is_new_layer(growth, depth, spec.layer):
                old.zero_()
            # Only what both sides had: a one in the source's place, in a target of zeros.
            grown[spec.name] = grown[spec.name] * placed(growth, spec, old)
    return {spec.name: grown[spec.name] for spec in growth.target_parameters if selection(spec)}


def placed(growth: Growth, spec: Any, small: Tensor) -> Tensor:
    """A source tensor in the target's places, by index: head by head, group by group, block by block."""
    for dim, segments in enumerate(spec.dims):
        index, before, count = [], 0, len(segments.segments)
        for number, segment in enumerate(segments):
            sizes = segment.axis.size(growth.source), segment.axis.size(growth.target)
            positions = element_places(growth, segment.axis, sizes[0])
            if segments.interleaved:
                head = growth.source.head_size
                positions = [(p // head * count + number) * head + p % head for p in positions]
            else:
                positions = [before + p for p in positions]
            before += sizes[1]
            index.append(positions)
        if segments.interleaved:
            head = growth.source.head_size
            parts = torch.tensor(index).view(count, -1, head)
            places = parts.transpose(0, 1).flatten()
        else:
            places = torch.tensor([position for positions in index for position in positions])
        shape = list(small.shape)
        shape[dim] = before
        small = torch.zeros(shape).index_copy(dim, places, small)
    return small


def element_places(growth: Growth, axis: Any, size: int) -> list[int]:
    """Of each source element of an axis: where it is in the target. Only grouped query heads move."""
    source, target = growth.source, growth.target
    if not (axis.grouped or axis.lifted_from):
        return list(range(size))
    head = source.head_size
    return [
        (h // source.queries_per_group * target.queries_per_group + h % source.queries_per_group) * head + e
        for h in range(source.heads)
        for e in range(head)
    ]


def sharded(world: World, cases: dict[str, Case]) -> dict[str, Numbers]:
    return {name: sharded_numbers(world, case) for name, case in cases.items()}


def sharded_numbers(world: World, case: Case) -> Numbers:
    from ligo_dist.growth import gathered_operator, grown_moments, grown_shards

    growth, source = case.growth, built(world, case)
    operator_shards = shards(world, case.operator())
    operator = gathered_operator(growth, operator_shards, world)
    loss, gradients = 0.0, {}
    if growth.architecture.objective != "features":
        loss, gradients = learned(world, case, source, operator_shards)
    if case.through_engine:
        weights = written(world, case, grown_shards(growth, source, operator, world), loss)
    else:
        weights = whole(world, growth, dict(grown_shards(growth, source, operator, world)))
    depth, moments, before = method_named(case.method).depth, {}, source_moments(case)
    specs = growth.architecture.parameters(growth.source)
    for squared, asymmetric, selection in KINDS:
        own = {s.name: before[s.name] for s in specs if selection(s)}
        small = SourceShards.build(growth, shards(world, own), world, zero_extras=True, selection=selection)
        made = grown_moments(
            growth, small, operator, world, depth=depth, squared=squared, asymmetric=asymmetric
        )
        moments[squared, asymmetric, selection] = whole(world, growth, dict(made), selection)
    return Numbers(loss, gradients, weights, moments)


def learned(
    world: World, case: Case, source: SourceShards, operator: dict[str, Tensor]
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a step of learning; the gradients as AdamW got them: its first moment, from zero."""
    from ligo_dist.engine import Engine, OptimizerSettings, engine_config
    from ligo_dist.growth import LearnedGrowth, operator_name
    from ligo_dist.huggingface import build_meta_model

    growth, config = case.growth, library_config(case.growth.architecture, case.growth.target)
    target = build_meta_model(growth.architecture, growth.target, config, world.device)
    learner = LearnedGrowth(growth, source, target, torch.float32, world)
    split = BatchSplit(SAMPLES, MICRO_BATCH, world.size)
    kinds = {parameter.name: parameter.kind for parameter in growth.operator_parameters}
    engine = Engine(
        learner,
        OptimizerSettings(1e-3, (BETA, 0.95), 1e-8, weight_decay=0.0, gradient_clipping=0.0),
        engine_config("fp32", split.rows, split.micro_steps, 0.0, NOTHING_WHOLE),
        world,
        learner.external_parameters(),
        rename=operator_name,
        kind_of=kinds.__getitem__,
    )
    engine.write_shards(operator.items())
    result = engine.train_step(case.micro_batches(world), SAMPLES, {"depth": 1e-3, "width": 1e-3})
    shapes = {p.name: p.shape for p in growth.operator_parameters}
    moments = engine.read_moments()["exp_avg"]
    gradients = {name: gather_tensor(m, shapes[name], world) / (1 - BETA) for name, m in moments.items()}
    engine.release()
    return result.loss, gradients


def written(world: World, case: Case, parts: Iterable[tuple[str, Tensor]], loss: float) -> dict[str, Tensor]:
    """The grown weights as the engine that will train them has them, and computes with."""
    from engines import build_engine

    engine = build_engine(world, case.family, case.growth.target)
    engine.write_shards(parts)
    weights = whole(world, case.growth, engine.read_shards())
    evaluated = engine.evaluate(case.micro_batches(world)).loss
    engine.release()
    assert abs(evaluated - loss) < 2e-5, "the grown model is the model that was learned on"
    return weights


def built(world: World, case: Case) -> SourceShards:
    """The source's partitions, and those of a model of the fresh layers, whose numbers begin at zero."""
    growth, weights = case.growth, case.source_weights()
    own = {spec.name: weights[spec.name] for spec in growth.architecture.parameters(growth.source)}
    fresh = {
        role.format(layer=layer): weights[role.format(layer=growth.source.layers + layer)]
        for role in growth.layer_roles
        for layer in range(growth.fresh_layers)
    }
    return SourceShards.build(growth, shards(world, own), world, shards(world, fresh) or None)


def shards(world: World, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: shard_of(tensor, world.rank, world.size) for name, tensor in tensors.items()}


def whole(
    world: World, growth: Growth, parts: dict[str, Tensor], selection: Selection = every_parameter
) -> dict[str, Tensor]:
    """The target's tensors, from partitions with their padding or without."""
    specs = [spec for spec in growth.target_parameters if selection(spec)]
    assert set(parts) == {spec.name for spec in specs}
    sizes = {spec.name: partition_size(spec.numel, world.size) for spec in specs}
    return {s.name: gather_tensor(padded(parts[s.name], sizes[s.name]), s.shape, world) for s in specs}


ALL_CASES = {**ON_ALL_WORLDS, **FAMILIES, **VARIANTS}


def differences(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> list[str]:
    assert set(actual) == set(expected)
    errors = {
        name: float((actual[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-12))
        for name, tensor in expected.items()
    }
    return [
        f"{name}: off by {error:.1e} of the largest"
        for name, error in errors.items()
        if not error < tolerance
    ]


def hold_against_oracle(world_size: int, cases: dict[str, Case]) -> None:
    results = run_ranks(sharded, world_size, cases, timeout=240.0)
    for by_case in results:
        for name, numbers in by_case.items():
            expected = dense(name)
            assert numbers.loss == pytest.approx(expected.loss, rel=2e-6), name
            assert not [key for key, gradient in expected.gradients.items() if not gradient.any()], name
            assert not differences(numbers.gradients, expected.gradients, 1e-4), name
            assert not differences(numbers.weights, expected.weights, 1e-5), name
            for kind in KINDS:
                assert not differences(numbers.moments[kind], expected.moments[kind], 1e-5), (name, kind)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_sharded_equals_dense_on_any_number_of_ranks(world_size: int):
    hold_against_oracle(world_size, ON_ALL_WORLDS)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("cases", [FAMILIES, VARIANTS], ids=["family", "kind of operator"])
def test_sharded_equals_dense_for_every(cases: dict[str, Case], world_size: int):
    """Every second case on two ranks, and every other one on three."""
    names = list(cases)[world_size % 2 :: 2]
    hold_against_oracle(world_size, {name: cases[name] for name in names})
