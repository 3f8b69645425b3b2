"""Leaving: the model as an ordinary Hugging Face directory, written without any rank holding the whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor
from transformers import PretrainedConfig

from ligo_dist.architectures import ParameterSpec
from ligo_dist.engine import Shards, World, first_rank_only, gather_tensor, write_tensors
from ligo_dist.huggingface.models import GENERATION_FILE
from ligo_dist.runtime.errors import CheckpointError, LigoError
from ligo_dist.runtime.files import make_empty, replace_directory, restore_replaced
from ligo_dist.runtime.heartbeat import beat

MAX_FILE_BYTES = 4 * 1024**3
"""Weights beyond this go into another file; also the most that the first rank holds at a time."""


CARD_FILE = "README.md"
"""Where the hub, and who looks into an export, finds its model card."""


def export_model(
    directory: Path,
    specs: list[ParameterSpec],
    shards: Shards,
    config: PretrainedConfig,
    write_processor: Callable[[Path], None],
    world: World,
    generation: str | None = None,
    card: str | None = None,
) -> None:
    """Write `config.json`, the weights (fp32, safetensors) and what makes inputs for it. Collective.

    An export that is there already is replaced at the end, when the new one is complete.

    Args:
        directory: where the export will be; a link is followed.
        specs: the model's parameters; a tied head is not among them, as the library leaves it out too.
        shards: this rank's partitions.
        config: the library's configuration of the model.
        write_processor: writes the files of the tokenizer or image processor into a directory; called on the first
            rank.
        world: the ranks.
        generation: content of `generation_config.json`; None: there is none.
        card: content of the model card, `README.md`; None: there is none.

    Raises:
        CheckpointError: on every rank, if the directory cannot be written.
    """
    directory = directory.resolve()
    unfinished = _unfinished(directory)
    first_rank_only(lambda: _begin(directory), world)
    names: list[list[str]] = []
    sizes = 0
    for part in _parts(specs, shards, world):
        first_rank_only(lambda part=part: _write_part(directory, len(names), part), world)  # type: ignore[misc]
        names.append(list(part))
        sizes += sum(tensor.numel() * tensor.element_size() for tensor in part.values())

    def finish() -> None:
        with _explained(directory):
            _name_parts(unfinished, names, sizes)
            _describe(unfinished, config, write_processor, generation)
            if card is not None:
                (unfinished / CARD_FILE).write_text(card, encoding="utf-8")
            replace_directory(unfinished, directory)

    first_rank_only(finish, world)


def rehearse_export(
    directory: Path,
    config: PretrainedConfig,
    write_processor: Callable[[Path], None],
    world: World,
    generation: str | None = None,
) -> None:
    """Try all of an export but its weights, so that what is wrong with it is told before a model is trained.
    Collective; nothing stays. The arguments and errors are those of `export_model`."""
    directory = directory.resolve()

    def rehearse() -> None:
        _begin(directory)
        with _explained(directory):
            _describe(_unfinished(directory), config, write_processor, generation)
            shutil.rmtree(_unfinished(directory))

    first_rank_only(rehearse, world)


def _unfinished(directory: Path) -> Path:
    """Where an export is written until it is complete."""
    return directory.with_name(f".writing-{directory.name}")


def _begin(directory: Path) -> None:
    """An empty directory beside the one that the export will be."""
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(
            f"{directory} is no directory, and in the way of an export of that name; move it"
        )
    with _explained(directory):
        restore_replaced(directory)
    make_empty(_unfinished(directory), "export")


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """What a file system, or the library with its files, refuses, as an error that names the export. What was written
    so far goes: on a full disk it is in the way of all else."""
    try:
        yield
    except Exception as error:
        shutil.rmtree(_unfinished(directory), ignore_errors=True)
        # Libraries that are not written in Python tell of a full disk by errors of their own.
        told = isinstance(error, OSError | SafetensorError | ValueError) or "(os error " in str(error)
        if isinstance(error, LigoError) or not told:
            raise
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{error.filename or directory}: {error.strerror or error}"
        raise CheckpointError(f"export {directory} cannot be written: {reason}") from error


def _describe(
    unfinished: Path,
    config: PretrainedConfig,
    write_processor: Callable[[Path], None],
    generation: str | None,
) -> None:
    """Everything but the weights."""
    config.save_pretrained(unfinished)
    if generation is not None:
        (unfinished / GENERATION_FILE).write_text(generation, encoding="utf-8")
    write_processor(unfinished)


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


def _write_part(directory: Path, number: int, part: dict[str, Tensor]) -> None:
    with _explained(directory):
        path = _unfinished(directory) / f"part-{number}"
        write_tensors(path, part, {"format": "pt"}, lambda: beat(f"writing {path.name} of the export"))


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
