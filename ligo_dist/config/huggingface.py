"""What only `transformers` knows of a configuration: whether the keys of `model.huggingface` exist and have values
that the family's configuration class takes, and what the `config.json` of `stages[0].from` stands for.

Importing `transformers` imports torch, where there is one. So the launcher asks in a process apart
(`ligo_dist.runtime.apart`), and only where there is something to ask; a rank calls the functions itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config.faults import suggestion
from ligo_dist.config.resolve import PARTIAL_ROTARY_KEYS, is_image_family
from ligo_dist.config.rules import owned_huggingface_keys
from ligo_dist.config.schema import Config
from ligo_dist.huggingface.hub import resolve_directory
from ligo_dist.runtime.apart import ask_apart
from ligo_dist.runtime.errors import Fault, LigoError, innermost_words

ROTARY_KEYS = ("rope_theta", "rotary_emb_base")
"""Keys from before `rope_parameters` that some of the library's classes still take, beside `PARTIAL_ROTARY_KEYS`."""

_DROPOUT = ("_pdrop", "_dropout", "_dropout_prob")
_PER_LAYER = "layer_types"
LABELS = ("id2label", "label2id")
_OF_ITS_FILE = ("architectures", "auto_map", "model_type", "num_labels", "transformers_version")
"""What a `config.json` says of itself and of the files beside it, or twice (the number of classes)."""


@dataclass(frozen=True)
class SourceConfig:
    """The configuration of a model that exists, as plain values.

    Attributes:
        values: all keys, the library's defaults filled in.
        inherited: those that every stage takes over, as no key of ours sets them. Dropout is not among them: it
            says how the source was trained, not what it computes.
        said: those that an export takes over: all that are not what the class gives a model of this size anyway.
    """

    values: dict[str, Any]
    inherited: dict[str, Any]
    said: dict[str, Any]


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
    request = ["keys", config.model.family, config.model.huggingface]
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
    values = [asdict(shape) for shape in shapes]
    request = [config.model.family, values, config.model.huggingface, path, attention]
    faults, notes = ask_apart("ligo_dist.huggingface.check", request, "the models", with_torch=True)
    return [Fault(path, message) for path, message in faults], notes


def read_source_config(family: str, name: str) -> SourceConfig:
    """What the `config.json` of a model says. Imports transformers, so torch.

    Args:
        family: the model family that it has to belong to.
        name: a local directory, or a name on the hub.

    Raises:
        LigoError: no such directory, no `config.json`, or one of another family.
    """
    import transformers

    architecture = get_architecture(family)
    cls = getattr(transformers, architecture.config_class)
    _check_kind(resolve_directory(name, weights=False) / "config.json", cls, architecture)
    try:
        config = cls.from_pretrained(resolve_directory(name, weights=False), local_files_only=True)
    except Exception as error:  # whatever the class raises is its verdict on the file
        raise LigoError(
            f"{name!r}: {cls.__name__} refuses its config.json: {innermost_words(error)}"
        ) from error
    values = _plain({**config.to_dict(), "num_labels": config.num_labels})
    # What the class gives a model of this size is not inherited: it would be another for another size.
    sizes = {key: values[key] for key in architecture.config_keys}
    default = _plain(cls(**sizes).to_dict())
    left_out = set(owned_huggingface_keys(architecture))
    left_out |= set() if is_image_family(architecture) else set(LABELS)
    inherited = {
        key: values[key]
        for key in _field_names(cls)
        if key in values and key not in left_out and not key.endswith(_DROPOUT)
        # Of what a shape has beside its sizes, a switch that is off is what it has anyway.
        if values[key] != default.get(key) or (key in architecture.config_keys and values[key])
    }
    others = {key: value for key, value in inherited.items() if key != _PER_LAYER}
    if _PER_LAYER in inherited and cls(**{**sizes, **others}).to_dict()[_PER_LAYER] == values[_PER_LAYER]:
        inherited = (
            others  # what the class makes of the other keys, and would make otherwise for another size
        )
    if _PER_LAYER in inherited:
        raise LigoError(
            f"{name!r}: its layers are not all alike ({_PER_LAYER}), so none can be made of others"
        )
    said = {
        key: value
        for key, value in values.items()
        if value != default.get(key) and key not in _OF_ITS_FILE and not key.startswith("_")
    }
    return SourceConfig(values, inherited, said)


def read_source_config_apart(family: str, name: str) -> SourceConfig:
    """The same in a process apart.

    Raises:
        LigoError: as there, or if that process fails.
    """
    answer = ask_apart(__name__, ["source", family, name], f"the config.json of {name!r}")
    if isinstance(answer, str):
        raise LigoError(answer)
    return SourceConfig(**answer)


def _check_kind(file: Path, cls: Any, architecture: Architecture) -> None:
    """Whether a `config.json` belongs to the family; the library itself only warns where it does not.

    One that names no type is taken for the family's, as the user names it, where its sizes have the family's names.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LigoError(f"{str(file.parent)!r} holds no config.json") from None
    except (OSError, ValueError) as error:
        raise LigoError(f"{str(file)!r} cannot be read: {error}") from None
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind is None and isinstance(raw, dict):
        sizes = ("layers", "width", "heads")
        needed = [key for key, attribute in architecture.config_keys.items() if attribute in sizes]
        other_names = {name: key for key, name in cls.attribute_map.items()}
        missing = [key for key in needed if key not in raw and other_names.get(key) not in raw]
        if missing:
            wrong = f"{str(file.parent)!r}: its config.json has neither model_type nor {missing[0]}"
            raise LigoError(f"{wrong}, so it is no model of {architecture.name}")
    elif kind != cls.model_type:
        wrong = f"{str(file.parent)!r} is of the type {kind!r}, and {architecture.name} of the type {cls.model_type!r}"
        raise LigoError(wrong)


def _key_faults(architecture: Architecture, keys: dict[str, Any]) -> list[Fault]:
    import transformers

    cls = getattr(transformers, architecture.config_class)
    valid = {*_field_names(cls), *cls.attribute_map}
    if "rope_parameters" in valid:
        valid |= _rotary_keys(architecture, cls)
    owned = owned_huggingface_keys(architecture)
    faults = []
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
            cls(**{key: value})
        except Exception as error:  # whatever the class raises is its verdict on the value
            faults.append(Fault(path, f"{cls.__name__} refuses {value!r}: {innermost_words(error)}"))
    return faults


def _rotary_keys(architecture: Architecture, cls: Any) -> set[str]:
    """Keys from before `rope_parameters` that a class still moves there. It drops the others without a word."""
    named = ROTARY_KEYS if architecture.rotary_part == 1 else (*ROTARY_KEYS, *PARTIAL_ROTARY_KEYS)
    default = cls().rope_parameters
    return {"rope_scaling", *(key for key in named if cls(**{key: 0.125}).rope_parameters != default)}


def _field_names(cls: Any) -> list[str]:
    import dataclasses

    return [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: the same in this process and through another."""
    return json.loads(json.dumps(values, default=str))


def answer_apart(request: Any) -> Any:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`."""
    kind, family, of_what = request
    if kind == "keys":
        return [(fault.path, fault.message) for fault in _key_faults(get_architecture(family), of_what)]
    try:
        return asdict(read_source_config(family, of_what))
    except LigoError as error:
        return str(error)
