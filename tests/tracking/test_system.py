"""The load of the nodes: who reads what, when all ranks do it, and what it is called."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from ligo_dist.tracking import Gauge, Place, SystemMetrics, build_system_metrics, missing_library

CPU = torch.device("cpu")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def processors(percent: float) -> Gauge:
    return lambda: {"cpu_utilization_percentage": percent}


def utilization(percent: float) -> Gauge:
    return lambda: {"utilization_percentage": percent}


def exchange(ranks: list[SystemMetrics]) -> dict[str, float]:
    """One exchange; every rank sees the same in it."""
    rows = [rank.row() for rank in ranks]
    seen = [rank.record(rows) for rank in ranks]
    assert all(metrics == seen[0] for metrics in seen)
    return seen[0]


def test_each_node_and_each_accelerator_is_named():
    places = [Place("a", 0), Place("a", 1), Place("b", 0), Place("b", 1)]
    ranks = [
        SystemMetrics([*([processors(rank)] if rank % 2 == 0 else []), utilization(10 * rank)], places, 1)
        for rank in range(4)
    ]
    assert exchange(ranks) == {
        "system/a/cpu_utilization_percentage": 0,
        "system/a/gpu_0_utilization_percentage": 0,
        "system/a/gpu_1_utilization_percentage": 10,
        "system/b/cpu_utilization_percentage": 2,
        "system/b/gpu_0_utilization_percentage": 20,
        "system/b/gpu_1_utilization_percentage": 30,
    }


@pytest.mark.parametrize(
    ("pace", "recorded"),
    [
        (1.0, [1, 11, 21, 31]),
        (4.0, [4, 16, 28]),
        (10.0, [10, 20, 30]),
        (15.0, [15, 30]),
    ],
)
def test_the_first_rank_s_clock_decides_when(pace: float, recorded: list[int]):
    clock, stopped = Clock(), Clock()
    places = [Place("a", 0), Place("b", 0)]
    ranks = [SystemMetrics([processors(50)], places, 10, clock), SystemMetrics([], places, 10, stopped)]
    moments = []
    while clock.now + pace <= 34:
        clock.now += pace
        if exchange(ranks):
            moments.append(clock.now)
    assert moments == recorded


def test_nothing_is_read_for_nothing():
    clock, readings = Clock(), iter(range(100))
    one = SystemMetrics([lambda: {"cpu_utilization_percentage": next(readings)}], [Place("a", 0)], 10, clock)
    for _ in range(20):
        clock.now += 1
        exchange([one])
    assert next(readings) == 3, "once at the start, and at two of the exchanges"


def test_what_cannot_be_read_is_left_out_and_not_asked_again():
    asked = []

    def broken() -> dict[str, float]:
        asked.append(1)
        raise RuntimeError("no driver")

    clock = Clock()
    one = SystemMetrics([broken, processors(50)], [Place("a", 0)], 1, clock)
    for _ in range(3):
        clock.now += 1
        assert exchange([one]) == {"system/a/cpu_utilization_percentage": 50}
    assert len(asked) == 1


def test_a_node_has_the_metrics_that_mlflow_has_of_one(tmp_path: Path):
    here = build_system_metrics(1, [Place("a", 0)], 0, CPU, tmp_path)
    assert here is not None
    metrics = exchange([here])
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for monitor in monitors:
        monitor.collect_metrics()
    theirs = {name for monitor in monitors for name in monitor.aggregate_metrics()}
    assert set(metrics) == {f"system/a/{name}" for name in theirs}
    for name, value in metrics.items():
        assert 0 <= value <= (100 if name.endswith("percentage") else math.inf)
    used = monitors[0].aggregate_metrics()["system_memory_usage_megabytes"]
    assert metrics["system/a/system_memory_usage_megabytes"] == pytest.approx(used, rel=0.2)


def test_an_accelerator_is_read_through_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_library(device: torch.device) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    device: Any = SimpleNamespace(type="cuda")
    module = SimpleNamespace(
        mem_get_info=lambda device: (60e9, 80e9), power_draw=lambda device: 350_000, utilization=no_library
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    second = build_system_metrics(1, [Place("a", 0), Place("a", 1)], 1, device, tmp_path)
    assert second is not None
    empty = SystemMetrics([], [], 1).row()
    assert second.record([empty, second.row()]) == {
        "system/a/gpu_1_memory_usage_megabytes": 20_000,
        "system/a/gpu_1_memory_usage_percentage": 25,
        "system/a/gpu_1_power_usage_watts": 350,
    }


def test_it_can_be_left_alone(tmp_path: Path):
    assert build_system_metrics(None, [Place("a", 0)], 0, CPU, tmp_path) is None


@pytest.mark.parametrize(
    ("every", "device", "library", "said"),
    [
        (10, "cuda", None, True),
        (10, "cuda", "there", False),
        (None, "cuda", None, False),
        (10, "cpu", None, False),
    ],
)
def test_a_driver_library_that_is_missing_is_told_with_the_remedy(
    every: float | None, device: str, library: Any, said: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: library)
    line = missing_library(every, torch.device(device))
    assert (line is not None) == said
    assert line is None or ("pynvml" in line and "ligo_dist[gpu]" in line)
