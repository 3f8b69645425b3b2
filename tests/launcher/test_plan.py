"""The plan of a dry run: what a schedule costs, and what becomes of the function."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
import transformers

from launcher.preflight import check_before_start, plan_of
from launcher.tables import print_plan
from ligo_dist.architectures import get_architecture
from ligo_dist.config import Config, apply_overrides, config_from, parse_yaml, with_source
from ligo_dist.runtime.errors import ConfigError
from ligo_dist.schedule import PhaseCost, RunState, StageCost, growing_flops
from small_models import library_config, small_shape

_CONFIG = """
run_dir: runs/test
model: {family: gpt2, max_positions: 64}
stages:
  - name: small
    size: {layers: 2, width: 32, heads: 4}
    train: {steps: 10, batch_size: 8, micro_batch_size: 2}
  - name: large
    size: {layers: 3, width: 48, heads: 6}
    grow: {learn: {steps: 5}}
    train: {steps: 10, batch_size: 8, micro_batch_size: 2, activation_checkpointing: true}
data: {source: stdlib, sequence_length: 64}
tokenizer: {vocab_size: 512}
tracking: {mlflow: false}
"""
_IMAGES = (
    "model={family: deit, patch_size: 4}",
    "data={source: digits, image_size: 8, labels: 10}",
    "tokenizer={}",
)
_MASKED = ("model.family=bert",)


def config(*overrides: str) -> Config:
    raw = parse_yaml(_CONFIG)
    assert apply_overrides(raw, overrides) == []
    return config_from(raw)


def costs(*overrides: str, world_size: int = 1) -> list[StageCost]:
    return [stage.cost for stage in plan_of(config(*overrides), world_size).stages]


def test_moments_grow_like_the_weights():
    fresh, grown, asymmetric = (
        costs(f"stages[1].grow={{method: lossless, optimizer_state: {state}}}")[1].grow
        for state in ("fresh", "grown", "asymmetric")
    )
    assert fresh is not None
    assert grown is not None
    assert grown == asymmetric == PhaseCost(flops=3 * fresh.flops, hardware_flops=3 * fresh.flops)


def test_new_units_from_the_next_layer_are_made_apart():
    once = costs("stages[1].grow={method: bert2bert-fpi}")[1].grow
    twice = costs("stages[1].grow={method: bert2bert-aki}")[1].grow
    assert once is not None
    assert twice is not None
    assert 1.8 * once.flops < twice.flops < 2 * once.flops, "what lies outside the blocks is made once"


@pytest.mark.parametrize(
    ("overrides", "more_columns"),
    [(("stages[1].grow={method: progressive}",), 1), ((*_MASKED, "stages[1].grow={method: lossless}"), 1)],
    ids=["a fresh layer", "the unit layer"],
)
def test_extra_columns_are_mixed_too(overrides, more_columns):
    source, target = plan_of(config(*overrides), 1).stages
    assert source.grow is None
    assert target.grow is not None
    assert target.cost.grow is not None
    layout = target.grow.layout
    assert layout.columns == source.shape.layers + more_columns
    assert target.cost.grow.flops == growing_flops(layout)
    own = dataclasses.replace(layout, fresh_layers=0, unit_layer=False)
    assert target.cost.grow.flops > growing_flops(own)


def test_scratch_neither_learns_nor_grows():
    _source, target = costs("stages[1].grow={method: scratch}")
    assert (target.learn, target.grow) == (None, None)
    assert target.total.steps == 10


def test_the_method_says_how_long_it_learns_unless_the_user_does():
    steps = [
        costs(f"stages[1].grow={{method: {method}, learn: {{steps: {given}}}}}")[1].learn
        for method, given in (("ligo", "null"), ("lossless", "null"), ("lossless", "3"))
    ]
    assert [cost.steps if cost else None for cost in steps] == [100, 0, 3]


def test_images_count_their_patches():
    tokens = (8 // 4) ** 2 + 2  # DeiT: a class token and a distillation token beside the patches
    assert costs(*_IMAGES)[0].train.tokens == 10 * 8 * tokens


def shown(*overrides: str, world_size: int = 1) -> str:
    text = io.StringIO()
    print_plan(plan_of(config(*overrides), world_size), text)
    return text.getvalue()


def test_a_dry_run_says_whether_growing_keeps_the_function():
    lossless = shown("stages[1].grow={method: lossless, learn: {steps: 0}}")
    assert "large: starts as the function of small, which the run verifies right after growing" in lossless
    noisy = shown("stages[1].grow={method: lossless, noise: 0.01}")
    assert "large: does not start as the function of small: noise of 0.01 is added to the new units" in noisy
    replaced = shown("stages[1].grow={method: lossless, depth: stack}")
    assert "lossless + stack" in replaced
    assert "large: does not start as the function of small: depth 'stack' adds layers" in replaced
    assert "large: does not start as the function of small: 'scratch' starts anew" in shown(
        "stages[1].grow={method: scratch}"
    )


def test_a_dry_run_says_where_much_is_padding():
    assert "padding" not in shown(world_size=5), "10 rows for 8 samples"
    what = "batch_size does not divide over the ranks; what they compute for padding:"
    assert f"{what} small train 33%, large learn 33%, large train 33%\n" in shown(world_size=6)
    assert f"{what} large learn 33%, large train 33%\n" in shown(
        "stages[0].train.batch_size=12", world_size=6
    )


def refused(directory: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_before_start(config(f"run_dir={directory}/run", *overrides), 1, 0, "my.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_a_tokenizer_that_is_larger_than_the_embedding(tmp_path):
    assert refused(tmp_path, "model.vocab_size=500") == [
        "model.vocab_size: 500 is less than the 512 pieces of the tokenizer; at least 512 would be right"
    ]


def test_a_hugging_face_tokenizer_that_cannot_be_used(tmp_path):
    (said,) = refused(tmp_path, f"tokenizer={{huggingface: {tmp_path}}}")
    assert said.startswith(f"tokenizer.huggingface: '{tmp_path}' has no tokenizer.json")
    (tmp_path / "file").write_text("x")
    (said,) = refused(tmp_path, f"tokenizer={{huggingface: {tmp_path}/file}}")
    assert said == f"tokenizer.huggingface: '{tmp_path}/file' is a file, not a Hugging Face directory"


@pytest.mark.parametrize(
    ("keys", "numbered"),
    [
        ("{}", False),
        ("{scale_attn_by_inverse_layer_idx: true}", True),
        ("{scale_attn_by_inverse_layer_idx: false}", False),
    ],
)
def test_blocks_that_depend_on_their_number_are_known(keys, numbered):
    grow = plan_of(config(f"model.huggingface={keys}"), 1).stages[1].grow
    assert grow is not None
    assert grow.layout.numbered is numbered


def test_a_model_that_cannot_be_grown(tmp_path):
    (said,) = refused(tmp_path, "model.huggingface={add_cross_attention: true}")
    assert said.startswith(
        "model.huggingface.add_cross_attention: True: it makes a GPT2LMHeadModel with other par"
    )


def test_what_a_source_lacks_and_has_beyond_the_model_is_told(tmp_path):
    """The directory is one like bert-base-uncased: with a pooler and a next-sentence head."""
    architecture, shape = get_architecture("bert"), small_shape("bert", vocab=500, positions=64)
    transformers.BertForPreTraining(library_config(architecture, shape)).save_pretrained(tmp_path)
    source = (
        f"stages[0].from={tmp_path}", "stages[0].size=null", "stages[0].train=null", "tokenizer.replace_source=true",
    )  # fmt: skip
    wider = "stages[1].size={layers: 3, width: 64, heads: 8}"
    asked = config("model.family=bert", *source, wider, f"run_dir={tmp_path}/run")
    text = io.StringIO()
    print_plan(check_before_start(with_source(asked, "my.yaml"), 1, 0, "my.yaml"), text)
    assert (
        "stages[0].from: bert.embeddings.word_embeddings.weight, cls.predictions.bias: 500 rows in the files, and 512"
        " in the model; the last 12 begin with random values\n"
        "stages[0].from: bert.pooler.dense, cls.seq_relationship: left out, as BertForMaskedLM has no such part\n"
    ) in text.getvalue()


def test_a_source_without_weights(tmp_path):
    sizes = ("model.vocab_size=512", f"stages[0].from={tmp_path}", "tokenizer.replace_source=true")
    (said,) = refused(tmp_path, *sizes)
    assert said.startswith(
        f"stages[0].from: {tmp_path}: no weights; there should be one of model.safetensors, "
    )


def test_a_checkpoint_that_the_run_cannot_begin_from(tmp_path):
    asked = f"start_from={{run: {tmp_path}/trunk, step: 4}}"
    (fault,) = refused(tmp_path, asked)
    assert fault.startswith("start_from.run: ")
    assert fault.endswith("has no checkpoints; a run directory would be right")
    content = json.dumps({"config": config("seed=9").resolved(), "state": RunState(step=4).to_dict()})
    manifest = Path("checkpoints", "step-00000004-0-train", "COMPLETE.json")
    for run in ("trunk", "run"):
        (tmp_path / run / manifest).parent.mkdir(parents=True)
        (tmp_path / run / manifest).write_text(content)
        if run == "trunk":
            (fault,) = refused(tmp_path, asked)
            assert "seed: 9 -> 0" in fault
    # A run that has begun goes on from its own.
    check_before_start(config(f"run_dir={tmp_path}/run", asked), 1, 0, "my.yaml")
