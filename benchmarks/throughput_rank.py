"""One rank of one loop of `benchmarks.throughput`."""

from __future__ import annotations

import json
import os
import sys

import torch

from benchmarks.loops import LOOPS, Work, device_of_rank
from benchmarks.turns import Turns


def main() -> None:
    arguments = json.loads(sys.argv[1])
    device = device_of_rank()
    if device.type == "cuda":
        torch.cuda.set_device(device)

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    turns = Turns(settle)
    loop = LOOPS[arguments.pop("loop")]
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    loop(Work(rank=rank, world_size=world_size, device=device, **arguments), turns)


if __name__ == "__main__":
    main()
