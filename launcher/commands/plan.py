"""`ligo-dist plan`: what a run will take, before it starts, on hardware that need not be here."""

from __future__ import annotations

import argparse

from launcher.arguments import fraction, positive
from launcher.preflight import plan_of
from launcher.tables import print_forecast
from ligo_dist.config import (
    Config,
    check_deepspeed_keys_apart,
    check_world_size,
    load_config,
    resolve_precision,
    with_source_apart,
)
from ligo_dist.planning import DEFAULT_GPU, Forecast, get_gpu, gpu_names
from ligo_dist.runtime.errors import FINISHED, MISTAKE, ConfigError, LigoError

HFU = 0.4
"""Part of the peak that training reaches: 0.38 to 0.43 on up to 16,384 H100, with nothing recomputed (Llama 3, arXiv
2407.21783, table 4 and section 3.3)."""

_EXAMPLES = """\
examples:
  ligo-dist plan configs/quickstart.yaml
  ligo-dist plan configs/llama_70b.yaml --gpus 1024 --gpu h100 --hfu 0.4
  ligo-dist plan configs/paper/*.yaml --gpu 312e12,40,25

Every number is explained in docs/accounting.md. Exit code 2: it does not fit on the ranks that were asked for.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "plan",
        help="work out parameters, FLOPs, memory, communication, time and disk of every phase",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(overrides=[])
    parser.add_argument(
        "words",
        metavar="CONFIG",
        nargs="+",
        help="YAML files; key.path=value among them is written over all of them",
    )
    parser.add_argument(
        "--gpus", type=positive, metavar="N", help="ranks (default: those of cluster.slurm, else 1)"
    )
    parser.add_argument(
        "--gpu",
        default=DEFAULT_GPU,
        metavar="NAME",
        help=f"{', '.join(gpu_names())}, or FLOPS,GB,GB/s (default: {DEFAULT_GPU})",
    )
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument(
        "--hfu",
        type=fraction,
        default=HFU,
        metavar="PART",
        help="hardware FLOPs utilisation: the part of the peak that is reached, recomputation counted"
        f" (default: {HFU:g})",
    )
    speed.add_argument(
        "--mfu",
        type=fraction,
        metavar="PART",
        help="model FLOPs utilisation: the same, recomputation not counted",
    )


def run(arguments: argparse.Namespace) -> int:
    gpu = get_gpu(arguments.gpu)
    words = [*arguments.words, *arguments.overrides]
    overrides = [word for word in words if "=" in word]
    paths = [word for word in words if "=" not in word]
    if not paths:
        raise LigoError("plan: no configuration is named; configs/quickstart.yaml would be one")
    code = FINISHED
    for path in paths:
        config = with_source_apart(load_config(path, overrides), path)
        asked = arguments.gpus or _ranks_of(config)
        faults = check_world_size(config, asked or 1) + check_deepspeed_keys_apart(config.deepspeed)
        if faults:
            raise ConfigError(faults, path)
        # Every accelerator that can be planned for computes bf16 natively.
        config, _ = resolve_precision(config, [True])
        forecast = Forecast(plan_of(config, asked or 1), gpu, arguments.hfu, arguments.mfu)
        print_forecast(path, forecast)
        if not forecast.fits and (asked or forecast.fewest is None):
            code = MISTAKE
    return code


def _ranks_of(config: Config) -> int | None:
    slurm = config.cluster.slurm
    per_node = slurm.ranks_per_node or slurm.gpus_per_node
    return slurm.nodes * per_node if slurm.nodes and per_node else None
