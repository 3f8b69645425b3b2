"""What can be said of this machine before a process starts: ranks, input files, directories."""

from __future__ import annotations

import os
from pathlib import Path

from ligo_dist.config import Config, check_world_size
from ligo_dist.config.huggingface import check_huggingface_keys_apart
from ligo_dist.corpus.text_files import find_files
from ligo_dist.corpus.tokenizer import Tokenizer
from ligo_dist.errors import ConfigError, DataError, Fault, LigoError
from ligo_dist.tracking import tracking_address


def check_before_start(config: Config, num_ranks: int, num_accelerators: int, source: str) -> None:
    """Hold a configuration against this machine. Makes no file and no directory.

    Raises:
        ConfigError: every fault, together.
    """
    faults = check_world_size(config, num_ranks)
    if num_accelerators and num_ranks > num_accelerators:
        wrong = f"{num_ranks} ranks want an accelerator each, and {num_accelerators} can be seen"
        right = "DS_ACCELERATOR=cpu in the environment lets them run on the processors"
        faults.append(Fault("--nproc", f"{wrong}; {right}"))
    faults += _input_faults(config)
    faults += _directory_faults("run_dir", config.run_dir)
    faults += _directory_faults("data.cache_dir", config.data.cache_dir)
    faults += _tracking_faults(config)
    faults += check_huggingface_keys_apart(config)
    if faults:
        raise ConfigError(faults, source)


def vocabulary_size(config: Config) -> int:
    """Pieces of the tokenizer, read from its file where one is given.

    Raises:
        DataError: the file cannot be read, is no sentencepiece model that the project can use, or has another
            number of pieces than the configuration asks for.
    """
    tokenizer = config.tokenizer
    if tokenizer.file is None:
        assert tokenizer.vocab_size is not None, "a checked configuration has one or the other"
        return tokenizer.vocab_size
    return Tokenizer.from_file(tokenizer.file, tokenizer.vocab_size).vocab_size


def _input_faults(config: Config) -> list[Fault]:
    faults = []
    for pattern in config.data.files:
        try:
            find_files([pattern], config.data.source)
        except DataError as error:
            faults.append(_as_fault(error))
    try:
        vocabulary_size(config)
    except DataError as error:
        faults.append(_as_fault(error))
    return faults


def _tracking_faults(config: Config) -> list[Fault]:
    if not config.tracking.mlflow:
        return []
    try:
        tracking_address(config.tracking.uri, Path(config.run_dir))
    except LigoError as error:
        return [_as_fault(error)]
    return []


def _as_fault(error: LigoError) -> Fault:
    """Errors of the data and of the tracking begin with the key at fault."""
    path, _, message = str(error).partition(": ")
    return Fault(path, message)


def _directory_faults(key: str, path: str) -> list[Fault]:
    """Whether a directory is there or could be made, and could be written to."""
    ancestor = Path(path).absolute()
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        return [Fault(key, f"{path!r} cannot be a directory: {str(ancestor)!r} is a file")]
    if not os.access(ancestor, os.W_OK | os.X_OK):
        return [Fault(key, f"{path!r} cannot be written: no permission to write in {str(ancestor)!r}")]
    return []
