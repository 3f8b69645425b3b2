"""The table held against what the library itself says of how a family is split over devices.

`transformers` gives some families a tensor-parallel plan, module -> style: what is split `colwise` writes an axis that
lives inside a layer (heads, the inner width of the feed-forward block), what is split `rowwise` reads such an axis and
writes the residual stream, what is replicated has no such axis. That is what the table says with its axes and sides,
written by other people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ligo_dist.architectures import LAYER, Architecture, Dim, ModelShape


def tensor_parallel_faults(
    architecture: Architecture, shape: ModelShape, plan: Mapping[str, str]
) -> list[str]:
    """Where the table and a plan contradict each other; empty if nowhere.

    Args:
        architecture: the family.
        shape: any shape of it.
        plan: `base_model_tp_plan` of its configuration class: names of modules inside the base model, `*` for the
            number of the layer.
    """
    faults = []
    planned: dict[str, str] = {}
    for module, style in plan.items():
        roles = [role for role in architecture.table(shape) if _belongs(role, module)]
        planned.update(dict.fromkeys(roles, style))
        if not roles:
            faults.append(f"{module}: in the plan, not in the table")
    for role in architecture.layer_roles(shape):
        line = architecture.table(shape)[role]
        fault = _fault(architecture.parse_dims(line), planned.get(role), architecture)
        if fault:
            faults.append(f"{role}: {fault}; the table says {line!r}")
    return faults


def _belongs(role: str, module: str) -> bool:
    """Whether a parameter is one of a module's own; the plan leaves out what the base model is called inside."""
    owner = role.rpartition(".")[0].replace(LAYER, "*")
    return owner == module or owner.endswith(f".{module}")


def _fault(dims: tuple[Dim, ...], style: str | None, architecture: Architecture) -> str | None:
    """What the plan does with a parameter, if its dims do not allow that."""
    inner = set(_sides(dims, "layer"))
    outer = set(_sides(dims, "model"))
    if style == "colwise":
        reads = {"in"} if len(dims) > 1 else set()
        return None if inner == {"out"} and outer == reads else "the plan splits its output"
    if style == "rowwise":
        reads = {"in"} if len(dims) > 1 else set()
        return None if inner == reads and outer == {"out"} else "the plan splits its input"
    if style is None or style.startswith("replicated"):
        return "the plan does not split it" if inner else None
    return f"the plan's style {style!r} is not known"


def _sides(dims: tuple[Dim, ...], scope: str) -> Iterator[str]:
    """The sides on which a parameter touches the axes of a scope."""
    for dim in dims:
        for segment in dim:
            if segment.axis.scope == scope and segment.side:
                yield segment.side
