"""The plan held against whole runs: train, learn, grow and train again, measured from outside.

Parameters, FLOPs, bytes of collectives and bytes on disk are the same to the last; memory is within 15 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ligo_dist.config import load_config
from ligo_dist.planning import PhaseEstimate, Traffic, estimate_phases, export_bytes
from ligo_dist.schedule import Plan
from measuring import Measured, measured_run
from runs import RunFiles, Site

pytestmark = pytest.mark.slow

SMALL, LARGE = {"layers": 2, "width": 96, "heads": 3}, {"layers": 4, "width": 160, "heads": 5}
SCHEDULES: dict[str, Any] = {
    "gpt2": [
        {"name": "small", "size": SMALL, "train": {}},
        {"name": "large", "size": LARGE, "grow": {"method": "ligo"}, "train": {}},
    ],
    "llama": [
        {"name": "small", "size": SMALL, "train": {}},
        {
            "name": "large",
            "size": LARGE,
            "grow": {"method": "lossless", "optimizer_state": "grown"},
            "train": {"activation_checkpointing": True},
        },
    ],
}
CASES = [
    ("gpt2", "bf16", 1, "adamw"),
    ("gpt2", "fp32", 2, "muon"),
    ("llama", "fp32", 1, "muon"),
    ("llama", "fp32", 2, "adamw"),
    ("llama", "bf16", 2, "muon"),
]
"""Any two settings of two of these are together in one, as few runs as that takes."""
PIECES, LENGTH, BATCH = 420, 64, 8


@dataclass(frozen=True)
class Case:
    """A run, what was measured on its first rank, and what was planned."""

    plan: Plan
    files: RunFiles
    ranks: int
    measured: Measured
    phases: list[PhaseEstimate]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family, precision, ranks, optimizer = request.param
    return run_case(
        tmp_path_factory.mktemp("measured"), family, SCHEDULES[family], precision, ranks, optimizer
    )


def run_case(
    directory: Path, family: str, stages: list[Any], precision: str, ranks: int, optimizer: str = "adamw"
) -> Case:
    files = Site.make(directory).config("run")
    raw = yaml.safe_load(files.config.read_text())
    raw["model"] = {"family": family, "max_positions": LENGTH, "vocab_size": 2048}
    raw |= {"stages": stages, "precision": precision}
    raw["data"]["sequence_length"] = LENGTH
    raw["defaults"]["train"]["micro_batch_size"] = raw["evaluation"]["micro_batch_size"] = 2
    raw["defaults"]["train"]["optimizer"]["kind"] = optimizer
    raw["evaluation"]["every_steps"] = 100
    raw["checkpoints"] = {"every_steps": 100, "keep": 10, "export_stages": True}
    files.config.write_text(yaml.safe_dump(raw))
    (measured, *_) = measured_run(files, ranks)
    plan = Plan.of(load_config(files.config, []), PIECES, ranks)
    return Case(plan, files, ranks, measured, estimate_phases(plan, on_gpu=False))


def test_all_phases_were_measured(case: Case) -> None:
    phases = [(phase.stage.name, phase.kind) for phase in case.phases]
    assert phases == [("small", "train"), ("large", "learn"), ("large", "grow"), ("large", "train")]
    assert set(case.measured.flops) == set(case.measured.sent) == set(phases)


def test_parameters_are_those_of_the_engines(case: Case) -> None:
    planned = {
        (phase.stage.name, phase.kind): phase.operator if phase.kind == "learn" else phase.stage.parameters
        for phase in case.phases
        if phase.kind != "grow"
    }
    assert planned == case.measured.parameters
    assert [phase.source for phase in case.phases][1:3] == [case.phases[0].stage.parameters] * 2


def test_flops_of_a_step_are_those_that_torch_counts(case: Case) -> None:
    for phase in case.phases:
        if phase.kind != "grow":
            measured = case.ranks * case.measured.flops[phase.stage.name, phase.kind]
            assert phase.cost.hardware_flops_per_step == measured + not_counted(case, phase), phase.kind


def not_counted(case: Case, phase: PhaseEstimate) -> int:
    """What the accounting counts and torch does not, while an operator is learned: outer products, in the gradients of
    what grows biases and norms. And Muon's products, each on one rank, where the first has more or fewer than its
    part."""
    if phase.kind == "learn":
        return BATCH // case.plan.last.train.micro_batch_size * outer_products(case)
    if phase.stage.train.optimizer.muon is None:
        return 0
    specs = case.plan.architecture.parameters(phase.stage.shape)
    matrices = sorted(
        (spec for spec in specs if spec.is_block_matrix), key=lambda spec: spec.numel, reverse=True
    )
    all_ranks, first = (
        sum(10 * (2 * n * n * m + n**3) for n, m in (sorted(spec.shape) for spec in part))
        for part in (matrices, matrices[:: case.ranks])
    )
    return all_ranks - case.ranks * first


def outer_products(case: Case) -> int:
    grow = case.plan.stages[1].grow
    assert grow is not None
    layout = grow.layout
    vectors = (spec for spec in layout.target_parameters if len(spec.shape) == 1)
    axes = (layout.axis_of(segment.axis) for spec in vectors for segment in spec.dims[0])
    return sum(2 * axis.units(layout.target) * axis.units(layout.source) for axis in axes)


def test_flops_of_growing_are_those_that_torch_counts(case: Case) -> None:
    (phase,) = [phase for phase in case.phases if phase.kind == "grow"]
    measured = case.measured.flops["large", "grow"]
    if case.ranks == 1:
        assert measured == phase.cost.flops
    else:  # ranks share the rows at the bounds of their partitions, and mix their padding
        assert case.ranks * measured == pytest.approx(phase.cost.flops, rel=0.05)


def test_bytes_of_collectives_are_those_that_were_counted(case: Case) -> None:
    for phase in case.phases:
        sent = case.measured.sent[phase.stage.name, phase.kind]
        kinds = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all")
        counted = Traffic(*(sent[kind] for kind in kinds))
        if case.ranks == 1:  # some of DeepSpeed's are called all the same, and send nothing
            assert counted.sent(1) == phase.traffic.total == 0
        else:
            assert counted == phase.traffic, (phase.stage.name, phase.kind)


def test_memory_is_within_15_percent(case: Case) -> None:
    planned = {(phase.stage.name, phase.kind): phase for phase in case.phases}
    compared = [
        (planned_bytes(planned[stage, kind], moment) / measured, stage, kind, moment)
        for (stage, kind, moment), measured in case.measured.peaks.items()
        if (stage, kind) in planned  # before the first phase nothing is
    ]
    assert len(compared) == 3 + 3 + 3 + 3
    print(
        case.plan.config.model.family, case.plan.config.precision, case.ranks, *sorted(compared), sep="\n  "
    )
    assert all(0.85 <= ratio <= 1.15 for ratio, *_ in compared), sorted(compared)


def planned_bytes(phase: PhaseEstimate, moment: str) -> int:
    """Of a moment; an optimizer step has several."""
    apart = ("evaluation", "checkpoint", "transfer", "random model")
    moments = [m for m in phase.peaks if (m.point == moment if moment != "step" else m.point not in apart)]
    return max(memory.total for memory in moments)


def test_checkpoints_and_exports_have_their_bytes(case: Case) -> None:
    planned = {}
    step = 0
    for phase in case.phases:
        step += phase.cost.steps
        name = "train" if phase.kind == "grow" else phase.kind
        planned[f"step-{step:08d}-{phase.stage.index}-{name}"] = phase.checkpoint
    directory = case.files.run_dir / "checkpoints"
    written = {path.name: sum(map(tensor_bytes, path.glob("*.safetensors"))) for path in directory.iterdir()}
    assert written == planned
    for stage in case.plan.stages:
        exported = case.files.run_dir / "export" / stage.name / "model.safetensors"
        assert tensor_bytes(exported) == export_bytes(stage)


@pytest.mark.parametrize("train", [{"freeze": 4}, {"freeze": 4, "new_rate": 0.5}], ids=["alone", "faster"])
def test_what_trains_new_elements_alone_is_planned(train: dict[str, Any], tmp_path: Path) -> None:
    """All gradients are computed, so the FLOPs are those of any step; masks and copies of weights are held."""
    grow = {"method": "lossless-dense", "learn": {"steps": 0}}
    small, large = (
        {"name": "small", "size": SMALL, "train": {}},
        {"name": "large", "size": LARGE, "grow": grow},
    )
    case = run_case(tmp_path, "gpt2", [small, {**large, "train": train}], "fp32", 1)
    (phase,) = [phase for phase in case.phases if (phase.stage.name, phase.kind) == ("large", "train")]
    assert phase.cost.hardware_flops_per_step == case.measured.flops["large", "train"]
    assert phase.peak.point == "optimizer"
    measured = case.measured.peaks["large", "train", "step"]
    assert planned_bytes(phase, "step") == pytest.approx(measured, rel=0.05)


def tensor_bytes(path: Path) -> int:
    """Of a safetensors file without its header, whose length its first eight bytes say."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        json.loads(file.read(length))
    return path.stat().st_size - 8 - length
