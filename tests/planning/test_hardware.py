from __future__ import annotations

import pytest

from ligo_dist.planning import GPUS_PER_NODE, get_gpu, gpu_names, gpu_of_device
from ligo_dist.runtime.errors import LigoError


def test_names_are_those_of_the_data_sheets() -> None:
    assert {"a100-40", "a100-80", "a100", "h100", "h200", "b200", "l40s", "mi300x"} == set(gpu_names())
    h100 = get_gpu("H100")
    assert (h100.bf16, h100.memory, h100.link, h100.network) == (989.4e12, 80 * 10**9, 450e9, 50e9)
    assert get_gpu("a100") == get_gpu("a100-80")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-80"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L40S", "l40s"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_a_device_is_known_by_its_drivers_name(device: str, name: str) -> None:
    assert gpu_of_device(device) == get_gpu(name)


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA L40",
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "NVIDIA GeForce RTX 4090",
        "",
    ],
)
def test_a_device_with_another_peak_is_not_taken_for_one(device: str) -> None:
    assert gpu_of_device(device) is None


def test_figures_of_its_own() -> None:
    gpu = get_gpu("1.5e14,24,12.5")
    assert (gpu.bf16, gpu.memory, gpu.link, gpu.network) == (1.5e14, 24 * 10**9, 12.5e9, 12.5e9)
    assert gpu.usable == 21_600_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h1000", "--gpu: 'h1000' is not known; did you mean 'h100'?"),
        ("tpu-v5", "--gpu: 'tpu-v5' is not known; there are: a100-40, a100-80, h100,"),
        ("tpu-v5", "or its figures as FLOPS,GB,GB/s: 989e12,80,50"),
        ("1e15,80", "--gpu: '1e15,80' should be three numbers above 0"),
        ("1e15,80,fast", "989e12,80,50 would be right"),
        ("1e15,0,50", "'1e15,0,50' should be three numbers above 0"),
        ("nan,80,50", "'nan,80,50' should be three numbers above 0"),
        ("inf,80,50", "'inf,80,50' should be three numbers above 0"),
    ],
)
def test_what_is_no_gpu(text: str, said: str) -> None:
    with pytest.raises(LigoError) as caught:
        get_gpu(text)
    assert said in str(caught.value)


def test_a_plan_leaves_a_tenth_of_the_memory() -> None:
    assert get_gpu("h100").usable == 72 * 10**9


def test_the_slowest_link_counts() -> None:
    gpu = get_gpu("h100")
    assert gpu.bandwidth(GPUS_PER_NODE) == 450e9
    assert gpu.bandwidth(GPUS_PER_NODE + 1) == 50e9


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [("h100", 989.4e12, 67e12), ("a100", 312e12, 19.5e12), ("2e14,24,12", 2e14, 2e14)],
)
def test_each_precision_has_its_own_peak(name: str, bf16: float, fp32: float) -> None:
    """Figures of one's own are those of the run's precision."""
    gpu = get_gpu(name)
    assert [gpu.peak(precision) for precision in ("bf16", "fp32")] == [bf16, fp32]
