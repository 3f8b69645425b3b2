"""What lies between two stages, in whole runs: the rates of every phase, and the optimizer's state after growing."""

from __future__ import annotations

import pytest

from runs import RunFiles, Site, run_warm

pytestmark = pytest.mark.slow

SMALL = "{layers: 2, width: 24, heads: 3}"
LARGE = "{layers: 3, width: 40, heads: 5}"
SAMPLES, TOKENS = 8, 32
"""Of a batch, and of a sample."""


def finished(site: Site, name: str, *stages: str) -> RunFiles:
    files = site.config(name)
    assert run_warm(files, 1, f"stages=[{', '.join(stages)}]", "evaluation.compare_random=false") == (0, "")
    return files


def stage(name: str, size: str, train: str = "{}", grow: str = "") -> str:
    return f"{{name: {name}, size: {size}, train: {train}{', grow: ' if grow else ''}{grow}}}"


def test_every_phase_begins_its_schedule_anew(site: Site):
    """After growing comes the warm-up again."""
    learned = finished(site, "learned", stage("small", SMALL), stage("large", LARGE, grow="{method: ligo}"))
    rates: dict[tuple[str, str], list[float]] = {}
    for (at, _, _, name), rate in sorted(
        learned.numbers("learning_rate").items(), key=lambda item: item[0][2]
    ):
        rates.setdefault((at, name), []).append(rate)
    train = pytest.approx([1.5e-3, 3e-3, 3e-3, 1.65e-3, 3e-4])
    assert rates["small", "train/learning_rate"] == train
    assert rates["large", "train/learning_rate"] == train
    learn = rates["large", "learn/learning_rate"]
    assert (learn[0], learn[-1]) == pytest.approx((1e-3, 1e-4))
    assert learn == sorted(learn, reverse=True)


# --- the optimizer's state ---


CONSTANT = "{schedule: {kind: constant, warmup_steps: 0, decay_steps: null}, steps: "


@pytest.fixture(scope="module")
def one_stage(site: Site) -> RunFiles:
    return finished(site, "one-stage", stage("small", SMALL, f"{CONSTANT}10}}"))


def test_muons_momentum_comes_along_too(site: Site):
    muon = f"{CONSTANT}%d, optimizer: {{kind: muon, learning_rate: 3e-3, muon_learning_rate: 0.01}}}}"
    whole = finished(site, "muon-one-stage", stage("small", SMALL, muon % 10))
    found = {}
    for state in ("grown", "fresh"):
        grow = f"{{method: lossless-dense, optimizer_state: {state}, learn: {{steps: 0}}}}"
        halves = (stage("small", SMALL, muon % 5), stage("again", SMALL, muon % 5, grow))
        found[state] = by_step(finished(site, f"muon-halves-{state}", *halves))
    assert found["grown"] == by_step(whole)
    assert found["fresh"] != by_step(whole)


@pytest.mark.parametrize("state", ["grown", "asymmetric", "fresh"])
def test_what_does_not_grow_trains_on_as_if_nothing_had_been(site: Site, one_stage: RunFiles, state: str):
    """Moments and their count come along: two stages of one size are one stage, unless the optimizer starts anew."""
    grow = f"{{method: lossless-dense, optimizer_state: {state}, learn: {{steps: 0}}}}"
    halves = finished(
        site,
        f"halves-{state}",
        stage("small", SMALL, f"{CONSTANT}5}}"),
        stage("again", SMALL, f"{CONSTANT}5}}", grow),
    )
    expected, found = by_step(one_stage), by_step(halves)
    assert set(expected) == set(found) == set(range(1, 11))
    assert [found[step] for step in range(1, 7)] == [expected[step] for step in range(1, 7)]
    if state == "fresh":
        assert found[8] != expected[8]
    else:
        assert found == expected


def by_step(files: RunFiles) -> dict[int, float]:
    return {step: loss for (_, _, step, _), loss in files.numbers("train/loss").items()}
