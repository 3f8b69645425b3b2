"""`ligo-dist evaluate`: a task of lm-evaluation-harness on a run's export, with a file of questions of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from launcher import cli
from ligo_dist.tracking import read_records
from runs import RunFiles

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
    questions = tmp_path / "endings.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in _QUESTIONS))
    (tmp_path / "endings.yaml").write_text(_TASK.format(file=questions))
    words = ["--tasks", "endings", "--include-path", str(tmp_path), "--batch-size", "2", "--device", "cpu"]
    assert cli.main(["evaluate", str(files.run_dir), *words]) == 0
    *before, last = read_records(files.run_dir / "metrics.jsonl")
    assert before == whole_run.records()
    assert (last["stage"], last["phase"], last["step"]) == ("large", "evaluate", before[-1]["step"])
    export = files.run_dir / "export" / "large"
    right = sum(likeliest(export, question) == question["right"] for question in _QUESTIONS)
    assert last["evaluate/endings/acc"] == pytest.approx(right / 3)


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
