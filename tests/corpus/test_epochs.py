"""How often a run goes through its corpus."""

from __future__ import annotations

from ligo_dist.corpus import epochs


def test_a_corpus_too_small_for_the_steps_is_told() -> None:
    assert epochs(150, 100) == "1.50 epochs"
    assert epochs(1600, 100) == "16 epochs"
    told = epochs(1700, 100)
    assert told.startswith("17 epochs, of which those after the first 16 teach little: ")
    assert "stages[].train.steps" in told
