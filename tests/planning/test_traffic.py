"""Bytes of collectives worked out by hand; whole runs are held against them in `test_measured_runs`."""

from __future__ import annotations

from dataclasses import replace

from ligo_dist.architectures import ModelShape, get_architecture, no_block_matrix
from ligo_dist.growth import GrowthLayout
from ligo_dist.planning import (
    Setting,
    Traffic,
    Trained,
    Weight,
    engine_traffic,
    generation_traffic,
    transfer_traffic,
)
from ligo_dist.runtime.optimizers import MATRICES

GPT2 = get_architecture("gpt2")
SOURCE = ModelShape(layers=1, width=1, heads=1, key_value_heads=1, ffn=1, vocab=3, positions=2, tied=True)
TARGET = replace(SOURCE, layers=2, width=2, heads=2, key_value_heads=2, ffn=2)


def test_what_a_rank_sends() -> None:
    traffic = Traffic(all_gather=80, reduce_scatter=40, all_reduce=20)
    assert traffic.sent(1) == 0
    assert traffic.sent(4) == (80 + 40 + 2 * 20) * 3 // 4
    assert traffic.total == 140
    assert traffic + traffic == traffic * 2
    with_more = replace(traffic, all_to_all=160)
    assert with_more.sent(4) == traffic.sent(4) + 160 // 4 * 3 // 4
    assert with_more.total == 300
    assert with_more + with_more == with_more * 2


def test_a_step_of_an_engine() -> None:
    weights = [Weight("a", 10, "vectors"), Weight("b", 20, "matrices"), Weight("c", 3, "vectors")]
    trained = Trained(weights, {"a": 1, "b": 2}, persistent=3, most=33, at_loss=33, in_flight=0)
    bf16, fp32 = (Setting(GPT2, 4, number) for number in (2, 4))
    # Partitions of ceil(10 / 4), 5 and ceil(3 / 4) elements.
    assert engine_traffic(bf16, trained, micro_steps=3) == Traffic(
        all_gather=2 * (3 * (12 + 2 * 20) + 4),
        reduce_scatter=2 * 3 * (12 + 20 + 4),
        all_reduce=8 * (2 + 2),
    )
    once = engine_traffic(fp32, trained, micro_steps=1)
    assert (once.all_gather, once.reduce_scatter) == (4 * (52 + 4), 4 * 36)
    assert engine_traffic(replace(bf16, ranks=1), trained, 3) == Traffic()
    by_muon = replace(trained, weights=[weights[0], Weight("b", 20, MATRICES), weights[2]])
    # A matrix goes to the rank that orthogonalizes it, and back.
    assert engine_traffic(bf16, by_muon, micro_steps=3) == replace(
        engine_traffic(bf16, trained, micro_steps=3), all_to_all=2 * 2 * 20
    )
    assert (trained.moments(4), by_muon.moments(4)) == (2 * (3 + 5 + 1), 2 * (3 + 5 + 1) - 5)


def test_what_muon_trains_has_no_second_moment_to_send() -> None:
    layout = GrowthLayout(GPT2, SOURCE, TARGET, tied=False)
    setting = Setting(GPT2, 2, 2)
    vectors = 2 * 2 * 2 + (
        4 + 2 + 2 + 2
    )  # padded: two norms of two; biases of 3, 1, 1 and 1, in each of two blocks
    sent = transfer_traffic(setting, layout, learned=False, selection=no_block_matrix)
    assert sent == Traffic(4 * (2 * vectors + 4 + 2 + 2 + 2))
    # A bias is written by a matrix of a side of its own; depth coefficients make all.
    used = [p for p in layout.operator_parameters if p.side != "in"]
    learned = transfer_traffic(setting, layout, learned=True, selection=no_block_matrix)
    assert learned == sent + Traffic(4 * sum(2 * -(-p.numel // 2) for p in used))


def test_generating_and_growing() -> None:
    layout = GrowthLayout(GPT2, SOURCE, TARGET, tied=False)
    setting = Setting(GPT2, 2, 2)
    # c_attn has 3 and 3 numbers, three matrices and their biases 1 each, two norms 2 each: all odd ones are padded.
    blocks = layout.target.layers * (4 + 4 + 3 * (2 + 2) + 2 * (2 + 2))
    wte, others = 4, 2 + 2 + 2  # wpe, the final norm's gain and bias
    traffic = generation_traffic(setting, layout, micro_steps=5)
    assert traffic == Traffic(5 * 2 * 2 * (blocks + 2 * wte + others), 5 * 2 * blocks, 0)
    assert transfer_traffic(setting, layout, learned=False) == Traffic(4 * (blocks + wte + others))
    operator = sum(2 * -(-p.numel // 2) for p in layout.operator_parameters)
    assert transfer_traffic(setting, layout, learned=True) == Traffic(4 * (blocks + wte + others + operator))
    alone = Setting(GPT2)
    assert generation_traffic(alone, layout, 5) == transfer_traffic(alone, layout, learned=True) == Traffic()


def test_new_units_with_coefficients_of_their_own_mix_twice() -> None:
    once, twice = (GrowthLayout(GPT2, SOURCE, TARGET, tied=False, new_depth=new) for new in (False, True))
    setting = Setting(GPT2, 2, 2)
    scattered = [generation_traffic(setting, layout, 1).reduce_scatter for layout in (once, twice)]
    assert scattered[1] == 2 * scattered[0]
