"""The tables held against the library's tensor-parallel plans, and that each kind of contradiction is named."""

from __future__ import annotations

import dataclasses

import pytest
import transformers

from ligo_dist.architectures import Architecture, architecture_names, get_architecture
from small_models import small_shape
from tensor_parallel import tensor_parallel_faults


def plan_of(family: str) -> dict[str, str] | None:
    return getattr(transformers, get_architecture(family).config_class).base_model_tp_plan


PLANNED = [family for family in architecture_names() if plan_of(family)]


def test_these_families_have_a_plan():
    assert set(PLANNED) == {"gpt_neox", "llama", "mistral", "qwen2", "qwen3"}


@pytest.mark.parametrize("family", PLANNED)
def test_the_table_says_what_the_plan_says(family: str):
    assert tensor_parallel_faults(get_architecture(family), small_shape(family), plan_of(family)) == []


def with_line(family: str, role: str, line: str) -> Architecture:
    architecture = get_architecture(family)
    return dataclasses.replace(architecture, table=lambda shape: {**architecture.table(shape), role: line})


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("self_attn.q_proj.weight", "query.in hidden.out", "the plan splits its output"),
        ("self_attn.q_proj.weight", "hidden.out hidden.in", "the plan splits its output"),
        ("self_attn.q_proj.bias", "hidden.out", "the plan splits its output"),
        ("self_attn.o_proj.weight", "hidden.out attention.out", "the plan splits its input"),
        ("self_attn.o_proj.weight", "hidden.in attention.in", "the plan splits its input"),
        ("self_attn.k_norm.weight", "key.gain", "the plan does not split it"),
        ("input_layernorm.weight", "ffn.gain", "the plan does not split it"),
    ],
)
def test_a_contradiction_is_named(name: str, line: str, fault: str):
    family = "qwen2" if name.endswith("bias") else "qwen3"
    role = f"model.layers.{{layer}}.{name}"
    faults = tensor_parallel_faults(with_line(family, role, line), small_shape(family), plan_of(family))
    assert faults == [f"{role}: {fault}; the table says {line!r}"]


def test_a_module_that_only_the_plan_has_is_named():
    plan = {**plan_of("llama"), "layers.*.mlp.router": "colwise"}
    faults = tensor_parallel_faults(get_architecture("llama"), small_shape("llama"), plan)
    assert faults == ["layers.*.mlp.router: in the plan, not in the table"]


def test_a_style_that_is_not_known_is_named():
    plan = {**plan_of("llama"), "layers.*.mlp.up_proj": "diagonal"}
    (fault,) = tensor_parallel_faults(get_architecture("llama"), small_shape("llama"), plan)
    assert fault.startswith(
        "model.layers.{layer}.mlp.up_proj.weight: the plan's style 'diagonal' is not known;"
    )
