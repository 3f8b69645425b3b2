"""From a YAML file and overrides to a checked `Config`, or to one error that names every fault.

An override is `key.path=value`, written over the file: `stages[1].train.steps=5` or `stages.1.train.steps=5`. Its value
is text as it was typed, unless the key's type says otherwise.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from ligo_dist.config.faults import is_unknown_key, validation_faults
from ligo_dist.config.rules import faults_between
from ligo_dist.config.schema import Config, Grow, Train
from ligo_dist.config.section import Section, types_at
from ligo_dist.config.yaml_text import PATH, holds_comment, parse_yaml, set_value, words_of
from ligo_dist.runtime.errors import ConfigError, Fault

_INHERITED: dict[str, type[Section]] = {"train": Train, "grow": Grow}
_QUOTED = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*""", re.DOTALL)
_NULL = ("", "~", "null", "Null", "NULL")
_PATHS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "deepspeed": ("JSON", json.loads),
    "cluster": ("YAML", parse_yaml),
}
"""Sections that may be the path of a file, and how that is read."""


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
        found += in_defaults
        # What is missing may be what an unknown key was to say.
        raise ConfigError(sorted(found, key=lambda fault: not is_unknown_key(fault)), source) from None
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
    here = f" (from {Path.cwd()}); `ligo-dist init` writes one"
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else here


def _inline_files(raw: dict[str, Any]) -> list[Fault]:
    """Put the contents of files in the places where their paths stand."""
    faults = []
    for key, (kind, read) in _PATHS.items():
        path = raw.get(key)
        if not isinstance(path, str):
            continue
        raw[key] = {}
        try:
            content = read(Path(path).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            faults.append(Fault(key, f"{path!r} cannot be read: {error.strerror}"))
        except ValueError as error:
            faults.append(Fault(key, f"{path!r} is not {kind}: {error}"))
        else:
            if isinstance(content, dict):
                raw[key] = content
            else:
                wrong = f"{path!r} holds a {type(content).__name__}, not a mapping of keys to values"
                faults.append(Fault(key, wrong))
    return faults


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[Fault]:
    """Write each override into the plain values of a configuration, in order; sections that are absent come to be.
    Gives what could not be applied."""
    faults = (_apply(raw, override) for override in overrides)
    return [fault for fault in faults if fault is not None]


def _apply(raw: dict[str, Any], override: str) -> Fault | None:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not PATH.fullmatch(path):
        return Fault(override, "is no override; write key.path=value, such as stages[1].train.steps=5")
    try:
        if _is_typed_text(text, words_of(path)):
            return set_value(raw, path, text)
        if holds_comment(text):
            return Fault(path, f"{text!r} has a comment: what follows # would be left out; quote or drop it")
        return set_value(raw, path, parse_yaml(text))
    except ValueError as error:
        return Fault(path, f"the value {text!r} is not YAML: {error}")


def _is_typed_text(text: str, words: Sequence[str]) -> bool:
    """Whether the value of a key is the very text, rather than the YAML in it."""
    if text.strip() in _NULL or _QUOTED.fullmatch(text):
        return False
    if words[0] in _PATHS and len(words) == 1:
        return not text.lstrip().startswith("{")
    return any(map(_is_text, types_at(Config, words)))


def _is_text(type_: Any) -> bool:
    choices = get_args(type_) if get_origin(type_) is Literal else ()
    return type_ is str or any(isinstance(choice, str) for choice in choices)


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
