"""`ligo-dist plan --choose` and `--fit`: which schedule to grow by, by a law of the loss that is fitted to runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.preflight import plan_of
from launcher.tables import listing, print_whole
from ligo_dist.config import (
    Config,
    check_world_size,
    config_from,
    dump_yaml,
    is_image_family,
    parse_yaml,
    resolve_precision,
)
from ligo_dist.growth import METHODS  # noqa: TID251 - names alone: no torch
from ligo_dist.planning import (
    PUBLISHED,
    Expected,
    Forecast,
    Gpu,
    GrownPoint,
    Laws,
    Model,
    Point,
    all_schedules,
    best_schedules,
    fit_carry,
    fit_law,
    laws_from_values,
    laws_to_values,
    stacking_rule,
)
from ligo_dist.report import Run, read_run
from ligo_dist.runtime import quantities
from ligo_dist.runtime.errors import FINISHED, ConfigError, LigoError
from ligo_dist.runtime.files import replace_text
from ligo_dist.schedule import parameter_count, training_step_flops

_LEGEND = """\
final loss, saved: between the law by which the tokens of sources count and the one by which their loss does;
saved: of what scratch takes to that loss, everything counted; in the order of the end that is worse"""

_DECAY = 0.1
"""Part of all steps in which the rate falls to zero, as in the runs of `benchmarks.horizon`."""
_REWARMUP = 5
"""The warm-up after growing is the target's through this."""
_DRAWS = 50


def fit(places: Sequence[str], output: Path) -> int:
    """Fit the law to run directories and write it."""
    runs = [read_run(Path(place)) for place in places]
    for run in runs:
        if why := _unfit(run):
            print(f"{run.place}: left out: {why}")
    used = [run for run in runs if _unfit(run) is None]
    laws = fit_law([_point(run) for run in used if len(run.stages) == 1], f"{len(used)} runs", _DRAWS)
    grown: dict[str, list[GrownPoint]] = {}
    for run in used:
        if len(run.stages) > 1:
            point = _grown_point(run)
            grown.setdefault(point.way, []).append(point)
    ways = {way: fit_carry(laws.best, points) for way, points in grown.items()}
    laws = Laws(laws.source, laws.best, laws.draws, laws.spread, ways)
    _write(output, "# A law of the loss: `ligo-dist plan --fit` made it\n" + dump_yaml(laws_to_values(laws)))
    print("\n".join(_law_lines(laws)))
    return FINISHED


def choose(
    config: Config,
    path: str,
    law: str,
    output: Path,
    ranks: int,
    hardware: tuple[Gpu, float, float | None],
    wanted: Mapping[str, float],
) -> int:
    """Print the best few schedules for a configuration's last model, and write the best as a configuration.

    Args:
        config: the checked configuration.
        path: of its file.
        law: a name of `PUBLISHED`, or a file that `fit` wrote.
        output: where the best is written.
        ranks: for the memory.
        hardware: as `Forecast` takes it.
        wanted: one of `tokens`, `flops`, `loss`.
    """
    stage = config.stages[-1]
    if is_image_family(config.architecture) or config.architecture.objective == "features":
        raise LigoError(
            f"{path}: --choose knows laws of language models alone, not of {config.architecture.name}"
        )
    if stage.from_ is not None or stage.train is None or stage.size is None:
        raise LigoError(
            f"{path}: stages[0].from is a model that exists; there is no schedule to choose for it"
        )
    laws = read_laws(law)
    if not laws.best.a:
        raise LigoError(
            f"--law {law}: is fitted to one size, and says nothing of smaller models; fit it to three"
        )
    sizes = _sizes(config.values()["stages"][-1]["size"])
    models = {_model(config, size, ranks): size for size in sizes}
    target, *sources = models
    found = best_schedules(list(all_schedules(sources, target, _ways(config, laws))), laws, **wanted)  # type: ignore[arg-type]
    if not found:
        raise LigoError(
            f"{path}: no schedule is expected to come to a loss of {wanted['loss']:g} by this law"
        )
    print("\n".join([f"{path}: {quantities.count(target.parameters)} parameters", *_law_lines(laws)]))
    gpu, hfu, mfu = hardware
    table = listing("schedule", "way", "tokens", "FLOPs", "final loss", "saved", "memory of a rank")
    written = [_configuration(config, each, models) for each in found]
    for each, raw in zip(found, written, strict=True):
        forecast = Forecast(plan_of(_checked(raw, ranks), ranks), gpu, hfu, mfu)
        low, high = each.losses
        table.add_row(
            _words(each),
            each.schedule.way,
            quantities.count(each.schedule.tokens),
            quantities.flops(forecast.plan.cost.flops),
            f"{low:.3f} .. {high:.3f}",
            f"{100 * each.saved[0]:.0f} .. {100 * each.saved[1]:.0f} %",
            quantities.size(max(phase.peak.total for phase in forecast.phases)),
        )
    print_whole(table)
    print(_LEGEND)
    scratch = wanted.get("flops", target.flops * found[0].schedule.tokens)
    print(
        f"G_stack's rule (arXiv 2405.15319): a quarter of the depth, stacked after"
        f" {quantities.count(stacking_rule(target.parameters, scratch))} tokens"
    )
    _write(
        output, f"# The best schedule for {path}: `ligo-dist plan --choose` made it\n" + dump_yaml(written[0])
    )
    print(f"the first is in {output}")
    return FINISHED


def _ways(config: Config, laws: Laws) -> list[str]:
    """The ways that a law knows, else one of which nothing is known; damped ones not where they are refused."""
    known = [way for way in laws.ways if not (config.architecture.post_norm and way == "damped")]
    return known or ["lossless-dense" if config.architecture.post_norm else "damped"]


def read_laws(name: str) -> Laws:
    """A published law, or one from a file.

    Raises:
        LigoError: there is none.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    try:
        values = parse_yaml(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        names = ", ".join(PUBLISHED)
        raise LigoError(f"--law {name}: neither {names} nor a file: {error.strerror or error}") from None
    return laws_from_values(values)


def _law_lines(laws: Laws) -> list[str]:
    law = laws.best
    size = f" + {law.a:.4g} / parameters^{law.alpha:.3f}" if law.a else ""
    lines = [f"law: {law.e:.4f}{size} + {law.b:.4g} / tokens^{law.beta:.3f}, of {laws.source}"]
    if laws.draws:
        lines.append(f"it misses the runs that it is fitted to by {laws.spread:.4f}")
    for way, carry in laws.ways.items():
        lines.append(
            f"{way}: {carry.tokens:.2f} of the source's tokens count (which misses by {carry.tokens_miss:.4f}),"
            f" or growing adds {carry.loss:+.3f} of loss (by {carry.loss_miss:.4f})"
        )
    if not laws.ways:
        lines.append(
            "what growing carries over is not known to it: all is assumed to count, which is too good"
        )
    return lines


def _sizes(target: dict[str, Any]) -> list[dict[str, Any]]:
    """The target's size and those of sources: fewer layers, half the width, or both."""
    layers = sorted({max(1, target["layers"] // part) for part in (1, 2, 4, 8)} | {1}, reverse=True)
    sizes = [target | {"layers": number} for number in layers]
    halved = {key: target[key] and target[key] / 2 for key in ("width", "heads", "key_value_heads", "ffn")}
    if all(value is None or float(value).is_integer() for value in halved.values()):
        half = {key: None if value is None else int(value) for key, value in halved.items()}
        head_size = target["head_size"]
        sizes += [target | half | {"layers": number, "head_size": head_size} for number in layers[:3]]
    return sizes


def _model(config: Config, size: dict[str, Any], ranks: int) -> Model:
    raw = config.values()
    train = raw["stages"][-1]["train"]
    raw["stages"] = [{"name": "model", "size": size, "train": train}]
    plan = plan_of(config_from(raw), ranks)
    shape, architecture = plan.last.shape, plan.architecture
    flops = training_step_flops(architecture, shape, plan.tokens_per_sample, 1, checkpointed=False)
    parameters = parameter_count(architecture, shape)
    return Model(size["layers"], size["width"], parameters, flops / plan.tokens_per_sample)


def _configuration(config: Config, chosen: Expected, sizes: Mapping[Model, dict[str, Any]]) -> dict[str, Any]:
    """The configuration of a schedule: that of the target, with stages at a constant rate before it and a decay at the
    end."""
    raw = config.values()
    own, schedule = raw["stages"][-1], chosen.schedule
    tokens = own["train"]["batch_size"] * config.data.sequence_length
    ends = [round(part * schedule.tokens / tokens) for part in (*schedule.points, 1.0)]
    stages = []
    for index, model in enumerate(schedule.models):
        last = model is schedule.target
        train = copy.deepcopy(own["train"])
        train["steps"] = steps = max(1, ends[index] - (ends[index - 1] if index else 0))
        warmup = min(own["train"]["schedule"]["warmup_steps"] // (_REWARMUP if index else 1), steps // 2)
        train["schedule"] = {"kind": "constant", "warmup_steps": warmup}
        if last:
            decay = max(1, min(math.ceil(_DECAY * ends[-1]), steps - warmup))
            fall = {"kind": "wsd", "decay_steps": decay, "final_ratio": 0.0}
            train["schedule"] |= fall
        name = own["name"] if last else f"{model.layers}x{model.width}"
        stage = {"name": name, "size": sizes[model], "train": train}
        stages.append(stage | ({"grow": {"method": schedule.way}} if index else {}))
    return raw | {"stages": stages}


def _checked(raw: dict[str, Any], ranks: int) -> Config:
    config = config_from(raw, "the schedule")
    faults = check_world_size(config, ranks)
    if faults:
        raise ConfigError(faults, "the schedule")
    return resolve_precision(config, [True])[0]


def _words(chosen: Expected) -> str:
    """`2x32 to 60 %, 8x32 to 80 %, 16x32`."""
    schedule = chosen.schedule
    *before, target = (f"{model.layers}x{model.width}" for model in schedule.models)
    steps = (f"{name} to {point:.0%}" for name, point in zip(before, schedule.points, strict=True))
    return ", ".join([*steps, target])


# --- runs ---


def _unfit(run: Run) -> str | None:
    """Why a law cannot be fitted to a run; None if it can."""
    if run.status != "FINISHED":
        return f"it is {run.status}"
    if not run.stages or run.stages[-1].final_loss is None or run.stages[-1].parameters is None:
        return "its final loss or its parameters are not recorded"
    schedule = f"stages.{len(run.stages) - 1}.train.schedule.kind"
    if run.parameters.get(schedule) == "constant":
        return "its learning rate does not fall at the end"
    if run.parameters.get("stages.0.from", "None") != "None":
        return "it begins with a model that exists"
    ways = {_way(run, index) for index in range(1, len(run.stages))}
    if len(ways) > 1 or not ways <= set(METHODS):
        return f"it does not grow by one named method: {', '.join(sorted(ways))}"
    return None


def _point(run: Run) -> Point:
    (stage,) = run.stages
    assert stage.final_loss is not None, "checked by _unfit"
    return Point(stage.parameters or 0, stage.tokens, stage.final_loss)


def _way(run: Run, index: int) -> str:
    """How a stage of a run grew: a method, and what replaced half of it."""
    keys = (f"stages.{index}.grow.{key}" for key in ("method", "depth", "width"))
    return " ".join(word for key in keys if (word := run.parameters.get(key, "None")) != "None")


def _grown_point(run: Run) -> GrownPoint:
    stages = [(float(stage.parameters or 0), stage.tokens) for stage in run.stages]
    loss = run.stages[-1].final_loss
    assert loss is not None, "checked by _unfit"
    return GrownPoint(stages, _way(run, 1), loss)


def _write(path: Path, text: str) -> None:
    if path.exists():
        raise LigoError(f"--output {path}: is there already; name another file, or remove it")
    try:
        replace_text(path, text)
    except OSError as error:
        raise LigoError(f"--output {path}: cannot be written: {error.strerror or error}") from None
