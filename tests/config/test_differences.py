"""What may change when a run goes on: one list, of keys that there are."""

from __future__ import annotations

import pytest

from example import example
from ligo_dist.config import MAY_CHANGE, Config, changes, types_at, what_may_change

PATHS = [f"{section}.{key}" if section else key for section, keys in MAY_CHANGE.items() for key in keys]


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith("deepspeed.")])
def test_each_is_a_key_of_the_configuration(path: str):
    assert types_at(Config, path.replace("[]", ".0").split("."))


def test_each_may_change():
    offload = "{wall_clock_breakdown: true, zero_optimization: {offload_optimizer: {device: cpu}}}"
    other = example(
        "run_dir=elsewhere", "tracking.mlflow=false", "tracking.log_every_steps=1", "checkpoints.keep=5",
        "distributed.timeout_seconds=5", "profile.steps=2", "compile=true", "model.attention=eager",
        "data.workers=3", "data.cache_dir=elsewhere", "evaluation.every_steps=7", "evaluation.micro_batch_size=3",
        "evaluation.compare_random=false", "stages[1].nodes=2", "stages[0].train.micro_batch_size=2",
        "stages[1].train.activation_checkpointing=true", "stages[1].grow.learn.micro_batch_size=3",
        "stages[1].grow.learn.activation_checkpointing=false", f"deepspeed={offload}",
        "evaluation.harness={tasks: [arc_easy]}",
    )  # fmt: skip
    assert changes(example().resolved(), other.resolved()) == []
    assert changes(other.resolved(), example().resolved()) == []


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.sequences=3",
        "deepspeed.communication_data_type=fp32",
        "stages[1].grow.tied=true",
        "precision=fp32",
    ],
)
def test_nothing_else_may(override: str):
    before = example("precision=bf16").resolved()
    (line,) = changes(before, example("precision=bf16", override).resolved())
    assert line.startswith(override.partition("=")[0])


def test_a_message_has_them_all():
    told = what_may_change()
    assert told.startswith("run_dir, tracking, ")
    assert "evaluation.{every_steps, micro_batch_size, compare_random, harness}" in told
    assert all(key in told for keys in MAY_CHANGE.values() for key in keys)


def test_a_key_that_an_earlier_version_did_not_have_has_its_default():
    before = example().resolved()
    del before["checkpoints"], before["stages"][0]["train"]["optimizer"]["epsilon"], before["start_from"]
    assert changes(before, example().resolved()) == []
    other = example("stages[0].train.optimizer.epsilon=0.5").resolved()
    assert changes(before, other) == ["stages[0].train.optimizer.epsilon: 1e-08 -> 0.5"]
