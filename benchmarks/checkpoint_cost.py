"""What saving costs a run: no checkpoints, written in the background, and each one waited for, side by side.

    python -m benchmarks.checkpoint_cost

All three ways train the same model in the same processes, in turns, several rounds of them; a round has two saves. A
save copies a rank's partitions and Adam's moments aside. In the background it is then written and flushed to disk while
the next steps are taken; waited for, the next step begins when it is complete.

Two ranks take all of two processors, and writing takes some of their time from training. One rank leaves a processor
to the writing, as training on an accelerator does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import run_on_ranks
from benchmarks.provenance import commit, processor

WAYS = ("none", "background", "waited for")

Step = tuple[float, bool, bool]
"""Seconds of a step with what was done after it; whether it was saved then; whether a checkpoint was completed then."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4, help="of each way")
    parser.add_argument("--steps", type=int, default=16, help="of a round; a save comes every half of them")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--directory", type=Path, help="where checkpoints are written; default: temporary")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    lines = _heading(options)
    for ranks in options.ranks:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            arguments = {
                "width": options.width,
                "layers": options.layers,
                "rounds": options.rounds,
                "steps": options.steps,
                "directory": directory,
            }
            measured = run_on_ranks("benchmarks.checkpoint_cost_rank", ranks, arguments, keeps_memory=True)[0]
        lines += ["", *_table(measured, ranks)]
    print("\n".join(lines), flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


def _heading(options: argparse.Namespace) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "safetensors"))
    return [
        f"{date.today()}, commit {commit()}; gpt2, fp32, gloo on {os.cpu_count()} {processor()} cores, one per rank",
        f"{versions}; not measured: accelerators, several machines, network disks",
        f"a save every {options.steps // 2} steps, {2 * options.rounds} in all of each way;"
        " the time of a step is with what is done after it",
        "around a save: from the step that it follows to the one after which its checkpoint is complete",
        "a save costs: the median of what these steps take beyond the median of the others of their round",
    ]


def _table(measured: dict[str, Any], ranks: int) -> list[str]:
    lines = [
        f"{ranks} {'rank' if ranks == 1 else 'ranks'}, {measured['parameters'] / 1e6:.1f} M parameters,"
        f" a checkpoint of {measured['bytes'] / 1e6:.0f} MB",
        "                                all steps, ms     around a save, ms   a save costs,   complete",
        "saving         steps/s  ratio    median     max      median     max               ms   steps later",
    ]
    of_none = 0.0
    for way in WAYS:
        rounds: list[list[Step]] = measured["rounds"][way]
        seconds = [step[0] for steps in rounds for step in steps]
        rate = len(seconds) / sum(seconds)
        of_none = of_none or rate
        line = f"{way:<14}{rate:>8.2f}{rate / of_none:>7.2f}"
        line += f"{_ms(statistics.median(seconds)):>10}{_ms(max(seconds)):>8}"
        spans = [span for steps in rounds for span in _around_saves(steps)]
        if spans:
            around = [second for span in spans for second in span]
            cost = statistics.median(cost for steps in rounds for cost in _costs(steps))
            later = statistics.median(len(span) - 1 for span in spans)
            line += f"{_ms(statistics.median(around)):>12}{_ms(max(around)):>8}{_ms(cost):>17}{later:>14g}"
        lines.append(line)
    return lines


def _around_saves(steps: list[Step]) -> list[list[float]]:
    """The seconds of the steps from each save of a round to its completion."""
    spans: list[list[float]] = []
    is_pending = False
    for seconds, saves, completes in steps:
        if saves:
            spans.append([])
        if saves or is_pending:
            spans[-1].append(seconds)
        is_pending = (saves or is_pending) and not completes
    return spans


def _costs(steps: list[Step]) -> list[float]:
    """What the steps around each save of a round take beyond so many of the others."""
    spans = _around_saves(steps)
    around = [second for span in spans for second in span]
    others = sorted(seconds for seconds, *_ in steps)
    for second in around:
        others.remove(second)
    usual = statistics.median(others)
    return [sum(span) - len(span) * usual for span in spans]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


if __name__ == "__main__":
    main()
