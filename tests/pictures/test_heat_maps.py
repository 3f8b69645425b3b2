"""What next to nothing moved does not look as if it had."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ligo_dist.pictures.heat_maps import heat_maps, moved_figure


@pytest.mark.parametrize(
    ("largest", "least", "reaches"), [(6e-4, 0.1, 0.1), (0.3, 0.1, 0.3), (6e-4, 0.0, 6e-4), (0.0, 0.0, 1.0)]
)
def test_colours_reach_to_what_would_be_much(largest: float, least: float, reaches: float) -> None:
    matrices = {"a": np.array([[0.0, -largest]]), "b": np.array([[largest / 2, 0.0]])}
    figure = heat_maps("a title", matrices, ["0", "1"], least=least)
    for panel in figure.axes[:2]:
        (image,) = panel.images
        assert (image.norm.vmin, image.norm.vmax) == (-reaches, reaches)


@pytest.mark.parametrize(("moved", "top"), [(6e-6, 0.01), (0.0, 0.01), (0.2, 0.21)])
def test_distances_are_seen_beside_one_percent(moved: float, top: float) -> None:
    matrix: Any = SimpleNamespace(parameter=SimpleNamespace(layer=0), kind="query.out", moved=moved)
    figure = moved_figure("a title", [matrix])
    assert figure.axes[0].get_ylim() == (0, pytest.approx(top))
