"""The split is a matter of content alone."""

from __future__ import annotations

import pytest

from ligo_dist.corpus.order import is_validation


def test_the_fraction_is_about_right_and_smaller_sets_are_contained() -> None:
    documents = [f"document {number}".encode() for number in range(4000)]
    chosen = {f: {d for d in documents if is_validation(d, f)} for f in (0.0, 0.02, 0.5, 1.0)}
    assert not chosen[0.0]
    assert 40 < len(chosen[0.02]) < 130
    assert 1900 < len(chosen[0.5]) < 2100
    assert len(chosen[1.0]) == 4000
    assert chosen[0.02] < chosen[0.5]


@pytest.mark.parametrize(
    ("document", "side"), [(b"a", False), (b"layer", True), (b"\xff\x00", False), (b"head", True)]
)
def test_the_split_is_the_same_for_ever(document: bytes, side: bool) -> None:
    assert is_validation(document, 0.3) is side
