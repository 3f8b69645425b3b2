"""The worker: `python -m ligo_dist CONFIG [key.path=value ...]`, started once per rank by `deepspeed` or by hand."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from ligo_dist.config import (
    Cluster,
    Config,
    asks_the_library,
    check_huggingface_keys,
    check_world_size,
    load_config,
    stage_shapes,
    with_source,
)
from ligo_dist.runtime import heartbeat, watchdog
from ligo_dist.runtime.apart import close_apart
from ligo_dist.runtime.console import tell_error, tell_failure
from ligo_dist.runtime.environment import export_rank_environment, rank_environment
from ligo_dist.runtime.errors import FAILED, FINISHED, ConfigError, LigoError, RunError
from ligo_dist.runtime.heartbeat import enter
from ligo_dist.runtime.launch import LaunchDirectory
from ligo_dist.runtime.process import become_rank
from ligo_dist.runtime.signals import HEEDED, StopSignals
from ligo_dist.runtime.watch import Watch

if TYPE_CHECKING:
    from ligo_dist.corpus import Corpus, OpenedOnce
    from ligo_dist.engine import World

_Prepared: TypeAlias = "tuple[Config, Corpus, Path | None]"

_FAILED_SECONDS = 60.0
"""How long a rank that could not prepare waits for the others, before it says so on its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Take a run to its end; the exit code is one of `exit_codes`."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist", description=__doc__)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", metavar="key.path=value", nargs="*")
    parser.add_argument("--local_rank", type=int, help="given by some launchers; the environment counts")
    arguments, rest = parser.parse_known_args(argv)
    if any(word.startswith("-") for word in rest):
        parser.error(f"unknown option: {' '.join(rest)}")
    with StopSignals() as signals:
        return _run(arguments.config, [*arguments.overrides, *rest], signals)


def _run(config_path: str, overrides: list[str], signals: StopSignals) -> int:
    """Do the work; if it does not come to its end, say why."""
    _quiet_libraries()
    code, watch = FINISHED, None
    try:
        # First, as it says how this rank is watched: all else loads torch, transformers and DeepSpeed.
        config = _load(config_path, overrides)
        cluster = config.cluster if isinstance(config, Config) else Cluster()
        watch = _watch(cluster, signals)
        _work(config, config_path, cluster, signals, watch)
    except (LigoError, RunError) as error:
        signals.wait_if_ending()
        tell_error(error)
        code = error.exit_code
        if error.told_by is None:
            _leave(code)
        watchdog.tell(code=code, doing=heartbeat.where(), follows=error.told_by)
        _wait_for_the_others()
    except Exception as error:
        signals.wait_if_ending()
        tell_failure()
        watchdog.tell(follows=getattr(error, "told_by", None))
        _leave(FAILED)
    finally:
        if watch is not None:
            watch.close()
        heartbeat.stop()
    if code == FINISHED:
        from ligo_dist.engine import stop_world

        stop_world()
    return code


def _load(config_path: str, overrides: list[str]) -> Config | LigoError:
    """The configuration, or what is wrong with it: the ranks meet before they say that."""
    try:
        return load_config(config_path, overrides)
    except LigoError as error:
        return error


def _watch(cluster: Cluster, signals: StopSignals) -> Watch:
    """Have this rank watched from now on."""
    watchdog.tell(hang_seconds=cluster.hang_seconds, grace_seconds=cluster.grace_seconds)
    watch = Watch(
        signals,
        lost_seconds=cluster.lost_seconds,
        grace_seconds=cluster.grace_seconds,
        leads=rank_environment().local_rank == 0,
        launch=LaunchDirectory.given(),
    )
    watch.start()
    return watch


def _work(
    config: Config | LigoError, config_path: str, cluster: Cluster, signals: StopSignals, watch: Watch
) -> None:
    # What imports make stays: each collection that went through it would take half a second.
    gc.disable()
    from ligo_dist.training import run_schedule

    gc.freeze()
    gc.enable()
    export_rank_environment()
    enter("preparation")
    world, (config, corpus, source) = _meet(lambda: _prepare(config, config_path))
    heartbeat.start(cluster.hang_seconds)
    launch = LaunchDirectory.given()
    if launch is not None and world.is_first:
        launch.forget_environment()
    if world.device.type == "cpu":
        _keep_freed_memory()
    run_schedule(config, corpus, world, sys.orig_argv, signals, watch, source)


def _prepare(config: Config | LigoError, config_path: str) -> _Prepared:
    """The completed configuration, the corpus, and the directory of the first stage's model, if it begins with one."""
    from ligo_dist.corpus import OpenedOnce, build_corpus
    from ligo_dist.engine import environment_world_size, refused_keys
    from ligo_dist.huggingface import liger_faults, locate_source, resolve_directory
    from ligo_dist.tracking import harness_faults

    if isinstance(config, LigoError):
        raise config
    config = with_source(config, config_path)
    faults = check_world_size(config, environment_world_size()) + check_huggingface_keys(config)
    faults += refused_keys(config.deepspeed) + liger_faults(config.architecture, config.liger.kernels)
    if rank_environment().rank == 0:
        faults += harness_faults(config)
        close_apart()
    if faults:
        raise ConfigError(faults, config_path)
    name = config.stages[0].from_
    source = None if name is None else resolve_directory(locate_source(Path(config.run_dir), name))
    open_tokenizer = OpenedOnce()
    if asks_the_library(config):
        _check_models(config, source, config_path, open_tokenizer)
    return config, build_corpus(config, source, open_tokenizer=open_tokenizer), source


def _check_models(config: Config, source: Path | None, config_path: str, open_tokenizer: OpenedOnce) -> None:
    """See that every stage's model can be built, and takes the weights it begins with, before a corpus is prepared.

    Raises:
        ConfigError: every model that cannot.
    """
    from ligo_dist.corpus import count_pieces, vocabulary_size
    from ligo_dist.huggingface import check_models, has_weights

    count = partial(count_pieces, open_tokenizer=open_tokenizer)
    shapes = stage_shapes(config, vocabulary_size(config, source, count))
    weights = source if source is not None and has_weights(source) else None
    keys, length = config.model.huggingface, config.data.sequence_length
    faults, _ = check_models(config.architecture, shapes, keys, length, weights, config.model.attention)
    if faults:
        raise ConfigError(faults, config_path)


def _meet(prepare: Callable[[], _Prepared]) -> tuple[World, _Prepared]:
    """Prepare, then meet the other ranks: preparing a large corpus takes longer than they wait for each other.

    A rank that fails to prepare meets them too, so that all end with its error, told once.
    """
    from ligo_dist.engine import raise_together, start_world

    prepared, failure = None, None
    seconds = _FAILED_SECONDS
    try:
        prepared = prepare()
        seconds = prepared[0].distributed.timeout_seconds
    except LigoError as error:
        failure = error
    try:
        world = start_world(seconds)
    except Exception:
        if failure is not None:
            raise failure from None
        raise
    raise_together(failure, world)
    assert prepared is not None
    return world, prepared


def _leave(code: int) -> NoReturn:
    """End without waiting for the other ranks: they may wait for this one."""
    watchdog.tell(code=code, doing=heartbeat.where())
    sys.stdout.flush()
    os._exit(code)


def _wait_for_the_others() -> None:
    """All ranks end alike: whatever has started them ends those that are left soon after one has, and the first may
    have something to record still."""
    from ligo_dist.engine import barrier

    heartbeat.stop()
    with contextlib.suppress(RuntimeError):
        barrier()


def _keep_freed_memory() -> None:
    """Have glibc keep up to a gigabyte of freed blocks: giving each tensor back to the system and taking it again
    costs a tenth of a step on processors."""
    gigabyte, trim_threshold, mmap_threshold = 1 << 30, -1, -3  # from malloc.h
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, gigabyte)
        libc.mallopt(mmap_threshold, gigabyte)


def _quiet_libraries() -> None:
    """Keep the libraries' own chatter out of what a person watches; errors still come through."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("DeepSpeed", "torch.distributed", "torch.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(deepspeed|torch)\b.*")


def _run_as_rank() -> int:
    code = FAILED
    try:
        become_rank()
        code = main()
    except LigoError as error:  # what started it says nonsense about its place
        tell_error(error)
        code = error.exit_code
    except SystemExit as end:  # of the arguments
        code = end.code if isinstance(end.code, int) else FAILED
    finally:
        watchdog.tell(code=code, doing=heartbeat.where())
    # The interpreter takes its time to leave; a signal now does not change how the run has ended.
    for signum in HEEDED:
        signal.signal(signum, signal.SIG_IGN)
    if code != FINISHED:  # what is left of other ranks may abort a process that takes itself apart
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(_run_as_rank())
