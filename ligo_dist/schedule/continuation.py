"""Going on from a checkpoint with another configuration than it was made with: in the same run, which may have more
steps and stages, or in a new run that begins there (`start_from`). What lies behind the checkpoint is the same in both.
No torch: the launcher asks before anything starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ligo_dist.config import (
    Learn,
    Stage,
    StartFrom,
    Train,
    changes,
    completed,
    difference,
    learn_steps,
    what_may_change,
)
from ligo_dist.runtime.errors import CheckpointError, shortened
from ligo_dist.runtime.files import CHECKPOINT_NAME, CHECKPOINTS_DIRECTORY, MANIFEST
from ligo_dist.schedule.learning_rate import LearningRate
from ligo_dist.schedule.plan import rate_of
from ligo_dist.schedule.state import LEARN, TRAIN, RunState

_FINGERPRINTS = ("corpus_fingerprint", "source_fingerprint")

_AHEAD = ("optimizer", "schedule", "steps")
"""Of a phase that has begun: what its steps to come may have otherwise."""


def has_begun(run_dir: Path) -> bool:
    """Whether a run has checkpoints of its own to go on from."""
    manifests = (run_dir / CHECKPOINTS_DIRECTORY).glob(f"step-*/{MANIFEST}")
    return next(manifests, None) is not None


def start_checkpoint(start: StartFrom, directory: Path = Path()) -> Path:
    """The checkpoint that `start_from` names; `directory`: what a relative path begins at.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    run = directory / start.run
    steps: dict[Path, int] = {}
    for path in sorted((run / CHECKPOINTS_DIRECTORY).glob(f"step-*/{MANIFEST}")):
        match = CHECKPOINT_NAME.fullmatch(path.parent.name)
        if match is not None:
            steps[path.parent] = int(match[1])
    if not steps:
        wrong = f"{start.run!r} has no checkpoints; a run directory would be right"
        raise CheckpointError(f"start_from.run: {wrong}")
    places = {path: _place(path) for path, step in steps.items() if step == start.step}
    if not places:
        there = shortened(str(step) for step in sorted(set(steps.values())))
        raise CheckpointError(
            f"start_from.step: {start.step}: {start.run!r} has no checkpoint of that step; there are: {there}"
            " (what is in `checkpoints.keep_steps` of a run stays)"
        )
    there = ", ".join(f"{{stage: {place['stage']}, phase: {place['phase']}}}" for place in places.values())
    for key in ("stage", "phase"):
        wanted = getattr(start, key)
        if wanted is None:
            continue
        places = {path: place for path, place in places.items() if place[key] == wanted}
        if not places:
            wrong = f"{wanted!r}: no checkpoint of step {start.step}"
            raise CheckpointError(f"start_from.{key}: {wrong}; there are: {there}")
    if len(places) > 1:
        key = "stage" if len({place["stage"] for place in places.values()}) > 1 else "phase"
        wrong = f"null: {len(places)} checkpoints are of step {start.step}"
        raise CheckpointError(f"start_from.{key}: {wrong}, and one has to be named; there are: {there}")
    return next(iter(places))


def _place(path: Path) -> dict[str, str]:
    """The stage and the phase of a checkpoint."""
    config, state = read_start(path)
    return {"stage": config["stages"][state.stage]["name"], "phase": state.phase}


def read_start(path: Path) -> tuple[dict[str, Any], RunState]:
    """The configuration that a checkpoint was made with, and where its run stood; its files are not looked at.

    Raises:
        CheckpointError: its manifest cannot be read.
    """
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return content["config"], RunState.from_dict(content["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"start_from: {path / MANIFEST} cannot be read ({error})") from error


def _stage_name(path: Path, index: int) -> str:
    config, _ = read_start(path)
    return str(config["stages"][index]["name"])


def check_start(path: Path, old: dict[str, Any], new: dict[str, Any], state: RunState) -> None:
    """See that a run can begin from another one's checkpoint.

    Args:
        path: of the checkpoint.
        old: the configuration it was made with, as it was recorded.
        new: that of the run which is to begin there. Where it has no fingerprints of corpus and source, these are not
            compared, nor what they stand for.
        state: where the checkpoint stands.

    Raises:
        CheckpointError: what lies behind it is not the same: each key with both values.
    """
    faults = _different_past(old, new, state)
    if faults:
        lines = "\n".join(f"  {line}" for line in faults)
        raise CheckpointError(
            f"start_from: {path} is of a run that has come there otherwise:\n{lines}\n"
            "what lies behind it has to be the same here; what lies ahead may differ: steps, schedule and"
            " optimizer (but not its kind) of the stage it stands in, and the stages after that"
        )


def taken_otherwise(old: dict[str, Any], new: dict[str, Any], state: RunState) -> list[str]:
    """How the steps that a run takes over differ from those that it would have taken itself, a line each: where there
    is one, the run is not what one run with its configuration would have been."""
    before, now = (_phase_section(config, state) for config in (old, new))
    if before is None or now is None or not state.step:
        return []
    lines = difference(
        *({"optimizer": phase[0].optimizer.model_dump(mode="json")} for phase in (before, now))
    )
    return lines + _other_rate(rate_of(*before), rate_of(*now), state.step)


def check_same_run(path: Path, old: dict[str, Any], new: dict[str, Any], state: RunState) -> None:
    """See that a run can go on from its own checkpoint with a configuration. Beside what changes no number, the last
    stage may have other steps and another schedule so long as the steps that are done have the rates that they were
    taken with; and there may be further stages.

    Args:
        path: of the checkpoint.
        old: the configuration it was made with, as it was recorded.
        new: what the run is asked to do now.
        state: where the checkpoint stands.

    Raises:
        CheckpointError: something else has changed: each key with both values, and what may change.
    """
    lines = _changes_of_run(old, new, state)
    if lines:
        told = "\n".join(f"  {line}" for line in lines)
        raise CheckpointError(
            f"{path} was made with another configuration:\n{told}\n"
            "resume with the old values, or choose another run_dir, which may begin from this checkpoint (start_from)\n"
            f"what may change: {what_may_change()}; and steps and schedule of the last stage's `train` where the steps"
            " that are done keep their learning rates, and further stages"
        )


def _changes_of_run(old: dict[str, Any], new: dict[str, Any], state: RunState) -> list[str]:
    """What keeps a run from going on with another configuration, a line each."""
    before, now = completed(old), completed(new)
    last = len(before["stages"]) - 1
    del now["stages"][last + 1 :]
    if len(now["stages"]) <= last:
        return changes(before, now)
    is_there = (state.stage, state.phase) == (last, TRAIN)
    at = replace(state, stage=last, phase=TRAIN, step=state.step if is_there else 0)
    was, would_be = (_phase_section(config, at) for config in (before, now))
    why: list[str] = []
    if was is not None and would_be is not None:
        if would_be[1] < at.step:
            why = [f"stages[{last}].train.steps: {at.step} are done; at least as many would be right"]
        else:
            why = _other_rate(rate_of(*was), rate_of(*would_be), at.step)
        if not why:
            for config in (before, now):
                for key in ("steps", "schedule"):
                    config["stages"][last]["train"].pop(key)
    lines = changes(before, now)
    return lines + why if lines else []


def _other_rate(was: LearningRate, would_be: LearningRate, steps: int) -> list[str]:
    """The first of some steps that has another learning rate, in a line; none has."""
    for step in range(steps):
        if was(step) != would_be(step):
            return [f"learning rate of step {step + 1}: {was(step):.4g} -> {would_be(step):.4g}"]
    return []


def _phase_section(config: dict[str, Any], state: RunState) -> tuple[Learn | Train, int] | None:
    """What a recorded configuration says of the phase that a state stands in, and the steps of that; None where it
    says nothing that this version can read."""
    try:
        stage = Stage.model_validate(config["stages"][state.stage])
    except ValidationError:
        return None
    if state.phase == TRAIN:
        return None if stage.train is None else (stage.train, stage.train.steps)
    return None if stage.grow is None else (stage.grow.learn, learn_steps(stage.grow))


def _different_past(old: dict[str, Any], new: dict[str, Any], state: RunState) -> list[str]:
    """What of two configurations differs up to where a checkpoint stands, a line each."""
    if len(new["stages"]) <= state.stage:
        return [f"stages[{state.stage}]: {old['stages'][state.stage]['name']!r} -> absent"]
    past, own = completed(old), completed(new)
    if not any(own.get(key) for key in _FINGERPRINTS):
        own |= {key: past[key] for key in _FINGERPRINTS if key in past}
    for config in (past, own):
        config.pop("start_from", None)
        del config["stages"][state.stage + 1 :]
        _forget_what_lies_ahead(config["stages"][state.stage], state)
    lines = changes(past, own)
    phase = _phase_section(new, state)
    if not lines and phase is not None and phase[1] < state.step:
        key = f"stages[{state.stage}].{'train' if state.phase == TRAIN else 'grow.learn'}.steps"
        lines.append(f"{key}: {phase[1]}, and {state.step} are done; at least {state.step} would be right")
    return lines


def _forget_what_lies_ahead(stage: dict[str, Any], state: RunState) -> None:
    """Take out of a stage what has no part in the steps up to a state: of what follows all, of the phase it stands in
    what its steps to come may have otherwise."""
    train, learn = stage["train"] or {}, (stage["grow"] or {}).get("learn", {})
    phase = train
    if state.phase == LEARN:
        learn["batch_size"] = learn["batch_size"] or train.get("batch_size")
        phase, stage["train"] = learn, None
    elif not state.step:
        stage["train"] = None
    kind = phase.get("optimizer", {}).get("kind")
    for key in _AHEAD:
        phase.pop(key, None)
    if state.step and kind is not None:  # whose moments the checkpoint has
        phase["optimizer"] = {"kind": kind}
