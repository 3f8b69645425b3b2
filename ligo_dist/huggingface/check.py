"""Whether the models of a run can be built and make a loss of a batch, and what the first one gets from the files it
begins with: all that the library's classes and the names in the files can say before anything starts. No weight is made
or read.

It loads torch and the library's models, so the launcher asks it in a process apart (`ligo_dist.runtime.apart`); a rank
calls the functions itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.engine import get_accelerator_name
from ligo_dist.huggingface.matching import match_weights
from ligo_dist.huggingface.models import build_meta_model, huggingface_config
from ligo_dist.runtime.errors import ArchitectureError, CheckpointError, Fault, innermost_words, shortened

_ON_ACCELERATORS = ("flash_attention_2", "flex_attention")


def check_models(
    architecture: Architecture,
    shapes: Sequence[ModelShape],
    keys: Mapping[str, Any],
    sequence_length: int,
    directory: Path | None,
    attention: str = "auto",
) -> tuple[list[Fault], list[str]]:
    """What is wrong with the stages' models, and if nothing is, a line for everything that begins anew or is left out
    of the first one's weights.

    Args:
        architecture: the family.
        shapes: of the stages' models.
        keys: further keys of the library's configuration.
        sequence_length: tokens per sequence; for text.
        directory: with the weights of the source; None: there is none, or they are not here yet.
        attention: how this machine is to compute it; `auto`: as it can.
    """
    faults, models = _looked_at(architecture, shapes, keys, sequence_length)
    if not faults and attention != "auto":
        faults = _attention_faults(architecture, shapes[0], keys, attention)
    if faults or directory is None:
        return faults, []
    try:
        return [], match_weights(directory, architecture, shapes[0], models[0]).notes
    except CheckpointError as error:
        return [Fault("stages[0].from", str(error).removeprefix("stages[0].from: "))], []


def model_faults(
    architecture: Architecture, shapes: Sequence[ModelShape], keys: Mapping[str, Any], sequence_length: int
) -> list[Fault]:
    """Why models cannot be built as they are meant, or make no loss, with the key at fault.

    Args:
        architecture: the family.
        shapes: of the stages' models.
        keys: further keys of the library's configuration.
        sequence_length: tokens per sequence; for text.
    """
    return _looked_at(architecture, shapes, keys, sequence_length)[0]


def _looked_at(
    architecture: Architecture, shapes: Sequence[ModelShape], keys: Mapping[str, Any], sequence_length: int
) -> tuple[list[Fault], list[PreTrainedModel]]:
    """`model_faults`, and the models that can be built, in their order."""
    faults: dict[str, Fault] = {}
    models: list[PreTrainedModel] = []
    deepens = len({shape.layers for shape in shapes}) > 1
    for index, shape in enumerate(shapes):
        problem = partial(_problem, architecture, shape, deepens, sequence_length)
        outcome = problem(keys)
        if not isinstance(outcome, str):
            models.append(outcome)
            continue
        for path, wrong in _stage_problems(problem, keys, f"stages[{index}].size", outcome):
            faults.setdefault(path, Fault(path, wrong))
    return list(faults.values()), models


def _attention_faults(
    architecture: Architecture, shape: ModelShape, keys: Mapping[str, Any], attention: str
) -> list[Fault]:
    """Why a model that can be built cannot have its attention computed so."""
    if attention in _ON_ACCELERATORS and get_accelerator_name() == "cpu":
        wrong = "trains on accelerators alone; auto, eager or sdpa would be right"
        return [Fault("model.attention", f"{attention!r} {wrong}")]
    try:
        _built(architecture, shape, keys, attention)
    except Exception as error:  # whatever the library raises is its verdict
        wrong = f"{attention!r}: {architecture.model_class} refuses it: {innermost_words(error)}"
        return [Fault("model.attention", wrong)]
    return []


def _built(
    architecture: Architecture, shape: ModelShape, keys: Mapping[str, Any], attention: str | None = None
) -> PreTrainedModel:
    config = huggingface_config(architecture, shape, keys, attention=attention)
    return build_meta_model(architecture, shape, config, torch.device("cpu"))


def _stage_problems(
    problem: Callable[[Mapping[str, Any]], PreTrainedModel | str],
    keys: Mapping[str, Any],
    path: str,
    wrong: str,
) -> list[tuple[str, str]]:
    """Path and words of what is wrong with one stage's model: its size, the keys that are at fault by themselves, or
    all of them together, which is `wrong`."""
    of_size = problem({})
    if isinstance(of_size, str):
        return [(path, of_size)]
    alone = {key: problem({key: value}) for key, value in keys.items()}
    found = [
        (f"model.huggingface.{key}", f"{keys[key]!r}: {of_key}")
        for key, of_key in alone.items()
        if isinstance(of_key, str)
    ]
    return found or [("model.huggingface", f"{shortened(keys)}: {wrong}")]


def _problem(
    architecture: Architecture,
    shape: ModelShape,
    deepens: bool,
    sequence_length: int,
    keys: Mapping[str, Any],
) -> PreTrainedModel | str:
    """What is wrong with a stage's model under some keys; the model, on the meta device, where nothing is."""
    try:
        model = _built(architecture, shape, keys)
    except ArchitectureError as error:
        first = str(error).splitlines()[1].strip()
        return (
            f"it makes a {architecture.model_class} with other parameters than the table of {architecture.name} has"
            f" ({first}), which cannot be grown"
        )
    except Exception as error:  # whatever the library raises is its verdict
        return f"{architecture.config_class} refuses it: {innermost_words(error)}"
    fails = _forward_failure(model, architecture, shape, sequence_length)
    if fails is not None:
        return f"{architecture.model_class} makes no loss of a batch: {fails}"
    differing = differing_blocks(model, architecture)
    if differing is None or not deepens or any(keys.get(key) for key in architecture.numbering_keys):
        return model
    return (
        f"what a block computes depends on its number ({differing}), and the table of {architecture.name} does not"
        " name the key that says so (numbering_keys)"
    )


def _forward_failure(
    model: PreTrainedModel, architecture: Architecture, shape: ModelShape, sequence_length: int
) -> str | None:
    """What is raised where the model is given a batch, without weights and so without computing anything."""
    if architecture.objective == "image_classification":
        sizes = (1, shape.channels, shape.image_size, shape.image_size)
        batch = {"pixel_values": torch.zeros(sizes), "labels": torch.zeros(1, dtype=torch.long)}
    else:
        tokens = torch.zeros(1, min(sequence_length, shape.positions), dtype=torch.long)
        batch = {"input_ids": tokens, "labels": tokens}
    if architecture.objective == "features":
        del batch["labels"]
    try:
        with torch.no_grad():
            nn.Module.to(model, "meta")
            result = model(**{name: tensor.to("meta") for name, tensor in batch.items()})
    except Exception as error:  # whatever the library raises is its verdict
        words = innermost_words(error)
        # Where values decide what is done (`rope_type: dynamic`), only a batch with values can say it.
        return None if "meta tensor" in words or isinstance(error, NotImplementedError) else words
    has_loss = "labels" not in batch or getattr(result, "loss", None) is not None
    return None if has_loss else "its result has no loss"


def differing_blocks(model: PreTrainedModel, architecture: Architecture) -> str | None:
    """The name of a setting in which the blocks of a model differ, their number aside; None if there is none."""
    blocks = [
        {
            f"{path}.{name}".lstrip("."): value
            for path, module in block.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, bool | int | float | str | None)
        }
        for block in model.get_submodule(architecture.layers_path).children()
    ]
    for name in blocks[0] if blocks else ():
        values = [block.get(name) for block in blocks]
        if len(set(values)) > 1 and values != list(range(len(blocks))):
            return name
    return None


def answer_apart(request: Any) -> Any:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`."""
    family, shapes, keys, sequence_length, directory, attention = request
    path = None if directory is None else Path(directory)
    models = [ModelShape(**shape) for shape in shapes]
    faults, notes = check_models(get_architecture(family), models, keys, sequence_length, path, attention)
    return [[fault.path, fault.message] for fault in faults], notes
