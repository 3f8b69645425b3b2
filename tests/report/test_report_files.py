"""What a report writes: numbers that can be computed again from the metrics, and a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ligo_dist.report import Report, build_report, draw, show, write_report
from ligo_dist.runtime.errors import LigoError
from recorded_runs import GROWN, SCRATCH, SMALL, Leg, Recorder, shifted

FILES = ["report.json", "report.png"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """Two seeds of a case and of its baseline, and a run that does not come as far."""
    directory = tmp_path_factory.mktemp("runs")
    runs = [
        Recorder(directory / f"{name}-seed-{seed}", seed).record(*(shifted(leg, seed / 10) for leg in legs))
        for name, legs in (("grown", (SMALL, GROWN)), ("scratch", (SCRATCH,)))
        for seed in (0, 1)
    ]
    short = Leg("large", GROWN.points[:3], source_loss=5.0)
    runs.append(Recorder(directory / "<short> & odd", seed=2).record(Leg("tiny", SMALL.points), short))
    report = write_report(runs, runs[2], directory / "report")
    return report, directory / "report"


def test_the_json_file_has_the_numbers(made: tuple[Report, Path]) -> None:
    """Those that `recorded_runs` says of its stages; both seeds are alike but for their losses."""
    numbers = json.loads((made[1] / "report.json").read_text())
    assert [case["label"] for case in numbers["cases"]] == ["grown", "scratch", "<short> & odd"]
    assert numbers["baseline"] == "scratch"
    case, _, short = numbers["cases"]
    for side, part in (("excluded", 0.74), ("included", 0.64)):
        assert case["flops"][f"saved_{side}"] == pytest.approx(
            {"mean": part, "half_range": 0.0, "bound": False, "count": 2}, abs=1e-9
        )
    assert short["flops"] == dict.fromkeys(case["flops"]), "nothing is known without a baseline of its seed"
    for seed, run in enumerate(numbers["runs"][:2]):
        assert (run["label"], run["seed"], run["status"]) == (f"grown-seed-{seed}", str(seed), "FINISHED")
        assert run["source"]["own"]["flops"] == 10
        assert [point["flops"] for point in run["curve"]] == [6, 14, 22, 30]
        assert [point["loss"] for point in run["curve"]] == pytest.approx(
            [loss + seed / 10 for loss in (5.0, 4.6, 4.2, 3.8)]
        )
        comparison = run["comparison"]
        assert (comparison["baseline"], comparison["outcome"]) == (f"scratch-seed-{seed}", "reached")
        assert comparison["loss"] == pytest.approx(4.0 + seed / 10)
        assert comparison["needed"]["flops"] == pytest.approx(26)
        assert comparison["needed_in_all"]["flops"] == pytest.approx(36)
        assert comparison["flops"] == pytest.approx({"excluded": 0.74, "included": 0.64})
        assert (run["stages"][1]["growth"]["flops"], run["stages"][1]["growth_share"]) == (6, 6 / 40)


def shown(report: Report) -> str:
    text = io.StringIO()
    show(Console(file=text, width=100), report)
    return text.getvalue()


def test_the_terminal_shows_the_tables_within_100_columns(made: tuple[Report, Path]) -> None:
    text = shown(made[0])
    assert max(map(len, text.splitlines())) <= 100
    for words in (
        "grown, 2 seeds",
        "scratch (baseline), 2 seeds",
        "74.0 ± 0.0 %",
        "What growing itself cost",
        "74.0 ± 0.0 % fewer FLOPs (64.0 ± 0.0 % fewer) than scratch",
        "no saving is stated: it has no baseline of its seed, 2",
        "15.0 %",  # what growing cost: 6 of 40 FLOPs
    ):
        assert words in " ".join(text.split()), words
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["grown-seed-0", "large"])
    assert row[2:] == ["5.00K", "60", "30", "30", "1m", "30s", "5.000", "5.000", "3.800"]


def test_losses_and_notes_are_shown_without_a_baseline(tmp_path: Path) -> None:
    text = shown(build_report([Recorder(tmp_path / "run").record(SCRATCH)]))
    assert "note: No baseline was named" in text
    assert "Losses" in text


def test_what_is_not_known_is_left_out_of_the_picture(tmp_path: Path) -> None:
    """Each panel's lines of full width, by what is on its axis: one for each case that can be drawn there."""
    given = Leg("given", [(0, 5.0)])
    unknown = Recorder(tmp_path / "unknown").record(given, GROWN, begun_from=Path("nobody/knows"))
    old = Recorder(tmp_path / "old", has_seconds=False).record(SMALL, GROWN)
    longer = Leg("large", [*SCRATCH.points, (120, 3.9)])
    seeds = [
        Recorder(tmp_path / f"scratch-{seed}", seed).record(leg) for seed, leg in enumerate((SCRATCH, longer))
    ]
    figure = draw(build_report([unknown, old, *seeds], seeds[0]))
    drawn = [
        (axes.get_xlabel(), sum(line.get_linewidth() in (1.8, 2.3) for line in axes.lines))
        for axes in figure.axes
    ]
    time = "time in minutes"
    assert drawn == [("FLOPs", 3), ("FLOPs", 2), (time, 2), (time, 1)], "source excluded, then included"


def test_labels_lie_below_all_curves_and_single_points_are_seen(tmp_path: Path) -> None:
    slower = Leg("large", [(8, 4.9), (16, 4.8), (30, 4.1), (60, 3.7)], source_loss=5.0)
    cases = {"scratch": (SCRATCH,), "grown": (SMALL, GROWN), "slower": (SMALL, slower)}
    runs = [
        Recorder(tmp_path / name, parameters={"precision": name}).record(*legs)
        for name, legs in cases.items()
    ]
    runs.append(Recorder(tmp_path / "single").record(Leg("large", [(50, 4.6)])))
    figure = draw(build_report(runs, runs[0]))
    figure.draw_without_rendering()
    assert len(figure.axes) == 4
    for axes in figure.axes:
        labels = [text for text in axes.texts if text.get_text().endswith("%")]
        assert len(labels) == 2
        boxes = sorted((text.get_window_extent() for text in labels), key=lambda box: box.y0)
        lowest = min(
            axes.transData.transform((0, float(loss)))[1] for line in axes.lines for loss in line.get_ydata()
        )
        assert axes.bbox.y0 < boxes[0].y0 < boxes[0].y1 <= boxes[1].y0 + 1
        assert boxes[1].y1 < lowest
        single = [line for line in axes.lines if list(line.get_ydata()) == [4.6]]
        assert [(line.get_marker(), line.get_markevery()) for line in single] == [("o", [0])]


# --- where it goes ---


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    output = tmp_path / "deep" / "report"
    write_report([run], None, output)
    (output / "report.json").write_text("old")
    (output / "report.png.writing").write_text("left by a report that was killed")
    write_report([run], None, output)
    assert sorted(path.name for path in output.iterdir()) == FILES
    assert (output / "report.json").read_text() != "old"
    assert (output / "report.png").read_bytes().startswith(b"\x89PNG")


def test_other_things_are_left_alone(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    output = tmp_path / "report"
    output.mkdir()
    for name in ("a", "b", "c", "d", "report.json"):
        (output / name).write_text("mine")
    with pytest.raises(
        LigoError, match=r"--output: \S+ holds other things than a report \(a, b, c, \.\.\.\)"
    ):
        write_report([run], None, output)
    assert (output / "report.json").read_text() == "mine"
    with pytest.raises(LigoError, match=f"--output: {output}/a is a file; name a directory"):
        write_report([run], None, output / "a")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LigoError, match=r"--output: \S+ cannot be written: Not a directory"):
        write_report([run], None, tmp_path / "file" / "report")
