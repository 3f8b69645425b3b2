"""What has to be known to read a report's numbers right."""

from __future__ import annotations

from collections.abc import Sequence

from ligo_dist.quantities import flops

from .groups import Group, Member

HOW_TO_GET_SAVINGS = (
    "No baseline was named, so no saving is stated. Name a finished run to hold the others against, usually the same"
    " target trained from scratch: --baseline RUN."
)


def notes_on(groups: Sequence[Group], baseline: Group | None) -> list[str]:
    """A sentence or two for each thing that is not as it might be thought to be."""
    members = [member for group in groups for member in group.members]
    notes = [] if baseline else [HOW_TO_GET_SAVINGS]
    notes += _of_baseline(baseline) if baseline else []
    notes += [
        f"{member.label}: what trained the model that it began with ({member.source.begun_from}) is not known: that is"
        " no RUN_DIR/export/STAGE of a run here. So nothing is stated with its source included."
        for member in members
        if member.source.total is None
    ]
    unfinished = [m for m in members if m.run.recorded.status != "FINISHED"]
    notes += [f"{m.label} is {m.run.recorded.status}: it is shown as far as it came." for m in unfinished]
    timeless = [member.label for member in members if member.run.target.ends.seconds is None]
    if timeless:
        notes.append(
            f"No times of {_listed(timeless)}: made by a version that did not record cumulative/seconds."
        )
    notes += _of_machines(members)
    return notes


def _of_baseline(baseline: Group) -> list[str]:
    """What counts as the baseline's cost."""
    first = baseline.members[0]
    notes = []
    if first.source.own.flops:
        notes.append(
            f"{baseline.label} trained its source itself ({flops(first.source.own.flops)} FLOPs): that is part of the"
            " baseline's cost in all columns."
        )
    if first.source.begun_from is not None:
        notes.append(
            f"{baseline.label} began with {first.source.begun_from}: what trained that is part of the baseline's cost"
            " where sources are included."
        )
    return notes


def _of_machines(members: Sequence[Member]) -> list[str]:
    places = {
        tuple(member.run.recorded.tags.get(tag, "?") for tag in ("world_size", "hosts")) for member in members
    }
    if len(places) == 1:
        return []
    where = "; ".join(
        sorted(f"{ranks} rank{'' if ranks == '1' else 's'} on {hosts}" for ranks, hosts in places)
    )
    return [f"The runs were made on different machines ({where}), so their times compare these too."]


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
