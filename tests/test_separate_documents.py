"""A whole run with documents kept apart: the same on any number of ranks, and what its model does document by
document."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers

from launcher.preflight import plan_of
from launcher.tables import print_plan
from ligo_dist.config import changes, load_config
from ligo_dist.corpus import TextCorpus, build_corpus
from runs import RunFiles, Site, run_warm

pytestmark = pytest.mark.slow

LINES, APART = "data.document=line", "data.separate_documents=true"


def loss_by_documents(files: RunFiles, corpus: TextCorpus, sequences: int) -> float:
    """Of the exported model on the fixed validation set, each document of a block called by itself."""
    blocks, eos = corpus.validation_blocks, corpus.tokenizer.eos_id
    chosen = np.arange(sequences) * len(blocks) // sequences
    model = transformers.AutoModelForCausalLM.from_pretrained(files.run_dir / "export" / "large").eval()
    total, predictions, documents = 0.0, 0, 0
    with torch.no_grad():
        for block in torch.from_numpy(blocks.read(chosen)):
            cuts = [0, *(torch.nonzero(block[:-1] == eos)[:, 0] + 1).tolist(), len(block)]
            for start, end in pairwise(cuts):
                ids = block[start:end]
                logits = model(input_ids=ids[None]).logits[0]
                total += float(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum"))
                predictions += end - start - 1
            documents += len(cuts) - 1
    assert documents > 1.5 * sequences, "blocks of several documents"
    return total / predictions


def test_documents_kept_apart_through_a_whole_run(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    alone, on_three = site.config("apart-1", "two stages"), site.config("apart-3", "two stages")
    config = load_config(alone.config, [LINES, APART])
    print_plan(plan_of(config, 1))
    assert (
        "the FLOPs are an upper bound, with attention over whole sequences, until" in capsys.readouterr().out
    )
    assert run_warm(alone, 1, LINES, APART)[0] == 0  # the corpus is prepared first
    assert run_warm(on_three, 3, LINES, APART, "defaults.train.micro_batch_size=3") == (0, "")
    losses = alone.numbers("loss")
    assert on_three.numbers("loss") == pytest.approx(losses, abs=1e-4)

    corpus = build_corpus(config, show_progress=False)
    assert isinstance(corpus, TextCorpus)
    last = max(step for stage, _, step, _ in losses if stage == "large")
    expected = loss_by_documents(alone, corpus, config.evaluation.sequences)
    assert losses["large", "train", last, "evaluate/loss"] == pytest.approx(expected, abs=1e-4)
    learned = max(step for stage, phase, step, _ in losses if (stage, phase) == ("large", "learn"))
    grown = losses["large", "grow", learned, "grow/grown_loss"]
    assert losses["large", "learn", learned, "evaluate/loss"] == pytest.approx(grown, abs=1e-4)

    plan = plan_of(config, 1)
    assert corpus.attended is not None
    assert corpus.attended == plan.attended < 0.75 * 32**2
    print_plan(plan)
    told = f"a token attends to {plan.attended / 32:.1f} of 32 on average"
    assert told in capsys.readouterr().out
    spent = alone.numbers("cumulative/flops")["large", "train", last, "cumulative/flops"]
    assert spent == plan.cost.flops < plan_of(load_config(alone.config, [LINES]), 1).cost.flops


def test_checkpoints_of_before_go_on(site: Site) -> None:
    """They do not say that documents are kept apart, and those that do are others."""
    now = load_config(site.config("before").config, []).resolved()
    before = {
        **now,
        "data": {k: v for k, v in now["data"].items() if k not in ("separate_documents", "token_column")},
    }
    assert changes(before, now) == []
    apart = load_config(site.config("before").config, [APART]).resolved()
    assert changes(before, apart) == ["data.separate_documents: False -> True"]
