"""Initialisation under ZeRO-3 is the library's own, on any number of ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.initialization import no_init_weights

from engines import build_engine, causal, engine_model_config, whole
from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.engine import World, seed_everything
from ligo_dist.huggingface import (
    build_meta_model,
    build_partitioned_model,
    huggingface_config,
    initial_shards,
)
from ligo_dist.runtime.errors import LigoError
from ranks import run_ranks
from small_models import model_shape, small_shape, token_ids

SIZES = {"gpt2": (3, 48, 3, 3, 100), "llama": (3, 48, 6, 2, 77)}
SEED = 7


def plain(family: str, shape: ModelShape) -> dict[str, Tensor]:
    """The library's model, initialised in one process with the same seed."""
    architecture, config = get_architecture(family), engine_model_config(family, shape)
    with no_init_weights():
        model = getattr(transformers, architecture.model_class)(config)
    seed_everything(SEED)
    model.init_weights()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def initialised(world: World, family: str, shape: ModelShape, layers: int | None = None) -> dict[str, Tensor]:
    config = engine_model_config(family, shape)
    shards = initial_shards(get_architecture(family), config, (SEED,), world, layers)
    return whole(world, family, shape, shards)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", SIZES)
def test_initialisation_equals_the_librarys_on_one_process(family: str, tied: bool, world_size: int):
    shape = model_shape(SIZES[family], tied)
    expected = plain(family, shape)
    for weights in run_ranks(initialised, world_size, family, shape):
        assert set(weights) == set(expected)
        for name, weight in expected.items():
            assert torch.equal(weights[name], weight), name


def test_the_statistics_of_a_gpt2():
    """Radford et al., 2019: 0.02 everywhere, projections to the residual stream scaled by 1 / sqrt(2 layers)."""
    shape = ModelShape(3, 96, 3, 3, 384, vocab=512, positions=64, tied=True)
    (weights,) = run_ranks(initialised, 1, "gpt2", shape)
    assert weights["transformer.wte.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["transformer.h.1.attn.c_attn.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    for name in ("attn.c_proj.weight", "mlp.c_proj.weight"):
        std = weights[f"transformer.h.2.{name}"].std().item()
        assert std == pytest.approx(0.02 / math.sqrt(6), rel=0.05)
    assert torch.equal(weights["transformer.h.0.ln_1.weight"], torch.ones(96))
    assert torch.equal(weights["transformer.h.0.mlp.c_fc.bias"], torch.zeros(384))


def test_layers_for_a_deeper_gpt2_are_drawn_for_its_depth():
    """One layer that will be the ninth: what it writes to the residual stream is as small as the others' there."""
    shape = ModelShape(1, 96, 3, 3, 384, vocab=512, positions=64, tied=True)
    (weights,) = run_ranks(initialised, 1, "gpt2", shape, 9)
    std = weights["transformer.h.0.attn.c_proj.weight"].std().item()
    assert std == pytest.approx(0.02 / math.sqrt(18), rel=0.05)
    assert weights["transformer.h.0.attn.c_attn.weight"].std().item() == pytest.approx(0.02, rel=0.03)


def rotary_buffers(world: World, keys: dict[str, Any]) -> dict[str, Tensor]:
    shape = model_shape(SIZES["llama"], True)
    config = engine_model_config("llama", shape, rope_parameters=keys)
    model = build_partitioned_model(get_architecture("llama"), shape, config, torch.bfloat16)
    return dict(model.named_buffers())


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_type": "default", "rope_theta": 1e4},
        {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.01, 1.37, 2.11, 3.03],
            "long_factor": [1.33, 2.77, 5.55, 9.99],
            "original_max_position_embeddings": 16,
        },
        {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    ],
    ids=lambda keys: keys["rope_type"],
)  # fmt: skip
def test_rotary_frequencies_are_exact_in_bf16(keys: dict[str, Any]):
    shape = model_shape(SIZES["llama"], True)
    plain = transformers.LlamaForCausalLM(engine_model_config("llama", shape, rope_parameters=keys))
    (buffers,) = run_ranks(rotary_buffers, 1, keys)
    for name, buffer in plain.named_buffers():
        assert buffers[name].dtype == torch.float32
        assert torch.equal(buffers[name], buffer), name


def first_loss(world: World, shape: ModelShape) -> float:
    engine = build_engine(world, "gpt2", shape)
    config = engine_model_config("gpt2", shape)
    engine.write_shards(initial_shards(get_architecture("gpt2"), config, (SEED,), world).items())
    mine = token_ids(8, 64, vocab=512).chunk(world.size)[world.rank]
    loss = engine.evaluate([(causal(mine), len(mine))]).loss
    engine.release()
    return loss


def test_the_first_loss_is_that_of_guessing():
    shape = ModelShape(2, 64, 2, 2, 256, vocab=512, positions=64, tied=True)
    for loss in run_ranks(first_loss, 2, shape):
        assert loss == pytest.approx(math.log(512), abs=0.05)


def build_on_meta(world: World, family: str) -> dict[str, Any]:
    shape = model_shape(SIZES[family], True)
    model = build_meta_model(
        get_architecture(family), shape, engine_model_config(family, shape), torch.device("cpu")
    )
    return {
        "parameters": {parameter.device.type for parameter in model.parameters()},
        "buffers": {buffer.device.type for buffer in model.buffers()},
        "register": torch.nn.Module.register_parameter.__qualname__,
    }


@pytest.mark.parametrize("family", SIZES)
def test_a_meta_model_has_real_buffers_only(family: str):
    (found,) = run_ranks(build_on_meta, 1, family)
    assert found["parameters"] == {"meta"}
    assert found["buffers"] <= {"cpu"}
    assert found["register"] == "Module.register_parameter"


def test_dropout_is_off_unless_asked_for():
    shape = model_shape(SIZES["gpt2"], True)
    assert engine_model_config("gpt2", shape).resid_pdrop == 0.0
    assert engine_model_config("gpt2", shape, resid_pdrop=0.2).resid_pdrop == 0.2
    assert engine_model_config("llama", model_shape(SIZES["llama"], True)).attention_dropout == 0.0


@pytest.mark.parametrize("family", architecture_names())
def test_nothing_is_dropped_in_training(family: str):
    shape = small_shape(family)
    keys = huggingface_config(get_architecture(family), shape, {}).to_dict()
    dropped = {key: value for key, value in keys.items() if "drop" in key and value}
    assert not dropped


def test_a_key_of_the_epsilon_that_is_none_is_told():
    family = replace(get_architecture("gpt2"), norm_epsilon="epsilon")
    with pytest.raises(LigoError, match="norm_epsilon of gpt2 is 'epsilon', which GPT2Config does not have"):
        huggingface_config(family, small_shape("gpt2"), {})
