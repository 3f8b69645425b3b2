"""The section `compare`: which ways to begin the last stage `ligo-dist compare` runs, and how their names are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ligo_dist.config.faults import suggestion
from ligo_dist.config.section import CountOrZero, Section, Text
from ligo_dist.growth import METHODS, SCRATCH
from ligo_dist.runtime.errors import Fault

_LEARN, _FIXED = "learn", "fixed"

SOURCE = "source"
"""Names the run of the stages before the last."""

_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Compare(Section):
    """What `ligo-dist compare` runs; of no effect on `ligo-dist run`, and not recorded with a run."""

    methods: Annotated[list[Text], Field(min_length=1)] = [SCRATCH, "stack", "ligo"]
    """Ways to begin the last stage: `scratch`, or any of `ligo-dist methods`. `NAME+learn` has its operator learned,
    `NAME+fixed` applies it as it starts; a bare name does as the method does by itself, or as the last stage's `grow`
    says where it names the same method; or a name in `variants`."""
    variants: dict[Text, dict[Text, Any]] = {}
    """Further ways, by names for `methods`: keys of the stages, and the values that are written over theirs, such as
    `{untied: {"stages[1].grow": {method: ligo, tied: false}}}`. One that changes what comes before the last stage, or
    that grows the optimizer's state, trains its own source, in its own run."""
    seeds: Annotated[list[CountOrZero], Field(min_length=1)] = [0, 1, 2]
    """Each method is run with each of these seeds; they take the place of `seed`."""
    baseline: Text = SCRATCH
    """The one of `methods` whose final loss the others are to reach."""


@dataclass(frozen=True)
class Contender:
    """A way to begin the last stage.

    Attributes:
        name: as the user writes it.
        method: one of `growth.registry.METHODS`; None: as the configuration says, once it is changed.
        learned: whether its operator is learned; None: as the configuration or the method has it.
        changes: of the configuration, by dotted keys.
    """

    name: str
    method: str | None
    learned: bool | None
    changes: Mapping[str, Any]


def read_contender(name: str, variants: Mapping[str, Mapping[str, Any]]) -> Contender:
    """What a name in `compare.methods` stands for.

    Raises:
        ValueError: it stands for nothing; the message says why.
    """
    if name in variants:
        return Contender(name, None, None, variants[name])
    method, plus, how = name.partition("+")
    if method not in METHODS:
        raise ValueError(f"{name!r} is no method{suggestion(method, [*METHODS, *variants])}")
    if plus and how not in (_LEARN, _FIXED):
        raise ValueError(f"{name!r}: after the method comes +{_LEARN} or +{_FIXED}")
    if plus and method == SCRATCH:
        raise ValueError(f"{name!r}: {SCRATCH!r} has no operator; {SCRATCH!r} alone would be right")
    return Contender(name, method, how == _LEARN if plus else None, {})


def compare_faults(compare: Compare) -> list[Fault]:
    """Faults inside `compare`."""
    faults = []
    for name, changes in compare.variants.items():
        where = f"compare.variants.{name}"
        if name in METHODS or name == SOURCE:
            faults.append(Fault(where, f"{name!r} has a meaning already; another name would be right"))
        elif not _VARIANT_NAME.fullmatch(name):
            faults.append(Fault(where, "names a directory: letters, digits, '.', '_' and '-' would be right"))
        right = "such as {'stages[1].grow.tied': false} would be right"
        if not changes:
            faults.append(Fault(where, f"changes nothing; {right}"))
        # All have the same data, tokenizer and evaluation.
        faults += [
            Fault(f"{where}.{key}", f"stages alone may differ; {right}")
            for key in changes
            if not key.startswith("stages")
        ]
    for index, name in enumerate(compare.methods):
        try:
            read_contender(name, compare.variants)
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
