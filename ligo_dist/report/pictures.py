"""The pictures of a run: when each is drawn, where it is kept, and that none of them harms the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.engine import World
from ligo_dist.growth import Growth, OperatorValues
from ligo_dist.report.operator_numbers import OperatorNumbers
from ligo_dist.runtime.files import replace_bytes, replace_text
from ligo_dist.runtime.heartbeat import beating
from ligo_dist.tracking import METRICS_FILE, Tracker, read_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DIRECTORY = "pictures"
_LEAST_CHANGE = 0.1
"""Part of the largest coefficient that the colours of a change reach to at least."""


@dataclass(frozen=True)
class RunPictures:
    """Draws a run's pictures on the first rank, and gives them to the tracker as artifacts of the open stage.

    What goes wrong with a picture is told, and the run goes on without it. Matplotlib is loaded when the first one is
    drawn, and on the other ranks never.

    Attributes:
        run_dir: the run's directory; the pictures lie in `pictures/STAGE`.
        world: the ranks.
        tracker: takes the pictures.
        tell: takes messages for the user.
        enabled: draw at all.
    """

    run_dir: Path
    world: World
    tracker: Tracker
    tell: Callable[[str], None]
    enabled: bool = True

    def add_operator(
        self, stage: str, growth: Growth, start: OperatorValues, operator: OperatorValues
    ) -> None:
        """Show what learning has made of an operator. Collective: all ranks gather its values, the first one draws.

        Args:
            stage: the stage that it makes the model of.
            growth: the pair of models.
            start: the operator's first values.
            operator: its values now.
        """
        if not self.enabled:
            return
        numbers = OperatorNumbers(growth, start)
        goes_well = self.world.is_first
        for parameter in beating(growth.operator_parameters, "measuring the operator"):
            value = operator(parameter.name)
            goes_well = goes_well and self._try(stage, partial(numbers.add, parameter, value))
        if goes_well:
            self._try(stage, lambda: self._draw_operator(stage, numbers))

    def add_losses(self, stage: str) -> None:
        """Show how the run went up to the end of a stage."""
        if self.enabled and self.world.is_first:
            self._try(stage, lambda: self._draw_losses(stage))

    def _try(self, stage: str, action: Callable[[], None]) -> bool:
        """Do something that must not stop the run; whether it succeeded."""
        try:
            action()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.tell(f"pictures of {stage}: not all could be drawn, the run goes on ({reason})")
            return False
        return True

    def _draw_operator(self, stage: str, numbers: OperatorNumbers) -> None:
        from ligo_dist.report.run_figures import heat_maps, moved_figure

        path = self._path(stage, "operator.json")
        replace_text(path, json.dumps(numbers.to_dict(), allow_nan=False) + "\n")
        self._keep(path)
        for name, what, matrices in (
            ("depth", "depth coefficients", numbers.depth),
            ("new_depth", "depth coefficients of new units", numbers.new_depth),
        ):
            if not matrices:
                continue
            now = {role: matrix.now for role, matrix in matrices.items()}
            change = {role: matrix.now - matrix.start for role, matrix in matrices.items()}
            self._save(stage, f"{name}.png", heat_maps(f"{stage}: {what}", now, numbers.columns))
            title = f"{stage}: how learning changed the {what}"
            least = _LEAST_CHANGE * max(float(matrix.start.abs().max()) for matrix in matrices.values())
            self._save(stage, f"{name}_change.png", heat_maps(title, change, numbers.columns, least=least))
        if numbers.moved:
            title = f"{stage}: how far learning moved the width matrices"
            self._save(stage, "moved.png", moved_figure(title, numbers.moved))

    def _draw_losses(self, stage: str) -> None:
        from ligo_dist.report.run_figures import loss_figure

        figure = loss_figure(f"loss up to the end of {stage}", read_records(self.run_dir / METRICS_FILE))
        if figure is not None:
            self._save(stage, "loss.png", figure)

    def _save(self, stage: str, name: str, figure: Figure) -> None:
        from ligo_dist.report.drawing import png

        path = self._path(stage, name)
        replace_bytes(path, png(figure))
        self._keep(path)

    def _path(self, stage: str, name: str) -> Path:
        """Of a file; its directory is made."""
        path = self.run_dir / _DIRECTORY / stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _keep(self, path: Path) -> None:
        self.tracker.artifact(path, f"{_DIRECTORY}/{path.name}")
