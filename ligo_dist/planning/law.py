"""How the loss falls with parameters and tokens, and what of a source's training counts in what is grown from it: two
laws between which the truth was so far. Pure numbers; numpy and scipy are loaded
where something is fitted.

Losses are those of runs whose learning rate has fallen to its end, in nats per token; tokens are those trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ligo_dist.runtime.errors import LigoError

if TYPE_CHECKING:
    import numpy as np

_HUBER = 1e-2
"""Relative error of a loss from which on a point counts less (the form is Hoffmann et al.'s, who take 1e-3)."""


@dataclass(frozen=True)
class Law:
    """loss = e + a / parameters^alpha + b / tokens^beta (Hoffmann et al. 2022, arXiv 2203.15556, approach 3)."""

    e: float
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """After so many tokens; infinite after none."""
        return self.floor(parameters) + self.b / tokens**self.beta if tokens > 0 else math.inf

    def floor(self, parameters: float) -> float:
        """What no number of tokens goes below."""
        return self.e + (self.a / parameters**self.alpha if self.a else 0.0)

    def tokens(self, parameters: float, loss: float) -> float:
        """How many it takes to that loss; infinite at its floor and below, none at an infinite loss."""
        above = loss - self.floor(parameters)
        return (self.b / above) ** (1 / self.beta) if above > 0 else math.inf


@dataclass(frozen=True)
class Carry:
    """What a way to grow carries over, under either law.

    Attributes:
        tokens: if *tokens count*: the part of the tokens before a growth that count as the grown model's own.
        loss: if *loss counts*: what a growth adds to the loss for good, in nats; the grown model goes on as one of
            its size that has this loss.
        tokens_miss, loss_miss: root mean square by which either law misses the runs that both are fitted to; 0: none.
        longest: the most tokens before the last growth in any of these runs.
    """

    tokens: float = 1.0
    loss: float = 0.0
    tokens_miss: float = 0.0
    loss_miss: float = 0.0
    longest: float = math.inf

    @property
    def spread(self) -> float:
        """By which the better law misses."""
        return min(self.tokens_miss, self.loss_miss)


@dataclass(frozen=True)
class Laws:
    """A law with its uncertainty.

    Attributes:
        source: where it is from, in a line.
        best: the law.
        draws: the same fitted again to redrawn residuals; none for a published one.
        spread: root mean square by which it misses the runs it is fitted on, in nats.
        ways: what is known of each way to grow; of others nothing is known and all is assumed to count.
    """

    source: str
    best: Law
    draws: Sequence[Law] = ()
    spread: float = 0.0
    ways: dict[str, Carry] = field(default_factory=dict)


def laws_to_values(laws: Laws) -> dict[str, Any]:
    """Plain values, for a file."""
    return asdict(replace(laws, draws=[], ways={})) | {
        "draws": [asdict(law) for law in laws.draws],
        "ways": {way: asdict(carry) for way, carry in laws.ways.items()},
    }


def laws_from_values(values: Mapping[str, Any]) -> Laws:
    """What `laws_to_values` has made.

    Raises:
        LigoError: something is missing, unknown, or no number.
    """
    try:
        laws = Laws(
            str(values["source"]),
            _numbers(Law, values["best"]),
            [_numbers(Law, draw) for draw in values["draws"]],
            float(values["spread"]),
            {way: _numbers(Carry, carry) for way, carry in values["ways"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LigoError(f"no law as `ligo-dist plan --fit` writes one: {error!r}") from None
    if set(values) != {"source", "best", "draws", "spread", "ways"}:
        raise LigoError(f"no law as `ligo-dist plan --fit` writes one: it has {', '.join(values)}")
    return laws


def _numbers(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{key: float(value) for key, value in values.items()})


PUBLISHED = {
    "hoffmann": Laws("Hoffmann et al. 2022, arXiv 2203.15556", Law(1.69, 406.4, 0.34, 410.7, 0.28)),
    "besiroglu": Laws(
        "Besiroglu et al. 2024, arXiv 2404.10102, a refit of the same runs",
        Law(1.8172, 482.01, 0.3478, 2085.43, 0.3658),
    ),
}
"""Laws of large language models, by name: their e is that of other text and another vocabulary than yours."""


@dataclass(frozen=True)
class Point:
    """A run from random values: parameters, tokens, final loss."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class GrownPoint:
    """A run that grew: (parameters, tokens) of each of its models, the way of its growths, the final loss."""

    stages: Sequence[tuple[float, float]]
    way: str
    loss: float


def tokens_count(law: Law, stages: Sequence[tuple[float, float]], carry: Carry) -> float:
    """The final loss if tokens count: those of smaller models are worth a part, once for all growths behind them."""
    *before, (parameters, tokens) = stages
    return law.loss(parameters, tokens + carry.tokens * sum(spent for _, spent in before))


def loss_counts(law: Law, stages: Sequence[tuple[float, float]], carry: Carry) -> float:
    """The final loss if loss counts: each model goes on as one of its size which was trained to the loss at hand."""
    loss = math.inf
    for index, (parameters, tokens) in enumerate(stages):
        begun = law.tokens(parameters, loss + carry.loss) if index else 0.0
        loss = law.loss(parameters, begun + tokens)
    return loss


def final_losses(law: Law, stages: Sequence[tuple[float, float]], carry: Carry) -> tuple[float, float]:
    """The lower and the higher of what may be expected: tokens count, loss counts, or tokens count and those beyond the
    longest run that the way is known from do not. What sources give came to an end where that was measured."""
    *before, target = stages
    known = min(sum(spent for _, spent in before), carry.longest)
    expected = (
        tokens_count(law, stages, carry),
        loss_counts(law, stages, carry),
        tokens_count(law, [(0.0, known), target], carry),
    )
    return min(expected), max(expected)


def fit_law(points: Sequence[Point], source: str, draws: int = 0, seed: int = 0) -> Laws:
    """Fit a law, its term in the parameters only where there are at least three sizes: with one it is in `e`.

    The robust loss is on logarithms, and the best of several beginnings is taken, as in Hoffmann et al.

    Args:
        points: from at least three numbers of tokens.
        source: what they are of.
        draws: fits to redrawn residuals, for the uncertainty.
        seed: of the draws.

    Raises:
        LigoError: there are too few points.
    """
    sizes, lengths = ({getattr(p, name) for p in points} for name in ("parameters", "tokens"))
    if len(lengths) < 3:
        raise LigoError(f"a law needs runs of at least 3 lengths, and these are of {len(lengths)}")
    if len(sizes) == 2:
        raise LigoError("a law needs runs of one size, or of at least 3, and these are of 2")
    best = _fit(points, len(sizes) > 1)
    fitted = [best.loss(p.parameters, p.tokens) for p in points]
    ratios = [p.loss / value for p, value in zip(points, fitted, strict=True)]
    import numpy as np

    random = np.random.default_rng(seed)
    again = []
    for _ in range(draws):
        drawn = random.choice(ratios, len(points))
        redrawn = [replace(p, loss=value * r) for p, value, r in zip(points, fitted, drawn, strict=True)]
        again.append(_fit(redrawn, len(sizes) > 1, best))
    return Laws(
        source, best, again, _root_mean_square([p.loss - v for p, v in zip(points, fitted, strict=True)])
    )


def fit_carry(law: Law, runs: Sequence[GrownPoint]) -> Carry:
    """What one way to grow carries over, each law by itself at its least squares; the part of tokens is between 0 and
    1, the loss at most 1 nat either way."""
    from scipy.optimize import minimize_scalar  # seconds that most callers do not need

    def missed(predict: Callable[..., float], carry: Carry) -> float:
        # A model that starts as it would after no token has lost all that came before: far off, yet a number.
        return _root_mean_square([min(predict(law, run.stages, carry), 1e3) - run.loss for run in runs])

    part = minimize_scalar(lambda x: missed(tokens_count, Carry(tokens=x)), bounds=(0, 1), method="bounded")
    loss = minimize_scalar(lambda x: missed(loss_counts, Carry(loss=x)), bounds=(-1, 1), method="bounded")
    longest = max(sum(tokens for _, tokens in run.stages[:-1]) for run in runs)
    return Carry(float(part.x), float(loss.x), float(part.fun), float(loss.fun), longest)


def _fit(points: Sequence[Point], by_size: bool, near: Law | None = None) -> Law:
    """The law of the least robust error; begun at one that is near, if there is one."""
    import numpy as np
    from scipy.optimize import least_squares

    n, d, loss = (np.array([getattr(p, name) for p in points]) for name in ("parameters", "tokens", "loss"))
    # Terms as they are at the middle of the points, so that no two unknowns move together.
    middle_n, middle_d = (float(np.exp(np.log(values).mean())) for values in (n, d))

    def law_of(x: np.ndarray) -> Law:
        e, term_b, beta = np.exp(x[:3])
        term_a, alpha = np.exp(x[3:]) if by_size else (0.0, 0.0)
        return Law(*map(float, (e, term_a * middle_n**alpha, alpha, term_b * middle_d**beta, beta)))

    def errors(x: np.ndarray) -> np.ndarray:
        e, term_b, beta = np.exp(x[:3])
        term_a, alpha = np.exp(x[3:]) if by_size else (0.0, 0.0)
        value = e + term_b * (d / middle_d) ** -beta + term_a * (n / middle_n) ** -alpha
        return np.log(value) - np.log(loss)

    lowest, beginnings = float(loss.min()), []
    if near is not None:
        at = [near.e, near.b / middle_d**near.beta, near.beta]
        beginnings.append(np.log([*at, near.a / middle_n**near.alpha, near.alpha] if by_size else at))
    else:
        for part in (0.3, 0.6, 0.9):
            for power in (0.2, 0.5, 1.0):
                at = [part * lowest, (1 - part) * lowest, power]
                beginnings.append(np.log([*at, (1 - part) * lowest, 0.3] if by_size else at))
    bounds = [(-12.0, 3.0), (-12.0, 3.0), (-3.5, 1.5), (-12.0, 3.0), (-3.5, 1.5)][: 5 if by_size else 3]
    low, high = (np.array(side) for side in zip(*bounds, strict=True))
    fits = [
        least_squares(
            errors,
            np.clip(start, low + 1e-9, high - 1e-9),
            bounds=(low, high),
            loss="soft_l1",
            f_scale=_HUBER,
        )
        for start in beginnings
    ]
    return law_of(min(fits, key=lambda fit: fit.cost).x)


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
