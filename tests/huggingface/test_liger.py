"""Liger's kernels, with a stand-in for package and GPU: what they take over, and that ZeRO-3 gathers the head."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from engines import NOTHING_WHOLE, SETTINGS, causal, engine_model_config, partitions, train_on
from ligo_dist.architectures import get_architecture
from ligo_dist.engine import Engine, World, engine_config
from ligo_dist.huggingface import (
    apply_liger,
    build_meta_model,
    build_partitioned_model,
    liger_faults,
)
from ranks import run_ranks
from small_models import library_model, model_shape, token_ids, weights_of

STAND_IN = str(Path(__file__).parents[1] / "liger_stand_in")
KERNELS = ("fused_linear_cross_entropy", "rms_norm", "swiglu")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(STAND_IN)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "liger_kernel"]:
        del sys.modules[name]


def steps(world: World, kernels: tuple[str, ...], tied: bool) -> list[tuple[float, float, float]]:
    """Loss, gradient norm and validation loss of two steps; no weight stays whole between its uses."""
    sys.path.insert(0, STAND_IN)
    try:
        shape, architecture = model_shape((2, 24, 6, 2, 41), tied), get_architecture("llama")
        config = engine_model_config("llama", shape)
        model = build_partitioned_model(architecture, shape, config, torch.float32)
        if kernels:
            apply_liger(model, kernels)
        keys = engine_config("fp32", 2, 1, 1.0, NOTHING_WHOLE)
        engine = Engine(model, SETTINGS, keys, world)
        engine.write_shards(partitions(world, weights_of(library_model("llama", shape))).items())
        batch = token_ids(4, seed=3).chunk(world.size)[world.rank]
        told = []
        for _ in range(2):
            done = train_on(engine, [causal(batch)], {"model": 0.01})
            measured = engine.evaluate([(causal(batch), len(batch))])
            told.append((done.loss, done.gradient_norm, measured.loss))
        engine.release()
        return told
    finally:
        sys.path.remove(STAND_IN)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_fused_head_finds_its_weight_and_leads_its_gradient_there(tied: bool):
    plain, fused = (run_ranks(steps, 2, kernels, tied)[0] for kernels in ((), KERNELS))
    for step, expected in zip(fused, plain, strict=True):
        assert step == pytest.approx(expected, rel=1e-5)


def test_only_what_is_on_is_taken_over(stand_in: None):
    shape, architecture = model_shape((2, 24, 6, 2, 41), False), get_architecture("llama")
    model = build_meta_model(architecture, shape, engine_model_config("llama", shape), torch.device("cpu"))
    apply_liger(model, ("rms_norm",))
    from liger_kernel.transformers.monkey_patch import APPLIED

    assert APPLIED[-1] == {"rope": False, "cross_entropy": False, "rms_norm": True, "swiglu": False}
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    ("family", "kernels", "accelerator", "said"),
    [
        ("llama", ("swiglu", "rope"), "cuda", None),
        ("gpt2", (), "cpu", None),
        ("llama", ("swiglu",), "cpu", ("liger.swiglu", "Liger's kernels run on GPUs alone")),
        ("gpt2", ("rope",), "cuda", ("liger.rope", "liger-kernel has nothing for gpt2")),
    ],
)
def test_what_cannot_be_is_told(
    family: str,
    kernels: tuple[str, ...],
    accelerator: str,
    said: tuple[str, str] | None,
    stand_in: None,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("ligo_dist.huggingface.liger.get_accelerator_name", lambda: accelerator)
    faults = liger_faults(get_architecture(family), kernels)
    assert len(faults) == (said is not None)
    if said is not None:
        assert faults[0].path == said[0]
        assert said[1] in faults[0].message


def test_the_package_may_be_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ligo_dist.huggingface.liger.get_accelerator_name", lambda: "cuda")
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    (fault,) = liger_faults(get_architecture("llama"), ("rope",))
    assert "pip install 'ligo_dist[liger]'" in fault.message
