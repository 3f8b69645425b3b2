"""A rank of `benchmarks.startup`, wrapped (`cluster.wrapper`): it marks what it has come to, and is a rank as ever.

python -m benchmarks.startup_rank PYTHON -u -m ligo_dist CONFIG
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any

from benchmarks.startup import make_mark
from ligo_dist.runtime import heartbeat


def main() -> None:
    module = sys.argv.index("-m") + 1
    sys.argv = [sys.argv[module], *sys.argv[module + 1 :]]
    name = sys.argv[0]
    enter = heartbeat.enter

    def marked(place: str) -> None:
        make_mark(place)
        enter(place)
        if place == "small train":
            _mark_first_step()

    heartbeat.enter = marked
    # A supervised rank begins once more.
    make_mark("anew" if "LIGO_DIST_BEGUN" in os.environ else "process")
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _mark_first_step() -> None:
    from ligo_dist.engine import Engine

    take = Engine.train_step

    def marked(engine: Engine, *arguments: Any) -> Any:
        result = take(engine, *arguments)
        make_mark("step")
        Engine.train_step = take  # type: ignore[method-assign]
        return result

    Engine.train_step = marked  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    main()
