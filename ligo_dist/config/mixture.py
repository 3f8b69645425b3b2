"""What `data.mixture` comes to: each source by itself, and the weights of each stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ligo_dist.config.data import Data, Source
from ligo_dist.config.faults import suggestion
from ligo_dist.config.schema import Config, Stage
from ligo_dist.config.section import Section
from ligo_dist.runtime.errors import Fault

SMALLEST_SHARE = 1 << 16
"""A source that is drawn from at all gives at least one of so many samples."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OF_A_SOURCE = re.compile(rf"\bdata\.({'|'.join(Source.model_fields)})\b")


def source_configs(config: Config) -> dict[str, Config]:
    """What a configuration would be with one source of its mixture alone, by the sources' names; itself, under the name
    "", where it has no mixture.

    Where a tokenizer is to be trained on all of them, `data.mixture` stays: what is prepared of a source then depends
    on the others too, though not on their weights.
    """
    data = config.data
    if not data.mixture:
        return {"": config}
    beside = {name: source.model_copy(update={"weight": 1.0}) for name, source in data.mixture.items()}
    alone = {}
    for name, source in data.mixture.items():
        said = {key: getattr(source, key) for key in Source.model_fields}
        said["mixture"] = beside if trains_tokenizer(config) else {}
        alone[name] = config.model_copy(update={"data": data.model_copy(update=said)})
    return alone


def trains_tokenizer(config: Config) -> bool:
    """Whether the tokenizer is to be trained on the corpus."""
    tokenizer = config.tokenizer
    return tokenizer.file is None and tokenizer.huggingface is None and tokenizer.vocab_size is not None


def stage_weights(data: Data, stage: Stage) -> dict[str, float]:
    """The weights of the sources of a mixture in a stage, by name."""
    return {name: stage.data.weights.get(name, source.weight) for name, source in data.mixture.items()}


def told_of_source(text: str, name: str) -> str:
    """A text in which keys such as `data.files` are those of a source: `data.mixture.NAME.files`."""
    return _OF_A_SOURCE.sub(lambda key: f"data.mixture.{name}.{key[1]}", text) if name else text


def mixture_faults(config: Config) -> list[Fault]:
    """Faults in the names and weights of a mixture, and in what stands beside it; the sources' own are told by the
    rules of `data`."""
    data = config.data
    if not data.mixture:
        return [
            Fault(f"stages[{index}].data.weights", "has no meaning without data.mixture; remove it")
            for index, stage in enumerate(config.stages)
            if stage.data.weights
        ]
    faults = [
        Fault(
            f"data.{key}",
            f"{getattr(data, key)!r} has no meaning beside data.mixture; each source says its own",
        )
        for key in given_keys(data, Source.model_fields)
    ]
    faults += [
        Fault(
            f"data.mixture.{name}",
            f"{name!r} should be up to 64 letters, digits, '_' or '-': it names metrics",
        )
        for name in data.mixture
        if not _SAFE_NAME.fullmatch(name)
    ]
    of_all = {name: source.weight for name, source in data.mixture.items()}
    faults += _weight_faults({name: f"data.mixture.{name}.weight" for name in of_all}, of_all, "data.mixture")
    for index, stage in enumerate(config.stages):
        path = f"stages[{index}].data.weights"
        faults += [
            Fault(f"{path}.{name}", f"is no source of data.mixture{suggestion(name, of_all)}")
            for name in stage.data.weights
            if name not in of_all
        ]
        if stage.data.weights:
            own = {name: f"{path}.{name}" for name in of_all if name in stage.data.weights}
            faults += _weight_faults(own, stage_weights(data, stage), path)
    return faults


def given_keys(section: Section, keys: Iterable[str]) -> list[str]:
    """Those of the keys that say something else than their default."""
    fields = type(section).model_fields
    return [
        key for key in keys if getattr(section, key) != fields[key].get_default(call_default_factory=True)
    ]


def _weight_faults(paths: Mapping[str, str], weights: Mapping[str, float], whole: str) -> list[Fault]:
    """Weights of which none counts, or that are too small to; `paths`: of the weights that are said here."""
    total = sum(weights.values())
    if total == 0:
        return [
            Fault(
                whole, "all weights are 0: there is nothing to train on; at least one above 0 would be right"
            )
        ]
    right = f"0, or at least {total / SMALLEST_SHARE:.3g}, would be right"
    return [
        Fault(path, f"{weights[name]:g} of {total:g} is less than one sample in {SMALLEST_SHARE:,}; {right}")
        for name, path in paths.items()
        if 0 < weights[name] * SMALLEST_SHARE < total
    ]
