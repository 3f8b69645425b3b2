"""The sizes of a model that another grows into, where only some of them are said; no torch."""

from __future__ import annotations

import math
from dataclasses import replace

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.runtime.errors import ArchitectureError

SIZES = ("layers", "width", "heads", "key_value_heads", "ffn")
"""What may be said of a target; all else stays as the source has it, the head size among it."""


def target_shape(architecture: Architecture, source: ModelShape, **sizes: int) -> ModelShape:
    """The shape of a target, of which some `SIZES` are said.

    Layers that are not said stay as many. Width and heads follow each other, as the head size stays; key/value heads
    follow the heads, as many of which share one as in the source. The inner width of the feed-forward block is the
    family's where the source has that, else it grows as the width does, rounded up.

    Raises:
        ArchitectureError: what is said leaves another size without a whole number, or heads and width do not fit.
    """
    made = {"layers": source.layers, **sizes}
    if "width" not in made:
        heads = made.get("heads", source.heads)
        made["width"] = _whole("heads", heads, source.heads, source.width, "width")
    if "heads" not in made:
        made["heads"] = _whole("width", made["width"], source.width, source.heads, "heads")
    if "key_value_heads" not in made:
        heads, groups = made["heads"], source.key_value_heads
        made["key_value_heads"] = _whole("heads", heads, source.heads, groups, "key_value_heads")
    if "ffn" not in made:
        made["ffn"] = _inner_width(architecture, source, made["width"])
    target = replace(source, **made)  # type: ignore[arg-type]
    if not architecture.free_head_size and target.attention_width != target.width:
        wrong = f"heads: {target.heads} of {target.head_size}, a size that stays, do not make the width {target.width}"
        raise ArchitectureError(f"{wrong}; {target.attention_width} would be right for width")
    return target


def _whole(name: str, value: int, before: int, other: int, follows: str) -> int:
    """What another size becomes, that is `other` beside `before`, when this one becomes `value`."""
    if value * other % before == 0:
        return value * other // before
    unit = before // math.gcd(before, other)
    near = [number for number in (value // unit * unit, -(-value // unit) * unit) if number]
    wrong = (
        f"{name}: {value} leaves no whole number of {follows}, of which the source has {other} to {before}"
    )
    raise ArchitectureError(f"{wrong}; {' or '.join(map(str, near))} would be right, or give {follows} too")


def _inner_width(architecture: Architecture, source: ModelShape, width: int) -> int:
    if source.ffn == architecture.default_ffn(source.width):
        return architecture.default_ffn(width)
    return -(-source.ffn * width // source.width)
