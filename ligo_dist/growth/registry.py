"""The names of the ways to grow, what each does and where it is from. Kept apart from their code so that the launcher
can check a name, and list them, without torch. What a method keeps for a given pair of models: `growth.preserves`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One way to grow.

    Attributes:
        description: what it does, in a line.
        preserves: when the target computes the source's function right after growing.
        source: where it is from.
    """

    description: str
    preserves: str
    source: str


@dataclass(frozen=True)
class MethodEntry(Entry):
    """A named pair of a way to grow in depth and one in width; `scratch` has neither.

    Attributes:
        learn_steps: steps that its operator is learned for, unless the user says otherwise.
    """

    depth: str | None
    width: str | None
    learn_steps: int = 0


@dataclass(frozen=True)
class Method:
    """How an operator starts.

    Attributes:
        name: what the configuration calls it.
        depth: one of `DEPTHS`.
        width: one of `WIDTHS`.
        noise: on the new rows of the width matrices, relative to the scale of these rows.
    """

    name: str
    depth: str
    width: str
    noise: float = 0.0


SCRATCH = "scratch"
"""The control: the target starts from random values, and there is no operator."""

MAY_BE_TIED = ("identity-random", "random")
"""Widths that work with one matrix for all sides of an axis."""

DAMPED = {"damped-stack": "stack", "damped-interlace": "interlace"}
"""Depths whose copies write a part each of what their layer wrote -> the depth that says which layer each copies."""

_NEVER = "never"
_DIVIDING = "where widths divide"
_EULER = "this project: k Euler steps of 1/k in the place of one"
_PRE_NORM = "pre-norm models at any width; post-norm ones where widths divide"

DEPTHS: dict[str, Entry] = {
    "noisy-stack": Entry(
        "stack, with U[0, 0.03] noise on the coefficients, which are scaled to sum 1",
        _NEVER,
        "LiGO's published code",
    ),
    "stack": Entry(
        "layer l is source layer l mod K", _NEVER, "StackBERT, ICML 2019; G_stack, arXiv 2405.15319"
    ),
    "interlace": Entry(
        "every source layer is repeated in place: layer l is source layer floor(l K / L)",
        _NEVER,
        "LiGO's published code; called interpolation in its paper",
    ),
    "damped-stack": Entry(
        "like stack, but each of k copies of a layer writes 1/k of what it wrote", _NEVER, _EULER
    ),
    "damped-interlace": Entry(
        "like interlace, but each of k copies of a layer writes 1/k of what it wrote", _NEVER, _EULER
    ),
    "interpolate": Entry(
        "linear between the two source layers nearest in relative depth", _NEVER, "Chang et al., ICLR 2018"
    ),
    "top-copy": Entry(
        "the new layers on top copy the source's topmost ones", _NEVER, "MSLT, Yang et al., 2020"
    ),
    "identity-layers": Entry(
        "new layers behind the layer that they copy (where layers depend on their number: behind all), which write"
        " nothing yet",
        "always",
        "Net2Net, ICLR 2016; LEMON, arXiv 2310.07999 (the post-norm case is this project's)",
    ),
    "random-layers": Entry(
        "new layers on top, as the library initialises them; from a source of no layer too",
        _NEVER,
        "zero/one-layer progressive training, arXiv 2511.04981",
    ),
}

WIDTHS: dict[str, Entry] = {
    "identity-random": Entry(
        "identity above rows drawn from U[0, 1] and scaled to sum 1; tied", _NEVER, "LiGO, arXiv 2303.00980"
    ),
    "net2net": Entry(
        "new units copy old ones, all equally often; what reads them is split evenly",
        _DIVIDING,
        "Net2Net, ICLR 2016",
    ),
    "bert2bert-fpi": Entry(
        "new units (whole heads in attention) copy old ones drawn at random; what reads them is split evenly",
        "where the width itself does not grow",
        "bert2BERT, ACL 2022, arXiv 2110.07143",
    ),
    "bert2bert-aki": Entry(
        "like bert2bert-fpi, but new units are copied from the next layer", _NEVER, "bert2BERT, ACL 2022"
    ),
    "lossless": Entry(
        "copies read through an uneven split; what does not divide is filled with average (LayerNorm) or zero"
        " (RMSNorm) units, gains and epsilon rescaled",
        _PRE_NORM,
        "LEMON, ICLR 2024, arXiv 2310.07999",
    ),
    "lossless-dense": Entry(
        "new units are dense mixtures that keep the norms' statistics, and nothing reads them yet; the rest as"
        " lossless",
        _PRE_NORM,
        "this project",
    ),
    "hypercloning": Entry(
        "all units repeated equally often, what reads them divided; needs widths that divide",
        "always (elsewhere it is refused)",
        "HyperCloning, arXiv 2409.12903",
    ),
    "zero-pad": Entry(
        "new units are zero and nothing reads them: they learn with `noise` only",
        "pre-norm models with RMSNorm",
        "common practice",
    ),
    "random": Entry("random projections of the source: a control", _NEVER, "this project"),
}


def _method(
    depth: str, width: str, description: str, preserves: str, source: str, learn_steps: int = 0
) -> MethodEntry:
    return MethodEntry(description, preserves, source, depth, width, learn_steps)


METHODS: dict[str, MethodEntry] = {
    "ligo": _method(
        "noisy-stack",
        "identity-random",
        "the learned linear growth operator, started as in its published code",
        _NEVER,
        "Wang et al., ICLR 2023, arXiv 2303.00980",
        learn_steps=100,
    ),
    "lossless-dense": _method(
        "identity-layers",
        "lossless-dense",
        "dense new units and new layers that change nothing yet",
        _PRE_NORM,
        "this project",
    ),
    "lossless": _method(
        "identity-layers",
        "lossless",
        "copied new units and new layers that change nothing yet",
        _PRE_NORM,
        "LEMON, ICLR 2024, arXiv 2310.07999",
    ),
    "net2net": _method(
        "identity-layers", "net2net", "copied units, identity layers", _DIVIDING, "Net2Net, ICLR 2016"
    ),
    "hypercloning": _method(
        "identity-layers",
        "hypercloning",
        "tiled and divided; identity layers where depth grows too",
        "always (widths that do not divide are refused)",
        "arXiv 2409.12903",
    ),
    "bert2bert-fpi": _method(
        "stack",
        "bert2bert-fpi",
        "function-preserving initialisation, stacked",
        "where neither width nor depth grows",
        "ACL 2022, arXiv 2110.07143",
    ),
    "bert2bert-aki": _method(
        "stack",
        "bert2bert-aki",
        "advanced knowledge initialisation, stacked",
        _NEVER,
        "ACL 2022, arXiv 2110.07143",
    ),
    "stack": _method(
        "stack", "net2net", "layers stacked; copied units where width grows", _NEVER, DEPTHS["stack"].source
    ),
    "interlace": _method(
        "interlace",
        "net2net",
        "layers repeated in place; copied units where width grows",
        _NEVER,
        DEPTHS["interlace"].source,
    ),
    "interpolate": _method(
        "interpolate",
        "net2net",
        "layers interpolated; copied units where width grows",
        _NEVER,
        DEPTHS["interpolate"].source,
    ),
    "damped": _method(
        "damped-stack",
        "lossless-dense",
        "layers stacked, which together write what one wrote; dense new units where width grows",
        _NEVER,
        _EULER,
    ),
    "top-copy": _method(
        "top-copy",
        "net2net",
        "topmost layers copied; copied units where width grows",
        _NEVER,
        DEPTHS["top-copy"].source,
    ),
    "progressive": _method(
        "random-layers",
        "lossless-dense",
        "random new layers on top of few or none, late in training",
        _NEVER,
        DEPTHS["random-layers"].source,
    ),
    "zero-pad": _method(
        "identity-layers",
        "zero-pad",
        "zero units, identity layers; give it `noise`",
        WIDTHS["zero-pad"].preserves,
        "common practice",
    ),
    "random": _method(
        "stack", "random", "stacked layers, projected at random: a control", _NEVER, "this project"
    ),
    SCRATCH: MethodEntry(
        "the control: a target with random values, no operator, nothing learned", _NEVER, "-", None, None
    ),
}


def get_method(
    name: str, depth: str | None = None, width: str | None = None, noise: float = 0.0
) -> Method | None:
    """A named method, its depth or width replaced where given; None for `scratch`, which has no operator."""
    entry = METHODS[name]
    if entry.depth is None or entry.width is None:
        return None
    return Method(name, depth or entry.depth, width or entry.width, noise)
