"""The section `profile`: which steps of each phase torch's profiler traces."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ligo_dist.config.section import Count, CountOrZero, Section


class Profile(Section):
    """A trace of a few steps of each phase, by torch's profiler: `RUN_DIR/profile/STAGE/PHASE-rank-N.json.gz`, which
    Perfetto and `chrome://tracing` open. It goes to MLflow too. Steps that are profiled take longer."""

    steps: CountOrZero = 0
    """Optimizer steps in a trace; 0: nothing is profiled."""
    start_step: Count = 4
    """The first of them, counted in each phase from 1: the first steps of all allocate and warm up."""
    ranks: Annotated[list[CountOrZero], Field(min_length=1)] = [0]
    """The ranks that are profiled."""
