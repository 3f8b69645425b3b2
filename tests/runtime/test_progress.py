"""What is shown on a terminal, in a pipe and in the log; the clock is ours."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.progress import Progress

STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


class Stage:
    """A progress on a console of its own and a clock that is set by hand."""

    def __init__(
        self, tmp_path: Path, terminal: bool = False, width: int = 80, every_steps: int = 10
    ) -> None:
        self.now = 0.0
        self.shown = io.StringIO()
        self.log = tmp_path / "run.log"
        console = Console(file=self.shown, force_terminal=terminal, width=width)
        self.progress = Progress(console, self.log, every_steps=every_steps, clock=lambda: self.now)

    def lines(self) -> list[str]:
        """The lines of the log, which must be stamped, without their stamps."""
        lines = self.log.read_text().splitlines()
        assert all(STAMP.match(line) for line in lines)
        return [STAMP.sub("", line) for line in lines]

    def frames(self) -> list[str]:
        """What stood on the terminal, one after the other, without colours and empty lines."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown.getvalue())
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_plain_lines_come_every_n_steps_and_with_each_validation(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.progress.phase("large", "train", 30, start_step=8) as phase:
        for step in range(9, 31):
            stage.now += 2
            validation = 3.25 if step == 15 else None
            phase.update(step, loss=4 - step / 100, tokens_per_second=12345, validation_loss=validation)
    expected = [
        "large train  30 steps, resumed after step 8",
        "large train  10/30  loss 3.900  12.3K tokens/s  40s left",
        "large train  15/30  loss 3.850  validation 3.250  12.3K tokens/s  30s left",
        "large train  20/30  loss 3.800  12.3K tokens/s  20s left",
        "large train  30/30 done  loss 3.700  in 44s",
    ]
    assert stage.lines() == expected
    assert [STAMP.sub("", line) for line in stage.shown.getvalue().splitlines()] == expected


@pytest.mark.parametrize(
    ("evaluated", "ends"),
    [(6, "6/6 done  loss 2.000  validation 3.000  in 0s"), (5, "6/6 done  loss 2.000  in 0s")],
)
def test_a_phase_ends_with_the_validation_loss_of_its_last_step_alone(
    tmp_path: Path, evaluated: int, ends: str
) -> None:
    stage = Stage(tmp_path)
    with stage.progress.phase("large", "train", 6) as phase:
        for step in range(1, 7):
            phase.update(step, loss=2.0, validation_loss=3.0 if step == evaluated else None)
    assert stage.lines()[-1] == f"large train  {ends}"


def test_a_line_has_what_people_watch(tmp_path: Path) -> None:
    stage, live = Stage(tmp_path), Stage(tmp_path / "live", terminal=True, width=150)
    for each in (stage, live):
        with each.progress.phase("large", "train", 30) as phase:
            for step in range(1, 11):
                each.now += 1
                phase.update(step, 2.0, 3e-4, 0.8312, tokens_per_second=12345, memory=12.3e9)
    said = "large train  10/30  loss 2.000  lr 3.00e-04  grad norm 0.831  12.3K tokens/s  12.3 GB  20s left"
    assert said in stage.lines()
    shown = [re.sub("[━╸╺]+", "BAR", frame) for frame in live.frames()]
    assert (
        "large train  BAR  10/30  loss 2.000  lr 3.0e-04  norm 0.831  12.3K tok/s  12.3 GB  20s left" in shown
    )


def test_long_plain_lines_are_not_wrapped(tmp_path: Path) -> None:
    stage = Stage(tmp_path, width=20)
    stage.progress.message("exported [b]the model[/b] to " + "x" * 200)
    assert stage.lines() == ["exported [b]the model[/b] to " + "x" * 200]
    assert len(stage.shown.getvalue().splitlines()) == 1


def test_phase_that_fails_says_where(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    def fail() -> None:
        with stage.progress.phase("small", "learn", 5) as phase:
            phase.update(2, loss=float("nan"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert stage.lines()[-1] == "small learn  2/5 stopped  loss nan  in 0s"


def test_phase_without_steps(tmp_path: Path) -> None:
    stage = Stage(tmp_path, terminal=True)
    with stage.progress.phase("small", "grow", 0):
        pass
    assert stage.lines() == ["small grow  0 steps", "small grow  0/0 done  in 0s"]


def test_accuracy_is_shown_beside_the_validation_loss(tmp_path: Path) -> None:
    plain, live = Stage(tmp_path), Stage(tmp_path / "live", terminal=True)
    for stage in (plain, live):
        with stage.progress.phase("small", "train", 30) as phase:
            for step in range(1, 6):
                stage.now += 1
                measured = {"validation_loss": 1.5, "accuracy": 0.9312} if step == 4 else {}
                phase.update(step, loss=1.25, **measured)
    assert "small train   4/30  loss 1.250  validation 1.500  accuracy 93.1 %  26s left" in plain.lines()
    shown = [re.sub("[━╸╺]+", "BAR", frame) for frame in live.frames()]
    assert "small train  BAR  5/30  loss 1.250  val 1.500 at 4  acc 93.1 %  25s left" in shown


def test_time_left_leaves_out_the_first_step(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.progress.phase("small", "train", 10) as phase:
        assert phase.seconds_left() is None
        stage.now = 100
        phase.update(1)
        assert phase.seconds_left() is None
        stage.now = 103
        phase.update(2)
        assert phase.seconds_left() == 3 * 8
        stage.now = 109
        phase.update(4)
        assert phase.seconds_left() == 3 * 6


def test_time_left_for_the_run_goes_over_phases(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.progress.phase("small", "train", 10) as phase:
        phase.update(1, remaining_fraction=0.5)
        assert phase.run_left is None
        stage.now = 1
        phase.update(2, remaining_fraction=0.495)
        assert phase.run_left is None
    with stage.progress.phase("large", "train", 10) as phase:
        stage.now = 30
        phase.update(1, remaining_fraction=0.4)
        assert phase.run_left == pytest.approx(30 * 0.4 / 0.1)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (110, "large train  BAR  25/50  loss 3.250  val 3.500  12.3K tok/s  25s left  run 1m 15s left"),
        (80, "large train  BAR  25/50  loss 3.250  val 3.500  12.3K tok/s  25s left"),
        (60, "large train  BAR  25/50  loss 3.250  25s left"),
        (45, "large train  25/50  loss 3.250  25s left"),
        (24, "large train  25/50"),
    ],
)
def test_live_line_shows_what_there_is_room_for(tmp_path: Path, width: int, line: str) -> None:
    stage = Stage(tmp_path, terminal=True, width=width)
    with stage.progress.phase("large", "train", 50) as phase:
        for step in range(1, 26):
            stage.now += 1
            fraction = 1 - step / 100
            phase.update(
                step, loss=3.25, validation_loss=3.5, tokens_per_second=12345, remaining_fraction=fraction
            )
        last = stage.frames()[-1]
    assert re.sub("[━╸╺]+", "BAR", last) == line
    assert len(last) < width


def test_terminal_keeps_one_line_for_a_phase(tmp_path: Path) -> None:
    stage = Stage(tmp_path, terminal=True)
    with stage.progress.phase("large", "train", 20) as phase:
        for step in range(1, 21):
            stage.now += 1
            phase.update(step, loss=3.0)
        stage.progress.message("checkpoint written")
    kept = [frame[10:] for frame in stage.frames() if re.match(r"\d\d:\d\d:\d\d  ", frame)]
    assert kept == ["checkpoint written", "large train  20/20 done  loss 3.000  in 20s"]


def test_terminal_is_refreshed_four_times_a_second(tmp_path: Path) -> None:
    stage = Stage(tmp_path, terminal=True)
    with stage.progress.phase("large", "train", 10_000) as phase:
        before = len(stage.frames())
        for step in range(1, 1001):
            stage.now += 1 / 128  # a number that a binary clock counts exactly
            phase.update(step, loss=3.0)
        assert len(stage.frames()) - before == 1000 // 32


def test_log_is_appended(tmp_path: Path) -> None:
    for text in ("first", "second"):
        stage = Stage(tmp_path)
        stage.progress.message(text)
        stage.progress.close()
        stage.progress.message("after the end")
    assert stage.lines() == ["first", "second"]


def test_other_ranks_show_nothing(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = Progress(console, tmp_path / "run.log", enabled=False)
    with progress.phase("large", "train", 10) as phase:
        phase.update(10, loss=1.0)
    progress.message("hello")
    progress.close()
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    assert not (tmp_path / "run.log").exists()


def test_closing_in_a_phase_gives_the_terminal_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path, terminal=True)
    hide, show = "\x1b[?25l", "\x1b[?25h"  # the cursor
    with stage.progress.phase("large", "train", 10) as phase:
        stage.now += 1
        phase.update(1, loss=1.0)
        assert stage.shown.getvalue().rfind(hide) > stage.shown.getvalue().rfind(show)
        stage.progress.close()
        assert stage.shown.getvalue().rfind(show) > stage.shown.getvalue().rfind(hide)


def test_unwritable_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LigoError, match=r"cannot write .*file/run\.log"):
        Progress(Console(file=io.StringIO()), tmp_path / "file" / "run.log")


def test_pipe_that_closes_does_not_end_the_run(tmp_path: Path) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        from rich.console import Console
        from ligo_dist.runtime.progress import Progress
        progress = Progress(Console(), Path(sys.argv[1]), every_steps=1)
        with progress.phase("large", "train", 20_000) as phase:
            for step in range(1, 20_001):
                phase.update(step, loss=1.0)
        progress.close()
    """
    command = [sys.executable, "-c", script, str(tmp_path / "run.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    assert "20000/20000 done" in (tmp_path / "run.log").read_text().splitlines()[-1]
