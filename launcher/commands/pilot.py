"""`ligo-dist plan --pilot`: the small runs that a law for a target is fitted to, written as configurations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ligo_dist.config import Config, config_from, dump_yaml
from ligo_dist.runtime.errors import FINISHED, LigoError
from ligo_dist.runtime.files import replace_text

DEPTHS = (8, 4, 2)
"""Parts of the target's depth that pilots have: a law in the parameters takes three sizes."""
LENGTHS = (32, 16, 8)
"""Parts of the target's tokens that they are decayed at: a law in the tokens takes three."""
GROWN_AT = 0.7
WAYS = ("damped", "stack")
_DECAY, _REWARMUP = 0.1, 5


def pilot(config: Config, path: str, output: Path, tokens: float) -> int:
    """Write trunks at a constant rate, decays that fork from them, and growths from the smallest to the largest pilot.

    Args:
        config: whose last model is the target.
        path: of its file.
        output: directory of the configurations; those of the runs are below it.
        tokens: that the target is to read.
    """
    own = config.values()["stages"][-1]
    layers = [own["size"]["layers"] // part for part in DEPTHS]
    if len(set(layers)) < len(layers) or 0 in layers:
        wrong = f"a target of {own['size']['layers']} layers has no pilots of an eighth, a quarter, a half of them"
        raise LigoError(f"{path}: {wrong}")
    per_step = own["train"]["batch_size"] * config.data.sequence_length
    lengths = [round(tokens / part / per_step) for part in LENGTHS]
    warmup = own["train"]["schedule"]["warmup_steps"]
    if lengths[0] * (1 - _DECAY) <= warmup:
        wrong = f"the shortest pilot has {lengths[0]} steps, of which {warmup} are warm-up"
        raise LigoError(f"{path}: {wrong}; more --tokens, or a smaller train.schedule.warmup_steps")
    if output.exists():
        raise LigoError(f"--output {output}: is there already; name another directory, or remove it")
    written = _written(config, output, layers, lengths)
    for name, raw in written.items():
        config_from(raw, name)  # so that none is written that `ligo-dist run` would refuse
    output.mkdir(parents=True)
    for name, raw in written.items():
        replace_text(output / f"{name}.yaml", dump_yaml(raw))
    print("The pilots, in the order in which they run:")
    for name in written:
        print(f"  ligo-dist run {output / name}.yaml")
    decayed = " ".join(str(output / "runs" / name) for name in written if not name.startswith("trunk"))
    print(f"then:\n  ligo-dist plan --fit {decayed} --output {output / 'law.yaml'}")
    print(f"  ligo-dist plan --choose {path} --law {output / 'law.yaml'} --tokens {tokens:g}")
    return FINISHED


def _written(
    config: Config, output: Path, layers: list[int], lengths: list[int]
) -> dict[str, dict[str, Any]]:
    """All configurations by name."""
    own = config.values()["stages"][-1]
    warmup = own["train"]["schedule"]["warmup_steps"]
    forks = [round((1 - _DECAY) * steps) for steps in lengths]
    grown_at = round(GROWN_AT * lengths[-1])
    constant = {"kind": "constant", "warmup_steps": warmup}
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, stages: list[dict[str, Any]], **more: Any) -> None:
        raw = config.values() | {"run_dir": str(output / "runs" / name), "stages": stages}
        raw["checkpoints"] |= more.pop("checkpoints", {})
        found[name] = raw | more

    def stage(number: int, steps: int, schedule: dict[str, Any], **more: Any) -> dict[str, Any]:
        train = copy.deepcopy(own["train"]) | {"steps": steps, "schedule": schedule}
        return {"name": f"layers-{number}", "size": own["size"] | {"layers": number}, "train": train} | more

    def falling(steps: int, whole: int, warm: int) -> dict[str, Any]:
        decay = min(whole - round((1 - _DECAY) * whole), steps - warm)
        return {"kind": "wsd", "warmup_steps": warm, "decay_steps": decay, "final_ratio": 0.0}

    for number in layers:
        kept = sorted({*forks, grown_at} if number == layers[0] else forks)
        add(f"trunk-{number}", [stage(number, forks[-1], constant)], checkpoints={"keep_steps": kept})
        for steps, fork in zip(lengths, forks, strict=True):
            start = {"run": str(output / "runs" / f"trunk-{number}"), "step": fork}
            add(
                f"decay-{number}-{steps}",
                [stage(number, steps, falling(steps, steps, warmup))],
                start_from=start,
            )
    left = lengths[-1] - grown_at
    start = {"run": str(output / "runs" / f"trunk-{layers[0]}"), "step": grown_at}
    for way in WAYS:
        first = stage(layers[0], grown_at, constant)
        schedule = falling(left, lengths[-1], min(warmup // _REWARMUP, left // 2))
        add(
            f"grown-{way}", [first, stage(layers[-1], left, schedule, grow={"method": way})], start_from=start
        )
    return found
