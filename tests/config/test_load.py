from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from example import example, raw_example
from ligo_dist.config import (
    Config,
    apply_overrides,
    config_from,
    difference,
    dump_yaml,
    load_config,
    parse_yaml,
)
from ligo_dist.runtime.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def write(path: Path, raw: object) -> Path:
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_the_reference_shows_every_key():
    shown = yaml.safe_load((CONFIGS / "reference.yaml").read_text())
    expected = Config.model_fields
    assert list(shown) == list(expected)
    names = (
        "evaluation",
        "data",
        "tokenizer",
        "tracking",
        "checkpoints",
        "distributed",
        "profile",
        "model",
        "defaults",
    )
    for name in (*names, "model", "defaults"):
        assert list(shown[name]) == list(expected[name].annotation.model_fields), name
    defaults = shown["defaults"]
    stage = load_config(CONFIGS / "reference.yaml").resolved()["stages"][1]
    assert keys_of(defaults["train"]) == keys_of(stage["train"]) - {"steps"}
    assert keys_of(defaults["grow"]) == keys_of(stage["grow"])


def keys_of(section: dict, path: str = "") -> set[str]:
    keys = set()
    for name, value in section.items():
        keys |= keys_of(value, f"{path}{name}.") if isinstance(value, dict) else {path + name}
    return keys


# Files.


def test_no_such_file(tmp_path):
    write(tmp_path / "quickstart.yaml", raw_example())
    path = tmp_path / "quickstrat.yaml"
    assert message(path).endswith(f"{path}: no such file; did you mean '{tmp_path / 'quickstart.yaml'}'?")
    away = tmp_path / "no" / "x.yaml"
    assert message(away).endswith(f"{away}: no such file, and no such directory: {away.parent}")
    assert "cannot be read: [Errno 21] Is a directory" in message(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# no\n", "is empty; configs/quickstart.yaml is one to start from"),
        ("- 1\n", "holds a list, not a mapping of keys to values"),
        ("run_dir: x\nmodel: {family: gpt2\nseed: 1\n", "is not YAML: line 3, column 5: expected ',' or '}'"),
        ("m:\n  family: a\n  family: b\n", "line 3, column 3: the key 'family' is given twice, on line 2"),
        ("a: &a {x: *a}\n", "is not YAML: an anchor holds itself"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, text, said):
    assert said in message(write(tmp_path / "a.yaml", text))


def test_merge_keys_of_yaml_work():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("-.5", -0.5),
        ("3", 3),
        ("1_000", 1000),
        ("0x1f", 31),
        ("1.2.3", "1.2.3"),
        ("12:00:00", "12:00:00"),
        ("1:30", "1:30"),
        ("007", "007"),
        ("2026-11-29", "2026-11-29"),
        ("=", "="),
        ("no", "no"),
        ("true", True),
    ],
)
def test_numbers_and_booleans_of_yaml_1_2(text, value):
    parsed = parse_yaml(text)
    assert (parsed, type(parsed)) == (value, type(value))


_TEXTS = (
    "1e3", "-.5", "0x1f", "12:00:00", "007", "yes", "true", "null", "~", "a #b", "=", "2026-11-29", " a ", "",
)  # fmt: skip


@pytest.mark.parametrize("value", [*_TEXTS, 1e3, 1e-5, 12, True, None])
def test_what_is_written_is_read_back_as_it_was(value):
    read = parse_yaml(dump_yaml({"a": value}))["a"]
    assert (read, type(read)) == (value, type(value))


# Overrides.


@pytest.mark.parametrize("override", ["stages[1].train.steps=5", "stages.1.train.steps=5"])
def test_an_override_reaches_into_a_list(tmp_path, override):
    config = load_config(write(tmp_path / "a.yaml", raw_example()), [override])
    assert [stage.train.steps for stage in config.stages] == [10, 5]


def test_an_override_changes_one_stage_of_two_that_share_an_anchor(tmp_path):
    raw = raw_example()
    raw["stages"][1]["train"] = raw["stages"][0]["train"]
    text = yaml.safe_dump(raw)
    assert "*id001" in text
    config = load_config(write(tmp_path / "a.yaml", text), ["stages[1].train.steps=5"])
    assert [stage.train.steps for stage in config.stages] == [10, 5]


def test_overrides_make_sections_and_take_yaml(tmp_path):
    overrides = [
        "checkpoints.keep=5",
        "tracking={mlflow: false}",
        "stages[1].train.optimizer.betas=[0.8, 0.9]",
    ]
    config = load_config(
        write(tmp_path / "a.yaml", raw_example()), [*overrides, "run_dir=runs/a=b", "seed=1", "seed=2"]
    )
    assert (config.checkpoints.keep, config.tracking.mlflow, config.seed) == (5, False, 2)
    assert config.stages[1].train.optimizer.betas == (0.8, 0.9)
    assert config.run_dir == "runs/a=b"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("run_dir=runs/exp #3", "run_dir", "runs/exp #3"),
        ("run_dir=runs/lr: 3", "run_dir", "runs/lr: 3"),
        ("run_dir=2026", "run_dir", "2026"),
        ("run_dir=[a]", "run_dir", "[a]"),
        ("run_dir='runs/exp #3'", "run_dir", "runs/exp #3"),
        ("data.cache_dir=c#d # e", "data.cache_dir", "c#d # e"),
        ("tracking.run_name=1e3", "tracking.run_name", "1e3"),
        ("tracking.run_name=null", "tracking.run_name", None),
        ("cluster.slurm.time=12:00:00", "cluster.slurm.time", "12:00:00"),
        ("cluster.slurm={time: 12:00:00}", "cluster.slurm.time", "12:00:00"),
        ("cluster.environment.OMP_NUM_THREADS=4", "cluster.environment", {"OMP_NUM_THREADS": "4"}),
        ("stages[1].name=007", "stages.1.name", "007"),
        ("cluster.forward=['a #1', b]", "cluster.forward", ["a #1", "b"]),
    ],
)
def test_a_value_is_text_as_typed_unless_the_type_says_otherwise(tmp_path, override, path, value):
    config = load_config(write(tmp_path / "a.yaml", raw_example()), [override])
    for name in path.split("."):
        config = config[int(name)] if name.isdecimal() else getattr(config, name)
    assert config == value


def test_the_path_of_a_file_for_a_section_is_text_as_typed(tmp_path):
    (tmp_path / "ours #1.yaml").write_text("max_restarts: 7\n")
    config = load_config(write(tmp_path / "a.yaml", raw_example()), [f"cluster={tmp_path / 'ours #1.yaml'}"])
    assert config.cluster.max_restarts == 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        ("seed", "seed: is no override; write key.path=value, such as stages[1].train.steps=5"),
        ("a..b=1", "a..b=1: is no override; write key.path=value"),
        ("stages[2].name=x", "stages[2].name: stages is a list with items 0 to 1, so there is no '2'"),
        ("stages.last.name=x", "stages.last.name: stages is a list with items 0 to 1, so there is no 'last'"),
        ("run_dir.x=1", "run_dir.x: run_dir is the value 'runs/test', not a section that holds 'x'"),
        ("seed=[1", "seed: the value '[1' is not YAML: line 1, column 3"),
        ("seed=1 #2", "seed: '1 #2' has a comment: what follows # would be left out"),
        ("data.files=[a] # b", "data.files: '[a] # b' has a comment: what follows # would be left out"),
        ("seed=010", "seed: '010' should be a whole number"),
        ("precision=bf16 #", "precision: 'bf16 #' is no precision; did you mean 'bf16'?"),
    ],
)
def test_an_override_that_cannot_be_applied(tmp_path, override, said):
    assert said in message(write(tmp_path / "a.yaml", raw_example()), override)


# Inheritance.


def test_stages_inherit_key_by_key():
    raw = raw_example()
    raw["defaults"] = {
        "train": {
            "batch_size": 16,
            "schedule": {"kind": "linear", "warmup_steps": 2},
            "optimizer": {"betas": [0.5, 0.6]},
        },
        "grow": {"method": "lossless", "learn": {"steps": 7, "optimizer": {"weight_decay": 0.5}}},
    }
    raw["stages"][0]["train"] = {"steps": 3, "micro_batch_size": 4, "schedule": {"warmup_steps": 1}}
    raw["stages"][1]["grow"] = {"learn": {"optimizer": {"learning_rate": 0.5}}}
    small, large = config_from(raw).stages
    assert (small.train.batch_size, small.train.schedule.kind, small.train.schedule.warmup_steps) == (
        16,
        "linear",
        1,
    )
    assert small.train.optimizer.betas == (0.5, 0.6)
    assert small.grow is None
    assert (large.train.batch_size, large.grow.method, large.grow.learn.steps) == (8, "lossless", 7)
    assert (large.grow.learn.optimizer.weight_decay, large.grow.learn.optimizer.learning_rate) == (0.5, 0.5)


def test_a_stage_may_inherit_all_of_a_section_and_undo_with_null():
    raw = raw_example()
    raw["defaults"] = {
        "train": {"steps": 9, "batch_size": 8, "micro_batch_size": 4},
        "grow": {"method": "lossless"},
    }
    raw["defaults"]["train"]["schedule"] = {"kind": "wsd", "decay_steps": 3}
    del raw["stages"][0]["train"], raw["stages"][1]["grow"]
    raw["stages"][1]["train"] = {"schedule": {"kind": "cosine", "decay_steps": None}}
    small, large = config_from(raw).stages
    assert (small.train.schedule.decay_steps, large.train.schedule.decay_steps) == (3, None)
    assert large.grow.method == "lossless"


def test_a_fault_in_the_defaults_is_told_once_and_there():
    raw = raw_example()
    raw["defaults"] = {"train": {"step": 3, "optimizer": {"epsilon": 0}}, "grow": {"learn": {"steps": "x"}}}
    del raw["stages"][1]["grow"]["learn"]
    with pytest.raises(ConfigError) as caught:
        config_from(raw)
    assert [fault.path for fault in caught.value.faults] == [
        "defaults.train.step", "defaults.train.optimizer.epsilon", "defaults.grow.learn.steps",
    ]  # fmt: skip


# DeepSpeed.


def test_a_deepspeed_file_stands_for_its_keys(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"sub_group_size": 1000}}))
    config = load_config(write(tmp_path / "a.yaml", raw_example()), [f"deepspeed={file}"])
    assert config.resolved()["deepspeed"] == {"zero_optimization": {"sub_group_size": 1000}}
    path = write(tmp_path / "b.yaml", {**raw_example(), "deepspeed": str(file)})
    config = load_config(path, ["deepspeed.zero_optimization.overlap_comm=false"])
    assert config.deepspeed["zero_optimization"] == {"sub_group_size": 1000, "overlap_comm": False}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is not JSON"),
        ("[]", "holds a list, not a mapping"),
        ('{"fp16": {"enabled": true}}', "deepspeed.fp16: cannot be given: the precision is set by"),
    ],
)
def test_a_deepspeed_file_that_is_wrong(tmp_path, content, said):
    file = tmp_path / "ds.json"
    if content is not None:
        file.write_text(content)
    assert said in message(write(tmp_path / "a.yaml", raw_example()), f"deepspeed={file}")


# Comparing.


def test_resolved_is_plain_and_leaves_out_the_defaults():
    resolved = example().resolved()
    assert json.loads(json.dumps(resolved)) == resolved
    assert "defaults" not in resolved


def test_resolved_holds_no_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    config = example("tracking.uri='http://me:secret@host'", "model.huggingface.note=hf_planted")
    assert config.resolved()["tracking"]["uri"] == "http://***@host"
    assert config.resolved()["model"]["huggingface"] == {"note": "***"}
    assert config.values()["tracking"]["uri"] == config.tracking.uri == "http://me:secret@host"


def test_difference_names_what_changed():
    old = example().resolved()
    assert difference(old, example().resolved()) == []
    new = example(
        "seed=3", "stages[1].train.optimizer.betas=[0.8, 0.9]", "deepspeed.steps_per_print=5"
    ).resolved()
    assert difference(old, new) == [
        "seed: 0 -> 3",
        "stages[1].train.optimizer.betas: [0.9, 0.95] -> [0.8, 0.9]",
        "deepspeed.steps_per_print: absent -> 5",
    ]
    assert difference(old, {**old, "stages": old["stages"][:1]}) == ["stages[1]: 'large' -> absent"]


@pytest.mark.parametrize(
    "key",
    [
        "run_dir", "data.cache_dir", "data.name", "tokenizer.file", "tokenizer.huggingface", "stages[0].from",
        "tracking.uri", "cluster.hostfile", "cluster.directory",
    ],
)  # fmt: skip
def test_a_tilde_is_the_home_directory(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    raw = raw_example("data.source=hub", "data.name=x", "tokenizer.vocab_size=null", "tokenizer.file=x")
    if key == "tokenizer.huggingface":
        raw["tokenizer"]["file"] = None
    assert apply_overrides(raw, [f"{key}=~/here"]) == []
    assert "/home/someone/here" in str(config_from(raw))
