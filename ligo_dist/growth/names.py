"""The names of the ways to grow. Kept apart from their code so that the launcher can check a name without torch."""

from __future__ import annotations

METHODS: dict[str, str] = {
    "ligo": "the learned linear growth operator of arXiv 2303.00980, started from the paper's initial values",
    "lossless": "the same operator, started where the target computes what the source computes",
}
