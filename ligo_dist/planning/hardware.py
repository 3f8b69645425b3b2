"""What a plan reckons with of accelerators: their peaks, memory and links, by name or from one's own figures."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ligo_dist.config import suggestion
from ligo_dist.runtime.errors import LigoError

RESERVED = 0.1
"""Part of the memory that a plan leaves to the context, the communication library's buffers and fragmentation: an
assumption."""

GPUS_PER_NODE = 8
"""Ranks that the faster link joins: those of one machine of the kind that the makers sell."""

_GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """One accelerator.

    Attributes:
        name: what the command line calls it.
        bf16, fp32: peak of matrix products in either, per second: with fp32 sums and without sparsity; fp32 as torch
            multiplies by default, which is not TF32.
        memory: bytes.
        link: bytes per second that it sends to the others of its machine.
        network: bytes per second that it sends to other machines.
    """

    name: str
    bf16: float
    fp32: float
    memory: int
    link: float
    network: float

    @property
    def usable(self) -> int:
        """Bytes of memory that a plan may fill."""
        return int(self.memory * (1 - RESERVED))

    def bandwidth(self, ranks: int) -> float:
        """Bytes per second that a rank sends: over the slower of the links that join them all."""
        return self.link if ranks <= GPUS_PER_NODE else self.network

    def peak(self, precision: str) -> float:
        """FLOPs per second of one in `bf16` or `fp32`."""
        return self.bf16 if precision == "bf16" else self.fp32


def _gpu(name: str, bf16: float, fp32: float, memory: float, link: float, network: float) -> Gpu:
    """From TFLOPS, GB, and GB/s."""
    return Gpu(name, bf16 * 1e12, fp32 * 1e12, int(memory * _GB), link * _GB, network * _GB)


_GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40", 312, 19.5, 40, 300, 25),
        _gpu("a100-80", 312, 19.5, 80, 300, 25),
        _gpu("h100", 989.4, 67, 80, 450, 50),
        _gpu("h200", 989.4, 67, 141, 450, 50),
        _gpu("b200", 2250, 75, 180, 900, 50),
        _gpu("l40s", 362.05, 91.6, 48, 32, 25),
        _gpu("mi300x", 1307.4, 163.4, 192, 448, 50),
    )
}
"""Sources: docs/internals/accounting.md. A data sheet gives a link's both directions together; here is one."""

_ALIASES = {"a100": "a100-80"}

_DEVICES = {
    "a100-40": r"(NVIDIA )?A100-(SXM4|PCIE)-40GB",
    "a100-80": r"(NVIDIA )?A100(-SXM4-80GB|-PCIE-80GB| 80GB PCIe)",
    "h100": r"NVIDIA H100 80GB HBM3",
    "h200": r"NVIDIA H200",
    "b200": r"NVIDIA B200",
    "l40s": r"NVIDIA L40S",
    "mi300x": r"AMD Instinct MI300X( OAM)?",
}
"""What drivers call them. PCIe and NVL cards of the H100 and H200 have other peaks, and so have slices (MIG)."""

DEFAULT_GPU = "h100"

_EXAMPLE = "989e12,80,50"


def gpu_names() -> list[str]:
    return [*_GPUS, *_ALIASES]


def get_gpu(text: str) -> Gpu:
    """An accelerator by its name, or from `FLOPS,GB,GB/s`: peak per second in the precision of the run, memory, and
    what it sends.

    Raises:
        LigoError: for a name that is not known, or figures that are none.
    """
    if "," in text:
        return _given(text)
    name = text.lower()
    name = _ALIASES.get(name, name)
    if name in _GPUS:
        return _GPUS[name]
    near = suggestion(name, gpu_names())
    raise LigoError(f"--gpu: {text!r} is not known{near}; or its figures as FLOPS,GB,GB/s: {_EXAMPLE}")


def gpu_of_device(name: str) -> Gpu | None:
    """The accelerator that a driver calls so; None for one whose peak is not known."""
    known = (gpu for gpu in _GPUS.values() if re.fullmatch(_DEVICES[gpu.name], name))
    return next(known, None)


def _given(text: str) -> Gpu:
    try:
        flops, memory, bandwidth = (float(part) for part in text.split(","))
    except ValueError:
        flops = memory = bandwidth = 0.0
    if not min(flops, memory, bandwidth) > 0 or max(flops, memory, bandwidth) == float("inf"):
        raise LigoError(
            f"--gpu: {text!r} should be three numbers above 0: peak FLOPS, memory in GB, bandwidth in GB/s;"
            f" {_EXAMPLE} would be right"
        )
    return Gpu(text, flops, flops, int(memory * _GB), bandwidth * _GB, bandwidth * _GB)
