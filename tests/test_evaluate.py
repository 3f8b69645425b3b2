"""`ligo-dist evaluate`: a task of lm-evaluation-harness on a run's export, with a file of questions of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from example import assert_told, example, faults_of
from launcher import cli
from launcher.preflight import check_before_start
from ligo_dist.runtime.errors import ConfigError
from ligo_dist.tracking import harness, harness_faults, read_records
from runs import RunFiles, Site, run_warm
from servers import stored_runs

_TASK = """
task: endings
dataset_path: json
dataset_kwargs: {{data_files: '{file}'}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{start}}}}"
doc_to_choice: "{{{{ends}}}}"
doc_to_target: right
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
_QUESTIONS = [
    {"start": "import", "ends": [" os", " zebra, zebra and zebra"], "right": 0},
    {"start": "def split(self", "ends": [" every one of the letters", "):"], "right": 1},
    {"start": "return", "ends": [" None", " to the house of the seven gables"], "right": 1},
]


def write_task(directory: Path) -> None:
    """Write the task `endings` and its questions."""
    questions = directory / "endings.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in _QUESTIONS))
    (directory / "endings.yaml").write_text(_TASK.format(file=questions))


def likeliest(export: Path, question: dict) -> int:
    """The answer that the export gives the highest probability, with the library alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(export), AutoTokenizer.from_pretrained(export)
    sums = []
    for end in question["ends"]:
        start = tokenizer(question["start"])["input_ids"]
        ids = torch.tensor([tokenizer(question["start"] + end)["input_ids"]])
        logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        sums.append(logits.gather(1, ids[0, 1:, None])[len(start) - 1 :].sum().item())
    return max(range(len(sums)), key=sums.__getitem__)


@pytest.mark.slow
def test_a_task_on_the_exports_of_a_run(whole_run: RunFiles, tmp_path: Path) -> None:
    files = whole_run.copy("evaluated")
    write_task(tmp_path)
    words = ["--tasks", "endings", "--include-path", str(tmp_path), "--batch-size", "2", "--device", "cpu"]
    assert cli.main(["evaluate", str(files.run_dir), *words]) == 0
    *before, last = read_records(files.run_dir / "metrics.jsonl")
    assert before == whole_run.records()
    assert (last["stage"], last["phase"], last["step"]) == ("large", "evaluate", before[-1]["step"])
    export = files.run_dir / "export" / "large"
    right = sum(likeliest(export, question) == question["right"] for question in _QUESTIONS)
    assert last["evaluate/endings/acc"] == pytest.approx(right / 3)


@pytest.mark.slow
def test_a_run_that_evaluates_its_exports(site: Site, tmp_path: Path) -> None:
    files, uri = site.config("tasks", "two stages"), f"sqlite:///{tmp_path}/mlflow.db"
    write_task(tmp_path)
    asked = f"evaluation.harness={{tasks: [endings], include_path: '{tmp_path}', batch_size: 2}}"
    words = ["checkpoints.export_stages=true", "tracking.mlflow=true", f"tracking.uri={uri}"]
    assert run_warm(files, 2, asked, *words) == (0, "")
    measured = {record["stage"]: record for record in files.records() if record["phase"] == "evaluate"}
    assert {stage: record["step"] for stage, record in measured.items()} == {"small": 5, "large": 15}
    runs = stored_runs(uri, "ligo_dist")
    for stage, record in measured.items():
        export = files.run_dir / "export" / stage
        right = sum(likeliest(export, question) == question["right"] for question in _QUESTIONS)
        assert record["evaluate/endings/acc"] == pytest.approx(right / 3)
        assert runs[stage].data.metrics["evaluate/endings/acc"] == pytest.approx(right / 3)
        assert f"{stage} on its tasks: endings/acc {right / 3:.4g}" in (files.run_dir / "run.log").read_text()


def asked(directory: Path, *, asks: bool = True, **keys: object) -> list[str]:
    """What is wrong with tasks, one each."""
    harness = {"tasks": ["endings"], "include_path": str(directory), **keys}
    config = example(f"run_dir={directory}/run", f"evaluation.harness={json.dumps(harness)}")
    return [str(fault) for fault in harness_faults(config, asks_for_tasks=asks)]


@pytest.mark.slow
def test_tasks_that_the_harness_does_not_have(tmp_path: Path) -> None:
    write_task(tmp_path)
    assert asked(tmp_path, tasks=["endings", "arc_easi", "lambada_*", "mmlu"]) == [
        "evaluation.harness.tasks[1]: 'arc_easi' is no task that lm-evaluation-harness has; did you mean 'arc_easy'?"
    ]


def test_what_is_told_of_tasks_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(tmp_path, asks=False) == []
    there = tmp_path / "nowhere"
    assert asked(tmp_path, include_path=str(there)) == [
        f"evaluation.harness.include_path: there is no directory '{there}'"
    ]
    (comma,) = asked(tmp_path / "a,b", include_path=None)
    assert comma.startswith(f"run_dir: '{tmp_path}/a,b/run' has a comma")
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    missing = asked(tmp_path)
    assert missing == [
        "evaluation.harness.tasks: lm-evaluation-harness is not installed here; pip install 'ligo_dist[eval]' installs"
        " it"
    ]
    with pytest.raises(ConfigError, match="lm-evaluation-harness is not installed here"):
        check_before_start(
            example(f"run_dir={tmp_path}/run", "evaluation.harness.tasks=[arc_easy]"), 1, 0, "my.yaml"
        )


def test_a_model_that_predicts_no_next_token_has_no_tasks() -> None:
    assert_told(
        faults_of("model.family=bert", "evaluation.harness.tasks=[arc_easy]"),
        "evaluation.harness.tasks",
        "are for models that predict the next token, and bert does not; [] would be right",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no export, which has a config.json, and no run with exports"),
        (["a,b"], "the harness takes no path with a comma, as a,b has"),
        (["model", "--include-path", "there"], "--include-path: there is no directory there"),
    ],
)
def test_mistakes(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "a,b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert cli.main(["evaluate", *words, "--tasks", "endings"]) == 2
    assert said in capsys.readouterr().err


def test_without_the_harness_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert cli.main(["evaluate", str(tmp_path), "--tasks", "endings"]) == 2
    assert "pip install 'ligo_dist[eval]'" in capsys.readouterr().err
