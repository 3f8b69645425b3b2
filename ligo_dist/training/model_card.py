"""The model card of an export: where its weights come from, on what they were trained, and what that cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import ligo_dist
from ligo_dist.corpus import Corpus, parts_of
from ligo_dist.runtime.quantities import count, flops, loss, percent
from ligo_dist.schedule import Plan, StagePlan, StageRecord

_PIPELINES = {
    "causal_lm": "text-generation",
    "masked_lm": "fill-mask",
    "image_classification": "image-classification",
    "features": "feature-extraction",
}
"""Objective -> what the hub calls its use."""


def model_card(plan: Plan, stage: StagePlan, records: list[StageRecord], corpus: Corpus) -> str:
    """The `README.md` of a stage's export, with the hub's metadata above it.

    Args:
        plan: of the run.
        stage: whose model is exported.
        records: of the stages up to this one.
        corpus: what they were trained on.
    """
    lineage = plan.stages[: stage.index + 1]
    used = records[: stage.index + 1]
    total = sum(record.flops for record in used)
    tokens = sum(record.tokens for record in used)
    read = [f"{place}: {len(part.train):,} samples" for _, place, part in parts_of(plan.config, corpus)]
    return "\n".join(
        [
            *_metadata(plan),
            "",
            f"# {stage.name}",
            "",
            f"A {plan.config.model.family} of {count(stage.parameters)} parameters ({_size(stage)}), made by ligo_dist"
            f" {ligo_dist.__version__}.",
            "",
            "## Lineage",
            "",
            *_table(lineage, used),
            "",
            f"In all {count(tokens)} tokens and {flops(total)} FLOPs (what was recomputed not counted), growing"
            " included. Losses are validation losses.",
            *_given(plan),
            "",
            "## Training",
            "",
            f"- Data: {'; '.join(read)}; fingerprint `{corpus.fingerprint}`",
            *([f"- Tokenizer: fingerprint `{corpus.tokenizer.fingerprint}`"] if corpus.tokenizer else []),
            *(f"- {line}" for line in _phases(lineage)),
            f"- Computed in {plan.config.precision}, stored in fp32; seed {plan.config.seed}",
            "",
        ]
    )


def _metadata(plan: Plan) -> list[str]:
    lines = ["library_name: transformers", f"pipeline_tag: {_PIPELINES[plan.architecture.objective]}"]
    given = plan.config.stages[0].from_
    if given is not None and not Path(given).expanduser().is_dir():  # the hub takes its own names alone
        lines.append(f"base_model: {json.dumps(given)}")
    return ["---", *lines, "tags: [ligo_dist, model-growth]", "---"]


def _given(plan: Plan) -> list[str]:
    given = plan.config.stages[0].from_
    return [] if given is None else ["", f"{plan.stages[0].name} began with the weights of `{given}`."]


def _size(stage: StagePlan) -> str:
    shape = stage.shape
    return f"{shape.layers} layers, width {shape.width}, {shape.heads} heads"


def _table(lineage: tuple[StagePlan, ...], records: list[StageRecord]) -> Iterator[str]:
    classifies = any(record.final_accuracy is not None for record in records)
    heads = [
        "stage",
        "layers x width",
        "grown by",
        "tokens",
        "FLOPs",
        "source's loss",
        "just grown",
        "final loss",
    ]
    yield _row([*heads, *(["accuracy"] if classifies else [])])
    yield _row(["---"] * (len(heads) + classifies))
    for stage, record in zip(lineage, records, strict=True):
        yield _row(
            [
                stage.name,
                f"{stage.shape.layers} x {stage.shape.width}",
                _method(stage),
                count(record.tokens),
                flops(record.flops),
                loss(record.source_loss),
                loss(record.grown_loss),
                loss(record.final_loss),
                *([percent(record.final_accuracy)] if classifies else []),
            ]
        )


def _method(stage: StagePlan) -> str:
    if stage.section.grow is None:
        return "-"
    if stage.grow is None:
        return "nothing: from scratch"
    method, steps = stage.grow.method, stage.grow.learn.steps
    learned = f", learned for {steps} steps" if steps else ""
    return f"{method.name} ({method.depth}, {method.width}){learned}"


def _phases(lineage: tuple[StagePlan, ...]) -> Iterator[str]:
    for stage in lineage:
        for phase in stage.phases:
            if phase.steps:
                yield (
                    f"{stage.name}, {phase.kind}: {phase.steps} steps of {phase.batch_size} samples,"
                    f" {phase.optimizer.name}, learning"
                    f" rate {phase.optimizer.learning_rate:g} ({phase.learning_rate.kind})"
                )


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
