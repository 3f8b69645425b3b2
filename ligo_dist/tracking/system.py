"""The load of every node, under the names that MLflow has for its own: `system/NODE/cpu_utilization_percentage`.

The first rank of each node reads what all of the node share, every rank its own accelerator. Their readings travel with
the training metrics, in the one exchange that these need anyway, as rows of numbers of one length.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

Gauge = Callable[[], dict[str, float]]
"""Reads something: metrics by name. It may raise, and then is not asked again."""

NODE_METRICS = (
    "cpu_utilization_percentage",
    "disk_available_megabytes",
    "disk_usage_megabytes",
    "disk_usage_percentage",
    "network_receive_megabytes",
    "network_transmit_megabytes",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
)
ACCELERATOR_METRICS = (
    "memory_usage_megabytes",
    "memory_usage_percentage",
    "power_usage_watts",
    "utilization_percentage",
)
_METRICS = NODE_METRICS + ACCELERATOR_METRICS


@dataclass(frozen=True)
class Place:
    """Where a rank is: the name of its node, and its number among the ranks there."""

    node: str
    local_rank: int


class SystemMetrics:
    """Reads the load at some of the steps at which the ranks exchange their metrics.

    The first rank's clock decides at which; it says so one exchange ahead, so that nothing is read for nothing.

    Args:
        gauges: what this rank reads.
        places: of all ranks, in their order.
        every_seconds: the time between two records, as near as the exchanges come to it.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        gauges: Sequence[Gauge],
        places: Sequence[Place],
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gauges, self._places = list(gauges), places
        self._every_seconds, self._clock = every_seconds, clock
        self._is_wanted = True  # at the next exchange, by all ranks alike
        self._last_exchange = self._last_record = clock()
        self._read()  # what is counted from one reading to the next counts from here

    def row(self) -> list[float]:
        """This rank's part of the exchange: whether the next one should have readings, and the readings if this one
        should; what is not read is NaN."""
        readings: dict[str, float] = {}
        now = self._clock()
        if self._is_wanted:
            self._last_record = now
            readings = self._read()
        expected = now + (now - self._last_exchange)  # the next exchange, if the pace stays the same
        self._last_exchange = now
        is_wanted_next = expected - self._last_record >= self._every_seconds
        return [float(is_wanted_next), *(readings.get(name, math.nan) for name in _METRICS)]

    def record(self, rows: Sequence[Sequence[float]]) -> dict[str, float]:
        """The metrics that the rows of all ranks hold; none, if this was no exchange of readings."""
        self._is_wanted = bool(rows[0][0])
        metrics: dict[str, float] = {}
        for place, (_, *readings) in zip(self._places, rows, strict=True):
            for name, reading in zip(_METRICS, readings, strict=True):
                own = name if name in NODE_METRICS else f"gpu_{place.local_rank}_{name}"
                if not math.isnan(reading):
                    metrics[f"system/{place.node}/{own}"] = reading
        return metrics

    def _read(self) -> dict[str, float]:
        readings: dict[str, float] = {}
        for gauge in list(self._gauges):
            try:
                readings |= gauge()
            except Exception:  # whatever a system or a driver may raise: no reason to stop a run
                self._gauges.remove(gauge)
        return readings


def build_system_metrics(
    every_seconds: float | None, places: Sequence[Place], rank: int, device: torch.device, directory: Path
) -> SystemMetrics | None:
    """What a rank reads and records; None without a time between two records. Of the disks, the one that holds
    `directory`."""
    if every_seconds is None:
        return None
    gauges: list[Gauge] = []
    if places[rank].local_rank == 0:
        gauges += [_processors, _memory, partial(_disk, str(directory)), _Network()]
    if device.type != "cpu":
        module = torch.get_device_module(device)
        for gauge in (_accelerator_memory, _accelerator_power, _accelerator_utilization):
            gauges.append(partial(gauge, module, device))
    return SystemMetrics(gauges, places, every_seconds)


def missing_library(every_seconds: float | None, device: torch.device) -> str | None:
    """A line for the user where power and utilisation of a rank's GPU would be recorded, were its driver's library
    there; else None."""
    if every_seconds is None or device.type != "cuda":
        return None
    module, remedy = ("pynvml", "pip install 'ligo_dist[gpu]'")
    if torch.version.hip is not None:
        module, remedy = ("amdsmi", "its Python package comes with ROCm")
    if importlib.util.find_spec(module) is not None:
        return None
    return f"the GPUs' power and utilisation are not recorded: there is no {module}; {remedy}"


def _processors() -> dict[str, float]:
    """Since the last time, over all processors."""
    return {"cpu_utilization_percentage": psutil.cpu_percent()}


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
    }


def _disk(directory: str) -> dict[str, float]:
    disk = psutil.disk_usage(directory)
    return {
        "disk_available_megabytes": disk.free / 1e6,
        "disk_usage_megabytes": disk.used / 1e6,
        "disk_usage_percentage": disk.percent,
    }


class _Network:
    """What has gone through all interfaces since the first reading."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def __call__(self) -> dict[str, float]:
        counters = psutil.net_io_counters()
        received, sent = counters.bytes_recv / 1e6, counters.bytes_sent / 1e6
        self._before = self._before or (received, sent)
        return {
            "network_receive_megabytes": received - self._before[0],
            "network_transmit_megabytes": sent - self._before[1],
        }


def _accelerator_memory(module: Any, device: torch.device) -> dict[str, float]:
    """Of all processes together."""
    free, total = module.mem_get_info(device)
    return {
        "memory_usage_megabytes": (total - free) / 1e6,
        "memory_usage_percentage": 100 * (total - free) / total,
    }


def _accelerator_power(module: Any, device: torch.device) -> dict[str, float]:
    return {"power_usage_watts": module.power_draw(device) / 1000}  # it says milliwatts


def _accelerator_utilization(module: Any, device: torch.device) -> dict[str, float]:
    return {"utilization_percentage": module.utilization(device)}
