"""Whole runs with Muon: on another number of ranks at each start, in any phase, and with what is new trained alone."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ligo_dist.checkpoints import read_manifest
from ligo_dist.runtime.errors import CANNOT_GO_ON
from ranks import run_ranks
from runs import RunFiles, Site, run_warm
from test_run_checkpoints import assert_same_run, run_and_note

pytestmark = pytest.mark.slow

MUON = (
    "defaults.train.optimizer={kind: muon, learning_rate: 3e-3, muon_learning_rate: 0.01, muon_momentum: 0.9}"
)
LEGS = (4, 4, 3, None)
"""Steps of a start that stop it: in `train`, in `learn`, after growing."""


def started_again_and_again(files: RunFiles, ranks: tuple[int, ...]) -> None:
    for world_size, stop_at in zip(ranks, LEGS, strict=True):
        answers = run_ranks(run_and_note, world_size, [str(files.config), MUON], stop_at, timeout=300)
        assert {code for code, _ in answers} == {CANNOT_GO_ON if stop_at else 0}


@pytest.fixture(scope="module")
def whole_run(site: Site) -> RunFiles:
    files = site.config("whole-muon", "two stages")
    (code, taken), _ = run_ranks(run_and_note, 2, [str(files.config), MUON], timeout=300)
    assert (code, len(taken)) == (0, 15)
    groups = [(kind, rate, decay) for kind, rate, decay in taken[2]]
    assert groups == [("block matrices", 0.01, 0.1), ("model", 3e-3, 0.1), ("model", 3e-3, 0.0)]
    return files


def test_a_run_that_is_stopped_goes_on_as_if_nothing_had_been(site: Site, whole_run: RunFiles):
    files = site.config("stopped-muon", "two stages")
    started_again_and_again(files, (2, 2, 2, 2))
    assert_same_run(files, whole_run)


def test_the_number_of_ranks_may_change(site: Site, whole_run: RunFiles):
    files = site.config("elastic-muon", "two stages")
    started_again_and_again(files, (3, 1, 2, 3))
    assert files.numbers("loss") == pytest.approx(whole_run.numbers("loss"), abs=1e-3)
    for name, weight in whole_run.weights("large").items():
        torch.testing.assert_close(files.weights("large")[name], weight, atol=2e-3, rtol=0)


def test_a_checkpoint_has_one_moment_of_what_muon_trains(whole_run: RunFiles):
    newest = whole_run.run_dir / "checkpoints" / whole_run.checkpoints()[-1]
    groups: dict[str, set[str]] = {"model": set(), "exp_avg": set(), "exp_avg_sq": set()}
    for key in read_manifest(newest).numels:
        group, _, name = key.partition("/")
        groups[group].add(name)
    assert groups["exp_avg"] == groups["model"]
    without = groups["model"] - groups["exp_avg_sq"]
    assert len(without) == 3 * 4
    assert all(".h." in name and name.endswith(".weight") and ".ln_" not in name for name in without)
    assert set(load_file(newest / "rank-00000.safetensors")) == set(read_manifest(newest).numels)


def test_new_layers_may_be_trained_alone(site: Site):
    files = site.config("frozen-muon", "two stages")
    size = "size: {layers: %d, width: 24, heads: 3}"
    grow = "grow: {method: lossless, optimizer_state: grown, learn: {steps: 0}}"
    stages = (
        f"stages=[{{name: small, {size % 2}, train: {{}}}},"
        f" {{name: large, {size % 4}, {grow}, train: {{steps: 5, freeze: 5}}}}]"
    )
    assert run_warm(files, 2, MUON, stages, "checkpoints.export_stages=true") == (0, "")
    small, large = files.weights("small"), files.weights("large")
    unchanged = [
        name for name, weight in large.items() if any(torch.equal(weight, w) for w in small.values())
    ]
    matrices = [name for name in large if name.endswith("mlp.c_fc.weight")]
    assert len(matrices) == 4
    assert len([name for name in matrices if name in unchanged]) == 2


def test_it_may_begin_without_a_block(site: Site):
    """And so without a matrix of one."""
    files = site.config("thin-muon", "two stages")
    grow = "grow: {method: progressive, optimizer_state: grown, learn: {steps: 0}}"
    stages = (
        "stages=[{name: thin, size: {layers: 0, width: 24, heads: 3}, train: {}},"
        f" {{name: large, size: {{layers: 2, width: 24, heads: 3}}, {grow}, train: {{}}}}]"
    )
    assert run_warm(files, 2, MUON, stages) == (0, "")
    losses = sorted((step, loss) for (_, _, step, _), loss in files.numbers("train/loss").items())
    assert losses[-1][1] < losses[0][1]
