"""A model that exists, from a Hugging Face directory into this system's partitions: each rank reads its own part.

Names in the files are brought to those of the model by what `transformers` itself does on loading: the renamings that
it keeps for each family (`vit.encoder.layer.0...` -> `vit.layers.0...`, `LayerNorm.gamma` -> `LayerNorm.weight`), the
base model's prefix added or taken away (`h.0...` -> `transformer.h.0...`), and buffers left out. A parameter that two
names share may be there under either or both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.engine.shards import Shards, padded, partition_range, partition_size
from ligo_dist.engine.world import World, raise_together
from ligo_dist.huggingface.files import StoredTensor, stored_tensors
from ligo_dist.huggingface.models import build_meta_model
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.runtime.heartbeat import beat

_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias)$")
"""Buffers that files of older versions of the library hold, whatever the family."""


def read_shards(
    directory: Path, architecture: Architecture, shape: ModelShape, config: PretrainedConfig, world: World
) -> Shards:
    """This rank's partitions of a model, in fp32. Collective only in its errors.

    A rank holds no more than its partitions and the rows of one tensor that its part of it lies in.

    Args:
        directory: a Hugging Face directory with weights in fp32, bf16 or fp16.
        architecture: the family.
        shape: of the model.
        config: the library's configuration of the model.
        world: the ranks.

    Raises:
        CheckpointError: on all ranks, with every parameter that is missing, of no use to the model, of another shape
            or type, or there twice with different values.
    """
    failure: Exception | None = None
    shards: Shards = {}
    try:
        model = build_meta_model(architecture, shape, config, torch.device("cpu"))
        sources = _match(directory, model)
        for name, parameter in model.named_parameters():
            beat(f"reading {name}")
            shards[name] = _read_shard(sources[name], parameter.numel(), world)
        _compare_copies(directory, sources, shards, world)
    except CheckpointError as error:
        failure = error
    raise_together(failure, world)
    return {name: shard.to(world.device) for name, shard in shards.items()}


@dataclass
class _Sources:
    """Where a parameter's values are: the first of its names, and further names of the same parameter."""

    stored: list[tuple[str, StoredTensor]] = field(default_factory=list)

    @property
    def tensor(self) -> StoredTensor:
        return self.stored[0][1]


def _match(directory: Path, model: PreTrainedModel) -> dict[str, _Sources]:
    """The stored tensors of each parameter of the model.

    Raises:
        CheckpointError: with everything that does not match.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    sources = {name: _Sources() for name in shapes}
    names = _LibraryNames(model)
    faults, extra = [], []
    for stored_name, tensor in stored_tensors(directory).items():
        name = names.parameter(stored_name)
        if name is None:
            extra += [] if names.is_buffer(stored_name) else [stored_name]
            continue
        sources[name].stored.append((stored_name, tensor))
        if tensor.shape != shapes[name]:
            faults.append(f"{stored_name}: shape {tensor.shape}, the configuration gives {shapes[name]}")
        elif tensor.dtype is None:
            faults.append(f"{stored_name}: neither fp32 nor bf16 nor fp16")
    faults = [f"{name}: missing" for name, found in sources.items() if not found.stored] + faults
    faults += [f"{name}: of no use to {type(model).__name__}" for name in extra]
    if faults:
        raise CheckpointError(_refusal(directory, model, faults, with_extra=bool(extra)))
    return sources


def _refusal(directory: Path, model: PreTrainedModel, faults: list[str], with_extra: bool) -> str:
    lines = "\n".join(f"  {fault}" for fault in faults)
    name = type(model).__name__
    message = f"stages[0].from: the weights in {directory} are not those of a {name}:\n{lines}"
    if with_extra:
        message += (
            f"\n{name}.from_pretrained(...).save_pretrained(DIRECTORY) leaves out what it has no use for"
        )
    return message


class _LibraryNames:
    """The names that the library gives stored tensors when it loads a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        transforms = get_model_conversion_mapping(model)
        self._converters = [one for one in transforms if isinstance(one, WeightConverter)]
        self._renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        self._parameters = {
            name: first[id(parameter)]
            for name, parameter in model.named_parameters(
                remove_duplicate=False
            )  # ties under all their names
        }
        self._buffers = {name for name, _ in model.named_buffers()}
        self._known = dict.fromkeys([*self._parameters, *self._buffers], True)

    def parameter(self, stored_name: str) -> str | None:
        """The parameter that a stored tensor is; of one with several names the first. None if it is none.

        Raises:
            CheckpointError: the library computes this parameter from the stored tensors.
        """
        name, converted = self._renamed(stored_name)
        if converted is not None:
            raise CheckpointError(
                f"stages[0].from: {stored_name}: the library computes {name} from stored tensors on loading, which"
                " is not supported here"
            )
        return self._parameters.get(name)

    def is_buffer(self, stored_name: str) -> bool:
        """Whether a tensor that is no parameter is one that the library leaves out silently."""
        patterns = self._model._keys_to_ignore_on_load_unexpected or ()
        return (
            self._renamed(stored_name)[0] in self._buffers
            or _BUFFERS.search(stored_name) is not None
            or any(re.search(pattern, stored_name) for pattern in patterns)
        )

    def _renamed(self, stored_name: str) -> tuple[str, str | None]:
        prefix = self._model.base_model_prefix or None
        return rename_source_key(stored_name, self._renamings, self._converters, prefix, self._known)


def _read_shard(source: _Sources, numel: int, world: World) -> Tensor:
    start, stop = partition_range(numel, world.rank, world.size)
    return padded(_read_range(source.tensor, start, stop), partition_size(numel, world.size))


def _read_range(tensor: StoredTensor, start: int, stop: int) -> Tensor:
    """Elements [start, stop) of a tensor in row-major order, fp32: the rows around them are read."""
    if start == stop:
        return torch.empty(0)
    row = math.prod(tensor.shape[1:])
    first, last = start // row, -(-stop // row)
    rows = tensor.rows(first, last).reshape(-1)
    return rows[start - first * row : stop - first * row].float()


def _compare_copies(directory: Path, sources: dict[str, _Sources], shards: Shards, world: World) -> None:
    """Names of one parameter that are in the files more than once must hold the same values.

    Raises:
        CheckpointError: they do not: the configuration ties what the weights do not.
    """
    faults = []
    for name, source in sources.items():
        first, *copies = source.stored
        for copy_name, copy in copies:
            shard = _read_shard(_Sources([(copy_name, copy)]), math.prod(copy.shape), world)
            if not torch.equal(shard, shards[name]):
                faults.append(f"{copy_name} and {first[0]}")
    if faults:
        raise CheckpointError(
            f"stages[0].from: {directory}: the configuration makes these one parameter, and they have different"
            f" values: {'; '.join(faults)}. Is `tie_word_embeddings: false` missing in its config.json?"
        )
