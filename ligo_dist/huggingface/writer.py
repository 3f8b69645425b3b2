"""Leaving: the model as an ordinary Hugging Face directory, written without any rank holding the whole model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor
from transformers import PretrainedConfig

from ligo_dist.architectures import ParameterSpec
from ligo_dist.engine.shards import Shards
from ligo_dist.engine.tensor_file import write_tensors
from ligo_dist.engine.world import World, first_rank_only, gather_tensor
from ligo_dist.runtime.errors import CheckpointError
from ligo_dist.runtime.files import make_empty
from ligo_dist.runtime.heartbeat import beat

MAX_FILE_BYTES = 4 * 1024**3
"""Weights beyond this go into another file; also the most that the first rank holds at a time."""


def export_model(
    directory: Path,
    specs: list[ParameterSpec],
    shards: Shards,
    config: PretrainedConfig,
    write_processor: Callable[[Path], None],
    world: World,
) -> None:
    """Write `config.json`, the weights (fp32, safetensors) and what makes inputs for it. Collective.

    An export that is there already is replaced at the end, when the new one is complete.

    Args:
        directory: where the export will be.
        specs: the model's parameters; a tied head is not among them, as the library leaves it out too.
        shards: this rank's partitions.
        config: the library's configuration of the model.
        write_processor: writes the files of the tokenizer or image processor into a directory; called on the first
            rank.
        world: the ranks.

    Raises:
        CheckpointError: if the directory cannot be written.
    """
    unfinished = directory.with_name(f".writing-{directory.name}")
    first_rank_only(lambda: make_empty(unfinished, "export"), world)
    names: list[list[str]] = []
    sizes = 0
    for part in _parts(specs, shards, world):
        first_rank_only(lambda part=part: _write_part(unfinished, len(names), part), world)  # type: ignore[misc]
        names.append(list(part))
        sizes += sum(tensor.numel() * tensor.element_size() for tensor in part.values())

    def finish() -> None:
        _name_parts(unfinished, names, sizes)
        config.dtype = "float32"
        config.save_pretrained(unfinished)
        write_processor(unfinished)
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(unfinished, directory)

    first_rank_only(finish, world)


def _parts(specs: list[ParameterSpec], shards: Shards, world: World) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for spec in specs:
        beat(f"exporting {spec.name}")
        tensor = gather_tensor(shards[spec.name], spec.shape, world)
        if part and size + tensor.numel() * 4 > MAX_FILE_BYTES:
            yield part
            part, size = {}, 0
        size += tensor.numel() * 4
        # Ranks but the first only take part in the gathering.
        part[spec.name] = tensor.cpu().contiguous() if world.is_first else tensor.new_empty(0)
    yield part


def _write_part(unfinished: Path, number: int, part: dict[str, Tensor]) -> None:
    try:
        path = unfinished / f"part-{number}"
        write_tensors(path, part, {"format": "pt"}, lambda: beat(f"writing {path.name} of the export"))
    except OSError as error:
        raise CheckpointError(f"{unfinished}: {error.strerror or error}") from error


def _name_parts(unfinished: Path, names: list[list[str]], total_size: int) -> None:
    """The library's file names: `model.safetensors`, or numbered files with an index."""
    if len(names) == 1:
        (unfinished / "part-0").rename(unfinished / "model.safetensors")
        return
    weight_map = {}
    for number, part in enumerate(names):
        file = f"model-{number + 1:05d}-of-{len(names):05d}.safetensors"
        (unfinished / f"part-{number}").rename(unfinished / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (unfinished / "model.safetensors.index.json").write_text(
        json.dumps(index, indent=2) + "\n", encoding="utf-8"
    )
