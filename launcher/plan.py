"""What a configuration will do, in numbers: the shape of each stage's model and the cost of each phase."""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.accounting import parameter_count
from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config import Config, stage_shapes
from ligo_dist.config.schema import Grow
from ligo_dist.config.ways import ways_to_grow
from ligo_dist.costs import StageCost, stage_costs
from ligo_dist.growth.claims import obstacles  # noqa: TID251 - shapes alone: no torch


@dataclass(frozen=True)
class StagePlan:
    """One stage: its model and its phases; `learn` and `grow` are None in the first.

    Attributes:
        name: the user's name for it.
        source: where its model is taken from; None: from the stage before, or random values.
        method: how it is grown; None in the first.
        obstacles: why the grown model does not compute what the one before does; None in the first, empty where it
            does: then the run verifies it.
        shape, parameters: of its model.
        cost: of its phases.
    """

    name: str
    source: str | None
    method: str | None
    obstacles: list[str] | None
    shape: ModelShape
    parameters: int
    cost: StageCost


def plan_stages(config: Config, vocabulary: int, world_size: int) -> list[StagePlan]:
    """The stages of a checked configuration; `vocabulary` is the tokenizer's number of pieces, 0 for images."""
    architecture = get_architecture(config.model.family)
    shapes = stage_shapes(config, vocabulary)
    costs = stage_costs(config, shapes, world_size)
    plans: list[StagePlan] = []
    for stage, shape, cost in zip(config.stages, shapes, costs, strict=True):
        unkept = None
        if stage.grow is not None:
            unkept = _obstacles(architecture, plans[-1].shape, shape, stage.grow)
        plans.append(
            StagePlan(
                name=stage.name,
                source=stage.from_,
                method=_method_name(stage.grow) if stage.grow else None,
                obstacles=unkept,
                shape=shape,
                parameters=parameter_count(architecture, shape),
                cost=cost,
            )
        )
    return plans


def _method_name(grow: Grow) -> str:
    """The method with what replaces its own ways."""
    return " + ".join(name for name in (grow.method, grow.depth, grow.width) if name is not None)


def _obstacles(architecture: Architecture, source: ModelShape, target: ModelShape, grow: Grow) -> list[str]:
    """Why growing changes the function; empty where it keeps it."""
    ways = ways_to_grow(grow)
    if ways is None:
        return [f"{grow.method!r} starts anew"]
    depth, width = ways
    return obstacles(
        architecture,
        source,
        target,
        depth=depth,
        width=width,
        noise=grow.noise,
        share_depth=grow.share_depth,
    )
