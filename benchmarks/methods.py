"""All ways to grow, side by side: the same source, data and learning rates, several seeds; FLOPs to scratch's loss.

    python -m benchmarks.methods            # the main cases, three seeds: over an hour on two idle cores
    python -m benchmarks.methods --quick    # a few cases, one seed, a smaller budget: minutes
    python -m benchmarks.methods --all --seeds 5
    python -m benchmarks.methods --only scratch ligo lossless-dense
    python -m benchmarks.methods --scale large      # where there is an accelerator

Every run is a worker as users start it, `python -m ligo_dist CONFIG` on one rank; the configurations and the metrics
stay in `--out`. A run that has finished there with the same configuration is not repeated, so that cases can be added
and an interrupted benchmark goes on.

The source is trained once per seed, at a constant learning rate, and exported; each case begins from the export.
Targets are trained at a constant learning rate (behind a warm-up) for the budget, on the same samples in the same
order, so that their losses can be compared after any number of FLOPs; then the learning rate falls to 5 % in a few
more steps, for the losses that count in the end. The main cases train for less than scratch's budget: `benchmarks/
methods_cases.py` has the sizes and the cases, `methods_reading.py` how FLOPs to a loss are read. Evaluation costs no
FLOPs here; a source that a case trains itself, learning and growing do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.methods_cases import (
    CASES,
    FULL,
    NAMED,
    QUICK,
    SCALES,
    SCRATCH,
    TARGET,
    Case,
    Scale,
    case_config,
    source_config,
    steps,
)
from benchmarks.methods_reading import make_reference, read_curve
from benchmarks.methods_report import Measured, draw, make_row, notes, table
from benchmarks.methods_runs import Outcome, Run, Workers
from benchmarks.provenance import commit, processor

RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: everything ran; 1: a run failed, the table has the others."""
    options = _options(argv)
    scale = SCALES[options.scale]
    names = _names(options)
    out = (options.out or Path("runs") / f"methods-{options.scale}").absolute()
    seeds = range(options.seeds)
    workers = Workers(options.jobs, options.threads, commit())
    runs = _plan(scale, names, seeds, out)
    outcomes = workers.run(list(runs.values()))
    measured = _read(scale, names, seeds, runs, {outcome.run.name: outcome for outcome in outcomes})
    lines = [*_heading(scale, options, outcomes), "", *_report(measured), *_failures(outcomes)]
    print("\n".join(["", *lines]), flush=True)
    if measured:
        _write(options, lines, measured, scale)
    return int(any(outcome.error for outcome in outcomes))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few cases, one seed, the scale `quick`")
    parser.add_argument("--scale", choices=sorted(SCALES), help="sizes and budgets; default full")
    parser.add_argument("--seeds", type=int, help="number of seeds; default 3")
    parser.add_argument("--all", action="store_true", help="all cases, not the main ones alone")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(CASES), metavar="NAME", help=f"of: {', '.join(CASES)}"
    )
    parser.add_argument(
        "--jobs", type=int, help="workers at a time; default: one per accelerator, or per `--threads` cores"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each worker, on processors; default 1")
    parser.add_argument("--out", type=Path, help="where the runs are kept; default runs/methods-SCALE")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="where table and picture go; default benchmarks/results"
    )
    options = parser.parse_args(argv)
    options.scale = options.scale or ("quick" if options.quick else "full")
    options.seeds = options.seeds or (1 if options.quick else 3)
    cores = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0)) // options.threads
    options.jobs = options.jobs or max(1, cores)
    return options


def _names(options: argparse.Namespace) -> list[str]:
    """The cases that were asked for, in their order; scratch always, as the others are held against it."""
    chosen = options.only or (QUICK if options.quick else CASES if options.all else FULL)
    return [name for name in CASES if name in chosen or name == SCRATCH]


def _plan(scale: Scale, names: Sequence[str], seeds: Sequence[int], out: Path) -> dict[tuple[str, int], Run]:
    """All runs by case and seed: sources first, then what takes longest, so that no core is idle at the end."""
    runs: dict[tuple[str, int], Run] = {}
    cache = out.parent / "methods-cache"
    if any(CASES[name].source is None for name in names):
        for seed in seeds:
            directory = out / f"seed-{seed}" / "source"
            runs["source", seed] = Run(f"source {seed}", directory, source_config(scale, seed, cache))
    ordered = sorted(names, key=lambda name: -_cost(scale, CASES[name]))
    for name in ordered:
        for seed in seeds:
            case, directory = CASES[name], out / f"seed-{seed}" / name
            source = runs["source", seed].directory if case.source is None else None
            export = (source or Path()) / "export" / "source"
            config = case_config(scale, case, seed, cache, export)
            runs[name, seed] = Run(f"{name} {seed}", directory, config, needs=source)
    return runs


def _cost(scale: Scale, case: Case) -> float:
    """FLOPs of a case's run, roughly: to begin with the longest."""
    own = 0 if case.source is None else scale.source_flops
    return own + steps(scale, case) * scale.step_flops(scale.target)


def _read(
    scale: Scale,
    names: Sequence[str],
    seeds: Sequence[int],
    runs: dict[tuple[str, int], Run],
    outcomes: dict[str, Outcome],
) -> dict[str, dict[int, Measured]]:
    """What the runs that finished measured, by case and seed."""
    measured: dict[str, dict[int, Measured]] = {}
    for name in names:
        for seed in seeds:
            run, case = runs[name, seed], CASES[name]
            if outcomes[run.name].error:
                continue
            curve = read_curve(run.directory / "metrics.jsonl", TARGET)
            common = 0.0 if name == SCRATCH else scale.source_flops
            source = common if case.source is None else curve.own_source_flops
            measured.setdefault(name, {})[seed] = Measured(curve, source, steps(scale, case))
    return measured


def _report(measured: dict[str, dict[int, Measured]]) -> list[str]:
    references = {
        seed: make_reference(run.curve, run.steps) for seed, run in measured.get(SCRATCH, {}).items()
    }
    if not references:
        return ["no run of scratch has finished: nothing to compare with"]
    comparable = {
        name: {seed: run for seed, run in runs.items() if seed in references}
        for name, runs in measured.items()
    }
    rows = [make_row(name, runs, references) for name, runs in comparable.items() if runs]
    width = max(len(row.name) for row in rows)
    about = [f"{row.name:<{width}}  {CASES[row.name].about}" for row in rows]
    return [*table(rows), "", *notes(rows), "", *about]


def _heading(scale: Scale, options: argparse.Namespace, outcomes: Sequence[Outcome]) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    commits = ", ".join(sorted({outcome.commit for outcome in outcomes}))
    seconds = sum(outcome.seconds for outcome in outcomes)
    cost = scale.source_flops / scale.scratch_flops
    return [
        f"{date.today()}, commit {commits}; {_hardware()}, {options.jobs} workers of {options.threads} threads;",
        f"{versions}; bf16; {options.seeds} seeds; {seconds / 60:.0f} minutes of workers",
        "settings: " + ", ".join(f"{name} {value}" for name, value in asdict(scale).items()),
        f"the source costs {100 * cost:.0f} % of scratch's budget of {scale.scratch_flops:.3g} FLOPs",
        "not measured: other sizes, families and data, other learning rates for each method, several ranks, time",
    ]


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()} {processor()} cores"


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    failed = [outcome for outcome in outcomes if outcome.error]
    return [f"FAILED, so not measured: {outcome.run.name}: {outcome.error}" for outcome in failed]


def _write(
    options: argparse.Namespace,
    lines: Sequence[str],
    measured: dict[str, dict[int, Measured]],
    scale: Scale,
) -> None:
    suffix = "" if options.scale == "full" else f"-{options.scale}"
    stem = f"{date.today()}-methods{suffix}"
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    source, target = scale.source, scale.target
    title = (
        f"GPT-2 {source['layers']} x {source['width']} -> {target['layers']} x {target['width']},"
        f" seeds: {options.seeds} (mean, and band from lowest to highest)"
    )
    draw(options.results / f"{stem}.png", measured, title, NAMED)
    print(f"\nwritten: {options.results / stem}.txt and .png", flush=True)


if __name__ == "__main__":
    sys.exit(main())
