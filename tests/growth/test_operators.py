"""Which parameters an operator has, which growths are refused, and what it makes: one block each, written out."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ligo_dist.architectures import get_architecture
from ligo_dist.growth import Growth, expand_flat_range, growth_faults, new_units
from ligo_dist.runtime.errors import ArchitectureError
from small_models import Sizes, library_model, model_shape, small_shape, weights_of


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
            {"width": 24, "head_size": 6},
            "the head size changes from 4 to 6; keep it and add heads (width 24 wants 6 heads)",
        ),
        ({"vocab": 102}, "vocab differs: 101 and 102"),
        ({"positions": 64}, "positions differs: 32 and 64"),
        ({"tied": False}, "tied differs: True and False"),
        ({"token_types": 2}, "token_types differs: 0 and 2"),
        ({"labels": 3}, "labels differs: 0 and 3"),
        ({"image_size": 8}, "image_size differs: 0 and 8"),
        ({"patch_size": 8}, "patch_size differs: 0 and 8"),
        ({"channels": 8}, "channels differs: 0 and 8"),
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


# --- variants ---


def variant(family: str = "gpt2", source: Sizes | None = None, **choices: object) -> Growth:
    sizes = {"gpt2": GPT2_SIZES, "llama": LLAMA_SIZES}[family]
    shapes = (model_shape(source or sizes[0], True), model_shape(sizes[1], True))
    return Growth(get_architecture(family), *shapes, **{"tied": False, **choices})  # type: ignore[arg-type]


def grown(growth: Growth, operator: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What the operator makes of a source with random weights, fresh layers behind its own."""
    shape = dataclasses.replace(growth.source, layers=growth.source.layers + growth.fresh_layers)
    weights = weights_of(library_model(growth.architecture.name, shape))
    return growth.grow_dense(weights, random_operator(growth) if operator is None else operator)


def same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, msg=name)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_with_a_fixed_identity_new_rows_alone_are_parameters(family: str, tied: bool):
    fixed, learned = (variant(family, tied=tied, fixed_identity=is_fixed) for is_fixed in (True, False))
    operator = random_operator(fixed)
    whole = {}
    for parameter in learned.operator_parameters:
        value = operator[parameter.name]
        if parameter.axis is not None:
            axis = fixed.architecture.axes[parameter.axis]
            rows = torch.zeros(parameter.shape)
            rows[new_units(axis, fixed.source, fixed.target)] = value
            value = rows + fixed.placement(axis)
            assert rows.any(), parameter.name
        whole[parameter.name] = value
    same(grown(fixed, operator), grown(learned, whole))


def test_a_fixed_identity_of_grouped_heads_keeps_them_in_their_groups():
    source, target = model_shape((2, 16, 4, 2, 24), True), model_shape((2, 24, 6, 2, 24), True)
    pair = Growth(get_architecture("llama"), source, target, tied=False, fixed_identity=True)
    operator = random_operator(pair)
    # Neither the number of key/value heads nor the ffn grows: there is nothing to learn of them.
    assert {name for name in operator if name.startswith("layers.0.")} == {
        "layers.0.query.out",
        "layers.0.depth",
    }
    operator = {name: value.zero_() if "depth" not in name else value for name, value in operator.items()}
    operator |= {f"layers.{layer}.depth": torch.eye(2)[layer].expand(9, 2) for layer in range(2)}
    before = weights_of(library_model("llama", source))
    after = pair.grow_dense(before, operator)
    name = "model.layers.1.self_attn.q_proj.weight"
    heads = after[name].view(6, 4, 24)[..., :16]
    torch.testing.assert_close(heads[[0, 1, 3, 4]], before[name].view(4, 4, 16))
    assert not heads[[2, 5]].any()


def test_a_matrix_without_new_rows_is_no_parameter():
    same_width = Growth(
        get_architecture("gpt2"),
        model_shape((2, 12, 3, 3, 30), True),
        model_shape((3, 12, 3, 3, 30), True),
        tied=True,
        fixed_identity=True,
    )
    assert [p.name for p in same_width.operator_parameters] == [f"layers.{layer}.depth" for layer in range(3)]
    assert all(same_width.matrices_of(spec) == set() for spec in same_width.target_parameters)
    operator = random_operator(same_width)
    free = dataclasses.replace(same_width, fixed_identity=False)
    eye = {p.name: torch.eye(p.shape[0]) for p in free.operator_parameters if p.axis}
    same(grown(same_width, operator), grown(free, {**eye, **operator}))


def test_shared_depth_is_one_row_for_all_roles():
    shared, free = variant(share_depth=True), variant()
    operator = random_operator(shared)
    assert operator["layers.2.depth"].shape == (1, 2)
    spread = {n: v.expand(12, 2) if n.endswith(".depth") else v for n, v in operator.items()}
    same(grown(shared, operator), grown(free, spread))


def test_shared_width_is_one_operator_for_all_layers():
    shared, free = variant(share_width=True), variant()
    operator = random_operator(shared)
    assert {name for name in operator if name.startswith("layers.")} == {
        f"layers.{n}.depth" for n in range(3)
    }
    assert {"query.out", "value.in", "ffn.in", "hidden.in"} < set(operator)
    spread = {
        p.name: operator.get(p.name, operator.get(p.name.split(".", 2)[-1])) for p in free.operator_parameters
    }
    same(grown(shared, operator), grown(free, spread))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_new_units_may_have_depth_coefficients_of_their_own(family: str):
    """Rows of new units are those of a growth by `new_depth`, all others those of one by `depth`."""
    both, one = variant(family, new_depth=True), variant(family)
    operator = random_operator(both)
    assert both.depth_names(1) == ["layers.1.depth", "layers.1.new_depth"]
    assert one.depth_names(1) == ["layers.1.depth"]
    plain = {name: value for name, value in operator.items() if not name.endswith("new_depth")}
    behind = {**plain, **{n.replace("new_", ""): v for n, v in operator.items() if n.endswith("new_depth")}}
    result, old, new = grown(both, operator), grown(one, plain), grown(one, behind)
    if family == "gpt2":
        rows = {
            "attn.c_attn.weight": (1, [12, 32, 52], 20),
            "mlp.c_proj.weight": (1, [12], 20),
            "ln_1.bias": (0, [12], 20),
        }
        prefix, whole = "transformer.h.1.", "transformer.wte.weight"
    else:
        rows = {
            "self_attn.q_proj.weight": (0, [16], 24),
            "self_attn.o_proj.weight": (0, [16], 24),
            "mlp.up_proj.weight": (0, [24], 41),
        }
        prefix, whole = "model.layers.1.", "model.embed_tokens.weight"
    for name, (dim, firsts, period) in rows.items():
        positions = torch.arange(result[prefix + name].shape[dim])
        is_new = torch.zeros(len(positions), dtype=torch.bool)
        for first in firsts:
            is_new |= (positions >= first) & (positions < first // period * period + period)
        actual, kept, taken = (tensors[prefix + name].movedim(dim, 0) for tensors in (result, old, new))
        torch.testing.assert_close(actual[is_new], taken[is_new])
        torch.testing.assert_close(actual[~is_new], kept[~is_new])
        assert not torch.equal(taken[is_new], kept[is_new])
    assert torch.equal(result[whole], old[whole]), "what lies outside the layers has no layer behind it"


@pytest.mark.parametrize(
    "choices", [{}, {"tied": True}, {"fixed_identity": True}], ids=["sides", "tied", "fixed"]
)
def test_an_axis_that_does_not_grow_has_no_operator(choices: dict[str, bool]):
    """Its units are the source's, bit for bit."""
    wider = variant(source=(2, 20, 5, 5, 30), **choices)
    assert {p.axis for p in wider.operator_parameters} == {"ffn", None}
    deeper = variant(source=(2, 20, 5, 5, 41), **choices)
    assert {p.axis for p in deeper.operator_parameters} == {None}
    operator = {p.name: torch.eye(2)[p.layer // 2].expand(p.shape) for p in deeper.operator_parameters}
    weights = weights_of(library_model("gpt2", deeper.source))
    for name, tensor in deeper.grow_dense(weights, operator).items():
        assert torch.equal(tensor, weights[name.replace("h.1", "h.0").replace("h.2", "h.1")])


def test_norms_inside_heads_follow_the_epsilon_of_a_wider_model():
    source = small_shape("qwen3", heads=6, head_size=4, width=24)
    wider, deeper = dataclasses.replace(source, width=36), dataclasses.replace(source, layers=5)
    axes = [
        {p.axis for p in Growth(get_architecture("qwen3"), source, target, tied=False).operator_parameters}
        for target in (wider, deeper)
    ]
    assert "hidden" in axes[0]
    assert {"query", "key"} <= axes[0]
    assert axes[1] == {None}


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "vit"])
def test_which_elements_continue_the_source(family: str):
    """Those that the maps of source units reach from a tensor of ones, and found dim by dim for a part of the price."""
    source, target = small_shape(family), small_shape(family, layers=5, heads=9)
    pair = Growth(get_architecture(family), source, target, tied=False)
    of_whole = of_dims = 0
    for spec in pair.target_parameters:
        ones = torch.ones(pair.source_by_role[spec.role].shape)
        with FlopCounterMode(display=False) as whole:
            expected = expand_flat_range(ones, pair.kept_maps(spec), 3, spec.numel - 2)
        with FlopCounterMode(display=False) as by_dim:
            kept = pair.kept_elements(spec, 3, spec.numel - 2)
        assert torch.equal(kept, expected), spec.name
        of_whole += whole.get_total_flops()
        of_dims += by_dim.get_total_flops()
    assert of_dims < of_whole / 100


@pytest.mark.parametrize("layers", [0, 1])
def test_fresh_layers_are_mixed_like_the_sources_own(layers: int):
    pair = variant(source=(layers, 12, 3, 3, 30), fresh_layers=3 - layers)
    deeper = variant(source=(3, 12, 3, 3, 30))
    assert pair.columns == 3
    operator = random_operator(pair)
    same(grown(pair, operator), grown(deeper, operator))


def test_the_unit_layer_only_normalises():
    pair = variant(unit_layer=True)
    operator = random_operator(pair)
    assert pair.columns == 3
    for layer in range(3):
        operator[f"layers.{layer}.depth"] = torch.tensor([0.0, 0.0, 2.0]).expand(12, 3)
    result = grown(pair, operator)
    gain = operator["hidden.gain"] @ torch.full((12,), 2.0)
    for name, tensor in result.items():
        if ".h.1." in name:
            torch.testing.assert_close(
                tensor, gain if ".ln_" in name and "weight" in name else torch.zeros_like(tensor)
            )


def test_a_parameters_kind():
    kinds = {p.name.rpartition(".")[2]: p.kind for p in variant(new_depth=True).operator_parameters}
    assert kinds["depth"] == kinds["new_depth"] == "depth"
    assert kinds["out"] == kinds["head_gain"] == "width"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "bert", "vit", "qwen3"])
@pytest.mark.parametrize("new_depth", [False, True])
def test_any_flat_range_of_a_parameter_is_its_part(family: str, new_depth: bool):
    heads = 9 if family in ("llama", "qwen3") else 5
    shapes = [small_shape(family, n, heads_, head_size=4) for n, heads_ in ((2, 3), (3, heads))]
    pair = Growth(get_architecture(family), *shapes, tied=False, new_depth=new_depth)
    operator, generator = random_operator(pair), torch.Generator().manual_seed(7)
    for spec in pair.target_parameters:
        if spec.layer == 1:
            shape = pair.source_by_role[spec.role].shape
            mixed = [torch.randn(shape, generator=generator) for _ in pair.depth_names(1)]
            flat = pair.expand(spec, mixed, operator).reshape(-1)
            cuts = [0, 1, spec.numel // 3, spec.numel // 2, spec.numel]
            for start, stop in itertools.pairwise(cuts):
                part = pair.expand_range(spec, mixed, operator, start, stop)
                torch.testing.assert_close(part, flat[start:stop], msg=spec.name)


# --- the equations ---


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
