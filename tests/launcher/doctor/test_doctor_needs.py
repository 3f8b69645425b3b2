from __future__ import annotations

import pytest

from launcher.doctor.needs import Memory, disk_held, disk_needed, largest_model, rank_memory

OFFLOADED = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
ALL_OFFLOADED = {
    "zero_optimization": {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
}
NOT_OFFLOADED = {"zero_optimization": {"offload_optimizer": {"device": "none"}}}


def test_the_largest_model_counts(hosts):
    small = hosts.config()
    # GPT-2 by hand: embeddings, positions, 2 blocks of 12 w^2 + 13 w, the last norm; the head is tied.
    width = 32
    assert largest_model(small) == (512 + 64) * width + 2 * (12 * width**2 + 13 * width) + 2 * width
    large = hosts.config("stages[0].size={layers: 2, width: 64, heads: 4}")
    assert largest_model(large) > 2 * largest_model(small)


def test_the_disk_holds_checkpoints_and_an_export():
    assert disk_needed(10, keep=2) == 3 * (12 * 10) + 4 * 10


def test_what_a_resumed_run_has_written_already(tmp_path):
    assert disk_held(tmp_path / "none") == 0
    for name, size in (("checkpoints/step-1/rank-0", 100), ("export/large/model", 20), ("run.log", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert disk_held(tmp_path) == 120


@pytest.mark.parametrize(
    ("precision", "deepspeed", "on_processors", "memory"),
    [
        ("bf16", {}, False, Memory(0, 18 * 4)),
        ("fp32", {}, False, Memory(0, 20 * 4)),
        ("bf16", {}, True, Memory(18 * 4, 0)),
        ("bf16", OFFLOADED, False, Memory(16 * 4, 2 * 4)),
        ("bf16", ALL_OFFLOADED, False, Memory(18 * 4, 0)),
        ("bf16", NOT_OFFLOADED, False, Memory(0, 18 * 4)),
        ("bf16", {"zero_optimization": None}, False, Memory(0, 18 * 4)),
    ],
)
def test_a_rank_holds_its_share(precision, deepspeed, on_processors, memory):
    a_third_of_ten = 4
    assert rank_memory(10, 3, precision, deepspeed, on_processors) == memory
    assert memory.host + memory.device in (18 * a_third_of_ten, 20 * a_third_of_ten)
