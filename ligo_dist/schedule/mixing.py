"""From which source of a mixture each training sample is. Nothing here knows of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ligo_dist.config import SMALLEST_SHARE


@dataclass(frozen=True)
class Mixing:
    """The sources of one phase's samples: a pure function of a sample's number.

    With whole weights w_i that add up to W, let c_i(n) be how many of the phase's first n samples are from source i.
    Sample n (the first is 0) is from that source, of those with c_i(n) W < w_i (n + 1), whose next one is due first:
    the least ceil((c_i(n) + 1) W / w_i), and of several the first. Then for every n

        |c_i(n) - n w_i / W| < 1    and    c_i(n + W) = c_i(n) + w_i,

    so each source has had its share at any point to within one sample, and one table of W entries says it all.
    (Earliest deadline first: Tijdeman 1980, "The chairman assignment problem"; Baruah, Cohen, Plaxton and Varvel 1996,
    "Proportionate progress".) Of any samples in a row each source has its share to within two; to within one there is
    in general no order of more than two sources.

    Attributes:
        weights: w_i, see `whole_weights`.
        before: how many samples of each source the phases before have taken.
    """

    weights: tuple[int, ...]
    before: tuple[int, ...]

    def taken(self, samples: int) -> tuple[int, ...]:
        """How many samples of each source the run has taken after so many of the phase."""
        cycles, rest = divmod(samples, sum(self.weights))
        counts = np.bincount(_cycle(self.weights)[0][:rest], minlength=len(self.weights)).tolist()
        parts = zip(self.before, self.weights, counts, strict=True)
        return tuple(before + cycles * weight + count for before, weight, count in parts)

    def draw(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the samples start .. start + count - 1 of the phase: the source of each, and its number among all that
        the run takes of this source."""
        sources, ranks = _cycle(self.weights)
        cycles, places = np.divmod(np.arange(start, start + count, dtype=np.int64), len(sources))
        chosen = sources[places]
        before, weights = (np.array(values, dtype=np.int64) for values in (self.before, self.weights))
        numbers = before[chosen] + cycles * weights[chosen] + ranks[places]
        return chosen, numbers.astype(np.int64, copy=False)


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in the ratio of these weights: of 0.5, 0.3 and 0.2 they are 5, 3 and 2.

    Exact where they add up to no more than 65,536; else the nearest that add up to that, none of them zero but where
    the weight is.

    Args:
        weights: not negative, at least one of them positive; taken as the decimals that they are written as.
    """
    said = [Fraction(str(weight)) for weight in weights]
    parts = [weight / sum(said) for weight in said]
    total = math.lcm(*(part.denominator for part in parts))
    if total <= SMALLEST_SHARE:
        return tuple(int(part * total) for part in parts)
    whole = [math.floor(part * SMALLEST_SHARE) for part in parts]
    left = [part * SMALLEST_SHARE - number for part, number in zip(parts, whole, strict=True)]
    for index in sorted(range(len(left)), key=lambda index: -left[index])[: SMALLEST_SHARE - sum(whole)]:
        whole[index] += 1
    return tuple(whole)


@lru_cache(maxsize=16)
def _cycle(weights: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The source of each of the first W samples, and how many of the same source are before it."""
    total = sum(weights)
    taken = [0] * len(weights)
    due = [-(-total // weight) if weight else 0 for weight in weights]
    drawn = [index for index, weight in enumerate(weights) if weight]
    sources, ranks = (np.empty(total, dtype=np.int64) for _ in range(2))
    for n in range(total):
        chosen = min(
            (index for index in drawn if taken[index] * total < weights[index] * (n + 1)), key=due.__getitem__
        )
        sources[n], ranks[n] = chosen, taken[chosen]
        taken[chosen] += 1
        due[chosen] = -(-(taken[chosen] + 1) * total // weights[chosen])
    return sources, ranks
