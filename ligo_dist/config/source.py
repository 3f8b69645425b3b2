"""What the model of `stages[0].from` says, filled into the configuration.

The result is an ordinary configuration: nothing behind it asks again where a size, the vocabulary or a key of the
library came from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ligo_dist.architectures import Architecture
from ligo_dist.config.huggingface import (
    LABELS,
    ROTARY_KEYS,
    SourceConfig,
    read_source_config,
    read_source_config_apart,
)
from ligo_dist.config.load import config_from
from ligo_dist.config.resolve import PARTIAL_ROTARY_KEYS
from ligo_dist.config.schema import Config, Size
from ligo_dist.huggingface.kept import locate_source
from ligo_dist.runtime.errors import ArchitectureError, ConfigError, Fault, LigoError

_MODEL_KEYS = {
    "max_positions": "positions",
    "vocab_size": "vocab",
    "patch_size": "patch_size",
    "tie_embeddings": "tied",
}
_DATA_KEYS = {"image_size": "image_size", "channels": "channels", "labels": "labels"}

_MAY_DIFFER = ("max_positions", "vocab_size", "labels")
"""What of the weights is for less begins anew beyond that, or as a whole (classes); what is for more is left out."""


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
        inherited = {key: value for key, value in inherited.items() if key not in LABELS}
    raw["model"]["huggingface"] = {**inherited, **config.model.huggingface}
    if faults:
        raise ConfigError(faults, origin)
    # What is not recorded with a run is not in `raw` either.
    unrecorded = {"cluster": config.cluster, "compare": config.compare}
    return config_from(raw, origin).model_copy(update=unrecorded)


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
