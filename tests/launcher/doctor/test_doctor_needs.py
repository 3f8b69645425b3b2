from __future__ import annotations

import pytest

from launcher.doctor.checks import TOLERANCE, RankMemory, disk_held, rank_memory
from launcher.preflight import plan_of
from ligo_dist.planning import Needs, needs
from ligo_dist.runtime.machine import processor_flags, processors_have_bf16

WIDTH = 32
PARAMETERS = (512 + 64) * WIDTH + 2 * (12 * WIDTH**2 + 13 * WIDTH) + 2 * WIDTH
"""Of GPT-2 by hand: embeddings, positions, 2 blocks of 12 w^2 + 13 w, the last norm; the head is tied."""
SHARE = -(-PARAMETERS // 3)
NEEDED = Needs(memory=1000, checkpoints=0, exports=0)


def test_the_needs_are_of_all_stages(hosts):
    def needed(*overrides: str, ranks: int = 1) -> Needs:
        return needs(plan_of(hosts.config(*overrides), ranks), on_gpu=False)

    small, large = needed(), needed("stages[0].size={layers: 2, width: 64, heads: 4}")
    assert small.exports == 4 * PARAMETERS
    assert small.checkpoints >= 3 * 12 * PARAMETERS
    assert large.memory > small.memory > 16 * PARAMETERS
    assert needed(ranks=3).memory < small.memory


def test_what_a_resumed_run_has_written_already(tmp_path):
    assert disk_held(tmp_path / "none") == 0
    for name, size in (("checkpoints/step-1/rank-0", 100), ("export/large/model", 20), ("run.log", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert disk_held(tmp_path) == 120


def test_memory_is_for_the_precision_that_the_hosts_compute_natively_or_the_run_began_with(hosts):
    size = "stages[0].size={layers: 100, width: 32768, heads: 256}"  # of no machine

    def held(*overrides: str) -> str:
        report = hosts.check(size, *overrides, nodes=("node1",))
        (memory,) = [check for check in report.failures if check.name == "memory"]
        return memory.found.partition("at least ")[2]

    by_precision = {precision: held(f"precision={precision}") for precision in ("bf16", "fp32")}
    native, other = ("bf16", "fp32") if processors_have_bf16(processor_flags()) else ("fp32", "bf16")
    assert held() == by_precision[native] != by_precision[other]
    manifest = hosts.directory / "runs/test/checkpoints/step-00000001-0-train/COMPLETE.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(f'{{"config": {{"precision": "{other}"}}}}')
    assert held() == by_precision[other]


@pytest.mark.parametrize("keys", ["{}", "{zero_optimization: {offload_optimizer: {device: none}}}"])
def test_a_rank_holds_what_the_plan_says(hosts, keys):
    plan = plan_of(hosts.config(f"deepspeed={keys}"), 3)
    least = int(1000 * (1 - TOLERANCE))
    assert rank_memory(plan, NEEDED, on_processors=False) == RankMemory(0, least)
    assert rank_memory(plan, NEEDED, on_processors=True) == RankMemory(least, 0)


@pytest.mark.parametrize(
    ("offloaded", "memory"),
    [
        ("{offload_optimizer: {device: cpu}}", RankMemory(16 * SHARE, 2 * SHARE)),
        ("{offload_param: {device: cpu}, offload_optimizer: {device: cpu}}", RankMemory(18 * SHARE, 0)),
    ],
)
def test_what_is_offloaded_is_held_beside_the_processors(hosts, offloaded, memory):
    plan = plan_of(hosts.config(f"deepspeed={{zero_optimization: {offloaded}}}", "precision=bf16"), 3)
    assert rank_memory(plan, NEEDED, on_processors=False) == memory
