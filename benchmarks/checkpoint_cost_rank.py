"""One rank of `benchmarks.checkpoint_cost`: trains in rounds, each with one of the ways to save."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from benchmarks.checkpoint_cost import WAYS, Step
from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.building import snapshot_of
from ligo_dist.checkpoints import CheckpointWriter
from ligo_dist.distributed import World, barrier, seed_everything
from ligo_dist.engine import Engine, OptimizerSettings, engine_config, start_world, stop_world
from ligo_dist.models import build_partitioned_model, huggingface_config
from ligo_dist.shards import partition_size
from ligo_dist.stages import RunState

VOCAB, LENGTH, SEQUENCES = 4096, 64, 2
ADAM = OptimizerSettings(1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0)
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


class Training:
    """A model that is trained, and saved in one of the ways.

    Args:
        world: the ranks.
        width: of the model.
        layers: of the model.
        directory: where checkpoints are written.
    """

    def __init__(self, world: World, width: int, layers: int, directory: Path) -> None:
        self.world = world
        self.engine = _build_engine(world, width, layers)
        self.checkpoints = CheckpointWriter(directory, {}, 2, "stop", world, print)
        self._taken = 0

    def take_step(self) -> None:
        self._taken += 1
        generator = torch.Generator().manual_seed(1000 * self._taken + self.world.rank)
        batch = torch.randint(0, VOCAB, (SEQUENCES, LENGTH), generator=generator)
        micro_batch = {"input_ids": batch, "labels": batch}, SEQUENCES
        self.engine.train_step([micro_batch], SEQUENCES * self.world.size, {"model": 1e-4})

    def run_round(self, way: str, count: int) -> list[Step]:
        """Take so many steps, with a save after a quarter and after three quarters of them, or none."""
        steps = []
        barrier(self.world)
        for number in range(1, count + 1):
            began, last = time.perf_counter(), self.checkpoints.last
            self.take_step()
            self.checkpoints.advance()
            saves = way != "none" and number in (count // 4, 3 * count // 4)
            if saves:
                snapshot = snapshot_of(self.engine, "model")
                self.checkpoints.save(RunState(step=self._taken), self._taken, snapshot)
            if saves and way == "waited for":
                self.checkpoints.settle()
            steps.append((time.perf_counter() - began, saves, self.checkpoints.last != last))
        before = self.checkpoints.last
        assert self.checkpoints.settle() == before, "a round has to be so long that its saves are complete"
        return steps


def _build_engine(world: World, width: int, layers: int) -> Engine:
    architecture = get_architecture("gpt2")
    heads = width // 64
    shape = ModelShape(
        layers, width, heads, heads, 4 * width, architecture.tied_by_default, vocab=VOCAB, positions=LENGTH
    )
    config = huggingface_config(architecture, shape, {"bos_token_id": 1, "eos_token_id": 2})
    model = build_partitioned_model(architecture, shape, config, torch.float32)
    engine = Engine(model, ADAM, engine_config("fp32", SEQUENCES, 1, 1.0, {}), world)
    seed_everything(0, world.rank)
    engine.write_shards(
        (spec.name, 0.02 * torch.randn(partition_size(spec.numel, world.size)))
        for spec in architecture.parameters(shape)
    )
    return engine


if __name__ == "__main__":
    main()
