"""Whole runs whose first stage is a model that exists: taken as it is or trained on, grown, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ligo_dist.architectures import ModelShape
from ligo_dist.config import load_config
from ligo_dist.corpus import build_corpus
from runs import RunFiles, Site, run_warm
from small_models import library_model

pytestmark = pytest.mark.slow

SHAPE = ModelShape(2, 24, 3, 3, 96, tied=True, vocab=424, positions=32)
"""That of the runs' first stage, but with more rows of the embedding than the tokenizer has pieces."""


def save_source(directory: Path, seed: int = 0) -> PreTrainedModel:
    model = library_model("gpt2", SHAPE, seed, layer_norm_epsilon=1e-3, activation_function="relu")
    model.save_pretrained(directory, max_shard_size="20KB")
    return model


def overrides(directory: Path, *more: str) -> list[str]:
    left_out = ("model.max_positions=null", "stages[0].size=null", "stages[1].grow={method: lossless-dense}")
    own_tokenizer = "tokenizer.replace_source=true"  # the directory has none
    return [f"stages[0].from={directory}", own_tokenizer, *left_out, *more]


@torch.no_grad()
def validation_loss(files: RunFiles, model: PreTrainedModel) -> float:
    """On the sequences that the run evaluates, by plain `transformers`."""
    corpus = build_corpus(load_config(files.config), show_progress=False)
    chosen = [number * len(corpus.validation) // 7 for number in range(7)]
    ids = corpus.validation.read(chosen, chosen)["input_ids"]
    return model.eval()(input_ids=ids, labels=ids).loss.item()


def test_a_model_that_is_taken_as_it_is(site: Site):
    files = site.config("taken", "two stages")
    directory = site.directory / "source-taken"
    model = save_source(directory)
    assert run_warm(files, 2, *overrides(directory, "stages[0].train=null")) == (0, "")
    numbers = files.numbers()
    source_loss = numbers["large", "grow", 5, "grow/source_loss"]
    assert source_loss == pytest.approx(validation_loss(files, model), abs=1e-4)
    # `lossless-dense` starts at the source's loss; it was learned for some steps since.
    assert numbers["large", "learn", 1, "learn/loss"] < source_loss + 1
    grown = AutoModelForCausalLM.from_pretrained(files.run_dir / "export" / "large")
    assert (grown.config.activation_function, grown.config.vocab_size) == ("relu", SHAPE.vocab)


def test_a_model_that_is_trained_on_and_the_run_resumed(site: Site):
    files = site.config("trained", "two stages")
    directory = site.directory / "source-trained"
    model = save_source(directory)
    steps = overrides(directory, "evaluation.every_steps=1")
    assert run_warm(files, 2, *steps) == (0, "")
    numbers = files.numbers("loss")
    assert numbers["small", "train", 5, "evaluate/loss"] < validation_loss(files, model)
    resumed = files.copy("trained-again")
    for checkpoint in resumed.checkpoints()[1:]:
        shutil.rmtree(resumed.run_dir / "checkpoints" / checkpoint)
    shutil.rmtree(directory)
    assert run_warm(resumed, 2, *steps) == (0, "")
    assert resumed.numbers("loss") == pytest.approx(numbers, abs=1e-4)
    shutil.rmtree(resumed.run_dir / "checkpoints")
    code, said = run_warm(resumed, 2, *steps)
    assert code == 2
    assert "is not there any more, and the run has no checkpoint to go on from" in said


def test_another_model_in_its_place_is_refused(site: Site):
    files = site.config("replaced")
    directory = site.directory / "source-replaced"
    save_source(directory)
    short = [f"stages=[{{name: a, from: '{directory}', train: {{steps: 4}}}}]", "model.max_positions=null"]
    short += ["tokenizer.replace_source=true"]
    assert run_warm(files, 1, *short) == (0, "")
    shutil.rmtree(directory)
    save_source(directory, seed=1)
    before = files.contents()
    code, said = run_warm(files, 1, *short)
    assert code == 2
    assert "was made with another configuration:\n  source_fingerprint: '" in said
    assert files.contents() == before


def test_weights_that_do_not_fit_stop_all_ranks_with_one_message(site: Site):
    files = site.config("unfit", "two stages")
    directory = site.directory / "source-unfit"
    save_source(directory)
    (directory / "config.json").write_text(
        (directory / "config.json").read_text().replace('"n_layer": 2', '"n_layer": 3')
    )
    code, said = run_warm(files, 2, *overrides(directory, "stages[0].train=null"))
    assert code == 2
    assert (
        "are not those of a GPT2LMHeadModel with this configuration: config.json says 3 blocks, and the files have 2"
        in said
    )
