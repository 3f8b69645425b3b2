"""`ligo-dist plan`: what a run will take, before it starts, on hardware that need not be here; and how to grow."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.arguments import amount, fraction, positive
from launcher.commands import choose
from launcher.commands.pilot import pilot
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
from ligo_dist.planning import DEFAULT_GPU, PUBLISHED, Forecast, get_gpu, gpu_names
from ligo_dist.runtime.errors import FINISHED, MISTAKE, ConfigError, LigoError

HFU = 0.4
"""Part of the peak that training reaches: 0.38 to 0.43 on up to 16,384 H100, with nothing recomputed (Llama 3, arXiv
2407.21783, table 4 and section 3.3)."""

_EXAMPLES = """\
examples:
  ligo-dist plan configs/quickstart.yaml
  ligo-dist plan configs/llama_70b.yaml --gpus 1024 --gpu h100 --hfu 0.4
  ligo-dist plan configs/paper/*.yaml --gpu 312e12,40,25
  ligo-dist plan --choose configs/llama_small.yaml --tokens 2e9
  ligo-dist plan --pilot configs/llama_small.yaml --tokens 2e9 --output pilots
  ligo-dist plan --fit runs/pilots/* --output law.yaml

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
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--choose", action="store_true", help="choose a schedule that grows into the last model of CONFIG"
    )
    instead.add_argument(
        "--fit",
        action="store_true",
        help="fit a law of the loss to finished runs, whose directories are named",
    )
    instead.add_argument(
        "--pilot",
        action="store_true",
        help="write the configurations whose runs a law for CONFIG is fitted to",
    )
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--tokens", type=amount, metavar="N", help="to be read in all (--choose, --pilot)")
    wanted.add_argument("--flops", type=amount, metavar="C", help="to be spent in all (--choose)")
    wanted.add_argument("--loss", type=amount, metavar="L", help="to be reached (--choose)")
    parser.add_argument(
        "--law",
        default="besiroglu",
        metavar="LAW",
        help=f"{', '.join(PUBLISHED)}, or a file that --fit wrote (default: besiroglu)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where --choose, --fit and --pilot write (a directory)"
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
    if arguments.fit:
        return choose.fit(paths, arguments.output or Path("law.yaml"))
    if arguments.choose or arguments.pilot:
        return _choose(arguments, paths, overrides)
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


def _choose(arguments: argparse.Namespace, paths: list[str], overrides: list[str]) -> int:
    if len(paths) > 1:
        raise LigoError(f"plan: {', '.join(paths)}: one configuration describes the target")
    (path,) = paths
    given = {name: getattr(arguments, name) for name in ("tokens", "flops", "loss")}
    wanted = {name: value for name, value in given.items() if value is not None}
    config = with_source_apart(load_config(path, overrides), path)
    if arguments.pilot:
        if list(wanted) != ["tokens"]:
            raise LigoError("plan --pilot: takes --tokens, those that the target is to read")
        return pilot(config, path, arguments.output or Path("pilots"), wanted["tokens"])
    if not wanted:
        raise LigoError("plan --choose: takes --tokens, --flops or --loss")
    return choose.choose(
        config,
        path,
        arguments.law,
        arguments.output or Path(f"{Path(path).stem}-grown.yaml"),
        arguments.gpus or _ranks_of(config) or 1,
        (get_gpu(arguments.gpu), arguments.hfu, arguments.mfu),
        wanted,
    )


def _ranks_of(config: Config) -> int | None:
    slurm = config.cluster.slurm
    per_node = slurm.ranks_per_node or slurm.gpus_per_node
    return slurm.nodes * per_node if slurm.nodes and per_node else None
