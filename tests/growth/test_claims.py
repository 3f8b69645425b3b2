"""What methods claim: which keep the function for which pair, that they do, that the others do not, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from torch import Tensor

from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.growth import METHODS, Growth, GrowthLayout, Method, epsilon_factor, obstacles
from ligo_dist.runtime.errors import ArchitectureError
from pairs import grown_model, method_named, pair_of, source_weights, start
from small_models import (
    library_model,
    load_weights,
    outputs_of,
    random_inputs,
    real_inputs,
    small_shape,
    weights_of,
)

TOLERANCE = 3e-5
"""Of the largest output: what fp32 rounding may do."""

# --- for every method, family and pair of shapes ---

ALL_METHODS = {
    **{name: method_named(name) for name in METHODS if name != "scratch"},
    "fpi, identity layers": method_named("bert2bert-fpi", depth="identity-layers"),
}
COPYING = {"lossless", "lossless-dense", "net2net", "hypercloning"}
SILENT_LAYERS = COPYING | {"zero-pad", "fpi, identity layers"}
WITHOUT_DEPTH = set(ALL_METHODS) - {"ligo", "bert2bert-aki", "random"}


def has_groups(family: str) -> bool:
    return any(axis.grouped for axis in get_architecture(family).axes.values())


def small(family: str, layers: int = 2, heads: int = 6, ffn: int = 30, **sizes: int) -> ModelShape:
    return small_shape(family, layers, heads, ffn=ffn, head_size=4, **sizes)


def pairs(family: str) -> dict[str, tuple[ModelShape, set[str], set[str]]]:
    """Name -> (target, the methods that keep the function, those that are refused), the source being `small`."""
    architecture = get_architecture(family)
    rms = {"zero-pad"} if architecture.normalization == "rms_norm" else set()
    odd = (
        set()
        if architecture.post_norm or architecture.norm_epsilon is None
        else {"lossless", "lossless-dense"} | rms
    )
    cloning, damped = {"hypercloning"}, {"damped"} if architecture.post_norm else set()
    found = {
        "twice as wide": (small(family, 5, 12, 60), COPYING | rms, damped),
        "odd width": (small(family, 5, 9 if has_groups(family) else 10, 75), odd, cloning | damped),
        "deeper": (small(family, 5), SILENT_LAYERS, damped),
        "larger ffn": (small(family, 2, ffn=47), WITHOUT_DEPTH - cloning, cloning),
        "the same": (small(family), set(ALL_METHODS) - {"ligo"}, set()),
    }
    if has_groups(family):
        found["larger groups"] = (small(family, 3, 12, key_value_heads=2), COPYING | rms, set())
        more_and_larger = small(family, 3, 12, key_value_heads=3)
        found["more and larger groups"] = (more_and_larger, (COPYING | rms) - cloning, cloning)
        if architecture.free_head_size:
            found["more heads alone"] = (small(family, 3, 12, width=24), SILENT_LAYERS, set())
    return found


CASES = [
    (family, tied, name)
    for family in architecture_names()
    for tied in ([True, False] if get_architecture(family).ties_embeddings is not None else [None])
    for name in pairs(family)
]


@cache
def source_of(family: str, source: ModelShape) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Weights, inputs and outputs of a source: random weights, real text or images."""
    inputs = real_inputs(family, source, 3)
    outputs = outputs_of(library_model(family, source), inputs)
    assert outputs.std() > 0.2, "the outputs must say something"
    return weights_of(library_model(family, source)), inputs, outputs


def change(growth: Growth, method: Method) -> float:
    """The largest difference that growing makes to an output, as a part of the largest output."""
    family = growth.architecture.name
    weights, inputs, before = source_of(family, growth.source)
    if growth.fresh_layers:
        deeper = replace(growth.source, layers=growth.target.layers)
        weights = {**weights_of(library_model(family, deeper, seed=8)), **weights}
    after = outputs_of(grown_model(growth, method, weights), inputs)
    # Of a model without a head the residual stream itself is seen: its first units are the source's.
    return float((after[..., : before.shape[-1]] - before).abs().max() / before.abs().max())


@pytest.mark.parametrize(("family", "tied", "pair"), CASES)
def test_what_is_claimed_holds_and_what_is_not_does_not(family: str, tied: bool | None, pair: str):
    target, keeping, refused = pairs(family)[pair]
    choice = {} if tied is None else {"tied": tied}
    check_claims(family, replace(small(family), **choice), replace(target, **choice), keeping, refused)


@pytest.mark.parametrize("pair", ["odd width", "deeper", "more and larger groups"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_same_holds_with_biases(family: str, pair: str):
    target, keeping, refused = pairs(family)[pair]
    biases = {"attention_bias": True, "mlp_bias": family == "llama"}
    check_claims(family, replace(small(family), **biases), replace(target, **biases), keeping, refused)


def check_claims(
    family: str, source: ModelShape, target: ModelShape, keeping: set[str], refused: set[str]
) -> None:
    faults, claiming, impossible = [], set(), set()
    for name, method in ALL_METHODS.items():
        try:
            growth = pair_of(family, source, target, method)
        except ArchitectureError:
            impossible.add(name)
            continue
        difference, reasons = change(growth, method), growth.obstacles(method)
        if not reasons:
            claiming.add(name)
        if (difference < TOLERANCE) is bool(reasons):
            faults.append(f"{name} changes outputs by {difference:.1e} of the largest; reasons: {reasons}")
    assert not faults
    assert claiming == keeping
    assert impossible == refused


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    ],
)
def test_blocks_that_depend_on_their_number_keep_it(family: str, keys: dict[str, object]):
    """Where new blocks are put between them, the function changes; where they go behind all others, it does not."""
    source, target = small(family, 3), small(family, 7, 12)
    inputs, model = real_inputs(family, source, 3), library_model(family, source, **keys)
    before = outputs_of(model, inputs)
    assert any(get_architecture(family).numbering_keys[0] == key for key in keys)
    for numbered in (True, False):
        growth = pair_of(family, source, target, "lossless", numbered=numbered)
        assert not growth.obstacles(method_named("lossless"))
        grown = growth.grow_dense(weights_of(model), start(growth, "lossless"))
        after = outputs_of(load_weights(library_model(family, target, **keys), grown), inputs)
        assert (float((after - before).abs().max() / before.abs().max()) < TOLERANCE) is numbered


# --- the reasons ---

GPT2, LLAMA, BERT = small("gpt2"), small("llama"), small("bert")
REASONS = {
    "depth": (
        GPT2,
        small("gpt2", 3),
        {"depth": "stack"},
        "depth 'stack' adds layers that change the function",
    ),
    "noisy depth": (GPT2, GPT2, {"depth": "noisy-stack"}, "depth 'noisy-stack' mixes other layers in"),
    "shared depth": (
        GPT2,
        small("gpt2", 3),
        {"share_depth": True},
        "share_depth: a new layer cannot be silenced by coefficients that all its roles share",
    ),
    "random": (GPT2, small("gpt2", 2, 12), {"width": "random"}, "width 'random' keeps no unit as it was"),
    "noise": (GPT2, small("gpt2", ffn=40), {"noise": 0.01}, "noise of 0.01 is added to the new units"),
    "read at once": (
        GPT2,
        small("gpt2", ffn=40),
        {"width": "identity-random"},
        "width 'identity-random' lets new units be read at once",
    ),
    "next layer": (
        GPT2,
        small("gpt2", ffn=40),
        {"width": "bert2bert-aki"},
        "width 'bert2bert-aki' takes new units from the next layer",
    ),
    "zero-pad": (
        GPT2,
        small("gpt2", heads=12),
        {"width": "zero-pad"},
        "width 'zero-pad' moves the mean that gpt2's LayerNorm subtracts",
    ),
    "unequal copies": (
        GPT2,
        small("gpt2", heads=12),
        {"width": "bert2bert-fpi"},
        "width 'bert2bert-fpi' copies units unequally often, which changes the norms' statistics",
    ),
    "net2net, odd": (
        GPT2,
        small("gpt2", heads=10),
        {"width": "net2net"},
        "40 is no multiple of 24: copies unequally often change the norms' statistics",
    ),
    "post-norm, odd": (
        BERT,
        small("bert", heads=10),
        {"width": "lossless"},
        "40 is no multiple of 24: norms on the residual stream (bert) allow whole copies only",
    ),
}


@pytest.mark.parametrize(("source", "target", "choice", "reason"), REASONS.values(), ids=REASONS)
def test_each_reason_is_named(source: ModelShape, target: ModelShape, choice: dict[str, object], reason: str):
    family = "bert" if source is BERT else "gpt2"
    choices = {"depth": "identity-layers", "width": "lossless", **choice}
    assert obstacles(get_architecture(family), source, target, **choices) == [reason]  # type: ignore[arg-type]


def test_all_reasons_are_named_together():
    found = obstacles(
        get_architecture("gpt2"), GPT2, small("gpt2", 3, 12), depth="stack", width="zero-pad", noise=0.5
    )
    assert found == [
        "depth 'stack' adds layers that change the function",
        "noise of 0.5 is added to the new units",
        "width 'zero-pad' moves the mean that gpt2's LayerNorm subtracts",
    ]


def test_noise_where_nothing_widens_is_no_noise():
    method = method_named("lossless", noise=0.5)
    growth = pair_of("gpt2", GPT2, small("gpt2", 3), method)
    assert growth.obstacles(method) == []
    assert change(growth, method) < TOLERANCE


@pytest.mark.parametrize("width", ["lossless", "lossless-dense", "net2net"])
def test_noise_changes_the_function(width: str):
    method = method_named("lossless", width=width, noise=0.1)
    assert change(pair_of("gpt2", GPT2, small("gpt2", 3, 12), method), method) > 1e-3


# --- what is refused ---


@pytest.mark.parametrize(
    ("target", "choices", "message"),
    [
        (
            small("llama", 2, 9, 45),
            {"name": "hypercloning"},
            "width 'hypercloning' repeats all units equally often, and 36 (width) is no multiple of 24; lossless has"
            " no such limit; width 'hypercloning' repeats all units equally often, and 45 (ffn) is no multiple of 30;"
            " lossless has no such limit; width 'hypercloning' repeats all units equally often, and 3"
            " (key_value_heads) is no multiple of 2; lossless has no such limit",
        ),
        (
            small("llama"),
            {"name": "lossless", "tied": True},
            "width 'lossless' needs a matrix for each side of an axis: set tied: false",
        ),
        (
            small("llama"),
            {"name": "net2net", "identity": "fixed"},
            "width 'net2net' has no identity to fix: set identity: learned",
        ),
    ],
)
def test_what_a_method_cannot_do_is_refused(target: ModelShape, choices: dict[str, str], message: str):
    method = method_named(choices.pop("name"))
    with pytest.raises(ArchitectureError) as caught:
        GrowthLayout.for_method(get_architecture("llama"), LLAMA, target, method, **choices)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("family", "choices", "reason"),
    [
        (
            "bert",
            {},
            "depth 'damped-stack' divides what copies add to the residual stream, and bert normalises that stream"
            " behind each of them; identity-layers allows for it",
        ),
        (
            "gpt2",
            {"share_depth": True},
            "depth 'damped-stack' divides what a layer writes alone, which coefficients that all roles share cannot;"
            " set share_depth: false",
        ),
    ],
)
def test_copies_are_damped_where_that_can_be(family: str, choices: dict[str, bool], reason: str):
    with pytest.raises(ArchitectureError) as caught:
        pair_of(family, small(family), small(family, 5), "damped", **choices)
    assert str(caught.value) == reason
    assert pair_of(family, small(family), small(family), "damped", **choices).columns == 2


@pytest.mark.parametrize("depth", ["stack", "identity-layers", "interpolate", "noisy-stack"])
def test_a_source_without_layers_grows_by_random_ones_alone(depth: str):
    with pytest.raises(ArchitectureError) as caught:
        pair_of("gpt2", small("gpt2", 0), GPT2, method_named("lossless", depth=depth))
    assert str(caught.value) == (
        f"depth '{depth}' needs a layer to start from, and the source has none; use random-layers"
    )
    assert pair_of("gpt2", small("gpt2", 0), GPT2, "progressive").fresh_layers == 2


# --- epsilon ---


@pytest.mark.parametrize(
    ("family", "target", "width", "factor"),
    [
        ("gpt2", small("gpt2", heads=12), "lossless", 1.0),
        ("gpt2", small("gpt2", heads=10), "lossless", 24 / 40),
        ("gpt2", small("gpt2", heads=16), "lossless-dense", 48 / 64),
        ("llama", small("llama", heads=12), "zero-pad", 24 / 48),
        ("gpt2", small("gpt2", heads=10), "net2net", 1.0),
        ("bert", small("bert", heads=10), "lossless", 1.0),
        ("gpt2", GPT2, "lossless", 1.0),
    ],
)
def test_the_norms_epsilon_keeps_its_part_of_the_variance(
    family: str, target: ModelShape, width: str, factor: float
):
    source, method = small(family), method_named("lossless", width=width)
    assert epsilon_factor(get_architecture(family), source, target, width) == pytest.approx(factor)
    assert pair_of(family, source, target, method).epsilon_factor(method) == pytest.approx(factor)


def test_a_large_epsilon_is_kept_in_proportion():
    """With an epsilon as large as the variance, the factor decides whether the function is kept."""
    target = small("gpt2", 2, 10)
    method = method_named("lossless")
    growth = pair_of("gpt2", GPT2, target, method)
    model = library_model("gpt2", GPT2, layer_norm_epsilon=0.5)
    inputs = random_inputs("gpt2", GPT2, 3)
    weights = growth.grow_dense(weights_of(model), start(growth, method))
    changes = []
    for factor in (growth.epsilon_factor(method), 1.0):
        large = load_weights(library_model("gpt2", target, layer_norm_epsilon=0.5 * factor), weights)
        difference = (outputs_of(large, inputs) - outputs_of(model, inputs)).abs().max()
        changes.append(float(difference / outputs_of(model, inputs).abs().max()))
    assert changes[0] < TOLERANCE
    assert changes[1] > 1e-2


def test_norms_inside_heads_keep_seeing_their_epsilon_where_that_is_rescaled():
    """Queries and keys so small that the epsilon matters: an odd width rescales it for all norms alike."""
    source, target = small_shape("qwen3", 2, 6), small_shape("qwen3", 3, 9)
    method = method_named("lossless-dense")
    growth = pair_of("qwen3", source, target, method)
    weights = {
        name: weight * 0.01 if "q_proj" in name or "k_proj" in name else weight
        for name, weight in source_weights(growth).items()
    }
    inputs = random_inputs("qwen3", target, 3)
    before = outputs_of(load_weights(library_model("qwen3", source), weights), inputs)
    after = outputs_of(grown_model(growth, method, weights), inputs)
    assert (after - before).abs().max() < 3e-5 * before.abs().max()
