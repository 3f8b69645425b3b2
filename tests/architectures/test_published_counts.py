"""Parameter counts from the tables against the numbers that the models' authors, or their checkpoints, publish."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ligo_dist.architectures import get_architecture
from ligo_dist.schedule import parameter_count

PUBLISHED: list[tuple[str, str, int, dict[str, Any]]] = [
    ("gpt2", "GPT-2", 124_439_808, {}),
    ("gpt2", "GPT-2 medium", 354_823_168, {"n_layer": 24, "n_embd": 1024, "n_head": 16}),
    ("opt", "OPT-125M", 125_239_296, {}),
    (
        "gpt_neox",
        "Pythia-70M",
        70_426_624,
        {
            "num_hidden_layers": 6,
            "hidden_size": 512,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "vocab_size": 50304,
        },
    ),
    (
        "gpt_neox",
        "Pythia-160M",
        162_322_944,
        {
            "num_hidden_layers": 12,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 50304,
        },
    ),
    ("llama", "Llama-2 7B", 6_738_415_616, {}),
    ("mistral", "Mistral 7B", 7_241_732_096, {}),
    (
        "qwen2",
        "Qwen2.5 0.5B",
        494_032_768,
        {
            "num_hidden_layers": 24,
            "hidden_size": 896,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": True,
        },
    ),
    (
        "qwen3",
        "Qwen3 0.6B",
        596_049_920,
        {
            "num_hidden_layers": 28,
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "intermediate_size": 3072,
            "tie_word_embeddings": True,
        },
    ),
    ("bert", "BERT-Base with its language model head", 109_514_298, {}),
    ("bert_encoder", "BERT-Base", 109_482_240, {}),
    (
        "roberta",
        "RoBERTa-Base with its language model head",
        124_697_433,
        {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    ("vit", "ViT-B/16, which is DeiT-B", 86_567_656, {"num_labels": 1000}),
    (
        "vit",
        "DeiT-S",
        22_050_664,
        {"num_labels": 1000, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    # The distillation token and its position; the second classifier of the published model is not in this class.
    ("deit", "DeiT-B with the distillation token", 86_567_656 + 2 * 768, {"num_labels": 1000}),
]


@pytest.mark.parametrize(
    ("family", "count", "keys"),
    [(family, count, keys) for family, _, count, keys in PUBLISHED],
    ids=[name for _, name, _, _ in PUBLISHED],
)
def test_the_table_counts_what_was_published(family: str, count: int, keys: dict[str, Any]):
    architecture = get_architecture(family)
    config = getattr(transformers, architecture.config_class)(**keys)
    assert parameter_count(architecture, architecture.shape_from(config.to_dict())) == count
    with torch.device("meta"):
        assert getattr(transformers, architecture.model_class)(config).num_parameters() == count
