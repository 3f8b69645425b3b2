"""Which runs a configuration and its section `compare` come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.comparison.runs import ComparedRun, as_begun, derive_runs
from ligo_dist.config import SourceConfig, complete, learn_steps, load_config
from ligo_dist.runtime.errors import ConfigError


def derived(file: Path, *overrides: str) -> dict[str, ComparedRun]:
    """The runs by their names."""
    return {run.name: run for run in derive_runs(load_config(file, overrides), "set.yaml")}


def grow_of(file: Path, method: str, *overrides: str) -> dict[str, Any]:
    """The section `grow` of a method's run."""
    run = derived(file, f"compare.methods=[scratch, {method}]", *overrides)[f"{method} seed 0"]
    return run.config.values()["stages"][-1]["grow"]


def test_the_runs_in_their_order(config_file: Path) -> None:
    runs = derived(config_file)
    assert list(runs) == [
        f"{method} seed {seed}" for seed in (0, 4) for method in ("source", "scratch", "stack", "ligo")
    ]
    stack = runs["stack seed 4"]
    assert (stack.directory, stack.file) == (
        Path("runs/set/seed-4/stack"),
        Path("runs/set/seed-4/stack.yaml"),
    )
    assert {run.config.seed for name, run in runs.items() if name.endswith("4")} == {4}
    assert [run.needs for run in runs.values()][:4] == [None, None, *[Path("runs/set/seed-0/source")] * 2]


def test_all_are_of_the_precision_that_the_first_began_with(config_file: Path) -> None:
    """On another machine `auto` may stand for another one."""
    config = load_config(config_file)
    assert as_begun(config) == config
    manifest = Path("runs/set/seed-0/source/checkpoints/step-00000010-0-train/COMPLETE.json")
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"config": {"precision": "fp32"}}')
    assert {run.config.precision for run in derive_runs(as_begun(config), "set.yaml")} == {"fp32"}
    given = load_config(config_file, ["precision=bf16"])
    assert as_begun(given) == given


def test_all_share_what_is_not_their_own(config_file: Path) -> None:
    base = load_config(config_file).values()
    base["tokenizer"]["replace_source"] = True  # each trains the same one again
    own = {"run_dir", "seed", "stages", "tracking"}
    for run in derived(config_file).values():
        values = run.config.values()
        assert {key: values[key] for key in values.keys() - own} == {
            key: base[key] for key in base.keys() - own
        }
        assert values["run_dir"] == str(run.directory)
        assert values["tracking"]["run_name"] == run.name


def test_the_source_is_what_comes_before_the_last_stage(config_file: Path) -> None:
    assert derived(config_file)["source seed 0"].config.stages == load_config(config_file).stages[:-1]


def test_a_method_begins_the_last_stage_from_the_sources_export(config_file: Path) -> None:
    source, target = derived(config_file)["stack seed 4"].config.stages
    base = load_config(config_file).stages
    assert (source.name, source.from_) == ("small", "runs/set/seed-4/source/export/small")
    assert (source.size, source.train) == (base[0].size, None)
    assert target.model_copy(update={"grow": None}) == base[1].model_copy(update={"grow": None})
    assert target.grow is not None
    assert target.grow.method == "stack"


def test_scratch_is_the_last_stage_alone(config_file: Path) -> None:
    (only,) = derived(config_file)["scratch seed 0"].config.stages
    assert only == load_config(config_file).stages[1].model_copy(update={"grow": None})


@pytest.mark.parametrize(
    ("method", "overrides", "steps"),
    [
        ("stack", [], 0),
        ("ligo", [], 5),  # the configuration says for how long an operator is learned
        ("ligo", ["stages[1].grow.learn.steps=0"], 100),  # it says nothing of the kind: the method's own
        ("ligo+fixed", [], 0),
        ("stack+learn", [], 5),
        ("stack+learn", ["stages[1].grow.learn.steps=null"], 100),
        ("lossless", [], 5),  # the configuration's own
        ("lossless+fixed", [], 0),
        ("lossless+learn", ["stages[1].grow.learn.steps=0"], 100),
    ],
)
def test_how_long_the_operator_is_learned(
    config_file: Path, method: str, overrides: list[str], steps: int
) -> None:
    grow = grow_of(config_file, method, *overrides)
    assert (grow["method"], grow["learn"]["steps"]) == (method.partition("+")[0], steps)


def test_the_configurations_own_method_is_as_it_says(config_file: Path) -> None:
    assert grow_of(config_file, "lossless") == load_config(config_file).values()["stages"][1]["grow"]


def test_another_method_has_of_it_only_how_it_is_learned(config_file: Path) -> None:
    grow, own = grow_of(config_file, "ligo"), load_config(config_file).values()["stages"][1]["grow"]
    assert grow["learn"] == own["learn"]
    assert (grow["noise"], own["noise"]) == (0.0, 0.25)


def variant(file: Path, changes: str) -> dict[str, ComparedRun]:
    words = f"compare={{methods: [scratch, own], seeds: [4], variants: {{own: {changes}}}}}"
    return derived(file, words)


def test_a_variant_is_the_last_stage_with_something_written_over_it(config_file: Path) -> None:
    runs = variant(config_file, "{'stages[1].grow': {method: ligo, tied: false}, stages.1.train.steps: 6}")
    assert list(runs) == ["source seed 4", "scratch seed 4", "own seed 4"]
    source, target = runs["own seed 4"].config.stages
    assert source.from_ == "runs/set/seed-4/source/export/small"
    assert target.grow is not None
    assert (target.grow.method, target.grow.tied, learn_steps(target.grow)) == ("ligo", False, 100)
    assert target.train is not None
    assert target.train.steps == 6


@pytest.mark.parametrize(
    "changes", ["{'stages[0].train.steps': 20}", "{'stages[1].grow.optimizer_state': grown}"]
)
def test_a_variant_that_the_common_source_does_not_serve_trains_its_own(
    config_file: Path, changes: str
) -> None:
    runs = variant(config_file, changes)
    assert list(runs) == ["scratch seed 4", "own seed 4"]
    own = runs["own seed 4"]
    assert (own.needs, [stage.from_ for stage in own.config.stages]) == (None, [None, None])
    assert own.config.stages[0].train is not None


def test_a_variant_from_random_values(config_file: Path) -> None:
    runs = variant(config_file, "{'stages[1].grow': {method: scratch}, 'stages[1].train.steps': 30}")
    (only,) = runs["own seed 4"].config.stages
    assert only.grow is None
    assert only.train is not None
    assert only.train.steps == 30


def test_the_stages_before_the_last_are_one_run(config_file: Path) -> None:
    middle = "{name: middle, size: {layers: 2, width: 40, heads: 5}, grow: {method: lossless}}"
    large = "{name: large, size: {layers: 3, width: 48, heads: 6}, grow: {}, nodes: 2}"
    small = "{name: small, size: {layers: 2, width: 32, heads: 4}}"
    keys = "model.huggingface={layer_norm_epsilon: 1e-4, resid_pdrop: 0.0}"
    runs = derived(config_file, f"stages=[{small}, {middle}, {large}]", keys)
    source, stack = runs["source seed 0"].config, runs["stack seed 0"].config
    assert [stage.name for stage in source.stages] == ["small", "middle"]
    assert source.model.huggingface == {"layer_norm_epsilon": 1e-4, "resid_pdrop": 0.0}
    assert stack.stages[0].from_ == "runs/set/seed-0/source/export/middle"
    assert stack.stages[1].nodes is None
    # Growing multiplied the epsilon: the export says what it is.
    assert stack.model.huggingface == {"resid_pdrop": 0.0}


def from_given(file: Path, *overrides: str) -> dict[str, ComparedRun]:
    """The runs of a comparison whose first stage is a model that exists."""
    given = ["stages[0]={name: given, from: there}", "tokenizer={}", "model.max_positions=null"]
    config = load_config(file, [*given, *overrides])
    says = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_inner": None, "n_positions": 64, "vocab_size": 512,
            "tie_word_embeddings": True}  # fmt: skip
    return {run.name: run for run in derive_runs(complete(config, SourceConfig(says, {}, {})), "set.yaml")}


def test_a_model_that_is_taken_as_it_is_needs_no_run(config_file: Path) -> None:
    runs = from_given(config_file)
    assert not any(run.method == "source" for run in runs.values())
    assert [stage.from_ for stage in runs["stack seed 4"].config.stages] == ["there", None]
    assert runs["stack seed 4"].needs is None


def test_all_have_the_tokenizer_of_a_given_model(config_file: Path) -> None:
    runs = from_given(config_file, "stages[0].train={steps: 3, batch_size: 8, micro_batch_size: 4}")
    assert "source seed 0" in runs
    assert {run.config.tokenizer.huggingface for run in runs.values()} == {"there"}
    assert runs["scratch seed 0"].config.model.max_positions == 64


def test_one_store_for_all(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uris(*overrides: str) -> set[str | None]:
        return {run.config.tracking.uri for run in derived(config_file, *overrides).values()}

    assert uris() == {f"sqlite:///{tmp_path}/runs/mlflow.db"}
    assert uris("tracking.mlflow=false") == {None}
    assert uris("tracking.uri=http://there:5000") == {"http://there:5000"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@there")  # which is written nowhere
    assert uris() == {None}


def test_a_shared_directory_of_a_cluster(config_file: Path) -> None:
    runs = derived(config_file, "cluster.directory=/shared")
    assert runs["stack seed 0"].config.run_dir == "/shared/runs/set/seed-0/stack"
    assert runs["stack seed 0"].config.stages[0].from_ == "/shared/runs/set/seed-0/source/export/small"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["stages=[{name: a, size: {layers: 2, width: 32, heads: 4}}]"],
            "set.yaml: 1 fault\n  stages: a comparison needs a stage that grows, and one before it that it grows from",
        ),
        (
            ["stages[1].train.steps=0", "stages[1].grow.learn.schedule={}"],
            "stages[1].train.steps: 0: nothing is trained in the last stage, so there are no losses to compare",
        ),
        (
            ["start_from={run: runs/trunk, step: 3}", "checkpoints.keep_steps=[4]"],
            "set.yaml: 2 faults\n"
            "  start_from: 'runs/trunk': each run of a comparison has steps of its own; null would be right\n"
            "  checkpoints.keep_steps: [4]: each run of a comparison has steps of its own; [] would be right",
        ),
        (
            ["compare.methods=[scratch, hypercloning, lossless]"],
            "set.yaml: 3 faults\n"
            "  compare.methods: 'hypercloning' does not suit: stages[1].grow.method: width 'hypercloning' repeats all",
        ),
        (
            [
                "compare.methods=[scratch, own]",
                "compare.variants={own: {'stages[2].name': a}}",
            ],
            "set.yaml: 1 fault\n"
            "  compare.methods: 'own' does not suit: stages[2].name: stages is a list with items 0 to 1, so there is no"
            " '2'",
        ),
        (
            ["compare.methods=[scratch, own]", "compare.variants={own: {'stages[1].size.heads': 5}}"],
            "compare.methods: 'own' does not suit: stages[1].size.heads: 5 heads do not divide the width 48",
        ),
    ],
)
def test_what_cannot_be_compared(config_file: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        derived(config_file, *overrides)
    assert said in str(caught.value)
