"""What is said where memory has run out: which keys of the configuration take less of it."""

from __future__ import annotations

_WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "failed to allocate")
"""Of torch on accelerators, of torch on processors, of the system, of accelerators' libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that memory has run out, of an accelerator or of the
    machine."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError) or any(words in str(found) for words in _WORDS):
            return True
        found = found.__cause__
    return False


def memory_advice(where: str) -> str:
    """What to do where memory has run out, the likeliest first.

    Args:
        where: what the rank was at: stage, phase and step, as `heartbeat.where` has it.
    """
    phase = "grow.learn" if " learn" in where else "train"
    keys = f"a smaller micro_batch_size, or activation_checkpointing: true, in the stage's {phase}"
    if "evaluat" in where:
        keys = f"a smaller evaluation.micro_batch_size, or {keys}"
    return (
        f"memory has run out. What takes less, at the same numbers: {keys}; more ranks; or"
        " deepspeed.zero_optimization.offload_optimizer: {device: cpu}. `ligo-dist plan` says how much each phase takes"
    )
