"""The section `liger`: which operations of the models Liger's Triton kernels take over."""

from __future__ import annotations

from ligo_dist.config.section import Section


class Liger(Section):
    """Fused kernels of the package liger-kernel (`pip install 'ligo_dist[liger]'`), on GPUs, for families that it has
    them for: llama, mistral, qwen2, qwen3. They compute the same with less memory and traffic, but for the last
    digits."""

    fused_linear_cross_entropy: bool = False
    """Output head and loss in one, without the logits, which for a large vocabulary are the largest tensor of a step.
    Where models are trained; operators are learned with the library's head."""
    rms_norm: bool = False
    """The normalisation layers."""
    swiglu: bool = False
    """The gated feed-forward blocks."""
    rope: bool = False
    """The rotary positions."""

    @property
    def kernels(self) -> tuple[str, ...]:
        """Those that are on."""
        return tuple(name for name in type(self).model_fields if getattr(self, name))
