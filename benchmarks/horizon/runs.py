"""The runs of the benchmark, each an ordinary configuration derived from a target's file.

A *trunk* is a model of one size at a constant rate; it is trained once, in pieces, each of which begins where the one
before ends. From checkpoints of it other runs fork (`start_from`): into a decay, which makes it a run of just that
length, or into growths and then the decay. The horizon is in tokens per parameter of the target.
"""

from __future__ import annotations

import copy
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ligo_dist.architectures import ModelShape
from ligo_dist.config import config_from, load_config, stage_shapes
from ligo_dist.schedule import parameter_count, training_step_flops

HORIZONS = (5, 10, 20, 40, 75, 150, 300)
RATES = (6e-3, 1e-2, 1.6e-2)
TAUS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
"""Parts of a horizon at which sources may be grown: their trunks keep a checkpoint at each."""
WARMUP, REWARMUP, DECAY = 100, 20, 0.1
SWEPT_AT = 20

WAYS: dict[str, dict[str, Any]] = {
    "random": {"method": "progressive"},
    "stack": {"method": "stack"},
    "damped": {"method": "damped"},
    "damped-interlace": {"method": "damped", "depth": "damped-interlace"},
    "identity": {"method": "lossless-dense"},
}
"""How grown runs grow: each name in tables and the section `grow` it stands for."""

PACKAGES = ("torch", "sympy", "pandas", "scipy", "mlflow")
"""Dependencies of this project whose sources are read beside the standard library's: 86 M tokens in all."""

Size = tuple[int, int]
"""Layers, width; heads are of 16 elements."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: its directory, within the benchmark's.
        config: its configuration, but for where it lies.
        needs: the run from whose checkpoint it begins; None: from random values.
        step: of that checkpoint.
        about: what the results say of it.
        flops: of the steps that it takes itself.
    """

    name: str
    config: dict[str, Any]
    needs: Run | None
    step: int
    about: dict[str, Any]
    flops: float


@dataclass(frozen=True)
class Case:
    """A schedule that grows: sizes of the models before the target, when each ends, and how all growths are done."""

    sizes: tuple[Size, ...]
    taus: tuple[float, ...]
    way: str


@dataclass
class Target:
    """A target and the runs around it.

    Args:
        name: of a file beside this one.
        rate: learning rate of all runs but those of the sweep.
        every_text: read the installed packages' sources too; else the standard library alone.
    """

    name: str
    rate: float
    every_text: bool = True
    _made: dict[str, Run] = field(default_factory=dict)

    @cached_property
    def base(self) -> dict[str, Any]:
        raw = load_config(Path(__file__).with_name(f"{self.name}.yaml")).values()
        if self.every_text:
            folders = [Path(sysconfig.get_path("stdlib"))]
            folders += [Path(sysconfig.get_path("purelib")) / package for package in PACKAGES]
            # The library's own folder may hold site-packages: its files and folders one by one.
            inside = sorted(path for path in folders[0].iterdir() if path.name != "site-packages")
            files = [str(path) for path in inside if path.suffix == ".py"]
            files += [str(path / "**/*.py") for path in (*inside, *folders[1:]) if any(path.glob("**/*.py"))]
            raw["data"] |= {"source": "text", "files": files, "include_tests": False}
        return raw

    @cached_property
    def size(self) -> Size:
        size = self.base["stages"][0]["size"]
        return size["layers"], size["width"]

    def shape(self, size: Size) -> ModelShape:
        raw = copy.deepcopy(self.base)
        raw["stages"] = [self._stage(size, 1, {"kind": "constant"})]
        config = config_from(raw)
        return stage_shapes(config, config.tokenizer.vocab_size or 0)[0]

    @cached_property
    def _architecture(self) -> Any:
        return config_from(self.base).architecture

    def parameters(self, size: Size) -> int:
        return parameter_count(self._architecture, self.shape(size))

    @property
    def tokens_per_step(self) -> int:
        return self.base["stages"][0]["train"]["batch_size"] * self.base["data"]["sequence_length"]

    def step_flops(self, size: Size) -> int:
        batch, length = self.base["stages"][0]["train"]["batch_size"], self.base["data"]["sequence_length"]
        return training_step_flops(self._architecture, self.shape(size), length, batch, checkpointed=False)

    @cached_property
    def _parameters(self) -> int:
        return self.parameters(self.size)

    def steps(self, horizon: float, part: float = 1.0) -> int:
        """Optimizer steps of so many tokens per parameter of the target, or of a part of them."""
        return round(part * round(horizon * self._parameters / self.tokens_per_step))

    # --- the runs ---

    def swept(self, rate: float) -> Run:
        """From random values, at one of the rates of the sweep."""
        steps = self.steps(SWEPT_AT)
        train = self._decayed(steps, steps, WARMUP) | {"rate": rate}
        about = {"kind": "rate", "horizon": SWEPT_AT, "rate": rate, "sizes": [self.size]}
        return self._run(f"rate-{rate:g}", [self._stage(self.size, **train)], None, 0, 0, about)

    def trunk(self, size: Size, horizon: int, seed: int) -> Run:
        """The piece of a trunk that ends where the decay of a horizon begins."""
        index = HORIZONS.index(horizon)
        before = self.trunk(size, HORIZONS[index - 1], seed) if index else None
        begins = self.steps(HORIZONS[index - 1], 1 - DECAY) if index else 0
        ends = self.steps(horizon, 1 - DECAY)
        parts = TAUS if size != self.size else (1 - DECAY,)
        kept = sorted(
            {self.steps(h, tau) for h in HORIZONS for tau in parts} & set(range(begins + 1, ends + 1))
        )
        stage = self._stage(size, ends, {"kind": "constant", "warmup_steps": WARMUP})
        about = {"kind": "trunk", "horizon": horizon, "sizes": [size]}
        return self._run(f"trunk-{_text(size)}-to-{horizon}", [stage], before, begins, seed, about, kept)

    def scratch(self, horizon: int, seed: int, size: Size | None = None) -> Run:
        """A model of one size, decayed at a horizon."""
        size = size or self.size
        stage = self._stage(size, **self._decayed(self.steps(horizon), self.steps(horizon), WARMUP))
        about = {"kind": "scratch", "horizon": horizon, "sizes": [size]}
        step = self.steps(horizon, 1 - DECAY)
        return self._run(
            f"scratch-{_text(size)}-at-{horizon}", [stage], self.trunk(size, horizon, seed), step, seed, about
        )

    def grown(self, case: Case, horizon: int, seed: int) -> Run:
        """A schedule of growths, decayed at a horizon."""
        points = [self.steps(horizon, tau) for tau in case.taus]
        stages = [self._stage(case.sizes[0], points[0], {"kind": "constant", "warmup_steps": WARMUP})]
        for size, begins, ends in zip(case.sizes[1:], points, points[1:], strict=False):
            schedule = {"kind": "constant", "warmup_steps": REWARMUP}
            stages.append(self._stage(size, ends - begins, schedule, way=case.way))
        left = self.steps(horizon) - points[-1]
        stages.append(
            self._stage(self.size, **self._decayed(left, self.steps(horizon), REWARMUP), way=case.way)
        )
        piece = next(h for h in HORIZONS if self.steps(h, 1 - DECAY) >= points[0])
        about = {
            "kind": "grown",
            "horizon": horizon,
            "sizes": [*case.sizes, self.size],
            "taus": list(case.taus),
            "way": case.way,
        }
        sizes = "-".join(map(_text, case.sizes))
        name = f"{case.way}-{sizes}-at-{horizon}-from-{'-'.join(f'{tau:g}' for tau in case.taus)}"
        return self._run(name, stages, self.trunk(case.sizes[0], piece, seed), points[0], seed, about)

    def _decayed(self, steps: int, whole: int, warmup: int) -> dict[str, Any]:
        """The last `steps` of a run of `whole` steps, of whose last part the rate falls to zero."""
        decay = min(whole - round((1 - DECAY) * whole), steps - warmup)
        schedule = {"kind": "wsd", "warmup_steps": warmup, "decay_steps": decay, "final_ratio": 0.0}
        return {"steps": steps, "schedule": schedule}

    def _stage(
        self,
        size: Size,
        steps: int,
        schedule: dict[str, Any],
        rate: float | None = None,
        way: str | None = None,
    ) -> dict[str, Any]:
        train = copy.deepcopy(self.base["stages"][0]["train"]) | {"steps": steps, "schedule": schedule}
        train["optimizer"]["learning_rate"] = rate or self.rate
        layers, width = size
        stage = {
            "name": _text(size),
            "size": {"layers": layers, "width": width, "heads": width // 16},
            "train": train,
        }
        return stage | ({} if way is None else {"grow": WAYS[way]})

    def _run(
        self,
        name: str,
        stages: list[dict[str, Any]],
        needs: Run | None,
        step: int,
        seed: int,
        about: dict[str, Any],
        kept: Sequence[int] = (),
    ) -> Run:
        name = f"{self.name}/seed-{seed}/{name}"
        if name not in self._made:
            raw = copy.deepcopy(self.base) | {"seed": seed, "stages": stages}
            if kept:
                raw["checkpoints"]["keep_steps"] = list(kept)
            done, flops = step, 0.0
            for stage in stages:
                size = stage["size"]["layers"], stage["size"]["width"]
                flops += max(0, stage["train"]["steps"] - done) * self.step_flops(size)
                done = max(0, done - stage["train"]["steps"])
            common = {"target": self.name, "seed": seed, "rate": self.rate}
            self._made[name] = Run(name, raw, needs, step, common | about, flops)
        return self._made[name]


def queue(target: Target, seeds: Sequence[int]) -> Iterator[Run]:
    """All runs of a target, the most telling first; what a run begins from may come after it."""
    quarter, half = _sizes(target)
    several = _several(target)
    deep = target.name == "deep"
    first = [
        Case((quarter,), (0.8,), "damped"),
        Case(several, (0.4, 0.6, 0.8)[: len(several)], "damped"),
        Case(several, (0.6, 0.75, 0.88)[: len(several)], "damped"),
        Case((quarter,), (0.8,), "stack"),
        Case((quarter,), (0.8,), "random"),
        Case((quarter,), (0.8,), "identity"),
    ]
    late = [
        Case((quarter,), (0.9,), "damped"),
        Case(((1, target.size[1]),), (0.9,), "damped") if deep else Case((half,), (0.9,), "damped"),
        Case(((1, target.size[1]),), (0.9,), "random") if deep else Case((half,), (0.8,), "stack"),
    ]
    early = [Case((quarter,), (0.3,), "identity"), Case((half,), (0.3,), "stack")]
    for part in (seeds[:1], seeds[1:]):
        for seed in part:
            # The shortest are on the way, and a law needs three.
            yield from (target.scratch(horizon, seed) for horizon in (5, 10, 20))
            yield from (target.grown(case, 20, seed) for case in (*first, *late))
        for seed in part:
            # What is grown to 75 ends between these two.
            yield from (target.scratch(horizon, seed) for horizon in (40, 75))
            yield from (target.grown(case, 75, seed) for case in (*first, late[0], *early))
        if part == seeds[:1]:
            # What sources come to by themselves: the law in parameters, and which of two laws holds.
            lengths = (5, 10, 20, 75)
            yield from (target.scratch(h, part[0], size) for h in lengths for size in (quarter, half))
    for horizon in (150, 40):
        for seed in seeds:
            yield target.scratch(horizon, seed)
            yield from (target.grown(case, horizon, seed) for case in (*first, late[0]))
    more = [
        *late,
        Case((quarter,), (0.6,), "damped"),
        Case((quarter,), (0.7,), "damped"),
        Case((half,), (0.7,), "damped"),
        Case((half,), (0.8,), "damped"),
        Case((quarter,), (0.8,), "damped-interlace"),
    ]
    for horizon in (20, 75, 150, 40):
        for seed in seeds:
            yield from (target.grown(case, horizon, seed) for case in more)
            yield from (target.scratch(horizon, seed, size) for size in (quarter, half))
    for horizon in (300, 10, 5):
        for seed in seeds:
            yield target.scratch(horizon, seed)
            yield from (target.grown(case, horizon, seed) for case in first)


def _sizes(target: Target) -> tuple[Size, Size]:
    """Two sources: in depth an eighth and a quarter of the target; of the wide target half its width, at a quarter of
    the depth and at all of it."""
    layers, width = target.size
    if target.name == "deep":
        return (layers // 8, width), (layers // 4, width)
    return (layers // 4, width // 2), (layers, width // 2)


def _several(target: Target) -> tuple[Size, ...]:
    """Several stages: depth doubled each time; of the wide target width and depth in turn."""
    layers, width = target.size
    if target.name == "deep":
        return tuple((layers // part, width) for part in (8, 4, 2))
    return (layers // 4, width // 2), (layers // 2, width // 2), (layers // 2, width)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
