"""What only `transformers` knows of a configuration: whether the keys of `model.huggingface` exist and have values
that the family's configuration class takes, and whether it can build the models.

Importing `transformers` imports torch, where there is one. So the launcher asks in a process apart
(`ligo_dist.runtime.apart`), and only where there is something to ask; a rank calls the functions itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config.faults import suggestion
from ligo_dist.config.resolve import PARTIAL_ROTARY_KEYS
from ligo_dist.config.rules import owned_huggingface_keys
from ligo_dist.config.schema import Config
from ligo_dist.runtime.apart import ask_apart
from ligo_dist.runtime.errors import Fault, innermost_words

ROTARY_KEYS = ("rope_theta", "rotary_emb_base")
"""Keys from before `rope_parameters` that some of the library's classes still take, beside `PARTIAL_ROTARY_KEYS`."""


def check_huggingface_keys(config: Config) -> list[Fault]:
    """Unknown keys of `model.huggingface`, or values that the class refuses. Imports transformers, so
    torch."""
    return _key_faults(config.architecture, config.model.huggingface)


def check_huggingface_keys_apart(config: Config) -> list[Fault]:
    """The same in a process apart, so that this one stays without torch; none is started if there are no keys.

    Raises:
        LigoError: if that process fails.
    """
    if not config.model.huggingface:
        return []
    request = [config.model.family, config.model.huggingface]
    answer = ask_apart(__name__, request, "the keys of model.huggingface")
    return [Fault(path, message) for path, message in answer]


def asks_the_library(config: Config) -> bool:
    """Whether a configuration asks for models that the tests of the tables do not speak for."""
    of_size = any(stage.size is not None and stage.size.head_size is not None for stage in config.stages)
    model = config.model
    asked = of_size or model.huggingface or config.stages[0].from_ or ":" in model.family
    return bool(asked or model.attention != "auto")


def check_models_apart(
    config: Config, shapes: Sequence[ModelShape], directory: Path | None, attention: str = "auto"
) -> tuple[list[Fault], list[str]]:
    """`huggingface.check` in a process apart: what is wrong with the stages' models, and a line for everything
    that begins anew or is left out of the first one's weights. None is started if there is nothing to ask.

    Args:
        config: completed from its source.
        shapes: of the stages' models.
        directory: with the weights of the source; None: there is none, or they are not here yet.
        attention: how this machine is to compute it; `auto`: as it can.

    Raises:
        LigoError: if that process fails.
    """
    if not asks_the_library(config):
        return [], []
    path = None if directory is None else str(directory)
    plain = [asdict(shape) for shape in shapes]
    model, length = config.model, config.data.sequence_length
    request = [model.family, plain, model.huggingface, length, path, attention]
    faults, notes = ask_apart("ligo_dist.huggingface.check", request, "the models", with_torch=True)
    return [Fault(path, message) for path, message in faults], notes


def _key_faults(architecture: Architecture, keys: dict[str, Any]) -> list[Fault]:
    import transformers

    cls = getattr(transformers, architecture.config_class)
    valid = {*field_names(cls), *cls.attribute_map}
    if "rope_parameters" in valid:
        valid |= _rotary_keys(architecture, cls)
    owned = owned_huggingface_keys(architecture)
    faults = []
    if "rope_parameters" in keys and "rope_scaling" in keys:
        wrong = (
            "another name of rope_parameters, which the library would then not read; one of them has to go"
        )
        faults.append(Fault("model.huggingface.rope_scaling", wrong))
    for key, value in keys.items():
        path = f"model.huggingface.{key}"
        if key not in valid:
            faults.append(Fault(path, f"unknown key of {cls.__name__}{suggestion(key, valid)}"))
            continue
        if cls.attribute_map.get(key) in owned:
            setter = owned[cls.attribute_map[key]]
            faults.append(Fault(path, f"cannot be given: it is set by `{setter}`"))
            continue
        try:
            cls(**{key: copy.deepcopy(value)})  # the class completes a mapping in its place
        except Exception as error:  # whatever the class raises is its verdict on the value
            faults.append(Fault(path, f"{cls.__name__} refuses {value!r}: {innermost_words(error)}"))
    return faults


def _rotary_keys(architecture: Architecture, cls: Any) -> set[str]:
    """Keys from before `rope_parameters` that a class still moves there. It drops the others without a word."""
    named = ROTARY_KEYS if architecture.rotary_part == 1 else (*ROTARY_KEYS, *PARTIAL_ROTARY_KEYS)
    default = cls().rope_parameters
    return {"rope_scaling", *(key for key in named if cls(**{key: 0.125}).rope_parameters != default)}


def field_names(cls: Any) -> list[str]:
    import dataclasses

    return [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]


def answer_apart(request: Any) -> Any:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`."""
    family, keys = request
    return [(fault.path, fault.message) for fault in _key_faults(get_architecture(family), keys)]
