"""Tokens per second: this project beside the loops that people write, and a learning step beside a training step.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --sizes 16M --ranks 2 --tokens 2048 --loops ours deepspeed --rounds 9

One model, the same tokens, precision and ranks; every loop in processes of its own, taking turns, a few steps each, a
round after the other; a loop that waits does nothing. Of each round the ratio to `ours` is taken, of all rounds the
median and the range. Processor time is that of all ranks together, in which other work on the machine does not count.
The losses must agree at the first step, or the loops did not do the same.

    ours       a training phase of this project (`ligo_dist.training`), its hooks left out
    learning   a learning phase of it, from a model of half the width and half the layers, into the same model
    deepspeed  Hugging Face + DeepSpeed ZeRO-3 by hand, DeepSpeed's own bucket sizes
    trainer    Hugging Face's Trainer with the same DeepSpeed configuration (pip install 'ligo_dist[bench]')
    fsdp2      Hugging Face + torch's `fully_shard`
    ddp        Hugging Face + torch's DistributedDataParallel, which shards nothing

On GPUs where there are any; `DS_ACCELERATOR=cpu` takes the processors. Ranks must not be more than there are GPUs, and
a GPU holds all loops at once: where that is too much for it, `--loops` takes some of them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.loops import LOOPS
from benchmarks.provenance import commit, processor
from benchmarks.turns import Ranks
from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.runtime.machine import count_accelerators, has_native_bf16, processor_flags

SIZES: dict[str, dict[str, int]] = {
    "1M": {"layers": 2, "width": 128, "heads": 2, "vocab": 2048},
    "16M": {"layers": 6, "width": 384, "heads": 6, "vocab": 8192},
    "60M": {"layers": 10, "width": 640, "heads": 10, "vocab": 8192},
    "160M": {"layers": 12, "width": 768, "heads": 12, "vocab": 32000},
    "1B": {"layers": 16, "width": 2048, "heads": 32, "key_value_heads": 8, "ffn": 8192, "vocab": 32000},
}
"""Llamas. The first is for trying this out."""

CLOSE = 5e-3
"""How far losses of the first step may be apart, relatively: what bf16 leaves."""


def main() -> None:
    on_processors = count_accelerators() == 0
    options = _options(on_processors)
    lines = _heading(options, on_processors)
    print("\n".join(lines), flush=True)
    for size, ranks, tokens in itertools.product(options.sizes, options.ranks, options.tokens):
        with tempfile.TemporaryDirectory(prefix="throughput-") as directory:
            measured = measure(Path(directory), size, ranks, tokens, options, on_processors)
        rows = table(measured, ranks * tokens)
        rows = [f"{size}, {ranks} {'rank' if ranks == 1 else 'ranks'}, {tokens} tokens a rank", *rows]
        lines += ["", *rows]
        print("\n" + "\n".join(rows), flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


def _options(on_processors: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ["16M", "60M"] if on_processors else ["160M", "1B"]
    loops = [name for name in LOOPS if name != "trainer" or find_spec("accelerate")]
    native = has_native_bf16(processor_flags(), [], on_processors=on_processors)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=sizes)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 16384], help="of a rank in a step")
    parser.add_argument("--length", type=int, default=512 if on_processors else 2048, help="of a sequence")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=loops)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16" if native else "fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2 if on_processors else 10, help="of each in a round")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    for tokens in options.tokens:
        if tokens % options.length:
            parser.error(f"--tokens: {tokens} is no multiple of --length, {options.length}")
    if "ours" not in options.loops:
        parser.error("--loops: 'ours' has to be among them, as all others are compared with it")
    return options


def _heading(options: argparse.Namespace, on_processors: bool) -> list[str]:
    libraries = [
        "torch",
        "deepspeed",
        "transformers",
        *(["accelerate"] if "trainer" in options.loops else []),
    ]
    where = f"{os.cpu_count()} {processor()} cores"
    if not on_processors:
        import torch

        where = f"{count_accelerators()} {torch.cuda.get_device_name()}"
    return [
        f"{date.today()}, commit {commit()}; llama, {options.precision}, {options.length} positions, on {where}",
        ", ".join(f"{name} {version(name)}" for name in libraries)
        + f"; medians of {options.rounds} rounds of {options.steps} steps each, and their range",
    ]


def measure(
    directory: Path, size: str, ranks: int, tokens: int, options: argparse.Namespace, on_processors: bool
) -> dict[str, list[dict[str, float]]]:
    """What each loop answers in each round, the first of one step being the first step of all."""
    _write_model(directory / "model", SIZES[size], options.length)
    answers: dict[str, list[dict[str, float]]] = {loop: [] for loop in options.loops}
    with ExitStack() as stack:
        running: dict[str, Ranks] = {}
        for loop in options.loops:
            arguments = {
                "loop": loop,
                "directory": str(directory / "model"),
                "size": SIZES[size],
                "length": options.length,
                "sequences": tokens // options.length,
                "precision": options.precision,
            }
            ranks_of = Ranks("benchmarks.throughput_rank", ranks, arguments, on_processors=on_processors)
            stack.callback(ranks_of.close)
            running[loop] = ranks_of
            answers[loop].append(ranks_of.take(1))  # until it has begun, the next one waits
        for number in range(options.rounds + 1):
            turn = number % len(running)  # none is always the first
            for loop in (*options.loops[turn:], *options.loops[:turn]):
                answer = running[loop].take(options.steps)
                if number:  # the first one warms up
                    answers[loop].append(answer)
    return answers


def table(answers: Mapping[str, Sequence[Mapping[str, float]]], tokens: int) -> list[str]:
    """The lines of one case.

    Args:
        answers: of each loop: of its first step, then of each round.
        tokens: of a step, all ranks together.

    Raises:
        SystemExit: the loops' losses differ.
    """
    lines = ["loop          tokens/s   of ours (range)        step, ms   processor, ms   loss"]
    seconds = {loop: [answer["seconds"] for answer in of_loop[1:]] for loop, of_loop in answers.items()}
    first = {loop: of_loop[0]["loss"] for loop, of_loop in answers.items()}
    for loop, of_loop in seconds.items():
        step = statistics.median(of_loop)
        speeds = [mine / other for mine, other in zip(seconds["ours"], of_loop, strict=True)]
        ratio = f"{statistics.median(speeds):.3f} ({min(speeds):.2f} to {max(speeds):.2f})"
        work = statistics.median(answer["processor"] for answer in answers[loop][1:])
        lines.append(
            f"{loop:<12}{tokens / step:>10.0f}   {ratio:<22}{1000 * step:>9.1f}{1000 * work:>16.1f}"
            f"   {first[loop]:.4f}"
        )
    if "learning" in seconds:
        pairs = zip(seconds["learning"], seconds["ours"], strict=True)
        ratios = [learned / trained for learned, trained in pairs]
        middle = statistics.median(ratios)
        lines.append(f"learning step / training step: {middle:.3f} ({min(ratios):.2f} to {max(ratios):.2f})")
    same = {loop: loss for loop, loss in first.items() if loop != "learning"}
    far = [loop for loop, loss in same.items() if not abs(loss - same["ours"]) <= CLOSE * same["ours"]]
    if far:
        raise SystemExit("\n".join([*lines, f"the loss of {', '.join(far)} is not that of ours"]))
    return lines


def _write_model(directory: Path, size: Mapping[str, int], length: int) -> None:
    """A model with the library's random weights, which all loops begin with."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from ligo_dist.huggingface import huggingface_config

    architecture, width = get_architecture("llama"), size["width"]
    shape = ModelShape(
        size["layers"],
        width,
        size["heads"],
        size.get("key_value_heads", size["heads"]),
        size.get("ffn", architecture.default_ffn(width)),
        architecture.tied_by_default,
        vocab=size["vocab"],
        positions=length,
    )
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = huggingface_config(architecture, shape, {"bos_token_id": 1, "eos_token_id": 2})
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


if __name__ == "__main__":
    main()
