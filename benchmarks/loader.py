"""Samples that one process reads in a second, beside what training eats: text, masked text, images.

    python -m benchmarks.loader

Read as a rank does, batch after batch in the order of a run (`Batches`), from files as large as `--megabytes` that the
system has in its memory. Said is processor time of one core, in which other work on the machine does not count. What
training eats: the peak of what computes, over the FLOPs of a sample; no training gets there. For a GPU the peak is its
data sheet's (`--gpu`, in bf16), for the processors of this machine that of a matrix product, measured here on all
cores. Images are read as bytes and normalised where the model is: on processors that is counted, on a GPU it is the
GPU's. `!` marks a loader that is less than ten times as fast.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.provenance import commit, processor
from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.config import tokens_per_sample
from ligo_dist.corpus import Batches, CausalSamples, ImageSamples, MaskedSamples, PackedBlocks
from ligo_dist.planning import get_gpu, gpu_names
from ligo_dist.schedule import parameter_count, training_step_flops

VOCAB, BATCH = 32768, 64
LARGE_ENOUGH = 10.0
HERE = "here"
"""On the processors of this machine."""


@dataclass(frozen=True)
class Eater:
    """A model that is trained.

    Attributes:
        kind: of the samples it takes.
        family: of the model.
        layers, width, heads: its size.
        length: tokens of a sequence; 0 for images.
        image_size, patch_size: of images.
        is_small: whether it is trained on processors, as the quickstart's; else on a GPU.
    """

    kind: str
    family: str
    layers: int
    width: int
    heads: int
    length: int = 0
    image_size: int = 0
    patch_size: int = 0
    is_small: bool = False

    @property
    def shape(self) -> ModelShape:
        architecture = get_architecture(self.family)
        sizes = (self.layers, self.width, self.heads, self.heads, architecture.default_ffn(self.width))
        if self.length:
            tied, types = architecture.tied_by_default, architecture.token_types
            return ModelShape(*sizes, tied, vocab=VOCAB, positions=self.length, token_types=types)
        return ModelShape(
            *sizes, False, labels=1000, image_size=self.image_size, patch_size=self.patch_size, channels=3
        )

    @property
    def flops_per_sample(self) -> int:
        architecture, shape = get_architecture(self.family), self.shape
        positions = tokens_per_sample(architecture, shape, self.length)
        return training_step_flops(architecture, shape, positions, 1, checkpointed=False)

    @property
    def parameters(self) -> int:
        return parameter_count(get_architecture(self.family), self.shape)


EATERS = (
    Eater("packed", "gpt2", 3, 128, 4, length=128, is_small=True),
    Eater("packed", "gpt2", 12, 768, 12, length=1024),
    Eater("packed", "llama", 18, 2048, 16, length=2048),
    Eater("masked", "bert", 2, 128, 2, length=128, is_small=True),
    Eater("masked", "bert", 12, 768, 12, length=512),
    Eater("masked", "bert", 24, 1792, 28, length=512),
    Eater("image", "vit", 3, 64, 4, image_size=32, patch_size=4, is_small=True),
    Eater("image", "vit", 12, 768, 12, image_size=224, patch_size=16),
    Eater("image", "vit", 40, 1408, 22, image_size=224, patch_size=14),
)
"""For each kind of samples a model such as the quickstart's, one of the families' base sizes, one of 1B."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=list(_MAKERS), default=list(_MAKERS))
    parser.add_argument("--gpu", choices=gpu_names(), default="h100", help="whose peak is taken")
    parser.add_argument("--megabytes", type=int, default=256, help="of the corpus")
    parser.add_argument("--seconds", type=float, default=5.0, help="that each is read for")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    here, gpu = product_flops(), get_gpu(options.gpu)
    torch.set_num_threads(1)
    lines = [
        f"{date.today()}, commit {commit()}; one core of {processor()}, batches of {BATCH}, {options.megabytes} MB",
        f"numpy {version('numpy')}, torch {version('torch')}; peak of {os.cpu_count()} cores here"
        f" {here / 1e9:.0f} GFLOPS in fp32, of {gpu.name} {gpu.bf16 / 1e12:.0f} TFLOPS in bf16",
        "",
        "                                     read by one core          training at the peak",
        "samples   model                     samples/s    tokens/s      of    eats samples/s   read / eaten",
    ]
    print("\n".join(lines), flush=True)
    for eater in EATERS:
        if eater.kind in options.kinds:
            speed = read_speed(eater, options.megabytes, options.seconds)
            lines.append(_row(eater, speed, here if eater.is_small else gpu.bf16, gpu.name))
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


def product_flops() -> float:
    """FLOPs per second of large matrix products in fp32, on all cores: the best of some."""
    left = torch.rand(2048, 2048)
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        left @ left
        best = max(best, 2 * 2048**3 / (time.perf_counter() - began))
    return best


def read_speed(eater: Eater, megabytes: int, seconds: float) -> float:
    """Samples that one core reads in a second."""
    with tempfile.TemporaryDirectory(prefix="loader-") as directory:
        batches = _MAKERS[eater.kind](eater, Path(directory), megabytes * 10**6)
        step = samples = 0
        began = started = time.process_time()
        while time.process_time() - began < seconds:
            for micro_batch in batches.micro_batches(step, 0, 1, BATCH):
                if eater.is_small:
                    batches.samples.finish(micro_batch.inputs)
                samples += micro_batch.weight
            step += 1
            if step == 1:  # the first one reads the file's pages
                started, samples = time.process_time(), 0
        return samples / (time.process_time() - started)


def _row(eater: Eater, speed: float, peak: float, gpu: str) -> str:
    eaten = peak / eater.flops_per_sample
    tokens = tokens_per_sample(get_architecture(eater.family), eater.shape, eater.length)
    model = f"{eater.family} {eater.layers} x {eater.width}, {eater.parameters / 1e6:.1f} M"
    mark = "" if speed >= LARGE_ENOUGH * eaten else " !"
    return (
        f"{eater.kind:<10}{model:<26}{speed:>9.0f}{speed * tokens:>12.3g}{HERE if eater.is_small else gpu:>8}"
        f"{eaten:>18.1f}{speed / eaten:>15.0f}{mark}"
    )


def _blocks(eater: Eater, directory: Path, size: int) -> PackedBlocks:
    tokens = np.random.default_rng(0).integers(VOCAB, size=size // 2, dtype=np.uint16)
    tokens.tofile(directory / "train.bin")
    return PackedBlocks(directory / "train.bin", "uint16", eater.length)


def _packed(eater: Eater, directory: Path, size: int) -> Batches:
    return Batches(CausalSamples(_blocks(eater, directory, size)), 0, BATCH)


def _masked(eater: Eater, directory: Path, size: int) -> Batches:
    blocks = _blocks(eater, directory, size)
    samples = MaskedSamples(
        blocks, 0.15, mask_id=4, special_ids=frozenset(range(5)), vocab_size=VOCAB, seed=0
    )
    return Batches(samples, 0, BATCH)


def _images(eater: Eater, directory: Path, size: int) -> Batches:
    shape = (size // (3 * eater.image_size**2), 3, eater.image_size, eater.image_size)
    generator = np.random.default_rng(0)
    generator.integers(256, size=shape, dtype=np.uint8).tofile(directory / "train.images.bin")
    images = np.memmap(directory / "train.images.bin", dtype="uint8", mode="r", shape=shape)
    classes = generator.integers(1000, size=len(images), dtype=np.int32)
    tokens = tokens_per_sample(get_architecture(eater.family), eater.shape, 0)
    middle = [0.5] * 3
    samples = ImageSamples(images, classes, middle, middle, tokens, shift=eater.image_size // 8, flip=True)
    return Batches(samples, 0, BATCH)


_MAKERS: dict[str, Callable[[Eater, Path, int], Batches]] = {
    "packed": _packed,
    "masked": _masked,
    "image": _images,
}


if __name__ == "__main__":
    main()
