"""What a run came to: a table of its stages, and where everything is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ligo_dist.runtime.files import SUMMARY_FILE, replace_text
from ligo_dist.runtime.quantities import count, duration, flops, loss, percent
from ligo_dist.runtime.redaction import redact
from ligo_dist.tracking import how_to_open


@dataclass(frozen=True)
class StageSummary:
    """One stage in numbers; losses are validation losses, None where there is none.

    Attributes:
        name: the stage.
        parameters: of its model.
        tokens: trained on, learning to grow included.
        flops, hardware_flops: spent, learning to grow included, without and with what was recomputed.
        source_loss: of the stage before, at its end; None for the first stage.
        grown_loss: right after growing.
        random_loss: of a model of the same size with random values.
        final_loss: at the stage's end.
        seconds: wall time.
        final_accuracy: part of the validation images that the model gets right at the end; None for text.
    """

    name: str
    parameters: int
    tokens: int
    flops: float
    source_loss: float | None
    grown_loss: float | None
    random_loss: float | None
    final_loss: float | None
    seconds: float
    final_accuracy: float | None = None
    hardware_flops: float = 0.0


@dataclass(frozen=True)
class SourceSummary:
    """One source of a mixture.

    Attributes:
        name: the source.
        samples: of it that the run was trained on, learning to grow included.
        epochs: how often it was gone through.
        final_loss: its validation loss at the run's end.
    """

    name: str
    samples: int
    epochs: float
    final_loss: float | None


@dataclass(frozen=True)
class Locations:
    """Where a run's results are.

    Attributes:
        export: Hugging Face directory of the final model.
        checkpoints: directory of the checkpoints.
        metrics: file of metrics.
        log: file of the lines shown while it ran.
        tracking_address: MLflow tracking URI, None if the run was not tracked there.
    """

    export: Path | None
    checkpoints: Path
    metrics: Path
    log: Path
    tracking_address: str | None = None


def show_summary(
    console: Console,
    stages: Sequence[StageSummary],
    locations: Locations,
    sources: Sequence[SourceSummary] = (),
) -> None:
    """Print the table of the stages, that of a mixture's sources, and where things are; fits 80 columns."""
    console.print(_table(stages))
    if sources:
        console.print(_source_table(sources))
    for label, place in _places(locations):
        console.print(Text.assemble((f"  {label:<12}", "dim"), place), soft_wrap=True, highlight=False)
    console.print()


def write_summary(
    run_dir: Path,
    stages: Sequence[StageSummary],
    locations: Locations,
    sources: Sequence[SourceSummary] = (),
) -> Path:
    """Write the same to `<run_dir>/summary.json`, atomically; losses that are not finite become strings."""
    places = {key: None if value is None else str(value) for key, value in asdict(locations).items()}
    if locations.tracking_address is not None:
        places["tracking_address"] = redact(locations.tracking_address)
    content: dict[str, Any] = {"stages": [_jsonable(asdict(stage)) for stage in stages], "locations": places}
    if sources:
        content["sources"] = [_jsonable(asdict(source)) for source in sources]
    file = run_dir / SUMMARY_FILE
    replace_text(file, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return file


def _table(stages: Sequence[StageSummary]) -> Table:
    grown = any(stage.source_loss is not None or stage.grown_loss is not None for stage in stages)
    classifies = any(stage.final_accuracy is not None for stage in stages)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_footer=len(stages) > 1,
        collapse_padding=True,
        header_style="dim",
        footer_style="dim",
    )
    number: dict[str, Any] = {"justify": "right", "no_wrap": True, "vertical": "bottom"}
    table.add_column("stage", "total", style="bold", overflow="fold")
    table.add_column("params", **number)
    table.add_column("tokens", count(sum(stage.tokens for stage in stages)), **number)
    table.add_column("FLOPs", flops(sum(stage.flops for stage in stages)), **number)
    if grown:
        table.add_column("loss of\nsource", **number)
        table.add_column("just\ngrown", style="bold", **number)
        table.add_column("random\ninit", style="dim", **number)
    table.add_column("final\nloss", style="bold", **number)
    if classifies:
        table.add_column("accu-\nracy", style="bold", **number)
    table.add_column("time", duration(sum(stage.seconds for stage in stages)), **number)
    for stage in stages:
        growth = [loss(stage.source_loss), loss(stage.grown_loss), loss(stage.random_loss)] if grown else []
        table.add_row(
            stage.name,
            count(stage.parameters),
            count(stage.tokens),
            flops(stage.flops),
            *growth,
            loss(stage.final_loss),
            *([percent(stage.final_accuracy)] if classifies else []),
            duration(stage.seconds),
        )
    return table


def _source_table(sources: Sequence[SourceSummary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, header_style="dim")
    table.add_column("source", style="bold", overflow="fold")
    for name in ("samples", "epochs", "final loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for source in sources:
        table.add_row(source.name, count(source.samples), f"{source.epochs:,.2f}", loss(source.final_loss))
    return table


def _places(locations: Locations) -> list[tuple[str, str]]:
    places = [] if locations.export is None else [("model", _short(locations.export))]
    places += [
        ("checkpoints", _short(locations.checkpoints)),
        ("metrics", _short(locations.metrics)),
        ("log", _short(locations.log)),
    ]
    if locations.tracking_address is not None:
        places.append(("MLflow", how_to_open(locations.tracking_address)))
    return places


def _short(path: Path) -> str:
    """A path as one types it here: relative if it is below the working directory."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _jsonable(row: dict[str, Any]) -> dict[str, Any]:
    def encode(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return {key: encode(value) for key, value in row.items()}
