"""Where the depth coefficients start: three source layers grown to seven, written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ligo_dist.growth import DAMPED, DEPTH_NOISE, DEPTHS, Growth, is_new_layer, origin
from pairs import grown_model, method_named, pair_of, source_weights, start
from small_models import library_model, load_weights, outputs_of, random_inputs, small_shape

ORIGINS = {
    "stack": [0, 1, 2, 0, 1, 2, 0],
    "noisy-stack": [0, 1, 2, 0, 1, 2, 0],
    "interlace": [0, 0, 0, 1, 1, 2, 2],
    "identity-layers": [0, 0, 0, 1, 1, 2, 2],
    "damped-stack": [0, 1, 2, 0, 1, 2, 0],
    "damped-interlace": [0, 0, 0, 1, 1, 2, 2],
    "interpolate": [0, 0, 1, 1, 1, 2, 2],
    "top-copy": [0, 1, 2, 2, 0, 1, 2],
    "random-layers": [0, 1, 2, 3, 4, 5, 6],
}


def growth_of(depth: str, family: str = "gpt2", source: int = 3, target: int = 7, **choices: bool) -> Growth:
    shapes = [small_shape(family, layers, 2, head_size=4) for layers in (source, target)]
    return pair_of(family, *shapes, method_named("net2net", depth=depth), **choices)


def coefficients(growth: Growth, depth: str, seed: int = 0) -> list[Tensor]:
    operator = start(growth, method_named("net2net", depth=depth), seed)
    return [operator[f"layers.{layer}.depth"] for layer in range(growth.target.layers)]


def test_every_depth_is_here():
    assert set(ORIGINS) == set(DEPTHS)


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_a_layer_begins_as(depth: str):
    growth = growth_of(depth)
    assert growth.columns == (7 if depth == "random-layers" else 3)
    assert [origin(growth, depth, layer) for layer in range(7)] == ORIGINS[depth]
    rows = coefficients(growth, depth)
    assert all(row.shape == (12, growth.columns) for row in rows)
    for row, own in zip(rows, ORIGINS[depth], strict=True):
        if depth != "interpolate":
            silent = (row == 0).all(dim=1)  # what identity layers write
            assert (row.argmax(dim=1)[~silent] == own).all()


@pytest.mark.parametrize("depth", ["stack", "interlace", "top-copy", "random-layers"])
def test_copies_are_exact(depth: str):
    for row, own in zip(coefficients(growth_of(depth), depth), ORIGINS[depth], strict=True):
        assert torch.equal(row, torch.eye(row.shape[1])[own].expand_as(row))


def test_top_copy_copies_the_topmost_layers_in_order():
    rows = coefficients(growth_of("top-copy", target=5), "top-copy")
    assert [int(row[0].argmax()) for row in rows] == [0, 1, 2, 1, 2]


def test_interpolation_is_linear_in_relative_depth():
    thirds = torch.tensor([[1, 0, 0], [2, 1, 0], [1, 2, 0], [0, 3, 0], [0, 2, 1], [0, 1, 2], [0, 0, 3]]) / 3
    thirds[0] *= 3
    rows = torch.stack([row[0] for row in coefficients(growth_of("interpolate"), "interpolate")])
    torch.testing.assert_close(rows, thirds)
    alone = coefficients(growth_of("interpolate", source=1, target=3), "interpolate")
    assert all(torch.equal(row, torch.ones(12, 1)) for row in alone)
    one = coefficients(growth_of("interpolate", source=1, target=1), "interpolate")
    assert torch.equal(one[0], torch.ones(12, 1))


def test_the_noisy_stack_is_that_of_the_published_code():
    """One above U[0, 0.03] noise, each role's own, and the row scaled to sum 1."""
    for layer, row in enumerate(coefficients(growth_of("noisy-stack"), "noisy-stack")):
        torch.testing.assert_close(row.sum(dim=1), torch.ones(12))
        own = row[:, layer % 3]
        others = torch.cat([row[:, : layer % 3], row[:, layer % 3 + 1 :]], dim=1) / own[:, None]
        assert (others >= 0).all()
        assert (others <= DEPTH_NOISE).all()
        assert others.max() > DEPTH_NOISE / 2
        assert others.unique().numel() == others.numel(), "each role draws its own noise"


def test_noise_depends_on_seed_and_layer_alone():
    growth = growth_of("noisy-stack")
    first, again, other = (coefficients(growth, "noisy-stack", seed) for seed in (0, 0, 1))
    torch.manual_seed(99)  # the global state has no say
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[3])


@pytest.mark.parametrize("depth", sorted(set(DEPTHS) - set(DAMPED)))
def test_shared_coefficients_are_one_row(depth: str):
    rows = coefficients(growth_of(depth, share_depth=True), depth)
    assert all(row.shape[0] == 1 for row in rows)
    for row in rows:
        assert row.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("depth", sorted(set(DEPTHS) - {"noisy-stack"}))
def test_a_depth_that_does_not_grow_keeps_every_layer(depth: str):
    for layer, row in enumerate(coefficients(growth_of(depth, target=3), depth)):
        assert torch.equal(row, torch.eye(3)[layer].expand_as(row))


@pytest.mark.parametrize(
    ("depth", "new"),
    [
        ("stack", [3, 4, 5, 6]),
        ("interlace", [1, 2, 4, 6]),
        ("identity-layers", [1, 2, 4, 6]),
        ("damped-stack", [3, 4, 5, 6]),
        ("damped-interlace", [1, 2, 4, 6]),
        ("interpolate", [1, 3, 4, 6]),
        ("top-copy", [3, 4, 5, 6]),
        ("random-layers", [3, 4, 5, 6]),
    ],
)
def test_which_layers_are_new(depth: str, new: list[int]):
    growth = growth_of(depth)
    assert [layer for layer in range(7) if is_new_layer(growth, depth, layer)] == new


def test_identity_layers_go_behind_blocks_that_depend_on_their_number():
    growth = growth_of("identity-layers", numbered=True)
    assert [origin(growth, "identity-layers", layer) for layer in range(7)] == [0, 1, 2, 2, 2, 2, 2]
    assert [layer for layer in range(7) if is_new_layer(growth, "identity-layers", layer)] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("depth", "parts"),
    [("damped-stack", [3, 2, 2, 3, 2, 2, 3]), ("damped-interlace", [3, 3, 3, 2, 2, 2, 2])],
)
@pytest.mark.parametrize(
    ("family", "writing"),
    [
        ("gpt2", {"attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"}),
        ("llama", {"self_attn.o_proj.weight", "mlp.down_proj.weight"}),
        (
            "gpt_neox",
            {f"{m}.{n}" for m in ("attention.dense", "mlp.dense_4h_to_h") for n in ("weight", "bias")},
        ),
        ("vit", {f"{m}.{n}" for m in ("attention.o_proj", "mlp.fc2") for n in ("weight", "bias")}),
    ],
)
def test_each_of_k_damped_copies_writes_one_kth(depth: str, parts: list[int], family: str, writing: set[str]):
    """Three layers to seven: the first one three times, the others twice."""
    growth = growth_of(depth, family)
    damped = set()
    for layer, row in enumerate(coefficients(growth, depth)):
        for role, coefficient in zip(growth.layer_roles, row, strict=True):
            name = role.split("{layer}.")[1]
            damped |= {name} if name in writing else set()
            part = parts[layer] if name in writing else 1
            assert torch.equal(coefficient, torch.eye(3)[ORIGINS[depth][layer]] / part), (layer, role)
    assert damped == writing


@pytest.mark.parametrize("depth", ["damped-stack", "damped-interlace"])
def test_damped_copies_together_write_what_one_wrote(depth: str):
    """To first order in what is written: of a tenth of it they miss a hundredth, where plain copies miss a tenth."""
    missed: dict[str, list[float]] = {}
    for name in (depth, DAMPED[depth]):
        growth, method = growth_of(name, source=1, target=3), method_named("net2net", depth=name)
        inputs, random = random_inputs("gpt2", growth.source, 3), source_weights(growth_of("stack", source=1))
        for scale in (0.1, 0.01):
            weights = {role: weight * (scale if "c_proj" in role else 1) for role, weight in random.items()}
            before = outputs_of(load_weights(library_model("gpt2", growth.source), weights), inputs)
            after = outputs_of(grown_model(growth, method, weights), inputs)
            missed.setdefault(name, []).append(float((after - before).abs().max()))
    assert missed[depth][1] < 0.02 * missed[depth][0]
    assert missed[DAMPED[depth]][1] > 0.05 * missed[DAMPED[depth]][0]
    assert missed[depth][1] < 0.01 * missed[DAMPED[depth]][1]


def test_identity_layers_write_nothing_yet():
    growth = growth_of("identity-layers")
    writing = {"attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"}
    for layer, row in enumerate(coefficients(growth, "identity-layers")):
        for role, coefficient in zip(growth.layer_roles, row, strict=True):
            is_silent = layer in (1, 2, 4, 6) and role.removeprefix("transformer.h.{layer}.") in writing
            expected = torch.zeros(3) if is_silent else torch.eye(3)[ORIGINS["identity-layers"][layer]]
            assert torch.equal(coefficient, expected), (layer, role)


def test_identity_layers_behind_norms_on_the_stream():
    """BERT, two layers to five: layers 0, 1 and 2 come from 0; 3 and 4 from 1.

    All output norms but the last of those from one source layer only normalise, and so do the inner norms of new ones.
    """
    growth = growth_of("identity-layers", "bert", 2, 5)
    assert growth.unit_layer
    assert growth.columns == 3
    writing = {
        f"{path}.dense.{name}" for path in ("attention.output", "output") for name in ("weight", "bias")
    }
    unit = torch.tensor([0.0, 0.0, 1.0])
    for layer, row in enumerate(coefficients(growth, "identity-layers")):
        for role, coefficient in zip(growth.layer_roles, row, strict=True):
            local = role.removeprefix("bert.encoder.layer.{layer}.")
            norm, _, _ = local.partition(".LayerNorm")
            only_normalises = (norm, layer in (1, 2, 4)) == ("attention.output", True)
            only_normalises |= (norm, layer in (0, 1, 3)) == ("output", True)
            expected = torch.eye(3)[0 if layer < 3 else 1]
            if only_normalises:
                expected = unit
            elif local in writing and layer in (1, 2, 4):
                expected = torch.zeros(3)
            assert torch.equal(coefficient, expected), (layer, role)


def test_new_units_of_the_next_layer():
    """bert2BERT's AKI: each layer's new units come from the layer behind it, the last one's from itself."""
    shapes = [small_shape("gpt2", layers, heads, head_size=4) for layers, heads in ((3, 2), (7, 4))]
    operator = start(pair_of("gpt2", *shapes, "bert2bert-aki"), "bert2bert-aki")
    for layer, behind in enumerate([1, 2, 2, 1, 2, 2, 1]):
        assert torch.equal(operator[f"layers.{layer}.new_depth"], torch.eye(3)[behind].expand(12, 3))
        assert torch.equal(operator[f"layers.{layer}.depth"], torch.eye(3)[layer % 3].expand(12, 3))


def test_a_depth_without_a_name_is_no_depth():
    with pytest.raises(ValueError, match="no depth 'sideways'"):
        origin(growth_of("stack"), "sideways", 0)
