"""What computes bf16 natively, on stand-ins for the hardware."""

from __future__ import annotations

from pathlib import Path

import pytest

from ligo_dist.runtime.machine import has_native_bf16, processor_flags

EPYC_4 = "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu avx2 avx512f avx512_bf16\n"
XEON_4 = "processor\t: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile\nbugs\t\t: spectre_v1\n"
GRAVITON_3 = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd sve i8mm bf16\n"
EPYC_3 = "processor\t: 0\nflags\t\t: fpu avx2\nbugs\t\t: avx512_bf16\n"


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [(EPYC_4, True), (XEON_4, True), (GRAVITON_3, True), (EPYC_3, False), ("", False), (None, False)],
)
def test_processors(tmp_path: Path, cpuinfo: str | None, native: bool) -> None:
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    assert has_native_bf16(processor_flags(file), [9.0], on_processors=True) is native


@pytest.mark.parametrize(
    ("capabilities", "native"), [([9.0, 8.0], True), ([7.5], False), ([8.6, 7.0], False), ([12.0], True)]
)
def test_accelerators(capabilities: list[float], native: bool) -> None:
    assert has_native_bf16([], capabilities, on_processors=False) is native
