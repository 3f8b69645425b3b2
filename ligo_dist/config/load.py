"""From a YAML file and overrides to a checked `Config`, or to one error that names every fault."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ligo_dist.config.faults import validation_faults
from ligo_dist.config.overrides import apply_overrides
from ligo_dist.config.rules import faults_between
from ligo_dist.config.schema import Config, Grow, Train
from ligo_dist.config.section import Section
from ligo_dist.config.yaml_text import parse_yaml
from ligo_dist.runtime.errors import ConfigError, Fault

_INHERITED: dict[str, type[Section]] = {"train": Train, "grow": Grow}


def load_config(path: str | Path, overrides: Sequence[str] = (), cluster: str | None = None) -> Config:
    """The configuration in a YAML file, with `key.path=value` overrides written over it.

    Args:
        path: the file.
        overrides: in the order in which they are written.
        cluster: path of a file that takes the place of the section `cluster`; None: it stays.

    Raises:
        ConfigError: every fault of the file and of the overrides, together.
    """
    raw = _read_mapping(Path(path))
    if cluster is not None:
        raw["cluster"] = cluster
    faults = _inline_files(raw)
    faults += apply_overrides(raw, overrides)
    faults += _inline_files(raw) if not faults else []
    return config_from(raw, source=str(path), faults=faults)


def config_from(raw: dict[str, Any], source: str = "configuration", faults: Sequence[Fault] = ()) -> Config:
    """The configuration that plain values stand for; `faults` are those already known.

    Raises:
        ConfigError: the known faults and every further one inside the sections; if there is none, every one between
            them.
    """
    in_defaults = _default_faults(raw)
    found = list(faults)
    try:
        config = Config.model_validate(_inherit(raw))
    except ValidationError as error:
        found += _without_repeats(validation_faults(error, Config), raw, in_defaults)
        raise ConfigError(found + in_defaults, source) from None
    found += in_defaults or faults_between(config)
    if found:
        raise ConfigError(found, source)
    return config


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Fault(str(path), f"no such file{_nearest_file(path)}")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error}")]) from None
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise ConfigError([Fault(str(path), f"is not YAML: {error}")]) from None
    if raw is None:
        raise ConfigError([Fault(str(path), "is empty; configs/quickstart.yaml is one to start from")])
    if not isinstance(raw, dict):
        wrong = f"holds a {type(raw).__name__}, not a mapping of keys to values"
        raise ConfigError([Fault(str(path), wrong)])
    return raw


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f", and no such directory: {path.parent}"
    names = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""


def _inline_files(raw: dict[str, Any]) -> list[Fault]:
    """Put the contents of files in the places where their paths stand."""
    return _inline_deepspeed(raw) + _inline_cluster(raw)


def _inline_cluster(raw: dict[str, Any]) -> list[Fault]:
    path = raw.get("cluster")
    if not isinstance(path, str):
        return []
    raw["cluster"] = {}
    try:
        content = parse_yaml(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        return [Fault("cluster", f"{path!r} cannot be read: {error.strerror}")]
    except ValueError as error:
        return [Fault("cluster", f"{path!r} is not YAML: {error}")]
    if not isinstance(content, dict):
        return [
            Fault("cluster", f"{path!r} holds a {type(content).__name__}, not a mapping of keys to values")
        ]
    raw["cluster"] = content
    return []


def _inline_deepspeed(raw: dict[str, Any]) -> list[Fault]:
    """Put the content of a DeepSpeed JSON file in the place of its path."""
    path = raw.get("deepspeed")
    if not isinstance(path, str):
        return []
    raw["deepspeed"] = {}
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        return [Fault("deepspeed", f"{path!r} cannot be read: {error.strerror}")]
    except ValueError as error:
        return [Fault("deepspeed", f"{path!r} is not JSON: {error}")]
    if not isinstance(content, dict):
        return [Fault("deepspeed", f"{path!r} holds a {type(content).__name__}, not an object of keys")]
    raw["deepspeed"] = content
    return []


def _inherit(raw: dict[str, Any]) -> dict[str, Any]:
    """The stages with what they inherit from `defaults`; what is malformed stays, for the validation to
    tell."""
    merged = copy.deepcopy(raw)
    defaults, stages = merged.get("defaults"), merged.get("stages")
    if not isinstance(defaults, dict) or not isinstance(stages, list):
        return merged
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict):
            continue
        for key in _INHERITED if index else ("train",):
            # A model that is taken from somewhere is not trained unless the stage says so.
            absent: dict[str, Any] | None = None if stage.get("from") is not None else {}
            inherited, own = defaults.get(key), stage.get(key, absent)
            if isinstance(inherited, dict) and isinstance(own, dict) and (inherited or own):
                stage[key] = _merge(inherited, own)
    return merged


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _default_faults(raw: dict[str, Any]) -> list[Fault]:
    """What is wrong inside `defaults`, told once and where it stands; keys may be absent there."""
    defaults = raw.get("defaults")
    faults: list[Fault] = []
    for key, model in _INHERITED.items():
        section = defaults.get(key) if isinstance(defaults, dict) else None
        if isinstance(section, dict):
            try:
                model.model_validate(section)
            except ValidationError as error:
                told = zip(error.errors(), validation_faults(error, model, ("defaults", key)), strict=True)
                faults += [fault for details, fault in told if details["type"] != "missing"]
    return faults


def _without_repeats(faults: list[Fault], raw: dict[str, Any], in_defaults: list[Fault]) -> list[Fault]:
    """Leave out what a stage has only inherited, as it is told where it stands."""
    inherited = {fault.path.removeprefix("defaults."): fault.message for fault in in_defaults}
    kept = []
    for fault in faults:
        stage, _, inner = fault.path.partition("].")
        own = _holds(raw, stage, inner)
        if own or not stage.startswith("stages[") or inherited.get(inner) != fault.message:
            kept.append(fault)
    return kept


def _holds(raw: dict[str, Any], stage: str, inner: str) -> bool:
    """Whether the stage at `stages[<index>` itself says something at the dotted path."""
    index = stage.removeprefix("stages[")
    node: Any = raw["stages"][int(index)] if index.isdecimal() else None
    for key in inner.split("."):
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True
