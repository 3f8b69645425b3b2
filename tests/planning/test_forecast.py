"""Time, room and break-even: the arithmetic on top of the estimates."""

from __future__ import annotations

import pytest
from schedules import estimates, forecast

from ligo_dist.planning.forecast import get_gpu


def test_time_is_that_of_the_slower() -> None:
    computes = forecast(ranks=2, gpu="1e9,1,1000")
    sends = forecast(ranks=2, gpu="1e15,1,0.001")
    for plan, slower in ((computes, "computing"), (sends, "sending")):
        phase = plan.stages[0].phases[0]
        took = plan.duration(phase)
        assert took.computing == pytest.approx(phase.cost.flops_per_step / (2 * plan.gpu.flops * 0.5))
        assert took.sending == pytest.approx(phase.traffic.sent(2) / plan.gpu.network)
        assert took.total == pytest.approx(10 * getattr(took, slower))
    assert sends.seconds == pytest.approx(
        sum(sends.duration(p).total for s in sends.stages for p in s.phases)
    )


def test_growing_is_done_once() -> None:
    plan = forecast(ranks=2)
    grow = next(phase for phase in plan.stages[1].phases if phase.kind == "grow")
    took = plan.duration(grow)
    assert took.computing == pytest.approx(grow.cost.flops / (2 * 1e12 * 0.5))
    assert took.total == max(took.computing, took.sending)


def test_one_rank_sends_nothing() -> None:
    plan = forecast(ranks=1)
    assert all(plan.duration(phase).sending == 0 for stage in plan.stages for phase in stage.phases)


@pytest.mark.parametrize("index", range(3))
def test_fewest_ranks_is_the_boundary(index: int) -> None:
    phase = [phase for stage in estimates() for phase in stage.phases][index + 1]
    (many,) = ([p for stage in estimates(ranks=7) for p in stage.phases][index + 1],)
    room = many.peak.total
    fewest = phase.fewest_ranks(room)
    assert fewest is not None
    assert 1 < fewest <= 7
    for ranks, fits in ((fewest - 1, False), (fewest, True)):
        there = [p for stage in estimates(ranks=ranks) for p in stage.phases][index + 1]
        assert (there.peak.total <= room) == fits


def test_what_fits_nowhere_and_what_fits_at_once() -> None:
    phase = estimates()[0].phases[0]
    assert phase.fewest_ranks(phase.peak.total) == 1
    activations = min(point.activations for point in phase.peaks if point.point == "loss")
    assert phase.fewest_ranks(activations) is None


def test_the_break_even_worked_out_by_hand() -> None:
    plan = forecast()
    (stage,) = plan.break_evens()
    small, large = (stage.plan.cost for stage in plan.stages)
    so_far = small.train.flops + large.learn.flops + large.grow.flops + large.train.flops
    assert (stage.so_far, stage.train_steps) == (so_far, 10)
    assert stage.scratch_steps == pytest.approx(so_far / large.train.flops_per_step)


def test_scratch_has_none() -> None:
    assert forecast("stages[1].grow={method: scratch}").break_evens() == []


def test_a_gpu_leaves_a_tenth() -> None:
    assert get_gpu("h100").usable == 72 * 10**9
