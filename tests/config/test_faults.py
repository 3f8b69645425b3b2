"""What each error says. One line per fault: what is written over a right configuration, the key that is named, and what
is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from example import assert_told, example, faults_of, raw_example
from ligo_dist.config import check_world_size, config_from
from ligo_dist.runtime.errors import ConfigError

_RATE = "stages[0].train.optimizer.learning_rate"
_BETAS = "stages[0].train.optimizer.betas"
_SCHEDULE = "stages[0].train.schedule"
_LEARN = "stages[1].grow.learn.schedule"
_LLAMA = ("model.family=llama", "stages[0].size.key_value_heads=2", "stages[1].size.key_value_heads=3")


def test_the_example_is_right():
    assert example().stages[1].train.steps == 10
    assert example(*_LLAMA).stages[1].size.key_value_heads == 3


_SECTIONS = [
    ("sead=1", "sead", "unknown key; did you mean 'seed'?"),
    ("stages[1].train.step=1", "stages[1].train.step", "unknown key; did you mean 'steps'?"),
    (
        "tokenizer.xyz=1",
        "tokenizer.xyz",
        "there are: file, vocab_size, huggingface, model_type, replace_source",
    ),
    ("run_dir=null", "run_dir", "None should be text (in quotes, if it looks like a number)"),
    ("run_dir=''", "run_dir", "'' should be text that is not empty"),
    ("seed=1.5", "seed", "1.5 should be a whole number"),
    ("seed='1'", "seed", "'1' should be a whole number"),
    ("seed=-1", "seed", "-1 should be at least 0"),
    ("model.max_positions=true", "model.max_positions", "True should be a whole number"),
    ("tracking.mlflow=yes", "tracking.mlflow", "'yes' should be true or false"),
    ("precision=bf61", "precision", "'bf61' is no precision; did you mean 'bf16'?"),
    ("precision=half", "precision", "'half' is no precision; there are: auto, bf16, fp32"),
    ("model.attention=spda", "model.attention", "'spda' is no attention; did you mean 'sdpa'?"),
    (f"{_RATE}=fast", _RATE, "'fast' should be a number"),
    (f"{_RATE}=.inf", _RATE, "inf should be a finite number"),
    (f"{_RATE}=0", _RATE, "0 should be more than 0"),
    (f"{_BETAS}=0.9", _BETAS, "0.9 should be a list"),
    (f"{_BETAS}=[0.9, 1]", f"{_BETAS}[1]", "1 should be less than 1"),
    (f"{_BETAS}=[0.9]", f"{_BETAS}[1]", "is missing"),
    (f"{_SCHEDULE}.final_ratio=2", f"{_SCHEDULE}.final_ratio", "2 should be at most 1"),
    ("data.files=a.txt", "data.files", "'a.txt' should be a list"),
    ("stages=[]", "stages", "has 0 items; at least 1 would be right"),
    ("stages[1].size=3", "stages[1].size", "3 should be a section"),
    ("evaluation=null", "evaluation", "None should be a section"),
    ("tokenizer.vocab_size=100", "tokenizer.vocab_size", "100 should be at least 260"),
    ("stages[0].fro=x", "stages[0].fro", "did you mean 'from'?"),
    ("stages[1].grow.identity=no", "stages[1].grow.identity", "there are: fixed, learned, null"),
]
_BETWEEN_KEYS = [
    ("tracking.register_model=a/b", "tracking.register_model", "one without '/' and ':' would be right"),
    (f"tracking.register_model={'a' * 257}", "tracking.register_model", "has 257 characters; at most 256"),
    ("stages[0].nodes=2", "stages[0].nodes", "2: the first stage takes the nodes that the run is started on"),
    ("model.family=gtp2", "model.family", "'gtp2' is no model family; did you mean 'gpt2'?"),
    ("model.huggingface.n_layer=3", "model.huggingface.n_layer", "it is set by `stages[].size.layers`"),
    ("model.huggingface.bos_token_id=3", "model.huggingface.bos_token_id", "it is set by `tokenizer`"),
    ("model.huggingface.problem_type=x", "model.huggingface.problem_type", "it is set by `data.labels"),
    (
        "model.huggingface.return_dict=false",
        "model.huggingface.return_dict",
        "a model's loss is read by name",
    ),
    ("stages[0].size.heads=5", "stages[0].size.heads", "5 heads do not divide the width 32; 4 would"),
    (
        "stages[1].size.key_value_heads=4",
        "stages[1].size.key_value_heads",
        "4 key/value heads do not divide the 6",
    ),
    (
        "stages[1].size.key_value_heads=3",
        "stages[1].size.key_value_heads",
        "3: gpt2 has a key/value head for every",
    ),
    ("stages[1].size.layers=1", "stages[1].size.layers", "1 is less than the 2 of stages[0].size"),
    ("stages[1].size.ffn=100", "stages[1].size.ffn", "100 is less than the 128 of stages[0].size"),
    (
        "stages[1].size.heads=4",
        "stages[1].size.heads",
        "from 8 to 12; growing keeps it and adds heads; 48 / 8 = 6 heads",
    ),
    (
        "stages[1].size.width=60",
        "stages[1].size.heads",
        "from 8 to 10; growing keeps it and adds heads; 60 / 8 is no",
    ),
    ("stages[1].size.heads=3", "stages[1].size.heads", "3 is less than the 4 of stages[0].size"),
    ("stages[0].grow={}", "stages[0].grow", "the first stage has nothing to grow from; remove it"),
    ("stages[1].grow=null", "stages[1].grow", "is missing; every stage but the first grows"),
    (
        "stages[1].grow.method=lossles",
        "stages[1].grow.method",
        "'lossles' is no method; did you mean 'lossless'?",
    ),
    ("stages[1].name=Small", "stages[1].name", "'Small' is the name at stages[0].name already"),
    ("stages[1].name=../up", "stages[1].name", "'../up' should be up to 64 letters, digits"),
    ("stages[1].from=x", "stages[1].from", "'x': only the first stage can begin from a model that exists"),
    ("stages[0].size=null", "stages[0].size", "is missing; only a first stage with `from` can do without it"),
    (
        "stages[0].train=null",
        "stages[0].train",
        "is missing; only a first stage with `from` can do without it",
    ),
    (
        "stages[1].train=null",
        "stages[1].train",
        "is missing; only a first stage with `from` can do without it",
    ),
    ("data={sequence_length: 64}", "data.source", "is missing; what is trained on has no default"),
    (
        "tokenizer={file: my.model, replace_source: true}",
        "tokenizer.replace_source",
        "true has no meaning where the tokenizer is named; false would be right",
    ),
    ("data.sequence_length=1", "data.sequence_length", "1: there is no next token to predict; at least 2"),
    ("data.sequence_length=65", "data.sequence_length", "65 is more than the 64 of model.max_positions"),
    (f"{_SCHEDULE}.warmup_steps=11", f"{_SCHEDULE}.warmup_steps", "11 is more than the 10 steps there are"),
    (f"{_LEARN}.warmup_steps=6", f"{_LEARN}.warmup_steps", "6 is more than the 5 steps there are"),
    (f"{_SCHEDULE}.kind=wsd", f"{_SCHEDULE}.decay_steps", "is missing; wsd needs"),
    (
        f"{_SCHEDULE}={{kind: wsd, decay_steps: 11}}",
        f"{_SCHEDULE}.decay_steps",
        "11 is more than the 10 steps",
    ),
    (
        f"{_SCHEDULE}={{kind: wsd, decay_steps: 6, warmup_steps: 5}}",
        f"{_SCHEDULE}.decay_steps",
        "6, with 5 of warm-up, is more than the 10 steps",
    ),
    (
        f"{_SCHEDULE}.decay_steps=3",
        f"{_SCHEDULE}.decay_steps",
        "3 has a meaning for wsd only, not for cosine",
    ),
    ("data.source=text", "data.files", "is empty; the source 'text' needs paths or globs"),
    ("data.source=hub", "data.name", "is missing; the source 'hub' needs the name of a data set"),
    ("data.broken_lines=skip", "data.broken_lines", "no meaning for the source 'stdlib', only for json, hub"),
    ("data.split=test", "data.split", "'test' has no meaning for the source 'stdlib', only for hub"),
    (
        "data.files=[a.txt]",
        "data.files",
        "['a.txt'] has no meaning for the source 'stdlib', only for text, json",
    ),
    (
        "tokenizer.vocab_size=null",
        "tokenizer.vocab_size",
        "is missing; a tokenizer that is to be trained needs",
    ),
    (
        "data.token_column=ids",
        "data.token_column",
        "no meaning for the source 'stdlib', only for parquet, arrow",
    ),
    (
        "data={source: megatron, files: [a.bin], sequence_length: 64}",
        "tokenizer.huggingface",
        "is missing; tokens that exist do not say which tokenizer made them: name it, or tokenizer.file",
    ),
    ("data.source=megatorn", "data.source", "no source of text for gpt2; did you mean 'megatron'?"),
]


@pytest.mark.parametrize(("override", "path", "words"), _SECTIONS + _BETWEEN_KEYS)
def test_says_what_is_wrong_and_what_would_be_right(override: str, path: str, words: str):
    assert_told(faults_of(override), path, words)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (
            (
                "tokenizer={file: a.model}",
                "data={source: datatrove, files: [a.ds], streaming: true, sequence_length: 64}",
            ),
            "data.streaming",
            "true has no meaning for tokens that exist, which are read where they are; false would be right",
        ),
        (
            (
                "tokenizer={file: a.model}",
                "data={source: arrow, files: [a], token_column: ids, text_column: body, sequence_length: 64}",
            ),
            "data.text_column",
            "'body' and data.token_column are two columns; one of them has to be left out",
        ),
        (
            ("stages[0].size.width=36", "stages[1].size.width=54"),
            "stages[0].size.heads",
            "4 heads of a width of 36 have 9 elements each; rotary positions (llama) need an even number",
        ),
        (
            ("stages[1].size.key_value_heads=2", "stages[0].size.key_value_heads=1"),
            "stages[1].size.key_value_heads",
            "2: 3 heads share one, 4 do in stages[0].size; at most 1 would be right",
        ),
        (("stages[1].size.key_value_heads=1",), "stages[1].size.key_value_heads", "1 is less than the 2"),
        (
            ("stages[1].grow={method: lossless, tied: true}",),
            "stages[1].grow.tied",
            "true cannot be: width 'lossless' copies where an axis is written",
        ),
    ],
)
def test_says_what_is_wrong_with_llama(overrides: tuple[str, ...], path: str, words: str):
    assert_told(faults_of(*_LLAMA, *overrides)[:1], path, words)


def test_warm_up_and_decay_may_fill_all_steps():
    example("stages[0].train.schedule={kind: wsd, decay_steps: 5, warmup_steps: 5}")
    example("stages[0].train.schedule.warmup_steps=10")


def test_an_operator_that_is_not_learned_has_no_schedule_to_check():
    assert example("stages[1].grow.learn={steps: 0, schedule: {warmup_steps: 6}}").stages[1].grow


@pytest.mark.parametrize(
    ("overrides", "paths"),
    [
        (("seed=x", "tokenizer.file=''", "stages[0].size.heads=5"), ["seed", "tokenizer.file"]),
        (
            ("stages[0].size.heads=5", "data.sequence_length=100", "deepspeed.bf16=1"),
            ["data.sequence_length", "stages[0].size.heads", "deepspeed.bf16"],
        ),
    ],
    ids=["inside the sections", "then between them"],
)
def test_all_faults_come_in_one_error(overrides: tuple[str, ...], paths: list[str]):
    assert [fault.path for fault in faults_of(*overrides)] == paths


def test_a_missing_key_is_named():
    raw = raw_example()
    del raw["run_dir"], raw["stages"][1]["size"]["heads"]
    with pytest.raises(ConfigError) as caught:
        config_from(raw, source="my.yaml")
    assert str(caught.value).splitlines() == [
        "my.yaml: 2 faults",
        "  run_dir: is missing; it has no default",
        "  stages[1].size.heads: is missing; it has no default",
    ]


def too_small(world_size: int, *overrides: str) -> list[str]:
    return [str(fault) for fault in check_world_size(example(*overrides), world_size)]


def test_every_rank_needs_a_sample_of_each_batch():
    assert too_small(8) == too_small(7, "stages[0].train.micro_batch_size=3") == []
    wrong = "8 is less than one sample for each of 9 ranks; at least 9, or at most 8 ranks, would be right"
    assert too_small(9) == [f"stages[{index}].train.batch_size: {wrong}" for index in (0, 1)]
    (said,) = too_small(4, "stages[1].grow.learn.batch_size=3")
    assert said.startswith("stages[1].grow.learn.batch_size: 3 is less than one sample for each of 4 ranks;")


def test_a_batch_that_no_step_takes_may_have_any_size():
    untrained = ("stages[1].train.steps=0", "stages[1].train.batch_size=1")
    schedule = "stages[1].train.schedule={kind: constant, warmup_steps: 0}"
    (said,) = too_small(2, *untrained, schedule)
    assert said.startswith("stages[1].train.batch_size: 1 is less"), "the operator is learned with it"
    assert too_small(2, *untrained, schedule, "stages[1].grow.learn.batch_size=4") == []
    assert too_small(2, *untrained, schedule, "stages[1].grow.learn.steps=0") == []


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("start_from={run: runs/../runs/test, step: 3}", "start_from.run", "another run_dir would be right"),
        ("start_from={run: a, step: 3, stage: smal}", "start_from.stage", "did you mean 'small'?"),
        ("start_from={run: a}", "start_from.step", "is missing"),
        ("checkpoints.keep_steps=[4, 26]", "checkpoints.keep_steps[1]", "26 is more than the 25 steps"),
    ],
)
def test_what_a_run_begins_from_and_keeps_for_others(override: str, path: str, words: str):
    assert_told(faults_of(override), path, words)


NEW = "stages[1].grow={method: lossless, learn: {steps: 0}}"


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (("stages[0].train.freeze=2",), "stages[0].train.freeze", "2: the stage is not grown"),
        (
            ("stages[0].train.new_rate=2.0",),
            "stages[0].train.new_rate",
            "not grown, so nothing in it is new; 1 would",
        ),
        (
            ("stages[1].grow={method: scratch}", "stages[1].train.freeze=2"),
            "stages[1].train.freeze",
            "'scratch' takes",
        ),
        (("stages[1].train.freeze=2",), "stages[1].train.freeze", "the operator is learned"),
        (
            (NEW, "stages[1].train.freeze=11"),
            "stages[1].train.freeze",
            "11 is more than the 10 steps there are",
        ),
        (
            ("stages[1].grow={method: random}", "stages[1].train.new_rate=0.5"),
            "stages[1].train.new_rate",
            "0.5: width 'random' makes each unit a mixture",
        ),
        (
            ("stages[1].grow={method: lossless, depth: interpolate}", "stages[1].train.freeze=2"),
            "stages[1].train.freeze",
            "depth 'interpolate' makes each layer a mixture",
        ),
        (
            (NEW, "stages[1].size={layers: 2, width: 32, heads: 4}", "stages[1].train.freeze=2"),
            "stages[1].train.freeze",
            "as large as the one before",
        ),
    ],
)
def test_what_is_new_where_nothing_is_or_all_is(overrides: tuple[str, ...], path: str, words: str):
    assert_told(faults_of(*overrides), path, words)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (
            ("stages[0].train.optimizer.kind=mun",),
            "stages[0].train.optimizer.kind",
            "'mun' is no kind; did you mean 'muon'?",
        ),
        (
            ("stages[0].train.optimizer.muon_momentum=0.9",),
            "stages[0].train.optimizer.muon_momentum",
            "0.9 has a meaning for muon only, not for adamw; null would be right",
        ),
        (
            ("stages[0].train.optimizer.muon_learning_rate=0.02",),
            "stages[0].train.optimizer.muon_learning_rate",
            "0.02 has a meaning for muon only",
        ),
        (
            ("stages[1].grow.learn.optimizer.kind=muon",),
            "stages[1].grow.learn.optimizer.kind",
            "unknown key",
        ),
        (
            ("stages[1].grow.optimizer_state=grown", "stages[1].train.optimizer.kind=muon"),
            "stages[1].grow.optimizer_state",
            "'grown': the stage before is trained with adamw and this one with muon, which keep other moments;"
            " 'fresh' would be right",
        ),
    ],
)
def test_muon_where_it_has_no_meaning(overrides: tuple[str, ...], path: str, words: str):
    assert_told(faults_of(*overrides), path, words)


def test_muon_for_all_stages_and_moments_that_grow():
    muon = "{kind: muon, learning_rate: 1.0e-3, muon_learning_rate: 0.02, muon_momentum: 0.9}"
    optimizers = [f"stages[{index}].train.optimizer={muon}" for index in (0, 1)]
    stages = example(*optimizers, "stages[1].grow.optimizer_state=grown").stages
    assert {stage.train.optimizer.kind for stage in stages if stage.train} == {"muon"}


def test_what_is_new_may_be_trained_alone_and_at_another_rate():
    train = example(NEW, "stages[1].train.freeze=10", "stages[1].train.new_rate=3.0").stages[1].train
    assert train is not None
    assert (train.freeze, train.new_rate) == (10, 3.0)


def test_an_unknown_key_is_told_before_what_is_missing_for_it():
    raw = raw_example()
    raw["stages"][0]["train"]["batchsize"] = raw["stages"][0]["train"].pop("batch_size")
    with pytest.raises(ConfigError) as caught:
        config_from(raw)
    assert [str(fault) for fault in caught.value.faults] == [
        "stages[0].train.batchsize: unknown key; did you mean 'batch_size'?",
        "stages[0].train.batch_size: is missing; it has no default",
    ]


def test_a_directory_that_is_not_there_is_told_beside_what_follows(tmp_path: Path):
    nowhere = f"stages[0].from={tmp_path}/nothing"
    missing, tokenizer = faults_of(nowhere)
    assert missing.path == "stages[0].from"
    assert missing.message.startswith(f"no such directory: '{tmp_path}/nothing'")
    assert tokenizer.path == "tokenizer.vocab_size"
    assert example(nowhere, "tokenizer={}").stages[0].from_ == f"{tmp_path}/nothing"
    (tmp_path / "nothing").mkdir()
    assert [fault.path for fault in faults_of(nowhere)] == ["tokenizer.vocab_size"]
    assert [fault.path for fault in faults_of("stages[0].from=someone/model")] == ["tokenizer.vocab_size"]
