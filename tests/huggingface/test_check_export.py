"""The script that measures an export without this project, against this project's own way to measure."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ligo_dist.corpus import (
    CausalSamples,
    PackedBlocks,
    SentencePieceTokenizer,
    fixed_batches,
    pack,
    train_tokenizer,
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_export.py"
SEQUENCES, LENGTH = 10, 16


@pytest.fixture(scope="module")
def check_export() -> Any:
    """The script's `main`."""
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an export, a packed corpus beside it, and documents of every kind in it."""
    directory = tmp_path_factory.mktemp("export")
    odd = ("tab\there, \u2581 and \u6f22\u5b57\u2028\r\n".encode(), b"\xff\xfe raw caf\xe9\n")
    documents = [b"def number_%d(x):\n    return x + %d\n" % (n, n) + odd[n % 2] for n in range(120)]
    tokenizer = SentencePieceTokenizer(train_tokenizer(documents, 350, "bpe"))
    pack(documents, tokenizer, 0.3, directory, workers=1)
    (directory / "tokenizer.model").write_bytes(tokenizer.model_bytes)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=350, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data.mul_(5)  # far from uniform, so that the loss depends on which tokens are asked for
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def reported(export: Path) -> float:
    """The validation loss as a run measures it, on two ranks."""
    model = GPT2LMHeadModel.from_pretrained(export).eval()
    blocks = PackedBlocks(export / "validation.bin", "uint16", LENGTH)
    loss = count = 0.0
    for rank in range(2):
        for inputs, num_valid in fixed_batches(CausalSamples(blocks), SEQUENCES, rank, 2, 4):
            for row in inputs["input_ids"][:num_valid]:
                with torch.no_grad():
                    loss += model(input_ids=row[None], labels=row[None]).loss.item()
                count += 1
    assert count == SEQUENCES < len(blocks)
    return loss / count


def _arguments(export: Path, *more: str) -> list[str]:
    sizes = ["--sequences", str(SEQUENCES), "--sequence-length", str(LENGTH), "--batch-size", "4"]
    return [str(export), str(export / "validation.jsonl"), *sizes, *more]


def test_it_finds_the_loss_that_the_run_reported(
    check_export: Any, export: Path, reported: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_export(_arguments(export, "--expect", str(reported), "--tolerance", "1e-5")) == 0
    out = capsys.readouterr().out
    assert f"validation loss {reported:.4f} over {SEQUENCES} sequences of {LENGTH} tokens" in out
    assert "\nas expected" in out


def test_another_loss_is_told(
    check_export: Any, export: Path, reported: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_export(_arguments(export, "--expect", str(reported + 0.02))) == 1
    assert "NOT as expected" in capsys.readouterr().out
    assert check_export(_arguments(export, "--expect", str(reported + 0.02), "--tolerance", "0.03")) == 0


def test_without_an_expectation_it_only_measures(check_export: Any, export: Path) -> None:
    assert check_export(_arguments(export)) == 0


def test_it_knows_nothing_of_this_project() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
    }
    others = imported - sys.stdlib_module_names
    assert others == {"numpy", "sentencepiece", "torch", "transformers"}
