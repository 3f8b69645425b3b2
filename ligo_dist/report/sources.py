"""What trained the model that a run began with, where that was another run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ligo_dist.errors import LigoError
from ligo_dist.files import EXPORTS_DIRECTORY

from .reading import read_directory
from .runs import Cost, Run, make_run


@dataclass(frozen=True)
class Source:
    """All that was trained before a run's target.

    Attributes:
        own: what the run itself spent on it.
        begun_from: the directory or hub name of the model that the run began with; None: with random values.
        maker: the run that exported that model, up to the stage that did; None: not known.
        before: what was spent on it; None: not known.
    """

    own: Cost
    begun_from: str | None
    maker: Run | None
    before: Cost | None

    @property
    def total(self) -> Cost | None:
        return None if self.before is None else self.own + self.before


def find_source(run: Run) -> Source:
    """The source of a run's target. What another run spent is read from that run's directory."""
    maker, before = _found(run, ())
    return Source(run.source, run.begun_from, maker, before)


def find_maker(model: str) -> Run | None:
    """The run that exported a model, up to the stage that did, if its directory is `RUN_DIR/export/STAGE` and can be
    read; else None."""
    export = Path(model).expanduser().absolute()
    if export.parent.name != EXPORTS_DIRECTORY:
        return None
    try:
        return make_run(read_directory(export.parent.parent)).until(export.name)
    except LigoError:
        return None


def _found(run: Run, seen: tuple[str, ...]) -> tuple[Run | None, Cost | None]:
    """The run that made what a run began with, and what was spent on it by that run and by those before it."""
    if run.begun_from is None:
        return None, Cost()
    maker = None if run.begun_from in seen else find_maker(run.begun_from)
    if maker is None:
        return None, None
    _, before = _found(maker, (*seen, run.begun_from))
    return maker, None if before is None else maker.spent + before
