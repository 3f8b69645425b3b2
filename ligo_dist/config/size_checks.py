"""What has to hold inside a stage's `size`, and from one stage's to the next."""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.config.schema import Size
from ligo_dist.config.shapes import groups_heads
from ligo_dist.errors import Fault

_NEVER_SHRINKS = ("layers", "width", "heads", "key_value_heads", "ffn")


@dataclass(frozen=True)
class Sized:
    """The shape of a stage's model; `divides` is false where the size is at fault itself."""

    path: str
    shape: ModelShape
    divides: bool


def size_faults(path: str, size: Size, architecture: Architecture, rotary_part: float) -> list[Fault]:
    """Faults inside one `size`; `rotary_part` is the part of each head that rotates."""
    heads = _head_faults(path, size, architecture)
    if heads:
        return heads
    faults = _rotary_faults(path, size, architecture, rotary_part) if architecture.rotary else []
    groups = size.key_value_heads
    if groups is not None and size.heads % groups:
        wrong = f"{groups} key/value heads do not divide the {size.heads} heads"
        faults.append(Fault(f"{path}.key_value_heads", wrong))
    elif groups not in (None, size.heads) and not groups_heads(architecture):
        wrong = f"{groups}: {architecture.name} has a key/value head for every head"
        faults.append(Fault(f"{path}.key_value_heads", f"{wrong}; null or {size.heads} would be right"))
    return faults


def _head_faults(path: str, size: Size, architecture: Architecture) -> list[Fault]:
    """Whether the width is shared out among the heads, where it has to be."""
    if size.head_size is not None and architecture.free_head_size:
        return []
    if size.width % size.heads:
        near = [n for n in range(1, size.width + 1) if size.width % n == 0]
        best = min(near, key=lambda n: abs(n - size.heads))
        wrong = f"{size.heads} heads do not divide the width {size.width}; {best} would"
        return [Fault(f"{path}.heads", wrong)]
    if size.head_size not in (None, size.width // size.heads):
        wrong = f"{size.head_size}: the head size of {architecture.name} is width / heads"
        right = f"null or {size.width // size.heads} would be right"
        return [Fault(f"{path}.head_size", f"{wrong}; {right}")]
    return []


def _rotary_faults(path: str, size: Size, architecture: Architecture, part: float) -> list[Fault]:
    """Whether the elements of a head that rotate can do so in pairs."""
    elements = size.head_size or size.width // size.heads
    if _rotates_pairs(elements, part):
        return []
    key, wrong = "head_size", f"{elements} elements"
    if size.head_size is None:
        key, wrong = "heads", f"{size.heads} heads of a width of {size.width} have {elements} elements each"
    if part != 1:
        wrong += f", of which {int(elements * part)} rotate"
    wrong += f"; rotary positions ({architecture.name}) need an even number"
    near = [
        other
        for other in range(1, 2 * elements + 64)
        if _rotates_pairs(other, part) and (other * part).is_integer()
    ]
    if near:
        wrong += f"; heads of {min(near, key=lambda other: abs(other - elements))} would be right"
    return [Fault(f"{path}.{key}", wrong)]


def _rotates_pairs(elements: int, part: float) -> bool:
    rotating = int(elements * part)  # as the library rounds it
    return 0 < rotating <= elements and rotating % 2 == 0


def growth_faults(before: Sized, now: Sized, architecture: Architecture) -> list[Fault]:
    """Whether one model can grow into the next."""
    source, target = before.shape, now.shape
    shrinking = [name for name in _NEVER_SHRINKS if getattr(target, name) < getattr(source, name)]
    if "heads" in shrinking or not now.divides:
        # The heads' own fault says it already: key/value heads follow them unless they are given.
        shrinking = [name for name in shrinking if name != "key_value_heads"]
    faults = []
    for name in shrinking:
        small, large = getattr(source, name), getattr(target, name)
        wrong = f"{large} is less than the {small} of {before.path}; a stage only grows"
        faults.append(Fault(f"{now.path}.{name}", wrong))
    if target.layers == 0 and source.layers == 0:
        faults.append(Fault(f"{now.path}.layers", "0: a model that is grown has at least 1 layer"))
    if faults or not (before.divides and now.divides):
        return faults
    if target.queries_per_group < source.queries_per_group:
        wrong = f"{target.queries_per_group} heads share one, {source.queries_per_group} do in {before.path}"
        right = f"at most {target.heads // source.queries_per_group} would be right"
        faults.append(Fault(f"{now.path}.key_value_heads", f"{target.key_value_heads}: {wrong}; {right}"))
    if target.head_size != source.head_size:
        faults.append(_head_size_fault(source, target, now.path, architecture))
    return faults


def _head_size_fault(source: ModelShape, target: ModelShape, path: str, architecture: Architecture) -> Fault:
    if architecture.free_head_size:
        wrong = f"would change from {source.head_size} to {target.head_size}; growing keeps it and adds heads"
        return Fault(f"{path}.head_size", f"{wrong}; {source.head_size} would be right")
    wrong = f"the head size (width / heads) would change from {source.head_size} to {target.head_size}"
    right = f"growing keeps it and adds heads; {target.width} / {source.head_size}"
    if target.width % source.head_size == 0:
        right += f" = {target.width // source.head_size} heads would be right"
    else:
        right += f" is no whole number, so the width has to be a multiple of {source.head_size} too"
    return Fault(f"{path}.heads", f"{target.heads}: {wrong}; {right}")
