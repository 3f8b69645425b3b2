"""What lies between two stages, in whole runs: the search for a learning rate, the rates of every phase, and the
optimizer's state after growing."""

from __future__ import annotations

import pytest

from runs import RunFiles, Site, run_warm

pytestmark = pytest.mark.slow

SMALL = "{layers: 2, width: 24, heads: 3}"
LARGE = "{layers: 3, width: 40, heads: 5}"
DEPTH = "depth: {learning_rate: 1e-2, schedule: {kind: constant, warmup_steps: 2}}"
SAMPLES, TOKENS = 8, 32
"""Of a batch, and of a sample."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


def finished(site: Site, name: str, *stages: str) -> RunFiles:
    files = site.config(name)
    assert run_warm(files, 1, f"stages=[{', '.join(stages)}]", "evaluation.compare_random=false") == (0, "")
    return files


def stage(name: str, size: str, train: str = "{}", grow: str = "") -> str:
    return f"{{name: {name}, size: {size}, train: {train}{', grow: ' if grow else ''}{grow}}}"


# --- learning ---


@pytest.fixture(scope="module")
def learned(site: Site) -> RunFiles:
    """A run whose operator is learned with a rate that the configuration says."""
    return finished(
        site,
        "learned",
        stage("small", SMALL),
        stage("large", LARGE, grow=f"{{method: ligo, learn: {{{DEPTH}}}}}"),
    )


def test_a_sweep_takes_the_best_rate_and_leaves_nothing_behind_but_its_cost(site: Site, learned: RunFiles):
    sweep = "sweep: {learning_rates: [1e3, 1e-3], steps: 2}"
    swept = finished(
        site,
        "swept",
        stage("small", SMALL),
        stage("large", LARGE, grow=f"{{method: ligo, learn: {{{DEPTH}, {sweep}}}}}"),
    )
    assert list(swept.numbers("swept_learning_rate").values()) == [1e-3]
    assert swept.numbers("loss") == learned.numbers("loss")
    assert "learning rate of the operator of large: 0.001 (validation loss after 2 steps with 1000: " in (
        swept.run_dir / "run.log"
    ).read_text(encoding="utf-8")
    more_tokens = largest(swept, "cumulative/tokens") - largest(learned, "cumulative/tokens")
    assert more_tokens == 2 * 2 * SAMPLES * TOKENS
    # The five steps of learning: from the first to the last they add what four cost.
    spent = [v for (_, phase, _, _), v in learned.numbers("cumulative/flops").items() if phase == "learn"]
    more_flops = largest(swept, "cumulative/flops") - largest(learned, "cumulative/flops")
    assert more_flops == pytest.approx(max(spent) - min(spent))


def largest(files: RunFiles, metric: str) -> float:
    return max(files.numbers(metric).values())


def test_every_phase_begins_its_schedule_anew(learned: RunFiles):
    """After growing comes the warm-up again; the depth coefficients have a schedule of their own."""
    rates: dict[tuple[str, str], list[float]] = {}
    for (at, _, _, name), rate in sorted(
        learned.numbers("learning_rate").items(), key=lambda item: item[0][2]
    ):
        rates.setdefault((at, name), []).append(rate)
    train = pytest.approx([1.5e-3, 3e-3, 3e-3, 1.65e-3, 3e-4])
    assert rates["small", "train/learning_rate"] == train
    assert rates["large", "train/learning_rate"] == train
    assert rates["large", "learn/depth_learning_rate"] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2, 1e-2])
    width = rates["large", "learn/learning_rate"]
    assert (width[0], width[-1]) == pytest.approx((1e-3, 1e-4))
    assert width == sorted(width, reverse=True)


# --- the optimizer's state ---


@pytest.mark.parametrize("state", ["grown", "asymmetric", "fresh"])
def test_what_does_not_grow_trains_on_as_if_nothing_had_been(site: Site, state: str):
    """Moments and their count come along: two stages of one size are one stage, unless the optimizer starts anew."""
    constant = "{schedule: {kind: constant, warmup_steps: 0, decay_steps: null}, steps: "
    whole = finished(site, f"whole-{state}", stage("small", SMALL, f"{constant}10}}"))
    grow = f"{{method: lossless-dense, optimizer_state: {state}, learn: {{steps: 0}}}}"
    halves = finished(
        site,
        f"halves-{state}",
        stage("small", SMALL, f"{constant}5}}"),
        stage("again", SMALL, f"{constant}5}}", grow),
    )
    expected, found = by_step(whole), by_step(halves)
    assert set(expected) == set(found) == set(range(1, 11))
    assert [found[step] for step in range(1, 7)] == [expected[step] for step in range(1, 7)]
    if state == "fresh":
        assert found[8] != expected[8]
    else:
        assert found == expected


def by_step(files: RunFiles) -> dict[int, float]:
    return {step: loss for (_, _, step, _), loss in files.numbers("train/loss").items()}
