"""What a way to grow needs, can and keeps for a given pair of models: known from their shapes alone, without torch."""

from __future__ import annotations

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.growth.registry import DAMPED

_RESCALING = ("lossless", "lossless-dense", "zero-pad")
"""Widths that fill a remainder with units that add nothing to a norm's statistics."""


def refusals(
    architecture: Architecture,
    source: ModelShape,
    target: ModelShape,
    *,
    depth: str,
    width: str,
    share_depth: bool = False,
) -> list[str]:
    """Why this depth or width cannot be used for this pair; empty if it can."""
    faults = []
    if source.layers == 0 and depth != "random-layers":
        faults.append(
            f"depth {depth!r} needs a layer to start from, and the source has none; use random-layers"
        )
    if depth in DAMPED and target.layers > source.layers:
        if architecture.post_norm:
            faults.append(
                f"depth {depth!r} divides what copies add to the residual stream, and {architecture.name} normalises"
                " that stream behind each of them; identity-layers allows for it"
            )
        if share_depth:
            faults.append(
                f"depth {depth!r} divides what a layer writes alone, which coefficients that all roles share cannot;"
                " set share_depth: false"
            )
    if width == "hypercloning":
        for name in ("width", "ffn", "key_value_heads"):
            small, large = getattr(source, name), getattr(target, name)
            if large % small:
                faults.append(
                    f"width 'hypercloning' repeats all units equally often, and {large} ({name}) is no multiple"
                    f" of {small}; lossless has no such limit"
                )
    return faults


def nothing_kept(source: ModelShape, target: ModelShape, depth: str, width: str) -> str | None:
    """Why no layer, or no unit, of the target is one of the source's that goes on; None: each of them does, and the
    others are new."""
    if depth == "noisy-stack" or (depth == "interpolate" and target.layers > source.layers):
        return f"depth {depth!r} makes each layer a mixture of the source's"
    if width == "random" and _widens(source, target):
        return "width 'random' makes each unit a mixture of the source's"
    return None


def obstacles(
    architecture: Architecture,
    source: ModelShape,
    target: ModelShape,
    *,
    depth: str,
    width: str,
    noise: float = 0.0,
    share_depth: bool = False,
) -> list[str]:
    """Why the target will not compute the source's function right after growing; empty if it will.

    It does where each new layer passes on what it gets, and each new unit either is not read, or is read with its
    part of the weight of what it copies, and the statistics of all norms stay what they were (LEMON, section 3).
    """
    found = []
    if target.layers > source.layers:
        if depth != "identity-layers":
            found.append(f"depth {depth!r} adds layers that change the function")
        elif share_depth:
            found.append(
                "share_depth: a new layer cannot be silenced by coefficients that all its roles share"
            )
    elif depth == "noisy-stack":
        found.append("depth 'noisy-stack' mixes other layers in")
    if not _widens(source, target):
        return found
    if width == "random":
        found.append("width 'random' keeps no unit as it was")
    if noise:
        found.append(f"noise of {noise:g} is added to the new units")
    if width == "identity-random":
        found.append("width 'identity-random' lets new units be read at once")
    elif width == "bert2bert-aki":
        found.append("width 'bert2bert-aki' takes new units from the next layer")
    elif target.width > source.width:
        found += _statistics_obstacles(architecture, source, target, width)
    return found


def _statistics_obstacles(
    architecture: Architecture, source: ModelShape, target: ModelShape, width: str
) -> list[str]:
    """Why the norms would see other statistics."""
    divides = target.width % source.width == 0
    uneven = f"{target.width} is no multiple of {source.width}"
    if width == "zero-pad":
        if architecture.post_norm or architecture.normalization != "rms_norm":
            return [f"width 'zero-pad' moves the mean that {architecture.name}'s LayerNorm subtracts"]
        return []
    if width == "bert2bert-fpi":
        return ["width 'bert2bert-fpi' copies units unequally often, which changes the norms' statistics"]
    if divides:
        return []
    if architecture.norm_epsilon is None and not architecture.post_norm and width in _RESCALING:
        return [
            f"{uneven}: {architecture.name}'s configuration has no key for the norms' epsilon, which changes"
        ]
    if width == "net2net":
        return [f"{uneven}: copies unequally often change the norms' statistics"]
    if architecture.post_norm:
        return [f"{uneven}: norms on the residual stream ({architecture.name}) allow whole copies only"]
    return []


def epsilon_factor(architecture: Architecture, source: ModelShape, target: ModelShape, width: str) -> float:
    """What the norms' epsilon is multiplied by, so that it stays the same part of their (smaller) statistics.

    k n units of n' hold all of the variance, so it is k n / n' of the source's (LEMON, appendix on LayerNorm).
    """
    if architecture.post_norm or architecture.norm_epsilon is None or width not in _RESCALING:
        return 1.0
    whole = 1 if width == "zero-pad" else target.width // source.width
    return whole * source.width / target.width


def fresh_layers(source: ModelShape, target: ModelShape, depth: str) -> int:
    """Layers, as the library initialises them, that depth coefficients mix beside the source's own."""
    return target.layers - source.layers if depth == "random-layers" else 0


def needs_unit_layer(architecture: Architecture, source: ModelShape, target: ModelShape, depth: str) -> bool:
    """Whether they mix a layer that only normalises, too: post-norm identity layers are made of it."""
    return architecture.post_norm and depth == "identity-layers" and target.layers > source.layers


def has_new_depth(width: str) -> bool:
    """Whether new units have depth coefficients of their own."""
    return width == "bert2bert-aki"


def _widens(source: ModelShape, target: ModelShape) -> bool:
    names = ("width", "heads", "key_value_heads", "ffn")
    return any(getattr(target, name) > getattr(source, name) for name in names)
