"""Which matrices an operator has, which growths are refused, and the paper's equations for one GPT-2 block."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.errors import ArchitectureError
from ligo_dist.growth.operators import Growth, growth_faults
from small_models import Sizes, library_model, model_shape, weights_of


def growth(family: str, source: Sizes, target: Sizes, tied: bool, tied_embeddings: bool = True) -> Growth:
    shapes = (model_shape(source, tied_embeddings), model_shape(target, tied_embeddings))
    return Growth(get_architecture(family), *shapes, tied=tied)


GPT2_SIZES = ((2, 12, 3, 3, 30), (3, 20, 5, 5, 41))
LLAMA_SIZES = ((2, 16, 4, 2, 24), (3, 24, 6, 3, 41))


def shapes_of(growth: Growth) -> dict[str, tuple[int, int]]:
    return {parameter.name: parameter.shape for parameter in growth.operator_parameters}


def test_a_tied_gpt2_operator_has_one_matrix_per_axis():
    per_layer = {"query.out": (20, 12), "key.out": (20, 12), "value.out": (20, 12), "ffn.out": (41, 30)}
    expected = {"hidden.out": (20, 12)}
    for layer in range(3):
        expected |= {f"layers.{layer}.{name}": shape for name, shape in per_layer.items()}
        expected[f"layers.{layer}.depth"] = (12, 2)
    assert shapes_of(growth("gpt2", *GPT2_SIZES, tied=True)) == expected


def test_an_untied_gpt2_operator_has_one_matrix_per_side():
    shapes = shapes_of(growth("gpt2", *GPT2_SIZES, tied=False))
    shared = {name for name in shapes if not name.startswith("layers.")}
    assert shared == {f"hidden.{side}" for side in ("out", "in", "gain", "bias", "head_gain", "head_bias")}
    assert {name for name in shapes if name.startswith("layers.2.")} == {
        f"layers.2.{name}"
        for name in ("query.out", "key.out", "value.out", "value.in", "ffn.out", "ffn.in", "depth")
    }
    untied_head = growth("gpt2", *GPT2_SIZES, tied=False, tied_embeddings=False)
    assert "hidden.head_gain" not in shapes_of(untied_head)


def test_a_llama_operator_mixes_whole_query_and_key_heads():
    shapes = shapes_of(growth("llama", *LLAMA_SIZES, tied=False))
    assert shapes["layers.0.query.out"] == (6, 4)
    assert shapes["layers.0.key.out"] == (3, 2)
    assert shapes["layers.0.value.out"] == (12, 8)  # elements, of the key/value heads
    assert shapes["layers.0.value.in"] == (12, 8)  # `attention` is lifted from it
    assert not any("attention" in name for name in shapes)


def test_the_whole_models_parameters_come_first_then_layer_by_layer():
    layers = [parameter.layer for parameter in growth("llama", *LLAMA_SIZES, tied=False).operator_parameters]
    numbers = [-1 if layer is None else layer for layer in layers]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"layers": 1}, "layers shrinks from 2 to 1"),
        ({"width": 8, "heads": 2, "key_value_heads": 2}, "width shrinks from 16 to 8"),
        ({"ffn": 23}, "ffn shrinks from 24 to 23"),
        ({"key_value_heads": 1}, "key_value_heads shrinks from 2 to 1"),
        ({"key_value_heads": 4}, "queries_per_group shrinks from 2 to 1"),
        (
            {"width": 24},
            "the head size changes from 4 to 6; keep it and add heads (width 24 wants 6 heads)",
        ),
        ({"vocab": 102}, "vocab differs: 101 and 102"),
        ({"positions": 64}, "positions differs: 32 and 64"),
        ({"tied": False}, "tied differs: True and False"),
    ],
)
def test_a_growth_that_cannot_be_is_refused(changes: dict[str, int], fault: str):
    source = model_shape(LLAMA_SIZES[0], True)
    target = dataclasses.replace(source, **changes)
    assert fault in growth_faults(source, target)
    with pytest.raises(ArchitectureError) as caught:
        Growth(get_architecture("llama"), source, target, tied=True)
    assert str(caught.value).startswith("llama cannot grow so: ")
    assert fault in str(caught.value)


def test_equal_shapes_are_no_fault():
    source = model_shape(LLAMA_SIZES[0], True)
    assert growth_faults(source, source) == []


def random_operator(growth: Growth) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {p.name: torch.randn(p.shape, generator=generator) for p in growth.operator_parameters}


def test_the_papers_equations_for_a_gpt2_block():
    """LiGO (arXiv 2303.00980), algorithm 1: depth as a weighted sum of layers, width as B W B^T; the paper's names."""
    pair = growth("gpt2", *GPT2_SIZES, tied=True)
    source, operator = weights_of(library_model("gpt2", pair.source)), random_operator(pair)
    grown = pair.grow_dense(source, operator)
    layer, d1, d2 = 1, 12, 20
    b_emb = operator["hidden.out"]
    b_q, b_k, b_v, b_fc1 = (
        operator[f"layers.{layer}.{axis}.out"] for axis in ("query", "key", "value", "ffn")
    )
    depth = operator[f"layers.{layer}.depth"]
    roles = pair.layer_roles

    def mixed(name: str) -> Tensor:
        row = depth[roles.index(f"transformer.h.{{layer}}.{name}")]
        return sum(row[k] * source[f"transformer.h.{k}.{name}"] for k in range(2))  # type: ignore[return-value]

    def check(name: str, expected: Tensor) -> None:
        torch.testing.assert_close(grown[f"transformer.h.{layer}.{name}"], expected, msg=name)

    # Conv1D stores W^T: input x output; the three projections stand side by side.
    w_q, w_k, w_v = (part.T for part in mixed("attn.c_attn.weight").split(d1, dim=1))
    assert w_q.shape == (d1, d1)
    large = torch.cat([b @ w @ b_emb.T for b, w in ((b_q, w_q), (b_k, w_k), (b_v, w_v))])
    assert large.shape == (3 * d2, d2)
    check("attn.c_attn.weight", large.T)
    biases = mixed("attn.c_attn.bias").split(d1)
    check("attn.c_attn.bias", torch.cat([b @ bias for b, bias in zip((b_q, b_k, b_v), biases, strict=True)]))
    check("attn.c_proj.weight", (b_emb @ mixed("attn.c_proj.weight").T @ b_v.T).T)
    check("attn.c_proj.bias", b_emb @ mixed("attn.c_proj.bias"))
    check("mlp.c_fc.weight", (b_fc1 @ mixed("mlp.c_fc.weight").T @ b_emb.T).T)
    check("mlp.c_fc.bias", b_fc1 @ mixed("mlp.c_fc.bias"))
    check("mlp.c_proj.weight", (b_emb @ mixed("mlp.c_proj.weight").T @ b_fc1.T).T)
    check("mlp.c_proj.bias", b_emb @ mixed("mlp.c_proj.bias"))
    for norm in ("ln_1", "ln_2"):
        check(f"{norm}.weight", b_emb @ mixed(f"{norm}.weight"))
        check(f"{norm}.bias", b_emb @ mixed(f"{norm}.bias"))
    torch.testing.assert_close(grown["transformer.wte.weight"], source["transformer.wte.weight"] @ b_emb.T)
    torch.testing.assert_close(grown["transformer.wpe.weight"], source["transformer.wpe.weight"] @ b_emb.T)
    torch.testing.assert_close(grown["transformer.ln_f.weight"], b_emb @ source["transformer.ln_f.weight"])


def test_a_llama_block_written_out():
    pair = growth("llama", *LLAMA_SIZES, tied=False, tied_embeddings=False)
    source, operator = weights_of(library_model("llama", pair.source)), random_operator(pair)
    grown = pair.grow_dense(source, operator)
    head, layer = torch.eye(4), 2
    out, read = operator["hidden.out"], operator["hidden.in"]
    own = {
        name: operator[f"layers.{layer}.{name}"] for name in ("query.out", "key.out", "value.out", "value.in")
    }
    ffn_out, ffn_in = operator[f"layers.{layer}.ffn.out"], operator[f"layers.{layer}.ffn.in"]

    def mixed(name: str) -> Tensor:
        row = operator[f"layers.{layer}.depth"][pair.layer_roles.index(f"model.layers.{{layer}}.{name}")]
        return row[0] * source[f"model.layers.0.{name}"] + row[1] * source[f"model.layers.1.{name}"]

    def check(name: str, expected: Tensor) -> None:
        torch.testing.assert_close(grown[f"model.layers.{layer}.{name}"], expected, msg=name)

    check(
        "self_attn.q_proj.weight",
        torch.kron(own["query.out"], head) @ mixed("self_attn.q_proj.weight") @ read.T,
    )
    check(
        "self_attn.k_proj.weight",
        torch.kron(own["key.out"], head) @ mixed("self_attn.k_proj.weight") @ read.T,
    )
    check("self_attn.v_proj.weight", own["value.out"] @ mixed("self_attn.v_proj.weight") @ read.T)
    # Two query heads share a value head, before and after: each half of a group's columns goes through `value.in`.
    o_proj = mixed("self_attn.o_proj.weight").view(16, 2, 2, 4)
    lifted = [(o_proj[:, :, repeat].reshape(16, 8) @ own["value.in"].T).view(16, 3, 4) for repeat in range(2)]
    check("self_attn.o_proj.weight", out @ torch.stack(lifted, dim=2).reshape(16, 24))
    check("mlp.gate_proj.weight", ffn_out @ mixed("mlp.gate_proj.weight") @ read.T)
    check("mlp.up_proj.weight", ffn_out @ mixed("mlp.up_proj.weight") @ read.T)
    check("mlp.down_proj.weight", out @ mixed("mlp.down_proj.weight") @ ffn_in.T)
    check("input_layernorm.weight", operator["hidden.gain"] @ mixed("input_layernorm.weight"))
    torch.testing.assert_close(grown["lm_head.weight"], source["lm_head.weight"] @ read.T)
