"""All that passes while a model grows is counted, on a clock that is set by hand: each step takes a power of two."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ligo_dist.architectures import every_parameter, get_architecture
from ligo_dist.engine import EvaluationResult
from ligo_dist.growth import GrowthLayout, get_method
from ligo_dist.schedule import PhaseCost, RunState, StageCost
from ligo_dist.training import Grower, Stopwatch, Trained, grower
from small_models import small_shape


class Clock:
    """Time passes where something is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(grower, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def takes(self, seconds: float, value: Any = None) -> Any:
        def work(*_: object, **__: object) -> Any:
            self.now += seconds
            return value

        return work


def test_a_stopwatch_stands_still_while_it_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = Stopwatch(before=0.5)
    clock.now += 1
    with watch.paused():
        clock.now += 100
    clock.now += 2
    assert watch.seconds == 3.5


@pytest.mark.parametrize(
    ("steps", "state", "expected"),
    [
        (0, "fresh", 0.5 + 1 + 32 + 64 + 128 + 256),
        (0, "grown", 0.5 + 1 + 32 + 64 + 128 + 256 + 512),
        (5, "grown", 0.5 + 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 512 + 256),
    ],
    ids=["applied", "with moments", "learned"],
)
def test_engines_moments_and_checks_are_time_of_growing(
    steps: int, state: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, run = Clock(monkeypatch), RunState()
    logged: list[dict[str, float]] = []
    engine = SimpleNamespace(
        write_shards=clock.takes(64),
        read_shards=clock.takes(8, {}),
        release=clock.takes(16),
        write_moments=clock.takes(512),
    )
    settings = SimpleNamespace(evaluation=SimpleNamespace(compare_random=False), seed=0)
    builder: Any = SimpleNamespace(
        plan=SimpleNamespace(config=settings, last=SimpleNamespace(index=1)),
        world=None,
        model_engine=clock.takes(32, engine),
        learning_engine=clock.takes(2, engine),
    )

    def learn(*_: object) -> None:
        clock.now += 1e6
        run.add(10, 1.0, 2.0, 1e6)

    runner: Any = SimpleNamespace(
        state=run,
        world=None,
        corpus=None,
        tracker=SimpleNamespace(start_phase=lambda _: None, log=lambda metrics, _: logged.append(metrics)),
        progress=SimpleNamespace(message=lambda _: None),
        run=learn,
        evaluate=clock.takes(128, EvaluationResult(3.0)),
        settle=clock.takes(1e5),
        save=clock.takes(1e5),
        stop_if_asked=lambda _: None,
    )
    monkeypatch.setattr(grower, "enter", lambda _: None)
    monkeypatch.setattr(grower, "beating", lambda each, _: each)
    monkeypatch.setattr(grower, "snapshot_of", clock.takes(1e5, SimpleNamespace(groups={"model": {}})))
    monkeypatch.setattr(grower, "grown_shards", lambda *_: {})
    monkeypatch.setattr(grower, "gathered_operator", lambda *_: None)
    monkeypatch.setattr(grower, "grown_moments", lambda *_, **__: {})
    monkeypatch.setattr(grower.SourceShards, "build", lambda *_, **__: None)
    monkeypatch.setattr(Grower, "_source", clock.takes(1))
    monkeypatch.setattr(Grower, "_start", clock.takes(4))
    monkeypatch.setattr(Grower, "_initial", lambda *_: None)
    monkeypatch.setattr(Grower, "_check", clock.takes(256))
    shape = small_shape("gpt2")
    layout = GrowthLayout.for_method(get_architecture("gpt2"), shape, shape, get_method("lossless"))
    grow: Any = SimpleNamespace(
        optimizer_state=state,
        states=[every_parameter] * 3,
        learn=SimpleNamespace(steps=steps),
        layout=layout,
        method=SimpleNamespace(depth=None),
        growth=None,
    )
    cost = PhaseCost(flops=7, hardware_flops=7)
    stage: Any = SimpleNamespace(
        name="large",
        index=1,
        cost=StageCost(cost, cost, cost),
        train=SimpleNamespace(steps=1, first_step=0),
    )
    before = Trained(stage, {}, {"exp_avg": {}, "exp_avg_sq": {}}, 1, 0.5)
    Grower(builder, runner, clock.takes(1e4)).grow(stage, grow, before, {})
    (growth,) = (metrics for metrics in logged if "grow/seconds" in metrics)
    assert growth["grow/seconds"] == expected
    learned = 1e6 if steps else 0
    assert (run.seconds, growth["cumulative/seconds"]) == (learned + expected, learned + expected)
