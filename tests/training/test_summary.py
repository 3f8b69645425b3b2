from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ligo_dist.training import Locations, SourceSummary, StageSummary, show_summary, write_summary

STAGES = [
    StageSummary("small", 1_110_000, 5_000_000, 3.2e13, None, None, 8.36, 3.101, 72.3),
    StageSummary("gpt2-medium-with-a-long-name", 2_400_000, 5_000_000, 8.2e13, 3.101, 3.12, 8.36, 2.81, 123),
    StageSummary("large", 774_000_000, 12_800_000, 2.2e18, 2.81, 12.83, math.nan, 2.612, 38000),
]


def places(base: Path) -> Locations:
    return Locations(
        base / "export",
        base / "checkpoints",
        base / "metrics.jsonl",
        base / "run.log",
        "sqlite:////x/mlflow.db",
    )


def show(stages: list[StageSummary], locations: Locations, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_summary(console, stages, locations)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 100])
def test_table_shows_every_number(tmp_path: Path, width: int) -> None:
    lines = show(STAGES, places(tmp_path), width)
    table = [line for line in lines if str(tmp_path) not in line and "sqlite" not in line]
    assert max(map(len, table)) <= width
    cells = [line.split() for line in table]
    assert ["small", "1.11M", "5.00M", "32.0T", "-", "-", "8.360", "3.101", "1m", "12s"] in cells
    assert ["large", "774M", "12.8M", "2.20E", "2.810", "12.830", "nan", "2.612", "10h", "33m"] in cells
    assert ["total", "22.8M", "2.20E", "10h", "36m"] in cells


def test_single_stage_has_no_columns_for_growth(tmp_path: Path) -> None:
    text = "\n".join(show(STAGES[:1], places(tmp_path), 80))
    assert "grown" not in text
    assert "total" not in text
    assert "3.101" in text


def test_accuracy_has_a_column_for_image_models_alone(tmp_path: Path) -> None:
    stages = [replace(STAGES[0], final_accuracy=0.8764), *STAGES[1:]]
    lines = show(stages, places(tmp_path), 100)
    table = [line for line in lines if str(tmp_path) not in line]
    assert ["small", "1.11M", "5.00M", "32.0T", "-", "-", "8.360", "3.101", "87.6", "%", "1m", "12s"] in [
        line.split() for line in table
    ]
    assert "accu-" in "\n".join(table)
    assert "accu-" not in "\n".join(show(STAGES, places(tmp_path), 100))


def test_places_can_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line.split(maxsplit=1) for line in show(STAGES, places(tmp_path / ("x" * 90)), 80)]
    assert ["model", "x" * 90 + "/export"] in lines
    assert ["checkpoints", "x" * 90 + "/checkpoints"] in lines
    assert ["metrics", "x" * 90 + "/metrics.jsonl"] in lines
    assert ["MLflow", "mlflow ui --backend-store-uri sqlite:////x/mlflow.db"] in lines


def test_a_mixture_has_a_table_of_its_sources(tmp_path: Path) -> None:
    sources = [SourceSummary("web", 1_234_567, 1.25, 3.1), SourceSummary("code", 800, 0.004, None)]
    console = Console(file=io.StringIO(), width=80)
    show_summary(console, STAGES, places(tmp_path), sources)
    cells = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["web", "1.23M", "1.25", "3.100"] in cells
    assert ["code", "800", "0.00", "-"] in cells
    written = json.loads(write_summary(tmp_path, STAGES, places(tmp_path), sources).read_text())
    assert written["sources"][0] == {"name": "web", "samples": 1_234_567, "epochs": 1.25, "final_loss": 3.1}
    assert "sources" not in json.loads(write_summary(tmp_path, STAGES, places(tmp_path)).read_text())


def test_what_is_not_there_is_not_shown(tmp_path: Path) -> None:
    locations = Locations(None, tmp_path / "c", tmp_path / "m", tmp_path / "l")
    text = "\n".join(show(STAGES, locations, 80))
    assert "MLflow" not in text
    assert "model" not in text


def test_file_has_the_same_numbers(tmp_path: Path) -> None:
    locations = Locations(None, tmp_path / "c", tmp_path / "m", tmp_path / "l", "http://me:secret@server")
    content = json.loads(write_summary(tmp_path, STAGES, locations).read_text())
    assert (tmp_path / "summary.json").exists()
    assert StageSummary(**content["stages"][1]) == STAGES[1]
    assert content["stages"][2]["random_loss"] == "nan"
    assert content["locations"] == {
        "export": None,
        "checkpoints": str(tmp_path / "c"),
        "metrics": str(tmp_path / "m"),
        "log": str(tmp_path / "l"),
        "tracking_address": "http://***@server",
    }
