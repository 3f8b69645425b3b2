"""Time, room and break-even: the arithmetic on top of the estimates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from schedules import estimates, forecast

from ligo_dist.planning import Memory, fewest_ranks, peak_of


def test_time_is_that_of_the_slower() -> None:
    computes = forecast(ranks=2, gpu="1e9,1,1000")
    sends = forecast(ranks=2, gpu="1e15,1,0.0001")
    for plan, slower in ((computes, "computing"), (sends, "sending")):
        phase = plan.phases[0]
        took = plan.duration(phase)
        assert took.computing == pytest.approx(phase.cost.flops_per_step / (2 * plan.gpu.fp32 * 0.5))
        assert took.sending == pytest.approx(phase.traffic.sent(2) / plan.gpu.network)
        assert took.total == pytest.approx(10 * getattr(took, slower))
    assert sends.seconds == pytest.approx(sum(sends.duration(phase).total for phase in sends.phases))


@pytest.mark.parametrize(("ranks", "micro_steps"), [(1, 4), (2, 2), (4, 1)])
def test_a_step_takes_its_launches_however_small_it_is(ranks: int, micro_steps: int) -> None:
    plan = forecast(ranks=ranks, gpu="1e15,1,1000")
    small, learn, grow, large = plan.phases
    for phase, layers in ((small, 2), (learn, 3), (large, 3)):
        took = plan.duration(phase)
        assert took.least == pytest.approx(0.001 * layers * micro_steps)
        assert took.total == pytest.approx(phase.cost.steps * took.least)
    assert plan.duration(grow).least == 0


def test_what_is_recomputed_takes_time_and_is_no_use_of_the_model() -> None:
    plain, again = (
        forecast(f"stages[0].train.activation_checkpointing={on}", gpu="1e9,1,1") for on in ("false", "true")
    )
    first, second = (plan.phases[0] for plan in (plain, again))
    assert first.cost.flops == second.cost.flops
    factor = second.cost.hardware_flops / first.cost.hardware_flops
    assert factor > 1.2
    assert again.duration(second).computing == pytest.approx(factor * plain.duration(first).computing)
    mfu, hfu = again.utilisation()
    assert hfu == pytest.approx(0.5)
    assert mfu < plain.utilisation()[0] < hfu  # learning recomputes in either
    given = replace(again, mfu=0.5)
    assert given.duration(second).computing == pytest.approx(plain.duration(first).computing)
    assert given.utilisation()[0] == pytest.approx(0.5)


def test_what_is_gathered_and_reduced_at_once_follows_the_model() -> None:
    wide = ("model.vocab_size=512", "stages[1].size={layers: 3, width: 1536, heads: 192}")
    fixed = (
        "deepspeed={zero_optimization: {reduce_bucket_size: 5000000, stage3_prefetch_bucket_size: 5000000}}"
    )
    follows, stays = (
        {memory.point: memory for memory in estimates(*wide, *keys, ranks=4)[-1].peaks}
        for keys in ((), (fixed,))
    )
    # Of a block's 12 x 1536^2 weights and its biases, in fp32; its largest matrix is 1536 x 6144.
    block, largest = 12 * 1536**2 + 13 * 1536, 4 * 1536**2
    assert follows["optimizer"].total - stays["optimizer"].total == 4 * (largest - 5_000_000)
    assert follows["evaluation"].gathered - stays["evaluation"].gathered == pytest.approx(
        4 * (block - 5_000_000), rel=0.01
    )


def test_growing_is_done_once() -> None:
    plan = forecast(ranks=2)
    grow = next(phase for phase in plan.phases if phase.kind == "grow")
    took = plan.duration(grow)
    assert took.computing == pytest.approx(grow.cost.flops / (2 * 1e12 * 0.5))
    assert took.total == max(took.computing, took.sending)


def test_one_rank_sends_nothing() -> None:
    plan = forecast(ranks=1)
    assert [plan.duration(phase).sending for phase in plan.phases] == [0] * 4


@pytest.mark.parametrize("index", [1, 2, 3])
def test_fewest_ranks_is_the_boundary(index: int) -> None:
    room = estimates(ranks=7)[index].peak.total
    fewest = fewest_ranks([estimates()[index]], room)
    assert fewest is not None
    assert 1 < fewest <= 7
    for ranks, fits in ((fewest - 1, False), (fewest, True)):
        assert (estimates(ranks=ranks)[index].peak.total <= room) == fits


def test_what_fits_nowhere_and_what_fits_at_once() -> None:
    phase = estimates()[0]
    assert fewest_ranks([phase], phase.peak.total) == 1
    activations = min(point.activations for point in phase.peaks if point.point == "loss")
    assert fewest_ranks([phase], activations) is None


def test_one_rank_may_fit_where_two_do_not() -> None:
    """It gathers nothing."""
    phase = replace(estimates()[0], peaks_on=lambda n: [Memory("held", {1: 20, 2: 22}.get(n, 57 // n))])
    assert [fewest_ranks([phase], room) for room in (22, 20, 19, 6, 5)] == [1, 1, 3, 9, 10]
    other = replace(phase, peaks_on=lambda n: [Memory("held", 40 // n)])
    assert (fewest_ranks([other], 20), fewest_ranks([phase, other], 20)) == (2, 3)


def test_no_more_ranks_than_a_batch_has_samples() -> None:
    """Of 8 samples: what takes 9 ranks fits on none that a run can have."""
    plan = forecast()
    assert plan.most_ranks == 8
    assert forecast("stages[1].grow.learn={steps: 5, batch_size: 3}").most_ranks == 3
    phase = plan.phases[-1]
    usable = {ranks: peak_of(phase.peaks_on(ranks)).total for ranks in (8, 9)}
    assert usable[9] < usable[8]
    assert fewest_ranks([phase], usable[8], 8) == 8
    assert fewest_ranks([phase], usable[9], 9) == 9
    assert fewest_ranks([phase], usable[9], 8) is None


def test_the_break_even_worked_out_by_hand() -> None:
    ((stage, so_far, scratch_steps),) = forecast().break_evens()
    small, large = (phase.stage.cost for phase in estimates() if phase.kind == "train")
    assert stage.name == "large"
    assert so_far == small.train.flops + large.learn.flops + large.grow.flops + large.train.flops
    assert scratch_steps == pytest.approx(so_far / large.train.flops_per_step)
    assert forecast("stages[1].grow={method: scratch}").break_evens() == []
