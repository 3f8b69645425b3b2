"""Which runs are seeds of one case, what they are called, and which cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ligo_dist.report.report import build_report
from ligo_dist.runtime.errors import LigoError
from recorded_runs import GROWN, SCRATCH, SMALL, Leg, Recorder


def groups(*runs: str) -> dict[str, list[str]]:
    """Labels of groups, and of their runs."""
    return {case.label: list(case.runs) for case in build_report(runs).cases}


def test_runs_that_differ_by_where_they_are_and_how_they_are_watched_are_one_case(tmp_path: Path) -> None:
    runs = [
        Recorder(
            tmp_path / f"seed-{seed}" / "ligo",
            seed=seed,
            parameters={"tracking": {"run_name": str(seed)}, "data": {"cache_dir": str(seed), "files": "a"}},
        ).record(SMALL, GROWN)
        for seed in range(3)
    ]
    assert groups(*runs) == {"ligo": ["seed-0/ligo", "seed-1/ligo", "seed-2/ligo"]}


@pytest.mark.parametrize("parameters", [{"precision": "bf16"}, {"data": {"random_shift": 2}}])
def test_other_differences_make_two_cases(tmp_path: Path, parameters: dict[str, Any]) -> None:
    first = Recorder(tmp_path / "a").record(SCRATCH)
    second = Recorder(tmp_path / "b", seed=1, parameters=parameters).record(SCRATCH)
    assert groups(first, second) == {"a": ["a"], "b": ["b"]}


@pytest.mark.parametrize(
    "different",
    [
        {"tags": {"world_size": "2"}},
        {"parameters": {"evaluation": {"micro_batch_size": 4}}},
        {"parameters": {"defaults": {"train": {"activation_checkpointing": True}}}},
    ],
)
def test_how_batches_are_computed_is_no_difference_between_seeds(
    tmp_path: Path, different: dict[str, Any]
) -> None:
    """Unless a seed is there in both ways: then they are what is compared."""
    first = Recorder(tmp_path / "run-0").record(SCRATCH)
    second = Recorder(tmp_path / "run-1", seed=1, **different).record(SCRATCH)
    assert groups(first, second) == {"run": ["run-0", "run-1"]}
    again = Recorder(tmp_path / "other", seed=0, **different).record(SCRATCH)
    assert sorted(groups(first, again)) == ["other", "run-0"]


def test_sources_that_differ_by_their_seed_are_no_difference(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        maker = Recorder(tmp_path / f"source-{seed}", seed=seed)
        maker.record(SMALL)
        recorder = Recorder(tmp_path / f"grown-{seed}", seed=seed)
        given = Leg("given", [(0, 5.0)])
        runs.append(recorder.record(given, GROWN, begun_from=maker.directory / "export" / "small"))
    assert groups(*runs) == {"grown": ["grown-0", "grown-1"]}
    other = Recorder(tmp_path / "source-2", seed=2, parameters={"precision": "bf16"})
    other.record(SMALL)
    odd = Recorder(tmp_path / "grown-2", seed=2)
    odd.record(given, GROWN, begun_from=other.directory / "export" / "small")
    assert len(groups(*runs, str(odd.directory))) == 2


def test_groups_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [
        Recorder(tmp_path / f"seed-{seed}" / precision / "ligo", seed, {"precision": precision}).record(
            SCRATCH
        )
        for precision in ("fp32", "bf16")
        for seed in (0, 1)
    ]
    assert list(groups(*runs)) == ["ligo", "ligo (2)"]


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    report = build_report([run, f"{run}/", str(tmp_path / "x" / ".." / "run")], f"{run}/")
    assert [member.label for member in report.members] == ["run"]


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    first, second = (Recorder(tmp_path / name).record(SCRATCH) for name in ("a", "b"))
    with pytest.raises(LigoError) as caught:
        groups(first, second)
    assert str(caught.value) == (
        f"{second}: the same configuration and seed (0) as {first}: it would count twice; leave one out"
    )


def test_other_validation_data_are_refused(tmp_path: Path) -> None:
    runs = [Recorder(tmp_path / name).record(SCRATCH) for name in ("a",)]
    runs += [Recorder(tmp_path / n, tags={"corpus.fingerprint": "c1"}).record(SCRATCH) for n in ("b", "c")]
    with pytest.raises(LigoError) as caught:
        build_report(runs)
    assert str(caught.value) == (
        "corpus.fingerprint: runs with other validation data have losses that cannot be compared\n"
        f"  c0: {runs[0]}\n  c1: {runs[1]}, {runs[2]}"
    )


@pytest.mark.parametrize("key", ["data.sequence_length", "data.mask_fraction", "evaluation.sequences"])
def test_another_measurement_of_the_loss_is_refused(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    first = Recorder(tmp_path / "a", parameters={section: {name: 32}}).record(SCRATCH)
    second = Recorder(tmp_path / "b", parameters={section: {name: 64}}).record(SCRATCH)
    with pytest.raises(LigoError) as caught:
        build_report([first, second])
    assert str(caught.value).startswith(f"{key}: runs with other validation data")
    assert f"\n  32: {first}\n  64: {second}" in str(caught.value)


def test_different_machines_are_told(tmp_path: Path) -> None:
    first = Recorder(tmp_path / "a").record(SCRATCH)
    second = Recorder(tmp_path / "b", tags={"world_size": "4", "hosts": "b, c"}).record(SCRATCH)
    assert build_report([first, second], first).notes == [
        "The runs were made on different machines (1 rank on a; 4 ranks on b, c), so their times compare these too."
    ]
