"""The lines are the records' own numbers, and what next to nothing changed does not look as if it had been changed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ligo_dist.growth import OperatorParameter
from ligo_dist.report import curves, growths, heat_maps, layer_ticks, loss_figure, moved_figure
from ligo_dist.tracking import Record


def record(stage: str, phase: str, tokens: int, **metrics: Any) -> Record:
    """FLOPs are a thousand times the tokens squared, so that the two axes differ."""
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    costs = {"cumulative/tokens": tokens, "cumulative/flops": 1000.0 * tokens**2}
    return {"stage": stage, "phase": phase, "step": tokens // 10, **named, **costs}


RECORDS = [
    record("small", "train", 10, train__loss=9.0, train__tokens_per_second=100.0),
    record("small", "train", 20, train__loss="NaN"),
    record("small", "train", 20, evaluate__loss=8.0),
    record("large", "learn", 30, learn__loss=7.0),
    record("large", "grow", 30, grow__seconds=0.5, evaluate__loss=6.5),
    record("large", "train", 40, train__loss=6.0),
    record("larger", "grow", 40, grow__seconds=0.5, evaluate__loss=5.5),
    record("larger", "train", 50, train__loss=5.0, other__number=1.0),
]


def test_a_curve_has_the_points_of_its_stages_whose_place_is_known():
    training = curves(RECORDS, "train/loss", "cumulative/tokens")
    assert list(training) == ["small", "large", "larger"]
    assert training["large"] == ([40], [6.0])
    across, along = training["small"]
    assert (across, along[0], math.isnan(along[1])) == ([10, 20], 9.0, True)
    bare = {key: value for key, value in RECORDS[4].items() if key != "cumulative/tokens"}
    assert curves([bare], "evaluate/loss", "cumulative/tokens") == {}
    assert growths([RECORDS[6], bare], "cumulative/tokens") == {"larger": 40}


def test_losses_and_growths_against_tokens_and_flops():
    figure = loss_figure("", RECORDS)
    assert figure is not None
    for panel, place in zip(
        figure.axes, (lambda tokens: tokens, lambda tokens: 1000.0 * tokens**2), strict=True
    ):
        lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()]
        for tokens, loss in ((30, 7.0), (30, 6.5), (40, 5.5), (50, 5.0)):
            assert ([place(tokens)], [loss]) in lines
        dashed = [line.get_xdata()[0] for line in panel.get_lines() if line.get_linestyle() == "--"]
        assert dashed == [place(30), place(40)]
        named = [(text.get_text(), text.xy[0]) for text in panel.texts]
        assert named == [("large", place(30)), ("larger", place(40))]
        assert all(text.xy[1] > 1 for text in panel.texts), "above the panel they cover no curve"
    assert len(figure.legends[0].get_texts()) == 3, "one name for each loss, not one for each stage"


@pytest.mark.parametrize(
    ("losses", "marked"),
    [([5.0], [0]), ([5.0, 4.0], []), ([5.0, "NaN", 4.0, 3.0, "NaN", 2.0], [0, 5]), (["NaN"], [0])],
)
def test_a_point_without_a_neighbour_is_seen(losses: list[Any], marked: list[int]):
    figure = loss_figure("", [record("a", "train", n, train__loss=loss) for n, loss in enumerate(losses)])
    assert figure is not None
    for panel in figure.axes:
        (line,) = panel.get_lines()
        assert (line.get_marker(), line.get_markevery()) == ("o", marked)


def test_models_that_predict_nothing_have_no_loss_to_draw():
    assert loss_figure("", [record("small", "train", 0, memory__held_bytes=1.0)]) is None
    assert loss_figure("", []) is None


@pytest.mark.parametrize(("layers", "ticks"), [(0, []), (1, [0]), (8, list(range(8))), (9, [0, 2, 4, 6, 8])])
def test_all_of_a_few_layers_are_numbered(layers: int, ticks: list[int]):
    assert list(layer_ticks(layers)) == ticks


@pytest.mark.parametrize(
    ("largest", "least", "reaches"), [(6e-4, 0.1, 0.1), (0.3, 0.1, 0.3), (6e-4, 0.0, 6e-4), (0.0, 0.0, 1.0)]
)
def test_colours_reach_to_what_would_be_much(largest: float, least: float, reaches: float):
    matrices = {"a": torch.tensor([[0.0, -largest]]), "b": torch.tensor([[largest / 2, 0.0]])}
    figure = heat_maps("a title", matrices, ["0", "1"], least=least)
    for panel in figure.axes[:2]:
        (image,) = panel.images
        assert (image.norm.vmin, image.norm.vmax) == pytest.approx((-reaches, reaches))


def test_every_role_has_a_panel_whose_columns_are_named_below():
    """Six roles in two rows: the four columns of layers are numbered under the last panel of each."""
    matrices = {str(role): torch.eye(3, 5) for role in range(6)}
    *panels, _bar = heat_maps("a title", matrices, ["0", "1", "fresh 0", "fresh 1", "unit"]).axes
    assert [panel.get_title() for panel in panels] == list(matrices)
    for index, panel in enumerate(panels):
        labels = [text.get_text() for text in panel.get_xticklabels() if text.get_visible()]
        assert labels == ([] if index < 2 else ["0", "1", "fresh 0", "unit"]), index


@pytest.mark.parametrize(("moved", "top"), [(6e-6, 0.01), (0.0, 0.01), (0.2, 0.21)])
def test_distances_are_seen_beside_one_percent(moved: float, top: float):
    own = OperatorParameter("layers.0.query.out", (1, 1), "query", "out", 0)
    shared = OperatorParameter("hidden.out", (1, 1), "hidden", "out", None)
    (axes,) = moved_figure("a title", {own: moved, shared: moved / 2}).axes
    assert axes.get_ylim() == (0, pytest.approx(top))
    assert [list(line.get_ydata()) for line in axes.lines] == [[moved], [moved / 2] * 2]
    assert [line.get_label() for line in axes.lines] == ["query.out", "hidden.out, all layers"]
