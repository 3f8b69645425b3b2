"""Where the operator starts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.errors import ArchitectureError
from ligo_dist.growth.methods import (
    DEPTH_NOISE,
    get_method,
    initial_value,
    placed_units,
    resolve_tied,
)
from ligo_dist.growth.names import METHODS
from ligo_dist.growth.operators import Growth
from small_models import (
    Sizes,
    library_model,
    load_weights,
    logits_of,
    model_shape,
    token_ids,
    weights_of,
)


def growth(family: str, source: Sizes, target: Sizes, method: str, tied_embeddings: bool = True) -> Growth:
    shapes = (model_shape(source, tied_embeddings), model_shape(target, tied_embeddings))
    return Growth(get_architecture(family), *shapes, tied=get_method(method).tied)


def start(growth: Growth, method: str, seed: int = 0) -> dict[str, Tensor]:
    return {p.name: initial_value(growth, get_method(method), p, seed) for p in growth.operator_parameters}


def test_every_method_that_can_be_named_exists():
    assert [get_method(name).name for name in METHODS] == list(METHODS)


# --- ligo: the values of the published code ---

GPT2 = ("gpt2", (3, 12, 3, 3, 48), (7, 20, 5, 5, 81))


def test_ligo_width_is_the_identity_above_positive_rows_that_sum_to_one():
    operator = start(growth(*GPT2, "ligo"), "ligo")
    for name, small in (("hidden.out", 12), ("layers.3.query.out", 12), ("layers.6.ffn.out", 48)):
        matrix = operator[name]
        assert torch.equal(matrix[:small], torch.eye(small)), name
        new = matrix[small:]
        assert (new >= 0).all()
        assert new.std() > 0.1 / small, "the rows are random"
        torch.testing.assert_close(new.sum(dim=1), torch.ones(len(new)))


def test_ligo_depth_is_stacking_with_a_little_noise_scaled_to_sum_one():
    operator = start(growth(*GPT2, "ligo"), "ligo")
    for layer in range(7):
        depth = operator[f"layers.{layer}.depth"]
        torch.testing.assert_close(depth.sum(dim=1), torch.ones(12))
        own = depth[:, layer % 3]
        others = torch.cat([depth[:, : layer % 3], depth[:, layer % 3 + 1 :]], dim=1) / own[:, None]
        assert (others >= 0).all()
        assert (others <= DEPTH_NOISE).all()
        assert others.unique().numel() == others.numel(), "each role draws its own noise"


def test_values_depend_on_seed_and_layer_and_on_nothing_else():
    pair = growth(*GPT2, "ligo")
    first, again, other = start(pair, "ligo"), start(pair, "ligo"), start(pair, "ligo", seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["hidden.out"], other["hidden.out"])
    assert not torch.equal(first["layers.0.query.out"], first["layers.1.query.out"])
    assert not torch.equal(first["layers.0.query.out"], first["layers.0.key.out"])
    torch.manual_seed(99)  # the global state has no say
    assert torch.equal(start(pair, "ligo")["layers.2.ffn.out"], first["layers.2.ffn.out"])


def test_both_sides_of_an_axis_draw_the_same_numbers():
    shapes = (model_shape(GPT2[1], True), model_shape(GPT2[2], True))
    untied = start(Growth(get_architecture("gpt2"), *shapes, tied=False), "ligo")
    assert torch.equal(untied["hidden.out"], untied["hidden.in"])
    assert torch.equal(untied["layers.1.ffn.out"], untied["layers.1.ffn.in"])


def test_query_heads_keep_their_place_in_their_group():
    query = get_architecture("llama").axes["query"]
    source, target = model_shape((2, 32, 4, 2, 8), True), model_shape((2, 72, 9, 3, 8), True)
    assert placed_units(query, source, target).tolist() == [0, 1, 3, 4]
    assert placed_units(get_architecture("llama").axes["key"], source, target).tolist() == [0, 1]


# --- lossless ---

GPT2_SOURCE = (3, 24, 3, 3, 50)
LLAMA_SOURCE = (3, 24, 6, 2, 50)
DIVIDING = [
    ("gpt2", GPT2_SOURCE, (3, 24, 3, 3, 50)),  # nothing grows
    ("gpt2", GPT2_SOURCE, (7, 48, 6, 6, 111)),
    ("gpt2", GPT2_SOURCE, (4, 72, 9, 9, 50)),
    ("gpt2", GPT2_SOURCE, (7, 24, 3, 3, 111)),  # depth and ffn alone
    ("llama", LLAMA_SOURCE, (7, 48, 12, 4, 111)),  # groups of three stay
    ("llama", LLAMA_SOURCE, (5, 48, 12, 2, 50)),  # groups grow from three to six
    ("llama", LLAMA_SOURCE, (5, 72, 18, 3, 77)),  # more groups, and larger ones
]


def lossless_logits(family: str, source: Sizes, target: Sizes, tied: bool) -> tuple[Tensor, Tensor]:
    """Logits of a source with random weights, and of the target it grows into."""
    pair = growth(family, source, target, "lossless", tied)
    small = library_model(family, pair.source)
    large = library_model(family, pair.target, seed=5)
    load_weights(large, pair.grow_dense(weights_of(small), start(pair, "lossless")))
    ids = token_ids(4, 24)
    return logits_of(small, ids), logits_of(large, ids)


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "own head"])
@pytest.mark.parametrize(("family", "source", "target"), DIVIDING)
def test_lossless_leaves_the_logits_unchanged_where_widths_divide(
    family: str, source: Sizes, target: Sizes, tied: bool
):
    before, after = lossless_logits(family, source, target, tied)
    assert before.std() > 0.3, "the logits must say something"
    assert get_method("lossless").preserves(growth(family, source, target, "lossless"))
    assert (after - before).abs().max() < 2e-5 * before.abs().max()


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "own head"])
@pytest.mark.parametrize(
    ("family", "source", "target"),
    [("gpt2", GPT2_SOURCE, (5, 40, 5, 5, 77)), ("llama", LLAMA_SOURCE, (5, 36, 9, 3, 77))],
)
def test_lossless_comes_close_where_they_do_not(family: str, source: Sizes, target: Sizes, tied: bool):
    before, after = lossless_logits(family, source, target, tied)
    assert not get_method("lossless").preserves(growth(family, source, target, "lossless"))
    error = (after - before).pow(2).mean().sqrt() / before.std()
    assert 1e-5 < error < 0.1, f"root mean square error {error:.4f} of the logits' standard deviation"


@pytest.mark.parametrize(("family", "source", "target"), [DIVIDING[1], DIVIDING[4]])
def test_what_lossless_adds_learns(family: str, source: Sizes, target: Sizes):
    """After one step every row and column of every matrix gets a gradient of its own: none is dead, no two are twins.

    One step, because a new layer writes nothing at first: only its projections to the residual stream see a gradient.
    """
    pair = growth(family, source, target, "lossless")
    small = library_model(family, pair.source)
    large = library_model(family, pair.target)
    load_weights(large, pair.grow_dense(weights_of(small), start(pair, "lossless")))
    ids = token_ids(8, 32)
    for learning_rate in (0.05, 0.0):
        large.zero_grad()
        large(input_ids=ids, labels=ids).loss.backward()
        for parameter in large.parameters():
            assert parameter.grad is not None
            parameter.data -= learning_rate * parameter.grad
    for name, parameter in large.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        if "bias" in name or gradient.dim() == 1:  # a key's bias adds the same to all scores, and so has none
            continue
        for matrix in (gradient, gradient.mT):
            norms = matrix.norm(dim=1)
            alive = norms > 1e-9  # rows of tokens and positions that do not occur
            assert alive.all() or name.endswith(("wte.weight", "wpe.weight", "embed_tokens.weight")), name
            apart = torch.cdist(matrix[alive], matrix[alive]).fill_diagonal_(torch.inf)
            assert (apart > 1e-5 * norms[alive]).all(), f"{name}: two rows or columns would stay equal"


def test_lossless_cannot_be_tied():
    with pytest.raises(ArchitectureError) as caught:
        resolve_tied(get_method("lossless"), True)
    assert str(caught.value) == "method 'lossless' needs a matrix for each side of an axis: set tied: false"


@pytest.mark.parametrize(
    ("method", "asked", "given"),
    [("ligo", None, True), ("ligo", False, False), ("ligo", True, True), ("lossless", None, False)],
)
def test_the_method_chooses_where_the_user_does_not(method: str, asked: bool | None, given: bool):
    assert resolve_tied(get_method(method), asked) is given
