"""Holding a grown model against its source, on real samples: a method that claims to keep the function must keep it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ligo_dist.corpus import Corpus, fixed_batches
from ligo_dist.engine import Shards
from ligo_dist.growth import (
    TOLERANCE,
    OperatorValues,
    SourceShards,
    Weights,
    gathered_weights,
    generated_weights,
    model_output,
    output_difference,
)
from ligo_dist.runtime.errors import PreservationError
from ligo_dist.schedule import GrowPlan, StagePlan
from ligo_dist.training.builder import Builder

_SAMPLES = 2
"""Per rank; every one has a whole sequence of outputs, or an image's classes."""


def check_preserved(
    stage: StagePlan,
    grow: GrowPlan,
    source_stage: StagePlan,
    source: SourceShards,
    grown: Shards | None,
    builder: Builder,
    start: OperatorValues,
    corpus: Corpus,
) -> float | None:
    """The largest difference between the outputs of source and target in fp32, as a part of the largest output.

    None where the method does not claim to keep the function for this pair of models. Collective.

    Args:
        stage: the target's.
        grow: how it was made.
        source_stage: the source's.
        source: this rank's partitions of the source.
        grown: of the target; None: what the operator's start makes is looked at, without building it.
        builder: builds the models.
        start: values that the operator starts from.
        corpus: the samples come from its validation part.

    Raises:
        PreservationError: if the difference is more than rounding.
    """
    if grow.obstacles:
        return None
    world = builder.world
    (batch, _), *_ = fixed_batches(corpus.validation, _SAMPLES * world.size, world.rank, world.size, _SAMPLES)
    inputs = {name: tensor for name, tensor in corpus.validation.finish(batch).items() if name != "labels"}
    before = _output(builder, source_stage, gathered_weights(source.unstacked(), world), inputs)
    weights = (
        generated_weights(grow.growth, source, start, world)
        if grown is None
        else gathered_weights(grown, world)
    )
    after = _output(builder, stage, weights, inputs)
    error = output_difference(grow.growth, before, after, start, world)
    if not error <= TOLERANCE:
        raise PreservationError(
            f"stage {stage.name}: {grow.method.name} should leave what {source_stage.name} computes as it is, but an"
            f" output differs by {error:.1e} of the largest one, more than the {TOLERANCE:g} that rounding may do"
        )
    return error


def _output(builder: Builder, stage: StagePlan, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
    config = builder.huggingface_config(stage, "fp32")
    architecture, device = builder.plan.architecture, builder.world.device
    return model_output(architecture, stage.shape, config, weights, inputs, device)
