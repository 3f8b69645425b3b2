"""The tables: that they describe the library's models, and that each kind of fault is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from ligo_dist.architectures import Architecture, ModelShape, architecture_names, get_architecture
from ligo_dist.runtime.errors import ArchitectureError
from small_models import library_model, model_shape, small_shape

SIZES = {"gpt2": (3, 48, 4, 4, 100), "llama": (3, 48, 6, 2, 100)}

FAMILIES = architecture_names()
WITH_CHOICE = [family for family in FAMILIES if get_architecture(family).ties_embeddings is not None]
"""Families whose head may be tied to the embedding or not."""
SHAPES = {
    "even": {},
    "one layer of one head": {"layers": 1, "heads": 1},
    "odd": {"layers": 7, "heads": 5, "head_size": 24, "ffn": 51},
    "one key/value head": {"layers": 2, "heads": 7, "key_value_heads": 1},
    "other images": {"labels": 3, "image_size": 15, "patch_size": 5, "channels": 1},
    "no layers": {"layers": 0},
    "biases": {"attention_bias": True, "mlp_bias": True},
}


def has_groups(family: str) -> bool:
    return any(axis.grouped for axis in get_architecture(family).axes.values())


def cases() -> Iterator[tuple[str, str, bool]]:
    """(family, name of a shape, tied), each as far as the family has it."""
    for family in FAMILIES:
        for name in SHAPES:
            if (name == "one key/value head" and not has_groups(family)) or (
                name == "other images" and get_architecture(family).objective != "image_classification"
            ):
                continue
            for tied in (
                (True, False) if family in WITH_CHOICE else [get_architecture(family).tied_by_default]
            ):
                yield family, name, tied


def library_shapes(family: str, shape: ModelShape) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in library_model(family, shape).named_parameters()}


def with_table(architecture: Architecture, change: Callable[[dict[str, str]], None]) -> Architecture:
    """The same family with lines of its table changed."""

    def table(shape: ModelShape) -> dict[str, str]:
        lines = dict(architecture.table(shape))
        change(lines)
        return lines

    return dataclasses.replace(architecture, table=table)


@pytest.mark.parametrize(("family", "name", "tied"), list(cases()))
def test_the_table_fits_the_library_model(family: str, name: str, tied: bool):
    architecture, shape = get_architecture(family), small_shape(family, **SHAPES[name], tied=tied)
    actual = library_shapes(family, shape)
    architecture.check_model(shape, actual)
    assert {spec.name: spec.shape for spec in architecture.parameters(shape)} == actual


@pytest.mark.parametrize("family", [name for name in FAMILIES if get_architecture(name).free_head_size])
def test_heads_may_be_wider_than_the_width_asks_for(family: str):
    architecture, shape = get_architecture(family), small_shape(family, width=60, head_size=16)
    assert shape.attention_width == 96
    architecture.check_model(shape, library_shapes(family, shape))


@pytest.mark.parametrize("family", WITH_CHOICE)
def test_the_head_is_a_parameter_only_where_it_is_not_tied(family: str):
    architecture = get_architecture(family)
    names = {
        tied: {spec.name for spec in architecture.parameters(small_shape(family, tied=tied))}
        for tied in (True, False)
    }
    own = {
        "bert": {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
        "roberta": {"lm_head.decoder.weight", "lm_head.decoder.bias"},
    }
    assert names[False] - names[True] == own.get(family, {"lm_head.weight"})


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_come_block_by_block_and_numels_add_up(family: str):
    architecture, shape = get_architecture(family), small_shape(family, layers=3)
    specs = architecture.parameters(shape)
    layers = [spec.layer for spec in specs if spec.layer is not None]
    assert layers == sorted(layers)
    assert len(set(layers)) == shape.layers
    assert sum(spec.numel for spec in specs) == library_model(family, shape).num_parameters()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_lie_where_the_family_says(family: str):
    architecture, shape = get_architecture(family), small_shape(family, layers=3)
    assert len(library_model(family, shape).get_submodule(architecture.layers_path)) == 3
    assert all(
        role.startswith(f"{architecture.layers_path}.{{layer}}.") for role in architecture.layer_roles(shape)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_norms_epsilon_is_where_the_family_says(family: str):
    architecture = get_architecture(family)
    if architecture.norm_epsilon is None:
        pytest.skip("the library's configuration has no key for it")
    config = library_model(family, small_shape(family), **{architecture.norm_epsilon: 0.125}).config
    assert config.to_dict()[architecture.norm_epsilon] == 0.125


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_role_of_a_post_norm_block_is_its_norm(family: str):
    architecture, shape = get_architecture(family), small_shape(family)
    last = [architecture.table(shape)[role] for role in architecture.layer_roles(shape)][-2:]
    assert (last == ["hidden.gain", "hidden.bias"]) == architecture.post_norm


def test_a_parameter_without_a_rule_is_named():
    architecture, shape = get_architecture("gpt2"), model_shape(SIZES["gpt2"], True)
    actual = {**library_shapes("gpt2", shape), "transformer.h.1.attn.rotary.scale": (4,)}
    with pytest.raises(ArchitectureError) as caught:
        architecture.check_model(shape, actual)
    assert str(caught.value) == (
        "gpt2: the model does not fit its table\n"
        "  transformer.h.1.attn.rotary.scale: matched by 0 rules (none), not by one"
    )


def test_a_parameter_with_two_rules_is_named():
    # `.` in a rule must be a dot, and only the layer number is a wildcard; two rules that say the same are a fault.
    shape = model_shape(SIZES["gpt2"], True)
    role = "transformer.h.{layer}.ln_1.bias"
    twice = with_table(
        get_architecture("gpt2"), lambda lines: lines.update({role.replace("{layer}", "2"): "hidden.bias"})
    )
    with pytest.raises(ArchitectureError, match=r"transformer\.h\.2\.ln_1\.bias: matched by 2 rules"):
        twice.check_model(shape, library_shapes("gpt2", shape))


def test_a_rule_without_a_parameter_is_named():
    shape = model_shape(SIZES["llama"], True)
    role = "model.layers.{layer}.self_attn.q_norm.weight"
    more = with_table(get_architecture("llama"), lambda lines: lines.update({role: "hidden.gain"}))
    with pytest.raises(ArchitectureError) as caught:
        more.check_model(shape, library_shapes("llama", shape))
    assert f"{role}: matched by no parameter of the model" in str(caught.value)


def test_a_dim_that_is_not_the_sum_of_its_axes_is_named():
    shape = model_shape(SIZES["gpt2"], True)
    role = "transformer.h.{layer}.attn.c_attn.weight"
    fewer = with_table(
        get_architecture("gpt2"), lambda lines: lines.update({role: "hidden.in query.out+key.out"})
    )
    with pytest.raises(ArchitectureError) as caught:
        fewer.check_model(shape, library_shapes("gpt2", shape))
    assert (
        "transformer.h.0.attn.c_attn.weight: shape (48, 144), the table's axes give (48, 96)"
        in str(caught.value)
    )  # fmt: skip


def test_a_missing_and_a_surplus_layer_are_named():
    architecture, shape = get_architecture("llama"), model_shape(SIZES["llama"], True)
    actual = library_shapes("llama", shape)
    with pytest.raises(
        ArchitectureError, match=r"layers\.2\.mlp\.up_proj\.weight: beyond the 2 layers of this model"
    ):
        architecture.check_model(dataclasses.replace(shape, layers=2), actual)
    with pytest.raises(
        ArchitectureError, match=r"layers\.3\.mlp\.up_proj\.weight: in the table, not in the model"
    ):
        architecture.check_model(dataclasses.replace(shape, layers=4), actual)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hidn.out", "gpt2: no axis 'hidn'; it has vocab, position, hidden, query, key, value, ffn"),
        ("vocab.out hidden.out", "gpt2: axis 'vocab' is fixed and takes no side, not 'out'"),
        (
            "hidden.sideways",
            "gpt2: 'hidden.sideways' needs a side: one of out, in, gain, bias, head_gain, head_bias",
        ),
        ("vocab hidden", "gpt2: 'hidden' needs a side: one of out, in, gain, bias, head_gain, head_bias"),
    ],
)
def test_a_line_that_is_wrong_is_quoted(line: str, message: str):
    with pytest.raises(ArchitectureError) as caught:
        get_architecture("gpt2").parse_dims(line)
    assert str(caught.value) == message


def test_an_unknown_family_is_answered_with_the_nearest():
    with pytest.raises(ArchitectureError, match=r"no model family 'lama'; .*; did you mean 'llama'\?"):
        get_architecture("lama")
