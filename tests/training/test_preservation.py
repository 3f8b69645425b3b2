"""Outputs of models that lie in partitions are those of plain `transformers`; a broken promise is noticed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.engine import World
from ligo_dist.runtime.errors import PreservationError
from pairs import grown_model, method_named, pair_of, source_weights, start
from ranks import RanksError, run_ranks
from small_models import (
    library_config,
    library_model,
    outputs_of,
    random_batch,
    random_inputs,
    small_shape,
    weights_of,
)

FAMILIES = ("gpt2", "llama", "bert", "bert_encoder", "vit", "deit")


def shapes(family: str, layers: int = 3, heads: int = 2) -> tuple[ModelShape, ModelShape]:
    return tuple(
        small_shape(family, *size, head_size=4, ffn=20 * size[1]) for size in ((2, 1), (layers, heads))
    )  # type: ignore[return-value]


def from_partitions(world: World, families: tuple[str, ...]) -> dict[str, Tensor]:
    from engines import partitions
    from ligo_dist.growth import gathered_weights, model_output

    outputs = {}
    for family in families:
        _, shape = shapes(family)
        architecture = get_architecture(family)
        weights = gathered_weights(partitions(world, weights_of(library_model(family, shape))), world)
        inputs = random_inputs(family, shape, 3)
        config = library_config(architecture, shape)
        outputs[family] = model_output(architecture, shape, config, weights, inputs, world.device)
    return outputs


def from_operator(world: World, families: tuple[str, ...]) -> dict[str, Tensor]:
    from engines import partitions
    from ligo_dist.growth import SourceShards, generated_weights, initial_operator, model_output

    outputs = {}
    for family in families:
        method = method_named("lossless-dense")
        growth = pair_of(family, *shapes(family), method)
        source = SourceShards.build(growth, partitions(world, source_weights(growth)), world)
        weights = generated_weights(growth, source, initial_operator(growth, method, "0", world), world)
        inputs = random_inputs(family, growth.target, 3)
        config = library_config(growth.architecture, growth.target)
        outputs[family] = model_output(
            growth.architecture, growth.target, config, weights, inputs, world.device
        )
    return outputs


def test_the_outputs_of_partitions_are_those_of_the_library():
    for outputs in run_ranks(from_partitions, 2, FAMILIES):
        for family in FAMILIES:
            _, shape = shapes(family)
            expected = outputs_of(library_model(family, shape), random_inputs(family, shape, 3))
            torch.testing.assert_close(outputs[family], expected, msg=family)


def test_the_outputs_of_weights_still_to_be_generated_are_those_of_the_grown_model():
    method = method_named("lossless-dense")
    for outputs in run_ranks(from_operator, 2, FAMILIES):
        for family in FAMILIES:
            growth = pair_of(family, *shapes(family), method)
            model = grown_model(growth, method, source_weights(growth))
            expected = outputs_of(model, random_inputs(family, growth.target, 3))
            torch.testing.assert_close(outputs[family], expected, msg=family)


# --- the check ---


class Validation:
    """Samples as a corpus has them."""

    tokens_per_sample = 16

    def __init__(self, family: str, shape: ModelShape) -> None:
        self.batch = random_batch(family, shape, len(self))

    @property
    def labelled(self) -> bool:
        return "labels" in self.batch

    def __len__(self) -> int:
        return 8

    def weights(self, indices: Any) -> Any:
        return np.ones(len(indices), dtype=np.int64)

    def read(self, indices: Any, draws: Any) -> dict[str, Tensor]:
        return {name: tensor[torch.as_tensor(indices)] for name, tensor in self.batch.items()}

    def finish(self, inputs: Any) -> Any:
        return inputs


def checked(
    world: World, family: str, method: str, target: ModelShape, perturbed: str | None, is_grown: bool
) -> float | None:
    """What `check_preserved` says of a source and its target: grown (one weight perturbed, if any), or at the start."""
    from engines import partitions
    from ligo_dist.config import Model, Stage
    from ligo_dist.growth import SourceShards, initial_operator
    from ligo_dist.schedule import GrowPlan, StagePlan
    from ligo_dist.training import Builder, check_preserved

    start_of = method_named(method)
    source_shape, _ = shapes(family)
    growth = pair_of(family, source_shape, target, start_of)
    weights = source_weights(growth)
    grown = growth.grow_dense(weights, start(growth, start_of))
    if perturbed is not None:
        grown[perturbed].view(-1)[3] += 0.1
    config = SimpleNamespace(model=Model(family=family))
    plan: Any = SimpleNamespace(architecture=growth.architecture, config=config)
    unused: Any = None
    grow = GrowPlan(growth, start_of, unused, "fresh")
    small, large = (
        StagePlan(section, index, shape, 0, made, train=unused, cost=unused)
        for index, (section, shape, made) in enumerate(
            [(Stage(name="small"), source_shape, None), (Stage(name="large"), target, grow)]
        )
    )
    source = SourceShards.build(growth, partitions(world, weights), world)
    corpus: Any = SimpleNamespace(validation=Validation(family, target))
    operator = initial_operator(growth, start_of, "0", world)
    shards = partitions(world, grown) if is_grown else None
    return check_preserved(large, grow, small, source, shards, Builder(plan, world), operator, corpus)


WIDER = {family: shapes(family)[1] for family in ("gpt2", "bert_encoder", "vit")}


@pytest.mark.parametrize("is_grown", [True, False], ids=["grown", "at the start"])
@pytest.mark.parametrize("family", WIDER)
def test_a_kept_promise_is_measured(family: str, is_grown: bool):
    first, second = run_ranks(checked, 2, family, "lossless-dense", WIDER[family], None, is_grown)
    assert first == second, "the ranks agree"
    assert 0 < first < 3e-6


def test_a_method_that_promises_nothing_is_not_checked():
    assert run_ranks(checked, 2, "gpt2", "ligo", WIDER["gpt2"], None, True) == [None, None]


@pytest.mark.parametrize(
    ("family", "perturbed"),
    [
        ("gpt2", "transformer.h.2.mlp.c_fc.bias"),
        ("vit", "vit.embeddings.cls_token"),
        ("bert_encoder", "encoder.layer.2.output.LayerNorm.bias"),
    ],
)
def test_a_broken_promise_ends_the_run_on_every_rank(family: str, perturbed: str):
    with pytest.raises(RanksError) as caught:
        run_ranks(checked, 2, family, "lossless", WIDER[family], perturbed, True)
    text = str(caught.value)
    for rank in range(2):
        assert (
            f"[rank {rank}] {PreservationError.__module__}.PreservationError: stage large: lossless should"
            in text
        )
    assert "should leave what small computes as it is, but an output differs by " in text
    assert " of the largest one, more than the 0.0001 that rounding may do" in text


def test_depth_alone_keeps_the_residual_stream_of_a_model_without_a_head():
    deeper = small_shape("bert_encoder", 4, 1, head_size=4, ffn=20)
    for error in run_ranks(checked, 2, "bert_encoder", "lossless", deeper, None, True):
        assert error is not None
        assert error < 3e-6
