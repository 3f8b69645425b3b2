"""Where the width matrices start."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.growth import METHODS, SCRATCH, WIDTHS, Growth, get_method, new_units, placed_units
from pairs import grown_model, method_named, pair_of, source_weights, start
from small_models import random_batch, small_shape

ROWS = {"gpt2": (2, 5), "llama": (3, 9), "bert": (2, 4)}
"""Heads of 4 before and after, of each family: widths that divide for BERT alone."""


def growth_of(family: str, width: str, heads: int | None = None, **choices: object) -> Growth:
    before, after = ROWS[family]
    source = small_shape(family, 2, before, head_size=4, ffn=11)
    target = small_shape(family, 3, heads or after, head_size=4, ffn=29)
    return pair_of(family, source, target, method_named("lossless", width=width), **choices)  # type: ignore[arg-type]


def values(growth: Growth, width: str, seed: int = 0, noise: float = 0.0) -> dict[str, Tensor]:
    return start(growth, method_named("lossless", width=width, noise=noise), seed)


NOT_CLONING = [width for width in WIDTHS if width != "hypercloning"]
SELECTING = ["net2net", "bert2bert-fpi", "bert2bert-aki", "lossless", "hypercloning"]
INVERTED = [*SELECTING, "lossless-dense", "zero-pad"]
"""What reads a grown axis gets what it read before: `in^T @ out = I`."""


def cloned(width: str, family: str) -> Growth:
    """The usual pair, or one that divides for the width that needs it."""
    if width != "hypercloning":
        return growth_of(family, width)
    heads = 2 * ROWS[family][0]
    growth = growth_of(family, "lossless", heads)
    return replace(
        growth, target=replace(growth.target, ffn=22, key_value_heads=2 * growth.source.key_value_heads)
    )


def test_every_method_and_every_width_exists():
    assert get_method(SCRATCH) is None
    for name in METHODS:
        assert name == SCRATCH or method_named(name).name == name
    method = method_named("ligo", "stack", "random", 0.5)
    assert (method.depth, method.width, method.noise) == ("stack", "random", 0.5)
    for width in WIDTHS:
        for value in values(cloned(width, "llama"), width).values():
            assert value.isfinite().all()
            assert value.dtype == torch.float32


# --- the paper's ---


def test_ligo_learns_rows_of_new_units_that_sum_to_one():
    growth = growth_of("gpt2", "identity-random")
    assert growth.tied
    assert growth.fixed_identity
    operator = values(growth, "identity-random")
    for name, rows, small in (
        ("hidden.out", 12, 8),
        ("layers.2.query.out", 12, 8),
        ("layers.1.ffn.out", 18, 11),
    ):
        value = operator[name]
        assert value.shape == (rows, small)
        assert (value > 0).all()
        assert value.std() > 0.1 / small, "the rows are random"
        torch.testing.assert_close(value.sum(dim=1), torch.ones(rows))


def test_ligo_with_a_learned_identity_begins_with_the_same_map():
    fixed = values(growth_of("gpt2", "identity-random"), "identity-random")
    learned = values(growth_of("gpt2", "identity-random", identity="learned"), "identity-random")
    assert torch.equal(learned["hidden.out"], torch.cat([torch.eye(8), fixed["hidden.out"]]))


def test_all_sides_of_an_axis_draw_the_same_numbers():
    untied = values(growth_of("gpt2", "identity-random", tied=False), "identity-random")
    for side in ("in", "gain", "bias", "head_gain", "head_bias"):
        assert torch.equal(untied["hidden.out"], untied[f"hidden.{side}"])
    assert torch.equal(untied["layers.1.ffn.out"], untied["layers.1.ffn.in"])


# --- what all have in common ---


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize("width", NOT_CLONING)
def test_values_depend_on_seed_and_layer_alone(width: str, family: str):
    growth = growth_of(family, width)
    first, again, other = (values(growth, width, seed) for seed in (0, 0, 1))
    torch.manual_seed(99)  # the global state has no say
    deterministic = {name for name in first if torch.equal(first[name], other[name])}
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = {"layers.0.ffn.out", "layers.0.ffn.in"} & set(first) - deterministic
    assert bool(drawn) is (width != "zero-pad")
    for name in drawn:
        assert not torch.equal(first[name], first[name.replace("0", "1", 1)])


@pytest.mark.parametrize("width", sorted(set(NOT_CLONING) - {"zero-pad"}))
def test_shared_operators_are_drawn_once(width: str):
    growth = growth_of("gpt2", width, share_width=True)
    assert {name for name in values(growth, width) if name.startswith("layers.")} <= {
        f"layers.{layer}.{name}" for layer in range(3) for name in ("depth", "new_depth")
    }
    assert "ffn.out" in values(growth, width)


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize("width", INVERTED)
def test_what_reads_an_axis_gets_what_it_read_before(width: str, family: str):
    """A norm gives zero for the units beyond a whole multiple, so with what they are read does not matter."""
    growth = cloned(width, family)
    operator = values(growth, width)
    readers = [name for name in operator if name.endswith(".in")]
    assert {name.split(".")[-2] for name in readers} == {"hidden", "value", "ffn"}
    for name in readers:
        reader, writer = operator[name].clone(), operator[name.removesuffix("in") + "out"]
        small = reader.shape[1]
        if name == "hidden.in" and width in ("lossless", "lossless-dense") and family != "bert":
            rest = reader[len(reader) // small * small :]
            assert rest.any(dim=1).all(), "read at random, so that they learn at once"
            rest.zero_()
        torch.testing.assert_close(reader.mT @ writer, torch.eye(small), msg=name)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("width", ["net2net", "lossless", "lossless-dense", "hypercloning"])
def test_a_tied_head_reads_the_last_norm_as_before(width: str, family: str):
    """Through the embedding's own `out`: gains and biases carry the shares, where gains are rescaled with it."""
    growth = cloned(width, family)
    operator = values(growth, width)
    axis = "transform" if family == "bert" else "hidden"
    embedding, small = operator["hidden.out"], 8
    is_rescaled = width.startswith("lossless") and family != "bert"
    whole = len(embedding) // small * small if is_rescaled else len(embedding)
    scale = math.sqrt(whole / len(embedding)) if is_rescaled else 1.0
    read = {side: operator[f"{axis}.head_{side}"] for side in ("gain", "bias")}
    torch.testing.assert_close(read["gain"][:whole].mT @ embedding[:whole], scale * torch.eye(small))
    torch.testing.assert_close(read["bias"].mT @ embedding, torch.eye(small))


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize("width", SELECTING)
def test_new_units_are_copies_and_the_heads_are_the_same_for_all(width: str, family: str):
    operator = values(cloned(width, family), width)
    heads = {}
    for axis in ("query", "key", "value", "ffn"):
        copies = operator[f"layers.0.{axis}.out"]
        assert ((copies == 0) | (copies == 1)).all()
        assert (copies.sum(dim=1) == 1).all()
        origin = copies.argmax(dim=1)
        assert torch.equal(
            origin[placed_units(*place(cloned(width, family), axis))], torch.arange(copies.shape[1])
        )
        if axis != "ffn":
            unit = get_architecture(family).axes[axis].unit_size(cloned(width, family).source)
            per_head = 4 // unit
            whole = origin.view(-1, per_head)
            assert (whole - whole[:, :1] == torch.arange(per_head)).all(), "whole heads are copied"
            heads[axis] = (whole[:, 0] // per_head).tolist()
    if family == "llama":  # three query heads to each key head
        assert heads["query"] == [3 * head + each for head in heads["key"] for each in range(3)]
        assert heads["key"] == heads["value"]
    else:
        assert heads["query"] == heads["key"] == heads["value"]


def place(growth: Growth, axis: str):
    return get_architecture(growth.architecture.name).axes[axis], growth.source, growth.target


def test_net2net_copies_all_equally_often_and_fpi_does_not():
    growth = growth_of("gpt2", "net2net")
    copies = values(growth, "net2net")["layers.0.ffn.out"].sum(dim=0)
    assert copies.min() == 2
    assert copies.max() == 3
    copies = values(growth, "bert2bert-fpi")["layers.0.ffn.out"].sum(dim=0)
    assert copies.max() - copies.min() > 1


def test_lossless_splits_unevenly():
    operator = values(growth_of("bert", "lossless"), "lossless")
    read = operator["hidden.in"]
    torch.testing.assert_close(read[:8] + read[8:], torch.eye(8))
    parts = read.diagonal()
    assert parts.unique().numel() == 8
    assert (parts > 1 / 3).all()
    assert (parts < 2 / 3).all()


def test_query_heads_keep_their_place_in_their_group():
    axes = get_architecture("llama").axes
    source = small_shape("llama", 2, 4, key_value_heads=2)
    target = small_shape("llama", 2, 9, key_value_heads=3)
    assert placed_units(axes["query"], source, target).tolist() == [0, 1, 3, 4]
    assert new_units(axes["query"], source, target).tolist() == [2, 5, 6, 7, 8]
    assert placed_units(axes["key"], source, target).tolist() == [0, 1]
    assert new_units(axes["key"], source, target).tolist() == [2]


# --- dense new units ---


@pytest.mark.parametrize(("heads", "whole"), [(4, 16), (5, 16), (6, 24), (7, 24)])
def test_dense_units_keep_the_statistics_of_the_stream(heads: int, whole: int):
    """Mean and mean square of the whole multiple are those of the source; what is left adds nothing to the variance."""
    growth = growth_of("gpt2", "lossless-dense", heads)
    out = values(growth, "lossless-dense")["hidden.out"]
    stream = torch.randn(50, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    grown = stream @ out.mT
    assert torch.equal(grown[:, :8], stream)
    mean, square = stream.mean(dim=1), stream.square().mean(dim=1)
    torch.testing.assert_close(grown[:, :whole].mean(dim=1), mean)
    torch.testing.assert_close(grown[:, :whole].square().mean(dim=1), square)
    torch.testing.assert_close(grown[:, whole:], mean[:, None].expand(-1, 4 * heads - whole))
    if whole > 8:
        assert (out[8:whole] != 0).float().mean() > 0.9, "mixtures of all units"


def test_dense_units_of_a_branch_are_at_the_scale_of_what_they_mix():
    operator = values(growth_of("gpt2", "lossless-dense", 6), "lossless-dense")
    for axis in ("query", "key", "value", "ffn"):
        new = operator[f"layers.1.{axis}.out"]
        new = new[new.shape[1] :]
        torch.testing.assert_close(new.norm(dim=1), torch.ones(len(new)))
        assert torch.linalg.matrix_rank(new) == min(new.shape)
    assert not torch.equal(operator["layers.1.query.out"], operator["layers.1.key.out"])


@pytest.mark.parametrize(
    ("method", "layers", "noise"),
    [("lossless-dense", 4, 0.0), ("lossless", 2, 0.0), ("lossless", 4, 0.0), ("net2net", 4, 0.1)],
)
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_what_is_added_learns(family: str, method: str, layers: int, noise: float):
    """After one step every row and column of every matrix gets a gradient of its own: none is dead, no two are twins.

    One step, because a new layer writes nothing at first: only its projections to the residual stream see a gradient.
    That is also why copies in a *new* layer are twins without noise: all are read with zero, however it is split
    (`lossless` has dense units there).
    """
    heads = 9 if family == "llama" else 6
    source, target = small_shape(family, 2, 3, ffn=50), small_shape(family, layers, heads, ffn=111)
    start = method_named(method, noise=noise)
    growth = pair_of(family, source, target, start)
    large = copy.deepcopy(grown_model(growth, start, source_weights(growth)))
    batch = random_batch(family, target, 16, 32)
    for learning_rate in (0.05, 0.0):
        large.zero_grad()
        large(**batch).loss.backward()
        for parameter in large.parameters():
            assert parameter.grad is not None
            parameter.data -= learning_rate * parameter.grad
    for name, parameter in large.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        if gradient.dim() == 1:  # a key's bias adds the same to all scores, and so has none
            continue
        for matrix in (gradient, gradient.mT):
            norms = matrix.norm(dim=1)
            alive = norms > 1e-9  # rows of tokens and positions that do not occur
            assert alive.all() or "wte" in name or "wpe" in name or "embed" in name, name
            rows = matrix[alive]
            apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(
                torch.inf
            )
            assert (apart > 1e-6 * norms[alive]).all(), f"{name}: two rows or columns would stay equal"


# --- noise ---


@pytest.mark.parametrize("width", NOT_CLONING)
def test_noise_is_on_new_units_alone_and_none_by_default(width: str):
    growth = growth_of("llama", width)
    without, again, noisy = (values(growth, width, noise=noise) for noise in (0.0, 0.0, 0.25))
    for parameter in growth.operator_parameters:
        name = parameter.name
        assert torch.equal(without[name], again[name])
        difference = noisy[name] - without[name]
        if parameter.side not in ("out", "in") or parameter.axis is None:
            assert not difference.any(), name
            continue
        new = new_units(*place(growth, parameter.axis))
        rows = torch.arange(len(new)) if growth.fixed_identity else new
        assert difference[rows].all(), name
        scale = without[name][rows] if without[name][rows].any() else without[name]
        if difference[rows].numel() > 100:
            ratio = difference[rows].square().mean().sqrt() / scale.square().mean().sqrt()
            assert ratio == pytest.approx(0.25, rel=0.2), name
        difference[rows] = 0
        assert not difference.any(), name


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("width", ["random", "lossless"])
def test_no_two_axes_draw_the_same_noise(family: str, width: str):
    growth = growth_of(family, width)
    still, noisy = (values(growth, width, noise=noise) for noise in (0.0, 0.25))
    drawn = [
        (noisy[f"layers.1.{axis}.{side}"] - still[f"layers.1.{axis}.{side}"])[8:]
        for axis, side in (("query", "out"), ("key", "out"), ("value", "out"), ("value", "in"))
    ]
    drawn = [noise / noise.norm() for noise in drawn]
    for index, noise in enumerate(drawn):
        assert all((noise * other).sum().abs() < 0.8 for other in drawn[:index])


def test_random_projections_of_two_axes_differ():
    operator = values(growth_of("gpt2", "random"), "random")
    assert not torch.equal(operator["layers.1.query.out"], operator["layers.1.key.out"])
