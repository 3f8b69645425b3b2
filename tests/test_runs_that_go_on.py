"""Whole runs that go on otherwise than they were begun, and runs that begin from another one's checkpoint: equal, bit
by bit, to one run that was asked for the same."""

from __future__ import annotations

import json
import shutil

import pytest

from ligo_dist.runtime.errors import MISTAKE
from runs import RunFiles, Site, assert_same_weights, run_warm

pytestmark = pytest.mark.slow

CONSTANT = "stages[0].train.schedule={kind: constant, warmup_steps: 2, decay_steps: null}"
ONE_STAGE = "stages=[{name: small, size: {layers: 2, width: 24, heads: 3}, train: {batch_size: 12}}]"
DECAY = (
    ONE_STAGE,
    "stages[0].train.steps=7",
    "stages[0].train.schedule={kind: wsd, warmup_steps: 2, decay_steps: 3}",
)
GROWN = (CONSTANT, "stages[0].train.steps=4", "stages[1].train.steps=4", "stages[1].grow.learn.steps=2")


@pytest.fixture(scope="module")
def trunk(site: Site) -> RunFiles:
    """Eight steps at a constant rate; of two of them the checkpoints stay, one between those that are made anyway."""
    files = site.config("trunk", "two stages")
    keep = ("checkpoints.keep=1", "checkpoints.keep_steps=[3, 4]")
    assert run_warm(files, 1, ONE_STAGE, CONSTANT, "stages[0].train.steps=8", *keep) == (0, "")
    return files


def test_the_steps_that_were_asked_for_are_kept(trunk: RunFiles):
    assert trunk.checkpoints() == [f"step-{step:08d}-0-train" for step in (3, 4, 8)]


@pytest.mark.parametrize(("name", "asked"), [("decayed", DECAY), ("grown", GROWN)])
def test_a_fork_is_what_one_run_would_have_been(
    site: Site, trunk: RunFiles, name: str, asked: tuple[str, ...]
):
    """A decay where the trunk goes on at its rate; and a growth, with moments that grow too, where the trunk did not
    even measure its validation loss."""
    whole, forked = (site.config(f"{name}-{which}", "two stages") for which in ("whole", "forked"))
    assert run_warm(whole, 1, *asked) == (0, "")
    assert run_warm(forked, 1, *asked, f"start_from={{run: {trunk.run_dir}, step: 4}}") == (0, "")
    begun = trunk.run_dir / "checkpoints" / "step-00000004-0-train"
    assert f"begun from {begun}\n" in (forked.run_dir / "run.log").read_text()
    # Those that the trunk measured too, and the FLOPs and tokens beside each loss.
    assert forked.numbers() == whole.numbers()
    stages = [json.loads((files.run_dir / "summary.json").read_text())["stages"] for files in (forked, whole)]
    for mine, expected in zip(*stages, strict=True):
        assert {**mine, "seconds": 0} == {**expected, "seconds": 0}
    last = "large" if name == "grown" else "small"
    weights, expected = forked.weights(last), whole.weights(last)
    assert all(weights[key].equal(expected[key]) for key in expected)


def test_a_fork_goes_on_from_its_own_checkpoints_and_can_be_forked_again(site: Site, trunk: RunFiles):
    """On other numbers of ranks, and where the trunk has gone meanwhile."""
    start = "start_from={run: %s, step: %d}"
    forked, again = site.config("fork-once", "two stages"), site.config("fork-twice", "two stages")
    lone = trunk.copy("lone-trunk")
    assert run_warm(forked, 2, *DECAY, start % (lone.run_dir, 3), "checkpoints.keep_steps=[5]") == (0, "")
    shutil.rmtree(lone.run_dir)
    assert run_warm(forked, 1, *DECAY, start % (lone.run_dir, 3), "checkpoints.keep_steps=[5]") == (0, "")
    assert "resumed from" in (forked.run_dir / "run.log").read_text()
    assert run_warm(again, 1, *DECAY, start % (forked.run_dir, 5)) == (0, "")
    assert again.numbers("loss") == pytest.approx(forked.numbers("loss"), abs=1e-4)


def test_what_lies_behind_has_to_be_the_same(site: Site, trunk: RunFiles):
    files = site.config("unlike", "two stages")
    unlike = ("seed=4", "stages[0].train.batch_size=6", "stages[0].train.steps=9")
    code, said = run_warm(files, 1, ONE_STAGE, *unlike, f"start_from={{run: {trunk.run_dir}, step: 4}}")
    assert code == MISTAKE
    for line in ("seed: 3 -> 4", "stages[0].train.batch_size: 12 -> 6"):
        assert f"  {line}\n" in said
    assert "schedule:" not in said
    assert files.checkpoints() == []


def test_a_finished_run_has_more_steps_and_a_further_stage(site: Site, trunk: RunFiles):
    """In the same directory: the last stage's rate may fall now, and it grows with its moments."""
    asked = ("stages[0].train.steps=10", "stages[1].train.steps=4", "stages[1].grow.learn.steps=2")
    whole, files = site.config("more-whole", "two stages"), trunk.copy("more")
    assert run_warm(whole, 1, *asked) == (0, "")
    assert run_warm(files, 1, *asked) == (0, "")
    # The trunk's own end was measured too.
    extra = {key for key in files.numbers() if key[2] == 8 and key[:2] == ("small", "train")}
    numbers, expected = files.numbers(), whole.numbers()
    assert {key: numbers[key] for key in expected} == expected
    assert set(numbers) - set(expected) <= extra
    assert_same_weights(files, whole)
    assert files.statuses() == ["FINISHED"] * 3


def test_what_changes_no_number_may_change_when_a_run_goes_on(site: Site, whole_run: RunFiles):
    files = whole_run.copy("changed")
    shutil.rmtree(files.run_dir / "checkpoints" / files.checkpoints()[-1])  # so that one step is left
    offload = "{log_level: error, zero_optimization: {offload_optimizer: {device: cpu}, sub_group_size: 100}}"
    changed = ("stages[2].train.activation_checkpointing=false", "stages[2].train.micro_batch_size=2")
    code, said = run_warm(
        files,
        2,
        *changed,
        f"deepspeed={offload}",
        "evaluation.micro_batch_size=3",
        "tracking.log_every_steps=2",
    )
    assert (code, said) == (0, "")
    assert files.numbers("loss") == pytest.approx(whole_run.numbers("loss"), abs=1e-4)
