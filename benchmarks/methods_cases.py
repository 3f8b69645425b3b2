"""What is compared: the sizes of the benchmark, the methods as overrides, and the configuration of each run."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.schedule.flops import training_step_flops

FAMILY = "gpt2"
SOURCE, TARGET, SCRATCH = "source", "target", "scratch"

Size = dict[str, int]


@dataclass(frozen=True)
class Scale:
    """How large the benchmark is.

    Attributes:
        source, target: sizes of the two models.
        vocab: pieces of the tokenizer.
        batch: sequences per step.
        micro_batch: sequences per forward pass.
        source_steps: the source's training.
        budget: steps of scratch at the full learning rate; a method has `part` of them.
        part: of scratch's budget.
        decay: steps of the learning rate's final fall, behind either budget.
        warmup: steps of the learning rate's rise, in all phases of training.
        source_rate, target_rate: highest learning rates; the target's is the best of those tried for scratch.
        every: steps between evaluations.
        max_documents: of the corpus; None for all.
        include_tests: read the standard library's tests too.
        length: tokens per sequence.
        sequences: that the validation loss is measured on.
    """

    source: Size
    target: Size
    vocab: int
    batch: int
    micro_batch: int
    source_steps: int
    budget: int
    part: float
    decay: int
    warmup: int
    source_rate: float
    target_rate: float
    every: int
    include_tests: bool = False
    max_documents: int | None = None
    length: int = 128
    sequences: int = 64

    def shape(self, size: Size) -> ModelShape:
        """The model of a size."""
        architecture = get_architecture(FAMILY)
        return ModelShape(
            layers=size["layers"],
            width=size["width"],
            heads=size["heads"],
            key_value_heads=size["heads"],
            ffn=architecture.default_ffn(size["width"]),
            vocab=self.vocab,
            positions=self.length,
            tied=True,
        )

    def step_flops(self, size: Size) -> float:
        """FLOPs of one training step of a model."""
        architecture = get_architecture(FAMILY)
        return training_step_flops(
            architecture, self.shape(size), self.length, self.batch, checkpointed=False
        )

    @property
    def source_flops(self) -> float:
        """What the common source's training costs."""
        return self.source_steps * self.step_flops(self.source)

    @property
    def scratch_flops(self) -> float:
        """What scratch's budget costs, the final fall not counted."""
        return self.budget * self.step_flops(self.target)


_SIZES: dict[str, Any] = {
    "source": {"layers": 2, "width": 48, "heads": 3},
    "target": {"layers": 4, "width": 96, "heads": 6},
    "vocab": 1024,
    "batch": 8,
    "micro_batch": 8,
    "warmup": 30,
    "source_rate": 2e-3,
    "target_rate": 1.5e-3,
}
SCALES = {
    "full": Scale(**_SIZES, source_steps=1000, budget=1000, part=0.4, decay=100, every=25),
    "quick": Scale(**_SIZES, source_steps=400, budget=300, part=0.5, decay=30, every=15),
    # For one accelerator; not tuned yet.
    "large": Scale(
        source={"layers": 6, "width": 384, "heads": 6},
        target={"layers": 12, "width": 768, "heads": 12},
        vocab=8192,
        batch=32,
        micro_batch=32,
        source_steps=1500,
        budget=1500,
        part=0.4,
        decay=150,
        warmup=100,
        source_rate=8e-4,
        target_rate=6e-4,
        every=50,
        include_tests=True,
        length=256,
        sequences=256,
    ),
}


@dataclass(frozen=True)
class OwnSource:
    """A source that a case trains itself, within its run, because the common one does not do.

    Attributes:
        size: what differs from the target's size; None: the common source's size.
        flops: its training, as a multiple of the common source's; or
        part: its steps, as a part of scratch's budget; neither: the common source's steps.
    """

    size: Size | None = None
    flops: float | None = None
    part: float | None = None


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        about: what it is, in a few words.
        grow: the target's section `grow`.
        source: its own source; None: the common one.
        part: its steps as a part of scratch's budget; None: as most have.
    """

    about: str
    grow: dict[str, Any] = field(default_factory=dict)
    source: OwnSource | None = None
    part: float | None = None


def _fixed(method: str, **more: Any) -> dict[str, Any]:
    """A method as it starts."""
    return {"method": method, **more, "learn": {"steps": 0}}


def _learned(
    method: str, steps: int = 100, rate: float = 3e-4, how: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A method whose operator is learned; `how` is what else `learn` says."""
    learn = {
        "steps": steps,
        "optimizer": {"learning_rate": rate},
        "schedule": _rise_and_fall(steps),
        **(how or {}),
    }
    return {"method": method, **more, "learn": learn}


def _rise_and_fall(steps: int) -> dict[str, Any]:
    return {"kind": "cosine", "warmup_steps": min(10, steps // 4)}


CASES: dict[str, Case] = {
    SCRATCH: Case("random values", _fixed("scratch"), part=1.0),
    # Fixed coefficients, from the common source.
    "stack": Case("layers stacked, units copied", _fixed("stack")),
    "interpolate": Case("layers interpolated, units copied", _fixed("interpolate")),
    "interlace": Case("layers repeated in place, units copied", _fixed("interlace")),
    "top-copy": Case("topmost layers copied, units copied", _fixed("top-copy")),
    "net2net": Case("identity layers, units copied", _fixed("net2net")),
    "bert2bert-fpi": Case("stacked, function-preserving copies", _fixed("bert2bert-fpi")),
    "bert2bert-aki": Case("stacked, copies of the next layer", _fixed("bert2bert-aki")),
    "hypercloning": Case("identity layers, tiled", _fixed("hypercloning")),
    "zero-pad": Case("identity layers, small noise", _fixed("zero-pad", noise=0.1)),
    "lossless": Case("LEMON", _fixed("lossless")),
    "lossless-dense": Case("dense new units, identity layers", _fixed("lossless-dense")),
    "lossless-dense-stack": Case("dense new units, stacked", _fixed("lossless-dense", depth="stack")),
    "random": Case("stacked, projected at random", _fixed("random")),
    # Learned.
    "ligo-0": Case("the paper's start, not learned", _fixed("ligo")),
    "ligo": Case("the paper: 100 steps", _learned("ligo")),
    "ligo-identity": Case("the identity learned too", _learned("ligo", identity="learned")),
    "ligo-untied": Case("sides learned apart", _learned("ligo", tied=False)),
    "ligo-shared": Case("one operator for all layers", _learned("ligo", share_depth=True, share_width=True)),
    "ligo-constant": Case(
        "neither warm-up nor decay", _learned("ligo", how={"schedule": {"kind": "constant"}})
    ),
    "lossless-100": Case("LEMON, learned for 100 steps", _learned("lossless")),
    "lossless-dense-noise": Case(
        "noise on top, learned for 100 steps", _learned("lossless-dense", noise=0.1)
    ),
    "lossless-dense-25": Case("learned for 25 steps", _learned("lossless-dense", 25)),
    "lossless-dense-100": Case("learned for 100 steps", _learned("lossless-dense")),
    "lossless-dense-400": Case("learned for 400 steps", _learned("lossless-dense", 400)),
    # Where the optimizer's state comes along, the source has to be trained in the same run.
    "lossless-dense-grown": Case(
        "its moments grown", _fixed("lossless-dense", optimizer_state="grown"), OwnSource()
    ),
    "lossless-dense-asymmetric": Case(
        "moments kept for old units", _fixed("lossless-dense", optimizer_state="asymmetric"), OwnSource()
    ),
    # Later, and longer.
    "lossless-dense-late": Case(
        "its source trained twice as long", _fixed("lossless-dense"), OwnSource(flops=2)
    ),
    "lossless-dense-long": Case("trained for longer", _fixed("lossless-dense"), part=0.6),
    # Depth alone, by 4, from a source as wide as the target: three timings.
    "g-stack-early": Case("depth x 4, early", _fixed("stack"), OwnSource({"layers": -4}, flops=0.5)),
    "g-stack": Case("depth x 4, source as dear as ours", _fixed("stack"), OwnSource({"layers": -4}, flops=1)),
    "g-stack-late": Case("depth x 4, late", _fixed("stack"), OwnSource({"layers": -4}, flops=2)),
    "g-stack-long": Case("trained for longer", _fixed("stack"), OwnSource({"layers": -4}, flops=1), part=0.6),
    "deep-dense": Case(
        "the default from g-stack's source", _fixed("lossless-dense"), OwnSource({"layers": -4}, flops=1)
    ),
    "deep-dense-late": Case(
        "the default from g-stack-late's", _fixed("lossless-dense"), OwnSource({"layers": -4}, flops=2)
    ),
    "deep-dense-long": Case(
        "the same, trained for longer", _fixed("lossless-dense"), OwnSource({"layers": -4}, flops=1), part=0.6
    ),
    # Whole schedules with as many steps as scratch: from one layer or none to all of them late.
    "progressive-1": Case(
        "1 layer, then random ones", _fixed("progressive"), OwnSource({"layers": 1}, part=0.8), part=0.2
    ),
    "progressive-1-stack": Case(
        "1 layer, then copies", _fixed("stack"), OwnSource({"layers": 1}, part=0.8), part=0.2
    ),
    "progressive-1-dense": Case(
        "1 layer, then the default", _fixed("lossless-dense"), OwnSource({"layers": 1}, part=0.8), part=0.2
    ),
    "progressive-0": Case(
        "no layer, then random ones", _fixed("progressive"), OwnSource({"layers": 0}, part=0.8), part=0.2
    ),
}

QUICK = (SCRATCH, "stack", "lossless", "lossless-dense", "ligo", "lossless-dense-25", "progressive-1")
LEFT_OUT = (
    "random",
    "interlace",
    "top-copy",
    "ligo-shared",
    "ligo-constant",
    "lossless-100",
    "lossless-dense-noise",
    "lossless-dense-400",
    "lossless-dense-stack",
    "lossless-dense-grown",
    "progressive-1-stack",
    "progressive-0",
)
"""Run by `--all` and `--only` alone: they would take another half an hour. `top-copy` is the same as `stack` where the
depth doubles."""

NAMED = (
    SCRATCH,
    "stack",
    "lossless",
    "lossless-dense",
    "lossless-dense-late",
    "ligo",
    "g-stack",
    "deep-dense",
    "g-stack-late",
    "deep-dense-late",
    "progressive-1",
)
"""Have colours and names in the picture."""

FULL = tuple(name for name in CASES if name not in LEFT_OUT)


def source_config(scale: Scale, seed: int, cache: Path) -> dict[str, Any]:
    """The run that trains the common source."""
    return _config(scale, seed, cache, [_source_stage(scale, None)])


def case_config(scale: Scale, case: Case, seed: int, cache: Path, export: Path) -> dict[str, Any]:
    """The run of a case: from the common source's export, or with a source of its own before the target."""
    if case.source is None:
        first: dict[str, Any] = {"name": SOURCE, "from": str(export)}
    else:
        first = _source_stage(scale, case.source)
    target = {
        "name": TARGET,
        "size": scale.target,
        "grow": deepcopy(case.grow),
        "train": {
            "steps": steps(scale, case) + scale.decay,
            "optimizer": {"learning_rate": scale.target_rate},
            "schedule": {
                "kind": "wsd",
                "warmup_steps": scale.warmup,
                "decay_steps": scale.decay,
                "final_ratio": 0.05,
            },
        },
    }
    return _config(scale, seed, cache, [first, target])


def steps(scale: Scale, case: Case) -> int:
    """Training steps of a case's target at the full learning rate."""
    return round(scale.budget * (scale.part if case.part is None else case.part))


def _source_stage(scale: Scale, own: OwnSource | None) -> dict[str, Any]:
    """Sources are trained at a constant learning rate: one that was annealed grows worse."""
    size, number, rate = scale.source, scale.source_steps, scale.source_rate
    if own is not None and own.size is not None:
        size, rate = {**scale.target, **own.size}, scale.target_rate
        if size["layers"] < 0:
            size["layers"] = scale.target["layers"] // -size["layers"]
    if own is not None and own.flops is not None:
        number = round(own.flops * scale.source_flops / scale.step_flops(size))
    elif own is not None and own.part is not None:
        number = round(own.part * scale.budget)
    train = {
        "steps": number,
        "optimizer": {"learning_rate": rate},
        "schedule": {"kind": "constant", "warmup_steps": scale.warmup},
    }
    return {"name": SOURCE, "size": size, "train": train}


def _config(scale: Scale, seed: int, cache: Path, stages: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seed": seed,
        "precision": "bf16",
        "model": {
            "family": FAMILY,
            "max_positions": scale.length,
            "huggingface": {
                "activation_function": "gelu_pytorch_tanh",
                **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
            },
        },
        "defaults": {"train": {"batch_size": scale.batch, "micro_batch_size": scale.micro_batch}},
        "stages": stages,
        "data": {
            "source": "stdlib",
            "include_tests": scale.include_tests,
            "max_documents": scale.max_documents,
            "sequence_length": scale.length,
            "validation_fraction": 0.05,
            "cache_dir": str(cache),
        },
        "tokenizer": {"vocab_size": scale.vocab},
        "evaluation": {
            "every_steps": scale.every,
            "sequences": scale.sequences,
            "micro_batch_size": min(16, scale.sequences),
            "compare_random": False,
        },
        "tracking": {"mlflow": False, "log_every_steps": scale.every},
        "checkpoints": {"every_steps": 1_000_000, "keep": 1, "export_stages": True},
    }
