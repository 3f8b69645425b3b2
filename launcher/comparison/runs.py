"""The runs of a comparison, derived from one configuration.

For each seed the stages before the last are one run, the source's; from its export each method begins the last stage,
with the same samples in the same order. Scratch is the last stage alone, with random values. A variant that needs
another source, or more of it than its weights, runs all stages itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ligo_dist.config import (
    SOURCE,
    Config,
    Contender,
    config_from,
    dump_yaml,
    is_image_family,
    learn_steps,
    read_contender,
    recorded_precision,
    set_value,
)
from ligo_dist.growth import METHODS, SCRATCH  # noqa: TID251 - names alone: no torch
from ligo_dist.runtime.errors import ConfigError, Fault
from ligo_dist.runtime.files import EXPORTS_DIRECTORY, SUMMARY_FILE
from ligo_dist.tracking import database_file, tracking_address

_LEARN_STEPS = METHODS["ligo"].learn_steps
"""Of a method that is to be learned, where neither it nor the configuration says for how long."""


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Attributes:
        method: a name of `compare.methods`, or `SOURCE`.
        seed: of the run.
        directory: its run directory.
        config: what it runs; the same as an ordinary run's, without `cluster`.
        needs: directory of the run whose export it begins from; None if it needs none.
    """

    method: str
    seed: int
    directory: Path
    config: Config
    needs: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.method} seed {self.seed}"

    @property
    def file(self) -> Path:
        """Its configuration, beside its directory."""
        return self.directory.with_name(f"{self.directory.name}.yaml")

    @property
    def text(self) -> str:
        """What is in that file."""
        return f"# {self.name}: derived by `ligo-dist compare`\n" + dump_yaml(self.config.values())

    @property
    def has_finished(self) -> bool:
        return (self.directory / SUMMARY_FILE).exists()


def comparison_root(config: Config) -> Path:
    """The directory of the comparison, as the launcher sees it: a shared one on a cluster."""
    return Path(config.cluster.directory or "", config.run_dir)


def as_begun(config: Config) -> Config:
    """The configuration with the precision that a run of the comparison began with, where it leaves that open: on
    another machine the others would be of another one."""
    if config.precision != "auto":
        return config
    recorded = recorded_precision(sorted(comparison_root(config).glob("seed-*/*")))
    return config.model_copy(update={"precision": recorded or "auto"})


def derive_runs(config: Config, origin: str) -> list[ComparedRun]:
    """All runs in their order: seed by seed, the source first.

    Args:
        config: a checked configuration, what `stages[0].from` says filled in.
        origin: how an error names it.

    Raises:
        ConfigError: nothing grows, or a method does not suit the models; every fault.
    """
    faults = _stage_faults(config)
    if faults:
        raise ConfigError(faults, origin)
    contenders = [read_contender(name, config.compare.variants) for name in config.compare.methods]
    runs: list[ComparedRun] = []
    for seed in config.compare.seeds:
        place = comparison_root(config) / f"seed-{seed}"
        common = place / SOURCE if _trains_source(config) else None
        of_seed = []
        for contender in contenders:
            try:
                of_seed.append(_contender_run(config, contender, seed, common))
            except ConfigError as error:
                faults += [
                    Fault(
                        "compare.methods", f"{contender.name!r} does not suit: {fault.path}: {fault.message}"
                    )
                    for fault in error.faults
                ]
        if faults:  # they would be those of each seed
            raise ConfigError(faults, origin)
        if any(run.needs == common for run in of_seed) and common is not None:
            runs.append(_derived(config, SOURCE, seed, config.values()["stages"][:-1]))
        runs += of_seed
    return runs


def _stage_faults(config: Config) -> list[Fault]:
    if len(config.stages) < 2:
        return [
            Fault("stages", "a comparison needs a stage that grows, and one before it that it grows from")
        ]
    train = config.stages[-1].train
    if train is None or not train.steps:
        wrong = "0: nothing is trained in the last stage, so there are no losses to compare"
        return [Fault(f"stages[{len(config.stages) - 1}].train.steps", wrong)]
    own = "each run of a comparison has steps of its own"
    faults = []
    if config.start_from is not None:
        faults.append(Fault("start_from", f"{config.start_from.run!r}: {own}; null would be right"))
    if config.checkpoints.keep_steps:
        wrong = f"{config.checkpoints.keep_steps}: {own}; [] would be right"
        faults.append(Fault("checkpoints.keep_steps", wrong))
    return faults


def _trains_source(config: Config) -> bool:
    """Whether there is something to run before the last stage; not where a model is taken as it is."""
    first = config.stages[0]
    is_taken = first.from_ is not None and (first.train is None or not first.train.steps)
    return len(config.stages) > 2 or not is_taken


def _contender_run(config: Config, contender: Contender, seed: int, common: Path | None) -> ComparedRun:
    """The run of a contender; `common` is the directory of the source's run, None where a model is taken as it is."""
    changed = _changed(config, contender)
    *before, last = changed.values()["stages"]
    # A stage asks for nodes where a run comes to it from the one before; here it may be the whole run.
    last["nodes"] = None
    own = changed.stages[-1].grow
    assert own is not None, "every stage but the first grows"
    if (contender.method or own.method) == SCRATCH:
        last["train"] |= {"freeze": 0, "new_rate": 1.0}  # all of it is new
        return _derived(changed, contender.name, seed, [{**last, "grow": None}])
    last["grow"] = _grow(changed, contender)
    if common is not None and (changed.stages[:-1] != config.stages[:-1] or _grows_moments(last)):
        return _derived(changed, contender.name, seed, [*before, last])
    source = before[-1]
    given = source["from"] if common is None else str(common / EXPORTS_DIRECTORY / source["name"])
    source |= {"from": given, "grow": None, "train": None, "nodes": None}
    try:
        return _derived(changed, contender.name, seed, [source, last], common)
    except ConfigError as error:  # in terms of the configuration whose last stage is this one's second
        here = f"stages[{len(before)}]"
        # What it grows from is exported by the source's run, which comes first.
        own_faults = [f for f in error.faults if common is None or f.path != "stages[0].from"]
        raise ConfigError([replace(f, path=f.path.replace("stages[1]", here)) for f in own_faults]) from None


def _changed(config: Config, contender: Contender) -> Config:
    """The configuration with what a variant writes over it."""
    if not contender.changes:
        return config
    raw = config.values()
    faults = [set_value(raw, key, value) for key, value in contender.changes.items()]
    changed = config_from(raw, contender.name, [fault for fault in faults if fault is not None])
    return changed.model_copy(update={"cluster": config.cluster, "compare": config.compare})


def _grows_moments(stage: dict[str, Any]) -> bool:
    return bool(stage["grow"]["optimizer_state"] != "fresh")


def _grow(config: Config, contender: Contender) -> dict[str, Any]:
    """The section `grow` of a contender. That of another method than the configuration's own has of it only how an
    operator is learned."""
    own = config.stages[-1].grow
    assert own is not None, "every stage but the first grows"
    raw: dict[str, Any] = own.model_dump(mode="json")
    method, steps = contender.method or own.method, learn_steps(own)
    if method != own.method:
        raw = {"method": method, "learn": raw["learn"], "optimizer_state": "fresh"}
        steps = METHODS[method].learn_steps and (steps or _LEARN_STEPS)
    if contender.learned is not None:
        steps = (learn_steps(own) or _LEARN_STEPS) if contender.learned else 0
    raw["learn"]["steps"] = steps
    return raw


def _derived(
    config: Config, method: str, seed: int, stages: list[dict[str, Any]], needs: Path | None = None
) -> ComparedRun:
    directory = comparison_root(config) / f"seed-{seed}" / method
    raw = config.values()
    raw |= {"run_dir": str(directory), "seed": seed, "stages": stages}
    raw["tracking"] |= {"run_name": f"{method} seed {seed}", "uri": _tracking_uri(config)}
    if needs is not None and len(config.stages) > 2:  # the export says it, as growing may have changed it
        raw["model"]["huggingface"].pop(config.architecture.norm_epsilon, None)
    if _tokenizer_is_of_source(config):
        raw["tokenizer"]["huggingface"] = config.stages[0].from_
    elif config.tokenizer.vocab_size is not None and not _names_tokenizer(config):
        raw["tokenizer"]["replace_source"] = True  # by the same: all train it on the same text
    return ComparedRun(method, seed, directory, config_from(raw, method), needs)


def _tokenizer_is_of_source(config: Config) -> bool:
    """Whether the runs have the tokenizer of the model that the first stage begins from, which scratch does not."""
    is_trained = config.tokenizer.vocab_size is not None
    return not (is_trained or _names_tokenizer(config) or is_image_family(config.architecture))


def _names_tokenizer(config: Config) -> bool:
    return config.tokenizer.file is not None or config.tokenizer.huggingface is not None


def _tracking_uri(config: Config) -> str | None:
    """One store for all runs: without an address each would have a file beside its own directory. Another address than
    a file's stays as it was given: that of the environment may hold a password."""
    tracking = config.tracking
    if not tracking.mlflow:
        return tracking.uri
    address = tracking_address(tracking.uri, comparison_root(config))
    return tracking.uri if database_file(address) is None else address
