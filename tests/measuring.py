"""A whole run on warm ranks, measured from outside: what it computes, allocates, sends and writes, phase by phase.

- FLOPs: torch's own counter around an optimizer step.
- Bytes sent: the collectives of torch.distributed, each as the bytes of its whole tensor.
- Memory: the bytes of all tensors that are alive before, and the highest rise of what torch's allocator hands out.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch._C._profiler import _EventType
from torch._subclasses import FakeTensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from collectives import counted_bytes, out_of_sight
from ligo_dist.engine import World
from ranks import run_ranks
from runs import RunFiles

COUNTED_STEP, WEIGHED_STEP = 3, 4
"""Optimizer steps of a phase that are measured: DeepSpeed knows the order of the modules by then, and no evaluation has
left weights gathered."""


@dataclass
class Measured:
    """What one rank measured, by (stage, phase).

    Attributes:
        parameters: elements that the phase's engine trains.
        flops: of an optimizer step, or of growing, on this rank.
        sent: bytes of collectives of an optimizer step, or of growing, by kind.
        peaks: highest memory by (stage, phase, moment).
    """

    parameters: dict[tuple[str, str], int] = field(default_factory=dict)
    flops: dict[tuple[str, str], int] = field(default_factory=dict)
    sent: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    peaks: dict[tuple[str, str, str], int] = field(default_factory=dict)


def measured_run(files: RunFiles, world_size: int, *overrides: str) -> list[Measured]:
    """Run a configuration; what each rank measured. Its phases have at least five steps, and no evaluation before
    the last."""
    return run_ranks(_run, world_size, [str(files.config), *overrides], timeout=300)


def _run(world: World, argv: list[str]) -> Measured:
    from ligo_dist.__main__ import main

    errors = io.StringIO()
    with (
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
        measuring() as measured,
    ):
        code = main(argv)
    assert code == 0, errors.getvalue()
    return measured


@contextlib.contextmanager
def measuring() -> Iterator[Measured]:
    """Measure what happens inside."""
    from ligo_dist.engine import Engine
    from ligo_dist.training import Builder, Grower, PhaseRunner, SaveCheckpoint, grower

    gc.freeze()  # as a run does at its start, after which `gc` shows no tensor that was there before
    measured, place, before = Measured(), ["", ""], _alive()
    steps: Counter[tuple[str, str]] = Counter()
    run_phase, train_step, evaluate = PhaseRunner.run, Engine.train_step, Engine.evaluate
    save, applied, random_shards = SaveCheckpoint.__call__, Grower._applied, Builder.random_shards
    grown_shards, grown_moments = grower.grown_shards, grower.grown_moments

    @contextlib.contextmanager
    def at(moment: str) -> Iterator[None]:
        with weighed() as weight:
            yield
        key = (place[0], place[1], moment)
        measured.peaks[key] = max(weight.peak - before, measured.peaks.get(key, 0))

    def inside(moment: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with at(moment):
                return function(*arguments)

        return call

    def run(self: Any, stage: Any, phase: Any, engine: Any, *rest: Any) -> None:
        place[:] = stage.name, phase.kind
        measured.parameters[stage.name, phase.kind] = sum(engine.numels.values())
        run_phase(self, stage, phase, engine, *rest)

    def step(self: Any, *arguments: Any) -> Any:
        key = (place[0], place[1])
        steps[key] += 1
        if steps[key] == COUNTED_STEP:
            with counted_flops() as flops, counted_bytes() as sent:
                result = train_step(self, *arguments)
            measured.flops[key], measured.sent[key] = flops.get_total_flops(), sent
            return result
        if steps[key] == WEIGHED_STEP:
            with at("step"):
                return train_step(self, *arguments)
        return train_step(self, *arguments)

    def apply(self: Any, stage: Any, *rest: Any) -> Any:
        place[:] = stage.name, "grow"
        return applied(self, stage, *rest)

    def grown(*arguments: Any) -> Iterator[Any]:
        with at("transfer"):
            yield from grow_counted(grown_shards, *arguments)

    def grow_counted(function: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
        key = (place[0], "grow")
        with counted_flops() as flops, counted_bytes() as sent:
            yield from function(*arguments, **named)
        measured.flops[key] = measured.flops.get(key, 0) + flops.get_total_flops()
        measured.sent[key] = measured.sent.get(key, Counter()) + sent

    patches = (
        mock.patch.object(PhaseRunner, "run", run),
        mock.patch.object(Engine, "train_step", step),
        mock.patch.object(Engine, "evaluate", inside("evaluation", evaluate)),
        mock.patch.object(SaveCheckpoint, "__call__", inside("checkpoint", save)),
        mock.patch.object(Grower, "_applied", apply),
        mock.patch.object(Builder, "random_shards", inside("random model", random_shards)),
        mock.patch.object(grower, "grown_shards", grown),
        mock.patch.object(grower, "grown_moments", functools.partial(grow_counted, grown_moments)),
    )
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield measured


@contextlib.contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    # torch counts no matrix-vector products, with which biases are grown, and no attention that is fused on processors.
    # A backward pass of that is twice the forward one, as the accounting has it.
    aten = torch.ops.aten
    counts = {
        aten.mv: lambda matrix, vector, **_: 2 * matrix[0] * matrix[1],
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *_, **__: (
            2 * sdpa_flop_count(q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=counts) as counter:
        yield counter


@dataclass
class Weight:
    """The most bytes of tensors that were alive at a time."""

    peak: int = 0


@contextlib.contextmanager
def weighed() -> Iterator[Weight]:
    """Weigh what happens inside; the weight is known when it is over."""
    weight, held = Weight(), _alive()
    with (
        out_of_sight(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled,
    ):
        yield weight
    alive: dict[int, int] = {}
    total = highest = 0
    for pointer, size in _allocations(profiled.profiler.kineto_results.experimental_event_tree()):
        if size > 0:
            # Now and then the profiler misses that something was freed; its address tells when it is used again.
            total += size - alive.get(pointer, 0)
            alive[pointer] = size
            highest = max(highest, total)
        else:  # of what was there before, torch does not know the size
            total -= alive.pop(pointer, 0)
    weight.peak = held + highest


def _allocations(tree: list[Any]) -> list[tuple[int, int]]:
    """(address, bytes; negative where it is freed), in the order of time."""
    events, waiting = [], list(tree)
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            events.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    events.sort(key=lambda event: event[0])
    return [(pointer, size) for _, pointer, size in events]


def _alive() -> int:
    """Bytes of all tensors there are."""
    gc.collect()
    storages = {}
    for candidate in gc.get_objects():
        # Of compiled blocks tensors without memory are left, too.
        if (
            isinstance(candidate, torch.Tensor)
            and not candidate.is_meta
            and not isinstance(candidate, FakeTensor)
        ):
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
