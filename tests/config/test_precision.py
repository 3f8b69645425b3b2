"""What `precision: auto` stands for, and how attention follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from example import example
from ligo_dist.config import attention_of, changes, recorded_precision, resolve_precision
from ligo_dist.runtime.errors import ConfigError


def manifest(run_dir: Path, step: int, text: str) -> None:
    path = run_dir / "checkpoints" / f"step-{step:08d}-0-train" / "COMPLETE.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def made_with(precision: str) -> str:
    return json.dumps({"config": {"precision": precision}})


@pytest.mark.parametrize(
    ("native", "recorded", "precision", "said"),
    [
        ([True, True], None, "bf16", "bf16, which is native here"),
        ([False], None, "fp32", "fp32, as bf16 is not native here"),
        ([True, False, True], None, "fp32", "fp32, as bf16 is not native to 1 of 3 ranks"),
        ([False], "bf16", "bf16", "bf16, as the run began; begun here it would be fp32"),
        ([True], "fp32", "fp32", "fp32, as the run began; begun here it would be bf16"),
        ([True], "bf16", "bf16", "bf16, as the run began"),
    ],
)
def test_auto_is_what_all_machines_compute_natively_or_what_the_run_began_with(
    native: list[bool], recorded: str | None, precision: str, said: str
) -> None:
    config, line = resolve_precision(example(), native, recorded)
    assert (config.precision, line) == (precision, f"precision: {said}")
    assert config.resolved()["precision"] == precision


@pytest.mark.parametrize("given", ["bf16", "fp32"])
def test_what_is_given_stays(given: str) -> None:
    for native in ([True], [False]):
        config, line = resolve_precision(example(f"precision={given}"), native)
        assert (config.precision, line) == (given, None)


def test_a_run_says_what_it_was_made_with(tmp_path: Path) -> None:
    assert recorded_precision([tmp_path / "none"]) is None
    manifest(tmp_path / "b", 3, made_with("fp32"))
    manifest(tmp_path / "b", 20, "{")
    manifest(tmp_path / "b", 30, "{}")
    (tmp_path / "b" / "checkpoints" / "step-00000040-0-train").mkdir()
    assert recorded_precision([tmp_path / "none", tmp_path / "b"]) == "fp32"


def test_auto_is_no_other_configuration() -> None:
    auto, bf16, fp32 = (example(f"precision={one}").resolved() for one in ("auto", "bf16", "fp32"))
    assert changes(bf16, auto) == changes(auto, fp32) == []
    assert changes(bf16, fp32) == ["precision: 'bf16' -> 'fp32'"]


def test_attention_may_be_another_when_a_run_goes_on() -> None:
    assert changes(example("model.attention=eager").resolved(), example().resolved()) == []


@pytest.mark.parametrize(
    ("attention", "precision", "on_processors", "computed"),
    [
        ("auto", "bf16", True, "eager"),
        ("auto", "fp32", True, None),
        ("auto", "bf16", False, None),
        ("auto", "fp32", False, None),
        ("sdpa", "bf16", True, "sdpa"),
        ("eager", "fp32", False, "eager"),
        ("flash_attention_2", "bf16", False, "flash_attention_2"),
        ("flash_attention_2", "fp32", False, None),  # of a comparison that is computed in fp32
    ],
)
def test_attention_is_as_asked_or_what_is_fast(
    attention: str, precision: str, on_processors: bool, computed: str | None
) -> None:
    model = example(f"model.attention={attention}").model
    assert attention_of(model, precision, on_processors=on_processors) == computed


def test_flash_attention_takes_bf16_alone() -> None:
    config = example("model.attention=flash_attention_2")
    assert resolve_precision(config, [True])[0].precision == "bf16"
    with pytest.raises(ConfigError, match=r"model\.attention: .*bf16 alone"):
        resolve_precision(config, [False])
    with pytest.raises(ConfigError, match=r"model\.attention: .*bf16 alone"):
        example("model.attention=flash_attention_2", "precision=fp32")
