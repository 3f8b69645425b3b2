"""One rank of `benchmarks.checkpoint_cost`: trains in rounds, each with one of the ways to save."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.checkpoint_cost import WAYS, Step
from benchmarks.small_training import SmallTraining
from ligo_dist.checkpoints import CheckpointWriter
from ligo_dist.engine import World, barrier, start_world, stop_world
from ligo_dist.schedule import RunState
from ligo_dist.training import snapshot_of

WARM_UP = 5


def main() -> None:
    arguments, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    world = start_world(600)
    directory = Path(arguments["directory"])
    training = Training(world, arguments["width"], arguments["layers"], directory)
    for _ in range(WARM_UP):
        training.take_step()
    rounds: dict[str, list[list[Step]]] = {way: [] for way in WAYS}
    for number in range(arguments["rounds"]):
        turn = number % len(WAYS)  # no way is always the first of the three
        for way in (*WAYS[turn:], *WAYS[:turn]):
            rounds[way].append(training.run_round(way, arguments["steps"]))
    written = training.checkpoints.last
    assert written is not None
    size = sum(file.stat().st_size for file in written.iterdir())
    numels = training.engine.numels
    result.write_text(json.dumps({"rounds": rounds, "bytes": size, "parameters": sum(numels.values())}))
    stop_world()


class Training(SmallTraining):
    """A model that is trained, and saved in one of the ways.

    Args:
        world: the ranks.
        width: of the model.
        layers: of the model.
        directory: where checkpoints are written.
    """

    def __init__(self, world: World, width: int, layers: int, directory: Path) -> None:
        super().__init__(world, width, layers)
        self.checkpoints = CheckpointWriter(directory, {}, 2, "stop", world, print)

    def run_round(self, way: str, count: int) -> list[Step]:
        """Take so many steps, with a save after a quarter and after three quarters of them, or none."""
        steps = []
        barrier()
        for number in range(1, count + 1):
            began, last = time.perf_counter(), self.checkpoints.last
            self.take_step()
            self.checkpoints.advance()
            saves = way != "none" and number in (count // 4, 3 * count // 4)
            if saves:
                snapshot = snapshot_of(self.engine, "model")
                self.checkpoints.save(RunState(step=self.taken), self.taken, snapshot)
            if saves and way == "waited for":
                self.checkpoints.settle()
            steps.append((time.perf_counter() - began, saves, self.checkpoints.last != last))
        before = self.checkpoints.last
        assert self.checkpoints.settle() == before, "a round has to be so long that its saves are complete"
        return steps


if __name__ == "__main__":
    main()
