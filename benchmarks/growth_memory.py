"""Peak memory per rank while a growth is learned and while it is applied, beside the plain way, on 1, 2 and 4 ranks.

    python -m benchmarks.growth_memory
    python -m benchmarks.growth_memory --time

Plain: every rank holds the whole source and the whole operator, generates the whole target for each step, and to grow
makes the whole target and keeps its own partition. Ours: source, operator and target are partitions; one block's
weights are generated at a time; each rank makes its own partition of the target and nothing else.

The bound is invariant 4 of docs/design.md in numbers: partitions + a few small layers + a few copies of one target
block (and of its operator), see `learning_bound` and `growing_bound`.

With `--time`, in place of memory: the processor time that a rank takes for a step of learning and for growing, ours, at
several sizes. A rank has one core; its time does not count where it waits for another one, so there may be more ranks
than cores. The batch is the same on any number of ranks. Work is divided by the number of ranks N, but for what each
does in full (learning: generating the weights; growing: gathering): time = constant + share / N, fitted by least
squares.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.processes import run_on_ranks
from benchmarks.provenance import commit, processor
from ligo_dist.architectures import ModelShape, ParameterSpec, get_architecture
from ligo_dist.growth import Growth

MEGABYTE = 1e6
FP32 = 4
TOKENS = 64
"""Length of the one sequence that each rank trains on: activations are not what is measured."""
SEQUENCES = 16
"""All ranks together, of a step whose time is measured."""
SIZES = ((192, 2), (256, 4), (384, 6))
"""Width and layers of the sources whose times are measured."""


def build_growth(family: str, width: int, layers: int) -> Growth:
    """A model and one of twice its width and depth."""
    architecture = get_architecture(family)
    head_size = 64

    def shape(factor: int) -> ModelShape:
        size = factor * width
        heads = size // head_size
        ffn = architecture.default_ffn(size)
        return ModelShape(
            factor * layers,
            size,
            heads,
            heads,
            ffn,
            architecture.tied_by_default,
            vocab=8192,
            positions=TOKENS,
        )

    return Growth(architecture, shape(1), shape(2), tied=True)


def learning_bound(growth: Growth, world_size: int) -> int:
    """Bytes: partitions, then what is whole at a time.

    Per operator element a rank's partition has a parameter, a master copy, a gradient (and DeepSpeed's buffer for it)
    and two moments; of the source, a value. Whole at a time are a few copies of one mixed small layer, of one target
    block with its gradient, of the block's operator with its gradient, of the embedding in both sizes, and DeepSpeed's
    buckets.
    """
    operator = sum(p.shape[0] * p.shape[1] for p in growth.operator_parameters)
    partitions = (6 * operator + _numel(_specs(growth, "source"))) / world_size
    whole = 4 * _small_layer(growth) + 4 * _block(growth) + 4 * _block_operator(growth)
    embedding = 4 * (_outside(growth, "source") + _outside(growth, "target"))
    activations = 6 * TOKENS * growth.target.vocab
    return int(FP32 * (partitions + whole + embedding + activations + 4 * 5e6))


def growing_bound(growth: Growth, world_size: int) -> int:
    """Bytes: partitions of source, operator and target (parameter and master), one small layer in two copies, one
    block's operator, one tensor's rows, DeepSpeed's buckets."""
    operator = sum(p.shape[0] * p.shape[1] for p in growth.operator_parameters)
    target = _numel(_specs(growth, "target"))
    partitions = (operator + _numel(_specs(growth, "source")) + 3 * target) / world_size
    whole = 3 * _small_layer(growth) + 2 * _block_operator(growth) + 2 * _outside(growth, "source")
    largest = max(spec.numel for spec in _specs(growth, "target"))
    return int(FP32 * (partitions + whole + 3 * largest / world_size + largest + 2 * 5e6))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", default="gpt2", choices=["gpt2", "llama"])
    parser.add_argument("--width", type=int, default=384, help="of the source; the target has twice as much")
    parser.add_argument("--layers", type=int, default=4, help="of the source; the target has twice as many")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--time", action="store_true", help="measure times, at three sizes")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    if options.time:
        lines = _times(options)
        if options.output:
            options.output.write_text("\n".join(lines) + "\n")
        return
    growth = build_growth(options.family, options.width, options.layers)
    lines = [*_heading(growth, options), *_table(growth, options)]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


def _heading(growth: Growth, options: argparse.Namespace) -> list[str]:
    operator = sum(p.shape[0] * p.shape[1] for p in growth.operator_parameters)
    sizes = {
        "source": _numel(_specs(growth, "source")),
        "target": _numel(_specs(growth, "target")),
        "operator": operator,
        "one target block": _block(growth),
        "one small layer": _small_layer(growth),
    }
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    lines = [
        f"{date.today()}, commit {commit()}; {options.family}, fp32, gloo on {os.cpu_count()} {processor()} cores",
        f"{versions}; not measured: accelerators, bf16, several machines, long sequences",
        "MB in fp32: " + ", ".join(f"{name} {FP32 * numel / MEGABYTE:.0f}" for name, numel in sizes.items()),
        "",
        "peak MB per rank    learning                          growing",
        "ranks               ours   plain   ratio   bound      ours   plain   ratio   bound",
    ]
    print("\n".join(lines), flush=True)
    return lines


def _table(growth: Growth, options: argparse.Namespace) -> list[str]:
    lines = []
    for world_size in options.ranks:
        peaks = {}
        for way in ("ours", "plain"):
            arguments = {
                "way": way,
                "family": options.family,
                "width": options.width,
                "layers": options.layers,
            }
            results = run_on_ranks("benchmarks.growth_memory_rank", world_size, arguments)
            for phase in ("learn", "grow"):
                peaks[way, phase] = max(result[phase] for result in results) / MEGABYTE
        cells = [f"{world_size:<16}"]
        for phase, bound in (("learn", learning_bound), ("grow", growing_bound)):
            ours, plain = peaks["ours", phase], peaks["plain", phase]
            limit = bound(growth, world_size) / MEGABYTE
            mark = " " if ours <= limit else "!"
            cells.append(f"{ours:>8.0f}{plain:>8.0f}{ours / plain:>8.2f}{limit:>8.0f}{mark}  ")
        lines.append("".join(cells).rstrip())
        print(lines[-1], flush=True)
    if any("!" in line for line in lines):
        print("! above its bound", flush=True)
        sys.exit(1)
    return lines


def _times(options: argparse.Namespace) -> list[str]:
    ranks = options.ranks
    counts = "".join(f"{count:>8}" for count in ranks)
    lines = [
        f"{date.today()}, commit {commit()}; {options.family}, fp32, gloo on {os.cpu_count()} {processor()} cores",
        f"processor seconds of a rank with one thread; {SEQUENCES} x {TOKENS} tokens a step, all ranks together",
        "",
        f"source    operator, M  phase   ranks{counts}   constant + share / N   off by at most",
    ]
    print("\n".join(lines), flush=True)
    for width, layers in SIZES:
        growth = build_growth(options.family, width, layers)
        operator = sum(p.shape[0] * p.shape[1] for p in growth.operator_parameters)
        seconds: dict[str, dict[int, float]] = {"learn": {}, "grow": {}}
        for world_size in ranks:
            arguments = {"way": "time", "family": options.family, "width": width, "layers": layers}
            results = run_on_ranks(
                "benchmarks.growth_memory_rank", world_size, arguments, keeps_memory=True, threads=1
            )
            for phase, of_phase in seconds.items():
                of_phase[world_size] = max(result[phase] for result in results)
        for phase, of_phase in seconds.items():
            constant, share, off = fit(of_phase)
            took = "".join(f"{of_phase[count]:>8.2f}" for count in ranks)
            lines.append(
                f"{layers} x {width:<6}{operator / 1e6:>10.1f}   {phase:<13}{took}"
                f"{constant:>11.2f} + {share:.2f} / N{off:>13.0%}"
            )
            print(lines[-1], flush=True)
    return lines


def fit(seconds: Mapping[int, float]) -> tuple[float, float, float]:
    """Of times by number of ranks N: constant and share of `constant + share / N`, neither below 0, and the part of a
    time by which the farthest is off."""
    counts, took = np.array(list(seconds)), np.array(list(seconds.values()))
    inverse = np.stack([np.ones(len(counts)), 1 / counts], axis=1)
    constant, share = np.linalg.lstsq(inverse, took, rcond=None)[0]
    if constant < 0:
        constant, share = 0.0, (took / counts).sum() / (1 / counts**2).sum()
    elif share < 0:
        constant, share = took.mean(), 0.0
    return float(constant), float(share), float(np.abs(constant + share / counts - took).max() / took.min())


def _specs(growth: Growth, which: str) -> list[ParameterSpec]:
    return growth.architecture.parameters(growth.source if which == "source" else growth.target)


def _numel(specs: list[ParameterSpec]) -> int:
    return sum(spec.numel for spec in specs)


def _small_layer(growth: Growth) -> int:
    return _numel([spec for spec in _specs(growth, "source") if spec.layer == 0])


def _block(growth: Growth) -> int:
    return _numel([spec for spec in _specs(growth, "target") if spec.layer == 0])


def _outside(growth: Growth, which: str) -> int:
    return _numel([spec for spec in _specs(growth, which) if spec.layer is None])


def _block_operator(growth: Growth) -> int:
    """The operator's matrices that one block is made with: its own and the whole model's."""
    used = [p for p in growth.operator_parameters if p.layer in (0, None)]
    return sum(p.shape[0] * p.shape[1] for p in used)


if __name__ == "__main__":
    main()
