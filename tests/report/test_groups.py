"""Which runs are seeds of one case, what they are called, and which cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ligo_dist.report import build_report
from ligo_dist.runtime.errors import LigoError
from recorded_runs import GROWN, SCRATCH, SMALL, Leg, Recorder


def groups(*runs: str) -> dict[str, list[str]]:
    """Labels of cases, and of their runs."""
    return {case.label: [run.label for run in case.runs] for case in build_report(runs).cases}


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


@pytest.mark.parametrize(
    ("different", "is_one_case"),
    [
        ({"parameters": {"precision": "bf16"}}, False),
        ({"parameters": {"data": {"random_shift": 2}}}, False),
        ({"tags": {"world_size": "2"}}, True),
        ({"parameters": {"evaluation": {"micro_batch_size": 4}}}, True),
        ({"parameters": {"defaults": {"train": {"activation_checkpointing": True}}}}, True),
    ],
)
def test_how_batches_are_computed_is_no_difference_between_seeds(
    tmp_path: Path, different: dict[str, Any], is_one_case: bool
) -> None:
    """Unless a seed is there in both ways: then they are what is compared."""
    first = Recorder(tmp_path / "run-0").record(SCRATCH)
    second = Recorder(tmp_path / "run-1", seed=1, **different).record(SCRATCH)
    apart = {"run-0": ["run-0"], "run-1": ["run-1"]}
    assert groups(first, second) == ({"run": ["run-0", "run-1"]} if is_one_case else apart)
    again = Recorder(tmp_path / "other", seed=0, **different).record(SCRATCH)
    assert sorted(groups(first, again)) == ["other", "run-0"]


def test_sources_that_differ_by_their_seed_are_no_difference(tmp_path: Path) -> None:
    def grown(seed: int, **different: Any) -> str:
        maker = Recorder(tmp_path / f"source-{seed}", seed=seed, **different)
        maker.record(SMALL)
        exported = maker.directory / "export" / "small"
        run = Recorder(tmp_path / f"grown-{seed}", seed=seed)
        return run.record(Leg("given", [(0, 5.0)]), GROWN, begun_from=exported)

    runs = [grown(0), grown(1)]
    assert groups(*runs) == {"grown": ["grown-0", "grown-1"]}
    assert len(groups(*runs, grown(2, parameters={"precision": "bf16"}))) == 2


def test_cases_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [
        Recorder(tmp_path / f"seed-{seed}" / precision / name, seed, {"precision": precision}).record(SCRATCH)
        for precision, name in (("fp32", "ligo"), ("bf16", "ligo"), ("fp16", "ligo (2)"))
        for seed in (0, 1)
    ]
    assert list(groups(*runs)) == ["ligo", "ligo (2)", "ligo (2) (2)"]


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    report = build_report([run, f"{run}/", str(tmp_path / "x" / ".." / "run")], f"{run}/")
    assert [run.label for run in report.runs] == ["run"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {}, ["{b}: the same configuration and seed (0) as {a}", "leave one out"]),
        (
            {},
            {"tags": {"corpus.fingerprint": "c1"}},
            ["corpus.fingerprint: runs with other validation data", "\n  c0: {a}\n  c1: {b}"],
        ),
        *(
            (
                {"parameters": {section: {name: 32}}},
                {"parameters": {section: {name: 64}}},
                [f"{section}.{name}: runs with other validation data", "\n  32: {a}\n  64: {b}"],
            )
            for section, name in (
                ("data", "sequence_length"),
                ("data", "mask_fraction"),
                ("evaluation", "sequences"),
            )
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], said: list[str]
) -> None:
    a = Recorder(tmp_path / "a", **first).record(SCRATCH)
    b = Recorder(tmp_path / "b", **second).record(SCRATCH)
    with pytest.raises(LigoError) as caught:
        build_report([a, b])
    for words in said:
        assert words.format(a=a, b=b) in str(caught.value)
