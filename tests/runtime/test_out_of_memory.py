"""What is said where memory has run out."""

from __future__ import annotations

import pytest
import torch

from ligo_dist.runtime import heartbeat
from ligo_dist.runtime.console import tell_failure
from ligo_dist.runtime.out_of_memory import is_out_of_memory, memory_advice


def of_the_processor() -> BaseException:
    """What torch raises where it is asked for more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


def test_errors_of_memory_are_known() -> None:
    assert is_out_of_memory(of_the_processor())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    outer = ValueError("a step failed")
    outer.__cause__ = MemoryError()
    assert is_out_of_memory(outer)
    assert not is_out_of_memory(RuntimeError("a shape is wrong"))


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("small train step 7", "micro_batch_size, or activation_checkpointing: true, in the stage's train;"),
        ("large learn step 7", "in the stage's grow.learn;"),
        ("large train evaluating", "a smaller evaluation.micro_batch_size, or a smaller micro_batch_size"),
    ],
)
def test_the_keys_are_those_of_the_phase(where: str, keys: str) -> None:
    assert keys in memory_advice(where)


def test_a_rank_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    heartbeat.enter("large learn")
    for error, says in ((of_the_processor(), True), (RuntimeError("a shape is wrong"), False)):
        try:
            raise error
        except RuntimeError:
            tell_failure()
        *_, advice, last = capsys.readouterr().err.splitlines()
        assert ("[rank 0] memory has run out." in advice) == says
        assert "failed on" in last
