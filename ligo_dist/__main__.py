"""The worker: `python -m ligo_dist CONFIG [key.path=value ...]`, started once per rank by `deepspeed` or by hand."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: finished; 2: a mistake in what was asked for; 1: the run failed."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist", description=__doc__)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", metavar="key.path=value", nargs="*")
    parser.add_argument("--local_rank", type=int, help="given by some launchers; the environment counts")
    arguments, rest = parser.parse_known_args(argv)
    if any(word.startswith("-") for word in rest):
        parser.error(f"unknown option: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, _stop)
    _quiet_libraries()
    # After the quieting: importing these loads torch, transformers and DeepSpeed.
    from ligo_dist.engine import stop_world
    from ligo_dist.errors import LigoError, RunError
    from ligo_dist.redaction import redact

    try:
        _work(arguments.config, [*arguments.overrides, *rest])
    except (LigoError, RunError) as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"ligo-dist: {redact(str(error))}", file=sys.stderr, flush=True)
        stop_world()
        return error.exit_code
    except Exception:
        _report_failure()
        # Without waiting for the other ranks: they may wait for this one.
        sys.stdout.flush()
        os._exit(1)
    stop_world()
    return 0


def _work(config_path: str, overrides: list[str]) -> None:
    from ligo_dist.config import check_huggingface_keys, check_world_size, load_config, with_source
    from ligo_dist.corpus import build_corpus
    from ligo_dist.distributed import environment_world_size
    from ligo_dist.engine import start_world
    from ligo_dist.errors import ConfigError
    from ligo_dist.hub import resolve_directory
    from ligo_dist.worker import run

    config = with_source(load_config(config_path, overrides), config_path)
    faults = check_world_size(config, environment_world_size()) + check_huggingface_keys(config)
    if faults:
        raise ConfigError(faults, config_path)
    # Before the ranks meet: preparing a large corpus takes longer than they wait for each other.
    name = config.stages[0].from_
    source = None if name is None else resolve_directory(name)
    corpus = build_corpus(config, source)
    world = start_world(config.distributed.timeout_seconds)
    if world.device.type == "cpu":
        _keep_freed_memory()
    run(config, corpus, world, sys.orig_argv, source)


def _keep_freed_memory() -> None:
    """Have glibc keep up to a gigabyte of freed blocks: giving each tensor back to the system and taking it again
    costs a tenth of a step on processors."""
    gigabyte, trim_threshold, mmap_threshold = 1 << 30, -1, -3  # from malloc.h
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, gigabyte)
        libc.mallopt(mmap_threshold, gigabyte)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _report_failure() -> None:
    import socket

    from ligo_dist.redaction import redact

    rank = os.environ.get("RANK", "0")
    lines = "".join(f"[rank {rank}] {line}\n" for line in redact(traceback.format_exc()).splitlines())
    print(f"{lines}[rank {rank}] failed on {socket.gethostname()}", file=sys.stderr, flush=True)


def _quiet_libraries() -> None:
    """Keep the libraries' own chatter out of what a person watches; errors still come through."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("DeepSpeed", "torch.distributed", "torch.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(deepspeed|torch)\b.*")


if __name__ == "__main__":
    sys.exit(main())
