"""What a training step takes with each way to compute attention, on this machine's processors.

    DS_ACCELERATOR=cpu python -m benchmarks.attention

Models of a family, alike but for `model.attention`, take steps in turns, a round after the other, on one rank with one
core. Said is the processor time of a step, in which other work on the machine does not count: that of `sdpa` over that
of `eager` in the same round, the median of the rounds and their range. `model.attention: auto` goes by it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from datetime import date

import torch

from benchmarks.provenance import commit, processor
from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.engine import Engine, OptimizerSettings, World, engine_config, start_world, stop_world
from ligo_dist.huggingface import build_partitioned_model, huggingface_config, initial_shards

VOCAB, WIDTH, HEADS, LAYERS, TOKENS = 1024, 256, 4, 4, 2048
ADAM = OptimizerSettings(1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
WAYS = ("eager", "sdpa")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=["gpt2", "llama", "bert"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="of each in a round")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    world = start_world(600)
    print(
        f"{date.today()}, commit {commit()}; one core of {processor()}, {options.rounds} rounds, {TOKENS} tokens"
    )
    for family, length, precision in itertools.product(options.families, options.lengths, options.precisions):
        seconds = measure(world, family, length, precision, options.rounds, options.steps)
        ratios = [sdpa / eager for eager, sdpa in zip(seconds["eager"], seconds["sdpa"], strict=True)]
        print(
            f"{family:<8}{length:>5} positions  {precision}  eager {statistics.median(seconds['eager']):5.2f} s"
            f"  sdpa / eager {statistics.median(ratios):4.2f} ({min(ratios):4.2f} to {max(ratios):4.2f})",
            flush=True,
        )
    stop_world()


def measure(
    world: World, family: str, length: int, precision: str, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Seconds of a step with each way, one for each round."""
    engines = {way: build_engine(world, family, length, precision, way) for way in WAYS}
    batch = torch.randint(0, VOCAB, (TOKENS // length, length), generator=torch.Generator().manual_seed(0))
    micro_batch = {"input_ids": batch, "labels": batch}, len(batch)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        turn = number % len(WAYS)  # none is always the first
        for way in (*WAYS[turn:], *WAYS[:turn]):
            began = time.process_time()
            for _ in range(steps):
                engines[way].train_step([micro_batch], len(batch), {"model": 1e-4})
            if number:  # the first one warms up
                seconds[way].append((time.process_time() - began) / steps)
    return seconds


def build_engine(world: World, family: str, length: int, precision: str, attention: str) -> Engine:
    architecture = get_architecture(family)
    ffn = architecture.default_ffn(WIDTH)
    shape = ModelShape(
        LAYERS,
        WIDTH,
        HEADS,
        HEADS,
        ffn,
        architecture.tied_by_default,
        vocab=VOCAB,
        positions=length,
        token_types=architecture.token_types,
    )
    config = huggingface_config(architecture, shape, {}, attention=attention)
    model = build_partitioned_model(architecture, shape, config, DTYPES[precision])
    engine = Engine(model, ADAM, engine_config(precision, TOKENS // length, 1, 1.0, {}), world)
    engine.write_shards(initial_shards(architecture, config, (0,), world).items())
    return engine


if __name__ == "__main__":
    main()
