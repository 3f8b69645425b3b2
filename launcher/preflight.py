"""What can be said of this machine before a process starts: ranks, input files, directories."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ligo_dist.config import (
    Config,
    check_deepspeed_keys_apart,
    check_huggingface_keys_apart,
    check_models_apart,
    check_world_size,
    is_image_family,
    source_configs,
    told_of_source,
)
from ligo_dist.corpus import count_pieces_apart, find_files, find_prepared, prepared_attended, vocabulary_size
from ligo_dist.huggingface import find_weight_files, locate_source, resolve_directory
from ligo_dist.runtime.errors import CheckpointError, ConfigError, DataError, Fault, LigoError
from ligo_dist.schedule import Plan, check_start, has_begun, read_start, start_checkpoint
from ligo_dist.tracking import database_file, harness_faults, tracking_address


def check_before_start(
    config: Config,
    num_ranks: int,
    num_accelerators: int | None,
    source: str,
    *,
    asks_for_models: bool = True,
) -> Plan:
    """The plan of a configuration that is held against this machine. Makes no file and no directory.

    Args:
        config: the configuration.
        num_ranks: of the whole run.
        num_accelerators: of this machine; None: the ranks run on others.
        source: where the configuration is from.
        asks_for_models: whether transformers is to build the models, and DeepSpeed to check its keys, which takes
            seconds. Ranks that start now do that first of all, and say the same.

    Raises:
        ConfigError: every fault, together.
    """
    faults = check_world_size(config, num_ranks)
    if num_accelerators and num_ranks > num_accelerators:
        wrong = f"{num_ranks} ranks want an accelerator each, and {num_accelerators} can be seen"
        right = "DS_ACCELERATOR=cpu in the environment lets them run on the processors"
        faults.append(Fault("--nproc", f"{wrong}; {right}"))
    plan, input_faults = _plan_or_faults(config, num_ranks)
    faults += input_faults
    faults += _directory_faults("run_dir", config.run_dir)
    faults += _directory_faults("data.cache_dir", config.data.cache_dir)
    faults += _tracking_faults(config)
    faults += _start_faults(config)
    faults += check_huggingface_keys_apart(config)
    if num_accelerators is not None:  # else other machines evaluate
        faults += harness_faults(config, asks_for_tasks=asks_for_models and not faults)
    if faults or plan is None:
        raise ConfigError(faults, source)
    if not asks_for_models:
        return plan
    # Other machines may have what this one lacks for an attention that is asked for.
    attention = "auto" if num_accelerators is None else config.model.attention
    shapes = [stage.shape for stage in plan.stages]
    faults, notes = check_models_apart(config, shapes, _weights_here(config), attention)
    faults += check_deepspeed_keys_apart(config.deepspeed)
    if faults:
        raise ConfigError(faults, source)
    return replace(plan, source_notes=tuple(notes))


def plan_of(config: Config, num_ranks: int) -> Plan:
    """The plan of a checked configuration, completed from its source.

    Raises:
        LigoError: as `vocabulary_size`, and where the tokenizer has more pieces than the embedding is to have rows.
    """
    pieces = vocabulary_size(config, _source_here(config), count_pieces_apart)
    return Plan.of(config, pieces, num_ranks, prepared_attended(config))


def _source_here(config: Config) -> Path | None:
    """The directory of the first stage's model, its weights aside.

    Raises:
        CheckpointError: it cannot be had.
    """
    name = config.stages[0].from_
    if name is None or is_image_family(config.architecture):
        return None
    return resolve_directory(locate_source(Path(config.run_dir), name), weights=False)


def _plan_or_faults(config: Config, num_ranks: int) -> tuple[Plan | None, list[Fault]]:
    """The plan, unless what the run reads does not allow one."""
    faults, plan = [], None
    for name, alone in source_configs(config).items():
        for pattern in alone.data.files if find_prepared(alone) is None else ():
            assert alone.data.source is not None, "a checked configuration says it"
            try:
                find_files([pattern], alone.data.source)
            except DataError as error:
                faults.append(_as_fault(DataError(told_of_source(str(error), name))))
    try:
        plan = plan_of(config, num_ranks)
    except ConfigError as error:
        faults += error.faults
    except LigoError as error:
        faults.append(_as_fault(error))
    given = config.stages[0].from_
    if given is not None and Path(given).is_dir():
        try:
            find_weight_files(Path(given))
        except CheckpointError as error:
            faults.append(Fault("stages[0].from", str(error)))
    return plan, faults


def _weights_here(config: Config) -> Path | None:
    """The directory of the first stage's weights; None: there are none, or they are downloaded when the run starts."""
    name = config.stages[0].from_
    try:
        directory = None if name is None else resolve_directory(name, weights=False)
        return directory if directory is not None and find_weight_files(directory) else None
    except CheckpointError:
        return None


def _start_faults(config: Config) -> list[Fault]:
    """Whether the run can begin from the checkpoint that it is to begin from; one that has begun needs none."""
    directory = Path(config.cluster.directory or "")
    if config.start_from is None or has_begun(directory / config.run_dir):
        return []
    try:
        path = start_checkpoint(config.start_from, directory)
        recorded, state = read_start(path)
        check_start(path, recorded, config.resolved(), state)
    except CheckpointError as error:
        return [_as_fault(error)]
    return []


def _tracking_faults(config: Config) -> list[Fault]:
    if not config.tracking.mlflow:
        return []
    try:
        file = database_file(tracking_address(config.tracking.uri, Path(config.run_dir)))
    except LigoError as error:
        return [_as_fault(error)]
    if file is None:
        return []
    if file.is_dir() or (file.exists() and not os.access(file, os.W_OK)):
        return [Fault("tracking.uri", f"the database {str(file)!r} cannot be written")]
    if file.exists() or _directory_faults("run_dir", config.run_dir):  # which it lies beside by default
        return []
    return _directory_faults("tracking.uri", str(file.parent))


def _as_fault(error: LigoError) -> Fault:
    """Errors of the data and of the tracking begin with the key at fault."""
    path, _, message = str(error).partition(": ")
    return Fault(path, message)


def _directory_faults(key: str, path: str) -> list[Fault]:
    """Whether a directory is there or could be made, and could be written to and told of in one line."""
    if not path.isprintable():
        return [Fault(key, f"{path!r} has a sign in it that cannot be shown; choose a name without")]
    ancestor = Path(path).absolute()
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        return [Fault(key, f"{path!r} cannot be a directory: {str(ancestor)!r} is a file")]
    if not os.access(ancestor, os.W_OK | os.X_OK):
        return [Fault(key, f"{path!r} cannot be written: no permission to write in {str(ancestor)!r}")]
    return []
