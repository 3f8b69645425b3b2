"""What the `config.json` of `stages[0].from` says, filled into the configuration.

The result is an ordinary configuration: nothing behind it asks again where a size, the vocabulary or a key of the
library came from.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ligo_dist.architectures import Architecture, get_architecture, is_dropout
from ligo_dist.config.huggingface import ROTARY_KEYS, field_names
from ligo_dist.config.load import config_from
from ligo_dist.config.resolve import PARTIAL_ROTARY_KEYS, is_image_family
from ligo_dist.config.rules import owned_huggingface_keys
from ligo_dist.config.schema import Config, Size
from ligo_dist.huggingface import locate_source, resolve_directory
from ligo_dist.runtime.apart import ask_apart
from ligo_dist.runtime.errors import ArchitectureError, ConfigError, Fault, LigoError, innermost_words

_MODEL_KEYS = {
    "max_positions": "positions",
    "vocab_size": "vocab",
    "patch_size": "patch_size",
    "tie_embeddings": "tied",
}
_DATA_KEYS = {"image_size": "image_size", "channels": "channels", "labels": "labels"}

_MAY_DIFFER = ("max_positions", "vocab_size", "labels")
"""What of the weights is for less begins anew beyond that, or as a whole (classes); what is for more is left out."""

_PER_LAYER = "layer_types"
_LABELS = ("id2label", "label2id")
_OF_ITS_FILE = (
    "architectures", "auto_map", "model_type", "num_labels", "problem_type", "transformers_version",
)  # fmt: skip
"""What a `config.json` says of itself and of the files beside it, twice (the number of classes), or of another loss."""


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


def with_source(config: Config, origin: str) -> Config:
    """The configuration completed; unchanged where no stage has `from`. Imports transformers, so torch.

    Args:
        config: a checked configuration.
        origin: how an error names it.

    Raises:
        ConfigError: the model cannot be used, or says something else than the configuration.
    """
    return _with_source(config, origin, read_source_config)


def with_source_apart(config: Config, origin: str) -> Config:
    """The same for the launcher: the model's configuration is read in a process apart."""
    return _with_source(config, origin, read_source_config_apart)


def _with_source(config: Config, origin: str, read: Callable[[str, str], SourceConfig]) -> Config:
    name = config.stages[0].from_
    if name is None:
        return config
    try:
        source = read(config.model.family, locate_source(Path(config.run_dir), name))
    except LigoError as error:
        raise ConfigError([Fault("stages[0].from", str(error))], origin) from None
    return complete(config, source, origin)


def complete(config: Config, source: SourceConfig, origin: str = "configuration") -> Config:
    """Fill in what a source's configuration says.

    Raises:
        ConfigError: every key that says something else, and every fault that shows only now.
    """
    architecture, raw = config.architecture, config.values()
    first = raw["stages"][0]
    try:
        says = _attributes(architecture, source.values)
    except ArchitectureError as error:
        raise ConfigError([Fault("stages[0].from", str(error))], origin) from None
    first["size"] = first["size"] or dict.fromkeys(Size.model_fields)
    sizes = {name: name for name in Size.model_fields}
    faults = _fill("stages[0].size", first["size"], sizes, says, first["from"])
    faults += _fill("model", raw["model"], _MODEL_KEYS, says, first["from"])
    faults += _fill("data", raw["data"], _DATA_KEYS, says, first["from"])
    faults += _rotary_faults(source.inherited, config.model.huggingface, first["from"])
    faults += _length_faults(config, source.inherited, says)
    inherited = dict(source.inherited)
    if raw["data"]["labels"] != says.get("labels"):
        inherited = {key: value for key, value in inherited.items() if key not in _LABELS}
    raw["model"]["huggingface"] = {**inherited, **config.model.huggingface}
    if faults:
        raise ConfigError(faults, origin)
    # What is not recorded with a run is not in `raw` either.
    unrecorded = {"cluster": config.cluster, "compare": config.compare}
    return config_from(raw, origin).model_copy(update=unrecorded)


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
    return source_config_of(architecture, config, repr(name))


def source_config_of(architecture: Architecture, config: Any, name: str) -> SourceConfig:
    """What a configuration of the library says. Imports transformers, so torch.

    Args:
        architecture: the model family.
        config: an instance of its configuration class.
        name: how an error names the model.

    Raises:
        LigoError: its layers are not all alike.
    """
    cls = type(config)
    values = _plain({**config.to_dict(), "num_labels": config.num_labels})
    # What the class gives a model of this size is not inherited: it would be another for another size.
    sizes = {key: values[key] for key in architecture.config_keys}
    default = _plain(cls(**sizes).to_dict())
    left_out = set(owned_huggingface_keys(architecture))
    left_out |= set() if is_image_family(architecture) else set(_LABELS)
    inherited = {
        key: values[key]
        for key in field_names(cls)
        if key in values and key not in left_out and not is_dropout(key)
        # Of what a shape has beside its sizes, a switch that is off is what it has anyway.
        if values[key] != default.get(key) or (key in architecture.config_keys and values[key])
    }
    if _PER_LAYER in inherited:
        # What the class makes of the other keys it would make otherwise for another size.
        others = {key: value for key, value in inherited.items() if key != _PER_LAYER}
        made = cls(**copy.deepcopy({**sizes, **others})).to_dict()
        inherited = others if made[_PER_LAYER] == values[_PER_LAYER] else inherited
    if _PER_LAYER in inherited:
        raise LigoError(f"{name}: its layers are not all alike ({_PER_LAYER}), so none can be made of others")
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
    answer = ask_apart(__name__, [family, name], f"the config.json of {name!r}")
    if isinstance(answer, str):
        raise LigoError(answer)
    return SourceConfig(**answer)


def _rotary_faults(inherited: dict[str, Any], given: dict[str, Any], name: str) -> list[Fault]:
    """Keys that would be of no effect, as the library reads them only where there are no `rope_parameters`, and keys
    that would drop some of these without a word."""
    said = inherited.get("rope_parameters")
    if not isinstance(said, dict):
        return []
    own = given.get("rope_parameters")
    if isinstance(own, dict):
        everywhere = {"rope_theta": ROTARY_KEYS, "partial_rotary_factor": PARTIAL_ROTARY_KEYS}
        return [
            Fault(
                "model.huggingface.rope_parameters",
                f"{own}: {key} is missing, which is {said[key]} for the model in {name!r}; give it too",
            )
            for key, names in everywhere.items()
            if key in said and not any(key in own or other in given for other in names)
        ]
    return [
        Fault(
            f"model.huggingface.{key}",
            f"{given[key]}: the model in {name!r} says it in rope_parameters, {said}; give those if they are to change",
        )
        for key in ("rope_scaling", *ROTARY_KEYS, *PARTIAL_ROTARY_KEYS)
        if key in given
    ]


def _length_faults(config: Config, inherited: dict[str, Any], says: dict[str, Any]) -> list[Fault]:
    """Another number of positions than the source's, where its rotary frequencies follow from that number."""
    rope, given = inherited.get("rope_parameters", {}), config.model.max_positions
    kind = rope.get("rope_type")
    follows = kind == "dynamic" or (kind in ("yarn", "longrope") and rope.get("factor") is None)
    if not follows or given in (None, says["positions"]) or "rope_parameters" in config.model.huggingface:
        return []
    wrong = f"{given}: the model in {config.stages[0].from_!r} has {says['positions']}, and how its positions rotate"
    right = f"follows from that (rope_type {kind!r}); null or {says['positions']} would be right"
    return [Fault("model.max_positions", f"{wrong} {right}")]


def _attributes(architecture: Architecture, values: dict[str, Any]) -> dict[str, Any]:
    """Attributes of `ModelShape` as the source has them: those that the family leaves to the configuration."""
    shape = architecture.shape_from(values)
    says = {attribute: getattr(shape, attribute) for attribute in architecture.config_keys.values()}
    if architecture.ties_embeddings is None:
        says.pop("tied", None)
    return says


def _fill(
    path: str, section: dict[str, Any], keys: dict[str, str], says: dict[str, Any], name: str
) -> list[Fault]:
    """Write what the source says where nothing is said; faults where something else is and may not be."""
    faults = []
    for key, attribute in keys.items():
        if attribute not in says:
            continue
        value, given = says[attribute], section[key]
        if given is not None and key in _MAY_DIFFER:
            continue
        if given is not None and given != value:
            wrong = f"{given}: the model in {name!r} has {value}"
            faults.append(Fault(f"{path}.{key}", f"{wrong}; null or {value} would be right"))
        section[key] = value
    return faults


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


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: the same in this process and through another."""
    return json.loads(json.dumps(values, default=str))


def answer_apart(request: Any) -> Any:
    """The answer to a question that was asked through `ligo_dist.runtime.apart`."""
    family, name = request
    try:
        return asdict(read_source_config(family, name))
    except LigoError as error:
        return str(error)
