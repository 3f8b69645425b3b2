"""Who says what when a rank ends before its time."""

from __future__ import annotations

import pickle
import socket

import pytest

from ligo_dist.engine import World, first_rank_only, raise_together
from ligo_dist.runtime import heartbeat, watchdog
from ligo_dist.runtime.console import tell, tell_error, tell_failure
from ligo_dist.runtime.errors import (
    ArchitectureError,
    CheckpointError,
    ConfigError,
    DataError,
    Fault,
    NonFiniteLossError,
)
from ranks import run_ranks

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("rank", "told_by", "said"),
    [
        (0, None, "ligo-dist: no file\n"),
        (2, None, f"ligo-dist: rank 2 on {HOST}: no file\n"),
        (0, 0, "ligo-dist: no file\n"),
        (2, 0, ""),
        (0, 2, ""),
        (2, 2, f"ligo-dist: rank 2 on {HOST}: no file\n"),
    ],
)
def test_an_error_that_all_raise_is_told_by_one(
    rank: int,
    told_by: int | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("RANK", str(rank))
    error = DataError("no file")
    error.told_by = told_by
    tell_error(error)
    assert capsys.readouterr().err == said


def test_what_all_ranks_meet_alike_is_told_by_the_first():
    for error in (ArchitectureError("no"), NonFiniteLossError("no")):
        assert error.told_by == 0
    assert CheckpointError("no").told_by is None


def told_by(world: World) -> list[tuple[str, int | None]]:
    """What each rank raises where one, all, or the first one fails."""

    def fail() -> None:
        raise CheckpointError("full")

    told = []
    for attempt in (
        lambda: raise_together(CheckpointError("mine") if world.rank else None, world),
        lambda: raise_together(ConfigError([Fault("seed", "is odd")]), world),
        lambda: first_rank_only(fail, world),
        lambda: raise_together(PermissionError("not mine") if world.rank else None, world),
    ):
        with pytest.raises((CheckpointError, ConfigError, PermissionError)) as caught:
            attempt()
        told.append((str(caught.value), getattr(caught.value, "told_by", None)))
    return told


def test_an_error_that_is_shared_is_told_by_the_rank_that_had_it():
    assert (
        run_ranks(told_by, 2)
        == [[("mine", 1), ("configuration: 1 fault\n  seed: is odd", 0), ("full", 0), ("not mine", 1)]] * 2
    )


def test_the_faults_of_a_configuration_survive_the_way_to_another_rank():
    error = ConfigError([Fault("seed", "1.5 should be a whole number"), Fault("x", "unknown key")], "a.yaml")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.faults) == (str(error), error.faults)


def test_a_failure_names_rank_host_and_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(heartbeat, "_HEART", heartbeat._Heart())
    heartbeat.enter("medium learn")
    heartbeat.beat("step 17")
    try:
        raise KeyError("wte")
    except KeyError:
        tell_failure()
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("[rank 3] ") for line in lines)
    assert lines[0] == "[rank 3] Traceback (most recent call last):"
    assert lines[-2:] == ["[rank 3] KeyError: 'wte'", f"[rank 3] failed on {HOST} at: medium learn step 17"]


def test_the_watchdog_is_told_what_is_said_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    told: list[str] = []
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setattr(watchdog, "tell", lambda said: told.append(said))
    tell("with hf_abcdef no file")
    try:
        raise KeyError("hf_abcdef")
    except KeyError:
        tell_failure()
    assert told[0] == f"ligo-dist: rank 3 on {HOST}: with *** no file"
    assert "[rank 3] KeyError: '***'" in told[1].splitlines()
    assert "".join(f"{said}\n" for said in told) == capsys.readouterr().err
