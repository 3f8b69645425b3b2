"""The lines of the curves are the records' own numbers, and growths are marked where they happened."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from ligo_dist.pictures.curves import cumulative, curve, growths, layer_ticks, loss_figure, save
from ligo_dist.tracking.record import Record


def record(minute: float, stage: str, phase: str, step: int, tokens: int, **metrics: Any) -> Record:
    """FLOPs are a thousand times the tokens squared, so that the two axes differ."""
    seconds = round(minute * 60)
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {
        "time": f"2025-01-31T12:{seconds // 60:02d}:{seconds % 60:02d}.000+00:00",
        "stage": stage,
        "phase": phase,
        "step": step,
        **named,
        "cumulative/tokens": tokens,
        "cumulative/flops": 1000.0 * tokens**2,
    }


RECORDS = [
    record(0, "small", "train", 1, 10, train__loss=9.0, train__tokens_per_second=100.0),
    record(1, "small", "train", 2, 20, train__loss="NaN", train__tokens_per_second=110.0),
    record(1, "small", "train", 2, 20, evaluate__loss=8.0),
    record(2, "large", "learn", 3, 30, learn__loss=7.0, learn__tokens_per_second=40.0),
    record(3, "large", "grow", 3, 30, grow__seconds=0.5, evaluate__loss=6.5),
    record(4, "large", "train", 4, 40, train__loss=6.0, train__tokens_per_second=50.0),
    record(5, "larger", "grow", 4, 40, grow__seconds=0.5, evaluate__loss=5.5),
    record(6, "larger", "train", 5, 50, train__loss=5.0, train__tokens_per_second=20.0),
    {**record(6, "larger", "train", 5, 50, other__number=1.0), "cumulative/tokens": 50},
]


def lines(panel: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()]


def test_a_curve_has_the_points_of_its_stages():
    training = curve(RECORDS, "train/loss", cumulative("cumulative/tokens"))
    assert list(training) == ["small", "large", "larger"]
    assert training["large"] == ([40], [6.0])
    across, along = training["small"]
    assert across == [10, 20] and along[0] == 9.0 and math.isnan(along[1])  # noqa: PT018


def test_a_record_without_a_place_is_left_out():
    bare = {key: value for key, value in RECORDS[0].items() if key != "cumulative/tokens"}
    assert curve([bare], "train/loss", cumulative("cumulative/tokens")) == {}
    assert growths([{**RECORDS[4], "cumulative/tokens": 7}, bare], cumulative("cumulative/tokens")) == {
        "large": 7
    }


def test_growths_are_marked_where_they_happened():
    figure = loss_figure("", RECORDS)
    assert figure is not None
    by_tokens, by_flops = figure.axes
    for panel, places in ((by_tokens, [30, 40]), (by_flops, [1000.0 * 30**2, 1000.0 * 40**2])):
        dashed = [line.get_xdata()[0] for line in panel.get_lines() if line.get_linestyle() == "--"]
        assert dashed == places
        named = [(text.get_text(), text.get_position()[0]) for text in panel.texts]
        assert named == list(zip(["large", "larger"], places, strict=True))
        assert all(text.get_position()[1] > 1 for text in panel.texts), "above the panel they cover no curve"


@pytest.mark.parametrize(
    ("losses", "marked"),
    [([5.0], [0]), ([5.0, 4.0], []), ([5.0, "NaN", 4.0, 3.0, "NaN", 2.0], [0, 5]), (["NaN"], [0])],
)
def test_a_point_without_a_neighbour_is_seen(losses: list[Any], marked: list[int]):
    figure = loss_figure(
        "", [record(0, "a", "train", n, n, train__loss=loss) for n, loss in enumerate(losses)]
    )
    assert figure is not None
    for panel in figure.axes:
        (line,) = panel.get_lines()
        assert (line.get_marker(), line.get_markevery()) == (".", marked)


def test_losses_against_tokens_and_flops():
    figure = loss_figure("", RECORDS)
    assert figure is not None
    by_tokens, by_flops = figure.axes
    assert ([30.0], [7.0]) in lines(by_tokens)
    assert ([30], [6.5]) in lines(by_tokens)
    assert ([40], [5.5]) in lines(by_tokens)
    assert ([1000.0 * 50**2], [5.0]) in lines(by_flops)
    assert len(figure.legends[0].get_texts()) == 3, "one name for each loss, not one for each stage"


def test_models_that_predict_nothing_have_no_loss_to_draw():
    silent = [record(0, "small", "train", 0, 0, **{"memory__held_bytes": 1.0})]
    assert loss_figure("", silent) is None
    assert loss_figure("", []) is None


def test_a_picture_is_a_png_of_the_size_asked_for(tmp_path: Path):
    figure = loss_figure("a title", RECORDS)
    assert figure is not None
    save(figure, tmp_path / "new" / "loss.png")
    with Image.open(tmp_path / "new" / "loss.png") as picture:
        picture.verify()
        assert (picture.format, picture.size) == ("PNG", (1000, 420))


@pytest.mark.parametrize(("layers", "ticks"), [(0, []), (1, [0]), (8, list(range(8))), (9, [0, 2, 4, 6, 8])])
def test_all_of_a_few_layers_are_numbered(layers: int, ticks: list[int]):
    assert list(layer_ticks(layers)) == ticks
