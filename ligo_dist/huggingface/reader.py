"""A model that exists, from a Hugging Face directory into this system's partitions: each rank reads its own part."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.engine import Shards, World, padded, partition_range, partition_size, raise_together
from ligo_dist.huggingface.files import StoredTensor
from ligo_dist.huggingface.matching import Match, match_weights
from ligo_dist.huggingface.models import build_meta_model, initial_shards
from ligo_dist.runtime.errors import CheckpointError, shortened
from ligo_dist.runtime.heartbeat import beat


def read_shards(
    directory: Path,
    architecture: Architecture,
    shape: ModelShape,
    config: PretrainedConfig,
    world: World,
    seed: int = 0,
    tell: Callable[[str], None] = lambda note: None,
) -> Shards:
    """This rank's partitions of a model, in fp32. Collective in its errors, and where something begins anew.

    A rank holds no more than its partitions and the rows of one tensor that its part of it lies in.

    Args:
        directory: a Hugging Face directory with weights in fp32, bf16 or fp16.
        architecture: the family.
        shape: of the model.
        config: the library's configuration of the model.
        world: the ranks.
        seed: of what begins anew.
        tell: is told each thing that begins anew or is left out, in a line.

    Raises:
        CheckpointError: on all ranks, with every parameter that is missing, of no use to the model, of another shape
            or type, or there twice with different values.
    """
    failure: Exception | None = None
    match: Match | None = None
    try:
        model = build_meta_model(architecture, shape, config, torch.device("cpu"))
        match = match_weights(directory, architecture, shape, model)
    except CheckpointError as error:
        failure = error
    raise_together(failure, world)
    assert match is not None
    for note in match.notes:
        tell(f"stages[0].from: {note}")
    initial = initial_shards(architecture, config, (seed,), world) if match.begins_anew else {}
    shards: Shards = {}
    numels = {name: parameter.numel() for name, parameter in model.named_parameters()}
    try:
        for name, numel in numels.items():
            beat(f"reading {name}")
            begun = initial[name].cpu() if name in initial else None
            shards[name] = _read_first(match, name, numel, world, begun)
        _compare_copies(directory, match, shards, numels, world)
    except CheckpointError as error:
        failure = error
    raise_together(failure, world)
    return {name: shard.to(world.device) for name, shard in shards.items()}


def _read_first(match: Match, name: str, numel: int, world: World, begun: Tensor | None) -> Tensor:
    """A parameter's partition from the first of its names, as far as it goes, else as it begins anew."""
    stored = match.sources[name]
    if not stored:
        assert begun is not None, "something begins anew"
        return begun
    return _read_shard(stored[0][1], numel, world, begun)


def _read_shard(tensor: StoredTensor, numel: int, world: World, begun: Tensor | None) -> Tensor:
    """A partition of a parameter of so many elements: those of the tensor, then, where it has fewer rows, those of
    `begun`."""
    start, stop = partition_range(numel, world.rank, world.size)
    there = min(stop, math.prod(tensor.shape))
    values = _read_range(tensor, start, max(start, there))
    if there < stop:
        assert begun is not None, "something begins anew"
        values = torch.cat([values, begun[len(values) : stop - start]])
    return padded(values, partition_size(numel, world.size))


def _read_range(tensor: StoredTensor, start: int, stop: int) -> Tensor:
    """Elements [start, stop) of a tensor in row-major order, fp32: the rows around them are read."""
    if start == stop:
        return torch.empty(0)
    row = math.prod(tensor.shape[1:])
    first, last = start // row, -(-stop // row)
    rows = tensor.rows(first, last).reshape(-1)
    return rows[start - first * row : stop - first * row].float()


def _compare_copies(
    directory: Path, match: Match, shards: Shards, numels: dict[str, int], world: World
) -> None:
    """Names of one parameter that are in the files more than once must hold the same values.

    Raises:
        CheckpointError: they do not: the configuration ties what the weights do not.
    """
    faults = [
        f"{copy_name} and {stored[0][0]}"
        for name, stored in match.sources.items()
        for copy_name, copy in stored[1:]
        if not torch.equal(_read_shard(copy, numels[name], world, shards[name]), shards[name])
    ]
    if faults:
        raise CheckpointError(
            f"stages[0].from: {directory}: the configuration makes these one parameter, and they have different"
            f" values: {shortened(faults, separator='; ')}. Is `tie_word_embeddings: false` missing in its config.json?"
        )
