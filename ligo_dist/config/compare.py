"""The section `compare`: which ways to begin the last stage `ligo-dist compare` runs, and how their names are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ligo_dist.config.faults import suggestion
from ligo_dist.config.section import CountOrZero, Section, Text
from ligo_dist.growth.registry import METHODS, SCRATCH
from ligo_dist.runtime.errors import Fault

_LEARN, _FIXED = "learn", "fixed"


class Compare(Section):
    """What `ligo-dist compare` runs; of no effect on `ligo-dist run`, and not recorded with a run."""

    methods: Annotated[list[Text], Field(min_length=1)] = [SCRATCH, "stack", "ligo"]
    """Ways to begin the last stage: `scratch`, or any of `ligo-dist methods`. `NAME+learn` has its operator learned,
    `NAME+fixed` applies it as it starts; a bare name does as the method does by itself, or as the last stage's `grow`
    says where it names the same method."""
    seeds: Annotated[list[CountOrZero], Field(min_length=1)] = [0, 1, 2]
    """Each method is run with each of these seeds; they take the place of `seed`."""
    baseline: Text = SCRATCH
    """The one of `methods` whose final loss the others are to reach."""


@dataclass(frozen=True)
class Contender:
    """A way to begin the last stage.

    Attributes:
        name: as the user writes it.
        method: one of `growth.names.METHODS`.
        learned: whether its operator is learned; None: as the configuration or the method has it.
    """

    name: str
    method: str
    learned: bool | None = None

    @property
    def is_scratch(self) -> bool:
        return self.method == SCRATCH


def read_contender(name: str) -> Contender:
    """What a name in `compare.methods` stands for.

    Raises:
        ValueError: it stands for nothing; the message says why.
    """
    method, plus, how = name.partition("+")
    if method not in METHODS:
        raise ValueError(f"{name!r} is no method{suggestion(method, METHODS)}")
    if plus and how not in (_LEARN, _FIXED):
        raise ValueError(f"{name!r}: after the method comes +{_LEARN} or +{_FIXED}")
    if plus and method == SCRATCH:
        raise ValueError(f"{name!r}: {SCRATCH!r} has no operator; {SCRATCH!r} alone would be right")
    return Contender(name, method, how == _LEARN if plus else None)


def compare_faults(compare: Compare) -> list[Fault]:
    """Faults inside `compare`."""
    faults = []
    for index, name in enumerate(compare.methods):
        try:
            read_contender(name)
        except ValueError as error:
            faults.append(Fault(f"compare.methods[{index}]", str(error)))
    for key, items in (("methods", compare.methods), ("seeds", compare.seeds)):
        twice = [str(item) for item, times in Counter(items).items() if times > 1]
        if twice:
            faults.append(Fault(f"compare.{key}", f"{', '.join(twice)} is there more than once"))
    if compare.baseline not in compare.methods:
        wrong = f"{compare.baseline!r} is none of the methods that are compared"
        faults.append(Fault("compare.baseline", f"{wrong}; there are: {', '.join(compare.methods)}"))
    return faults
