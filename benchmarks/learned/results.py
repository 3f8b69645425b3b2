"""The table of all ways, each held against damped and identity copies of the same seeds, which learn nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.learned.ways import WAYS
from ligo_dist.report import spread

BASELINES = ("damped", "identity")
"""The start that learning begins from, and the other one that is not learned and ends low."""
LEAST = 0.01
"""What a way has to gain, and at least twice the spread."""

Result = dict[str, Any]

_ABOUT = """
GPT-2 of 16 layers x 32, 0.222 M parameters, grown from 2 layers at 0.8 of 20 tokens per parameter (866 of 1,083
steps of 4,096 tokens); fp32, constant rate, last tenth to zero. All ways of a seed take the same source and the same
batches, and end after the same FLOPs; learning is paid for with training steps, to the nearest one.

final: validation loss, mean over the seeds ± half of their range; over damped, over identity: how far below these
copies, not learned, of the same seed, ± the same; grown, learned: loss right after growing, after learning; cost: of
learning, part of all FLOPs; moved: depth coefficients from their start, on average / at most. Kept is what gains 0.01
and twice its spread; the verdict is of the gain over damped, then of that over identity. One seed alone says little.

damped, stack, identity, random, damped-interlace: not learned, as in `benchmarks.horizon`
joint-R-N       E1: W_l = sum_j D_lj S_j + delta_l in the training step, from damped copies, S at R times the rate, D at
                the rate (slow: both at a tenth of it); folded after N steps, with delta's moments
gates-N-R       E2: the 384 depth coefficients (with those of gains and output projections) alone, N steps on a quarter
                of the batch at rate R, then training. Mixing weights takes their gradients: they are counted
identity-gates  gates-10-0.01 from identity copies in the place of damped ones
depth-N-R       LiGO in depth: the same on whole batches
tournament      E4: damped, stack, identity and interlaced damped copies, ten steps each; the best one goes on
gradmax, tiny   E3: identity copies whose output projections come from one batch's gradient, or that and activations
Not measured: width operators, other sizes, horizons and points of growth; bf16; other learning rates of the weights.
The paper's own setting is `ligo-dist compare configs/compare_bert.yaml`.
"""


def table(results: Sequence[Result]) -> list[str]:
    """Lines of text, a table for each learning rate."""
    lines = _ABOUT.rstrip().splitlines()
    for rate in sorted({each["rate"] for each in results}):
        own = [each for each in results if each["rate"] == rate]
        sources = {each["seed"]: each["source"] for each in own}
        lines += [
            "",
            f"Learning rate {rate:g}; loss of the source {_mean(list(sources.values()))}",
            f"{'way':<17}{'seeds':>6}{'final':>15}{'over damped':>17}{'over identity':>17}{'grown':>8}{'learned':>9}"
            f"{'cost':>8}{'moved':>16}  verdict",
        ]
        lines += [_row(way, own) for way in WAYS if any(each["way"] == way for each in own)]
        if missing := [way for way in WAYS if all(each["way"] != way for each in own)]:
            lines.append(f"Not taken: {', '.join(missing)}")
    return lines


def verdict(gains: Sequence[float]) -> str:
    """What the rule says of gains by seed."""
    gain = spread(gains)
    assert gain is not None, "there is one at least"
    if gain.count == 1:
        return "undecided (one seed)" if gain.mean >= LEAST else "dropped (one seed)"
    return "kept" if gain.mean >= max(LEAST, 2 * gain.half_range) else "dropped"


def gains_over(baseline: str, way: str, results: Sequence[Result]) -> list[float]:
    """How far below the baseline's loss a way ends, of each seed that both have."""
    losses = {each["seed"]: each["loss"] for each in results if each["way"] == baseline}
    return [
        losses[each["seed"]] - each["loss"]
        for each in results
        if each["way"] == way and each["seed"] in losses
    ]


def _row(way: str, results: Sequence[Result]) -> str:
    own = [each for each in results if each["way"] == way]
    gains = [gains_over(baseline, way, results) for baseline in BASELINES if baseline != way]
    spent = sum(each["learning_flops"] for each in own) / len(own)
    over = [
        _mean(gains_over(baseline, way, results), "+") if way != baseline else "-" for baseline in BASELINES
    ]
    cells = [
        f"{way:<17}{len(own):>6}{_mean([each['loss'] for each in own]):>15}{over[0]:>17}{over[1]:>17}",
        f"{_average(own, 'grown'):>8}{_average(own, 'learned'):>9}{spent / own[0]['flops']:>8.2%}",
        f"{_average(own, 'moved', 4)} / {_average(own, 'moved_most', 3)}" if "moved" in own[0] else "-",
        ", ".join(verdict(each) for each in gains if each),
    ]
    chosen = ", ".join(sorted({each["chosen"] for each in own if "chosen" in each}))
    return f"{cells[0]}{cells[1]}{cells[2]:>16}  {cells[3]}" + (f"; took {chosen}" if chosen else "")


def _average(results: Sequence[Result], key: str, digits: int = 3) -> str:
    values = [each[key] for each in results if key in each]
    return f"{sum(values) / len(values):.{digits}f}" if values else "-"


def _mean(values: Sequence[float], sign: str = "") -> str:
    whole = spread(values)
    if whole is None:
        return "-"
    return f"{whole.mean:{sign}.4f}" + (f" ±{whole.half_range:.4f}" if whole.count > 1 else "")
