"""Which runs are seeds of one case, what a case is called, and which runs cannot be compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from ligo_dist.report.read import Run
from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import SOURCE_PATH

_NOT_A_DIFFERENCE = ("seed", "run_dir", "data.cache_dir", "data.workers")
_NOT_DIFFERENT_SECTIONS = ("tracking.", "checkpoints.", "distributed.", "cluster.")
"""Parameters in which runs of one case may differ: they say where things are and how a run is watched."""

MANNER = (".micro_batch_size", ".activation_checkpointing")
"""The ends of those, the number of ranks beside them, that say how a batch is computed: what a step does to the
weights is the same but for rounding."""

_MEASURED_WITH = ("data.sequence_length", "data.mask_fraction", "evaluation.sequences")
"""Parameters that change the validation loss of one and the same model."""


def check_comparable(runs: Sequence[Run]) -> None:
    """See that the losses of all runs are of the same validation data.

    Raises:
        LigoError: they are not; it says which run has which.
    """
    _refuse_differences("corpus.fingerprint", [(run, run.tags.get("corpus.fingerprint")) for run in runs])
    for key in _MEASURED_WITH:
        _refuse_differences(key, [(run, run.parameters.get(key)) for run in runs])


def _refuse_differences(key: str, values: Iterable[tuple[Run, str | None]]) -> None:
    places: dict[str | None, list[str]] = {}
    for run, value in values:
        places.setdefault(value, []).append(run.place)
    if len(places) > 1:
        lines = [f"  {value or 'not recorded'}: {', '.join(those)}" for value, those in places.items()]
        raise LigoError(
            "\n".join([f"{key}: runs with other validation data have losses that cannot be compared", *lines])
        )


def make_groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by the label of the case that they are of, in the order of the first of them.

    Raises:
        LigoError: two runs are the same, seed included.
    """
    groups = [
        group
        for same in _sorted_out(runs, _configuration)
        # A seed that is there twice was run in two ways, which is then what is compared.
        for group in ([same] if _seeds_differ(same) else _sorted_out(same, _manner))
    ]
    labelled: dict[str, list[Run]] = {}
    for group in groups:
        _refuse_repetitions(group)
        label = common = _common_label(group)
        number = 1
        while label in labelled:
            number += 1
            label = f"{common} ({number})"
        labelled[label] = group
    return labelled


def _sorted_out(runs: Iterable[Run], by: Callable[[Run], object]) -> list[list[Run]]:
    """The runs that have the same of something, in the order of the first of them."""
    found: dict[object, list[Run]] = {}
    for run in runs:
        found.setdefault(by(run), []).append(run)
    return list(found.values())


def _configuration(run: Run) -> object:
    """What runs of one case have in common. The model that they begin with is told by the case of the run that made
    it, as each seed has its own."""
    parameters = {
        name: value
        for name, value in run.parameters.items()
        if name not in _NOT_A_DIFFERENCE
        and not name.startswith(_NOT_DIFFERENT_SECTIONS)
        and not name.endswith(MANNER)
    }
    given = parameters.pop("stages.0.from", "")
    model, maker = run.tags.get(SOURCE_PATH, given), run.maker
    begun_from: object = model if maker is None else (maker.target.name, _configuration(maker))
    return begun_from, frozenset(parameters.items())


def _manner(run: Run) -> object:
    """How a run was computed: on how many ranks, in which micro-batches, with what recomputed."""
    keys = {name: value for name, value in run.parameters.items() if name.endswith(MANNER)}
    return run.tags.get("world_size"), frozenset(keys.items())


def _seeds_differ(runs: Sequence[Run]) -> bool:
    return len({run.seed for run in runs}) == len(runs)


def _refuse_repetitions(runs: Sequence[Run]) -> None:
    by_seed: dict[str, str] = {}
    for run in runs:
        if run.seed in by_seed:
            raise LigoError(
                f"{run.place}: the same configuration and seed ({run.seed}) as {by_seed[run.seed]}: it would count"
                " twice; leave one out"
            )
        by_seed[run.seed] = run.place


def _common_label(runs: Sequence[Run]) -> str:
    """What the names of runs have in common at their beginning, without what only announces the seed: `ligo` of
    `ligo-seed-0`, `ligo-seed-1`."""
    names = [run.path.name for run in runs]
    if len(runs) == 1:
        return runs[0].label
    if len(set(names)) == 1:
        return names[0]
    common = os.path.commonprefix(names).rstrip("-_. 0123456789=")  # noqa: RUF071 (names, not paths)
    return common.removesuffix("seed").rstrip("-_. ") or runs[0].label
