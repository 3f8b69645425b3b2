"""The sizes of a target of which only some are said."""

from __future__ import annotations

import pytest

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.growth import target_shape
from ligo_dist.runtime.errors import ArchitectureError

GPT2 = ModelShape(2, 24, 3, 3, 96, tied=True, vocab=100, positions=32)
LLAMA = ModelShape(2, 48, 6, 2, 100, tied=False, vocab=100, positions=32)
"""An inner width of its own, and three heads to a key/value head."""


@pytest.mark.parametrize(
    ("family", "source", "said", "wanted"),
    [
        ("gpt2", GPT2, {}, (2, 24, 3, 3, 96)),
        ("gpt2", GPT2, {"layers": 5}, (5, 24, 3, 3, 96)),
        ("gpt2", GPT2, {"width": 40}, (2, 40, 5, 5, 160)),
        ("gpt2", GPT2, {"heads": 6}, (2, 48, 6, 6, 192)),
        ("gpt2", GPT2, {"width": 40, "ffn": 201}, (2, 40, 5, 5, 201)),
        ("llama", LLAMA, {"width": 96}, (2, 96, 12, 4, 200)),
        ("llama", LLAMA, {"width": 72}, (2, 72, 9, 3, 150)),
        ("llama", LLAMA, {"layers": 7, "width": 64, "key_value_heads": 4}, (7, 64, 8, 4, 134)),
    ],
)
def test_what_is_not_said_follows(
    family: str, source: ModelShape, said: dict[str, int], wanted: tuple[int, ...]
):
    made = target_shape(get_architecture(family), source, **said)
    assert (made.layers, made.width, made.heads, made.key_value_heads, made.ffn) == wanted
    assert (made.head_size, made.vocab, made.tied) == (source.head_size, source.vocab, source.tied)


@pytest.mark.parametrize(
    ("family", "source", "said", "wrong"),
    [
        ("gpt2", GPT2, {"width": 41}, "width: 41 leaves no whole number of heads.* 40 or 48 would be right"),
        ("gpt2", GPT2, {"width": 4}, "width: 4 leaves .*; 8 would be right"),
        ("gpt2", GPT2, {"width": 40, "heads": 4}, "heads: 4 of 8, .* do not make the width 40; 32 would be"),
        ("llama", LLAMA, {"width": 56}, "heads: 7 leaves no whole number of key_value_heads.* 6 or 9 would"),
    ],
)
def test_what_does_not_fit_is_told(family: str, source: ModelShape, said: dict[str, int], wrong: str):
    with pytest.raises(ArchitectureError, match=wrong):
        target_shape(get_architecture(family), source, **said)
