"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere and in the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.quantities import count, duration, loss, percent, size
from ligo_dist.runtime.redaction import redact

REFRESH_SECONDS = 0.25
BAR_WIDTHS = (8, 32)
"""Smallest and largest width of the bar."""


class Progress:
    """Shows the phases of a run as they go on; cheaply, and without raising when the console fails.

    Args:
        console: where it shows; a live line if that is a terminal, else plain lines.
        log_path: a file that always gets the plain lines; they are appended.
        enabled: whether to show and log anything; on rank 0 only.
        every_steps: steps between two plain lines.
        clock: seconds, for measuring time spans.

    Raises:
        LigoError: the log cannot be written.
    """

    def __init__(
        self,
        console: Console,
        log_path: Path,
        enabled: bool = True,
        every_steps: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.enabled, self.every_steps, self.clock = enabled, every_steps, clock
        self.live = enabled and console.is_terminal
        self._console = console
        self._lock = threading.RLock()
        self._log = None
        self._shown: Live | None = None
        self._whole_run: tuple[float, float] | None = None  # time and fraction ahead, when first told
        if not enabled:
            return
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log = log_path.open("a", encoding="utf-8")
        except OSError as error:
            raise LigoError(f"cannot write {log_path}: {error.strerror or error}") from error

    @contextmanager
    def phase(self, stage: str, phase: str, total_steps: int, start_step: int = 0) -> Iterator[PhaseProgress]:
        """Show a phase; steps count from 1 to `total_steps`, those up to `start_step` are done already."""
        shown = PhaseProgress(self, stage, phase, total_steps, start_step)
        with shown:
            yield shown

    def message(self, text: str) -> None:
        """Tell of an event: a stage began, a model was grown, a checkpoint was written. From any thread."""
        self.line(Text(redact(text)))

    def close(self) -> None:
        """Close the log, and give the terminal back, should a phase be on show."""
        if self._shown is not None:
            self.show(self._shown.stop)
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def line(self, text: Text, plain_only: bool = False) -> None:
        """Write a line with a time stamp to the log and the console; `plain_only`: not to a terminal."""
        if not self.enabled:
            return
        now = datetime.now()
        self._write_log(f"{now:%Y-%m-%d %H:%M:%S}  {text.plain}\n")
        if self.live and plain_only:
            return
        stamp = f"{now:%H:%M:%S}  " if self.live else f"{now:%Y-%m-%d %H:%M:%S}  "
        stamped = Text.assemble((stamp, "dim"), text)
        self.show(lambda: self._console.print(stamped, soft_wrap=not self.live, highlight=False))

    def show(self, action: Callable[[], object]) -> None:
        """Do something with the console; if it fails (a closed pipe), leave it alone from then on."""
        if not self.enabled:
            return
        try:
            action()
        except (OSError, ValueError, SystemExit):  # rich answers a closed pipe with SystemExit
            self.live = False
            self._console.quiet = True

    def live_line(self, renderable: RenderableType) -> Live:
        """A line at the bottom of the terminal that its owner refreshes."""
        self._shown = Live(renderable, console=self._console, auto_refresh=False, transient=True)
        return self._shown

    def run_seconds_left(self, fraction_ahead: float) -> float | None:
        """How long the run still takes at the pace since the first call; None until a hundredth was done."""
        now = self.clock()
        if self._whole_run is None:
            self._whole_run = (now, fraction_ahead)
        since, ahead_then = self._whole_run
        done = ahead_then - fraction_ahead
        return (now - since) * fraction_ahead / done if done >= 0.01 else None

    def _write_log(self, line: str) -> None:
        with self._lock:
            if self._log is None:
                return
            try:
                self._log.write(line)
                self._log.flush()
            except OSError:  # a full disk: whatever needs the disk more says so
                self._log = None


class PhaseProgress:
    """One phase on show; `Progress.phase` makes it."""

    def __init__(self, progress: Progress, stage: str, phase: str, total_steps: int, start_step: int) -> None:
        self._progress = progress
        self.stage, self.phase, self.total_steps = stage, phase, total_steps
        self.step = self._start_step = start_step
        self.loss: float | None = None
        self.validation_loss: float | None = None
        self.accuracy: float | None = None
        self.measured_at: int | None = None
        self.learning_rate: float | None = None
        self.gradient_norm: float | None = None
        self.tokens_per_second: float | None = None
        self.memory: float | None = None
        self.run_left: float | None = None
        self._began = self._refreshed = progress.clock()
        self._first: tuple[float, int] | None = None  # time and step: pace counts from there
        self._live: Live | None = None

    def __enter__(self) -> PhaseProgress:
        steps = f"  {self.total_steps} {'step' if self.total_steps == 1 else 'steps'}"
        resumed = f", resumed after step {self._start_step}" if self._start_step else ""
        self._progress.line(self.name() + Text(steps + resumed), plain_only=True)
        if self._progress.live:
            self._live = live = self._progress.live_line(_LiveLine(self))
            self._progress.show(lambda: live.start(refresh=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._progress.show(self._live.stop)
        end = "done" if kind is None else "stopped"
        parts = [
            f"{self.step}/{self.total_steps} {end}",
            *self._losses(),
            f"in {duration(self._progress.clock() - self._began)}",
        ]
        self._progress.line(self.name() + Text("  " + "  ".join(parts)))

    def update(
        self,
        step: int,
        loss: float | None = None,
        learning_rate: float | None = None,
        gradient_norm: float | None = None,
        tokens_per_second: float | None = None,
        memory: float | None = None,
        validation_loss: float | None = None,
        accuracy: float | None = None,
        remaining_fraction: float | None = None,
    ) -> None:
        """Show that a step is done. What is left out keeps its last value; a validation loss is shown with the step at
        which it was measured, and beside later ones with its number or not at all.

        Args:
            step: step of the phase, from 1 to its total.
            loss: training loss of the step.
            learning_rate: it was taken with.
            gradient_norm: before it is clipped.
            tokens_per_second: over all ranks.
            memory: bytes at the peak so far, on the rank that has the most.
            validation_loss: when it was just measured.
            accuracy: of classifiers, measured with it; 0 to 1.
            remaining_fraction: part of the whole run's work still ahead, 0 to 1, for the run's time left.
        """
        if not self._progress.enabled:
            return
        self.step = step
        self.loss = self.loss if loss is None else loss
        self.learning_rate = self.learning_rate if learning_rate is None else learning_rate
        self.gradient_norm = self.gradient_norm if gradient_norm is None else gradient_norm
        self.tokens_per_second = self.tokens_per_second if tokens_per_second is None else tokens_per_second
        self.memory = self.memory if memory is None else memory
        if validation_loss is not None:
            self.validation_loss, self.accuracy, self.measured_at = validation_loss, accuracy, step
        if remaining_fraction is not None:
            self.run_left = self._progress.run_seconds_left(remaining_fraction)
        now = self._progress.clock()
        self._first = self._first or (now, step)
        is_due = step % self._progress.every_steps == 0 or validation_loss is not None
        if is_due and step < self.total_steps:  # the phase's end has its own line
            self._progress.line(self._plain(), plain_only=True)
        if self._live is not None and now - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = now
            self._progress.show(self._live.refresh)

    def name(self) -> Text:
        """Stage and phase."""
        return Text.assemble((self.stage, "bold"), " ", (self.phase, "cyan"))

    def seconds_left(self) -> float | None:
        """How long the phase still takes at its mean pace, evaluations and checkpoints included.

        The first step, which is often slow, does not count; None until the second one.
        """
        if self._first is None or self.step <= self._first[1]:
            return None
        since, first_step = self._first
        return (self._progress.clock() - since) / (self.step - first_step) * (self.total_steps - self.step)

    def _losses(self) -> list[str]:
        """Of this step alone: an older validation loss would be read as that of the weights as they are."""
        losses = [] if self.loss is None else [f"loss {loss(self.loss)}"]
        if self.validation_loss is not None and self.measured_at == self.step:
            losses.append(f"validation {loss(self.validation_loss)}")
            losses += [] if self.accuracy is None else [f"accuracy {percent(self.accuracy)}"]
        return losses

    def _plain(self) -> Text:
        parts = [f"  {self.step:>{len(str(self.total_steps))}}/{self.total_steps}", *self._losses()]
        if self.learning_rate is not None:
            parts.append(f"lr {self.learning_rate:.2e}")
        if self.gradient_norm is not None:
            parts.append(f"grad norm {self.gradient_norm:.3g}")
        if self.tokens_per_second is not None:
            parts.append(f"{count(self.tokens_per_second)} tokens/s")
        if self.memory is not None:
            parts.append(size(self.memory))
        if (left := self.seconds_left()) is not None:
            parts.append(f"{duration(left)} left")
        if self.run_left is not None and self.run_left > 0:
            parts.append(f"run {duration(self.run_left)} left")
        return self.name() + Text("  ".join(parts))


class _LiveLine:
    """The live line: as much of it as the terminal is wide, what matters least left out first."""

    def __init__(self, phase: PhaseProgress) -> None:
        self._phase = phase

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        phase, parts = self._phase, self._parts()
        width = options.max_width - 1
        smallest, largest = BAR_WIDTHS
        for key in reversed(_PARTS):
            for_bar = smallest + 2 if key in _LESS_THAN_BAR else 0
            if key in parts and key not in ("name", "step") and _width(parts) + for_bar > width:
                del parts[key]
        room = min(largest, width - _width(parts) - 2)
        line = Table.grid(padding=(0, 2, 0, 0))
        cells: list[RenderableType] = [parts[key] for key in _ORDER if key in parts]
        if room >= smallest:
            bar = ProgressBar(
                phase.total_steps or 1, phase.step, width=room, complete_style="cyan", finished_style="cyan"
            )
            cells.insert(1, bar)
        for _ in cells:
            line.add_column(no_wrap=True, overflow="crop")
        line.add_row(*cells)
        yield line

    def _parts(self) -> dict[str, Text]:
        phase = self._phase
        parts = {"name": phase.name(), "step": Text(f"{phase.step}/{phase.total_steps}")}
        if phase.loss is not None:
            parts["loss"] = Text.assemble(("loss ", "dim"), (loss(phase.loss), "bold"))
        if phase.validation_loss is not None:
            older = "" if phase.measured_at == phase.step else f" at {phase.measured_at}"
            parts["validation"] = Text.assemble(
                ("val ", "dim"), (loss(phase.validation_loss), "bold"), (older, "dim")
            )
        if phase.accuracy is not None:
            parts["accuracy"] = Text.assemble(("acc ", "dim"), (percent(phase.accuracy), "bold"))
        if phase.tokens_per_second is not None:
            parts["speed"] = Text.assemble(count(phase.tokens_per_second), (" tok/s", "dim"))
        if phase.learning_rate is not None:
            parts["rate"] = Text.assemble(("lr ", "dim"), f"{phase.learning_rate:.1e}")
        if phase.gradient_norm is not None:
            parts["norm"] = Text.assemble(("norm ", "dim"), f"{phase.gradient_norm:.3g}")
        if phase.memory is not None:
            parts["memory"] = Text(size(phase.memory))
        if (left := phase.seconds_left()) is not None:
            parts["left"] = Text.assemble(duration(left), (" left", "dim"))
        if phase.run_left is not None:
            parts["run"] = Text.assemble(("run ", "dim"), duration(phase.run_left), (" left", "dim"))
        return parts


_PARTS = (
    *("name", "step", "loss", "left", "validation", "accuracy"),
    *("speed", "run", "memory", "rate", "norm"),
)
"""The parts of the live line, what matters most first."""
_LESS_THAN_BAR = _PARTS[_PARTS.index("validation") :]
"""Those that matter less than the bar does."""
_ORDER = (
    *("name", "step", "loss", "validation", "accuracy", "rate"),
    *("norm", "speed", "memory", "left", "run"),
)
"""The same from left to right."""


def _width(parts: dict[str, Text]) -> int:
    return sum(part.cell_len for part in parts.values()) + 2 * (len(parts) - 1)
