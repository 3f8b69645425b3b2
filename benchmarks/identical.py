"""Whether a change of the code changed a number: small runs through every phase, family, objective and method.

    python -m benchmarks.identical --output before.txt     # before a change
    python -m benchmarks.identical --against before.txt    # after it, on the same machine

Each run is two ranks started by hand. A line of the table is one stage: its losses to the last digit, and a hash of
everything that the run recorded of it: losses, gradient norms, rates, tokens, FLOPs; no times, no memory. The last line
of a run is a hash of the weights it exported. Exit code 1: a line differs from the earlier table's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import environment_of_rank
from launcher.command import free_port
from ligo_dist.tracking import METRICS_FILE, read_records

_TEXTS = ("bisect.py", "heapq.py", "shlex.py", "string.py", "stat.py", "textwrap.py")
_RANKS = 2
_VARIES = ("time", "system/", "memory/", "cumulative/seconds", "grow/seconds")
"""Beginnings of what is never the same twice; `tokens_per_second` is not, either."""
_LOSSES = ("grow/source_loss", "grow/grown_loss", "evaluate/loss")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", help="only these")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--against", type=Path, help="an earlier table")
    options = parser.parse_args()
    if unknown := set(options.runs) - _RUNS.keys():
        parser.error(f"there is no run {', '.join(sorted(unknown))}; there are {', '.join(_RUNS)}")
    before = options.against.read_text().splitlines() if options.against else None
    lines: list[str] = []
    different = 0
    with tempfile.TemporaryDirectory(prefix="identical-") as directory:
        _gather_texts(Path(directory))
        for name in options.runs or _RUNS:
            for line in _table(name, _run(name, Path(directory))):
                lines.append(line)
                differs = before is not None and line not in before
                different += differs
                print(line + ("   DIFFERENT" if differs else ""), flush=True)
    if options.output:
        options.output.write_text("".join(f"{line}\n" for line in lines))
    if before is not None:
        print(f"{len(lines) - different} of {len(lines)} lines are in {options.against}")
    return 1 if different else 0


def _gather_texts(directory: Path) -> None:
    (directory / "texts").mkdir()
    for name in _TEXTS:
        shutil.copy(Path(sysconfig.get_path("stdlib")) / name, directory / "texts")


def _run(name: str, directory: Path) -> Path:
    """Take a run to its end; returns its directory.

    Raises:
        SystemExit: it failed; what it said is shown.
    """
    run_dir = directory / name
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump({**_SHARED, **_RUNS[name], "run_dir": str(run_dir)}))
    port = free_port()
    output = directory / f"{name}.out"
    with output.open("w") as file:
        ranks = []
        for rank in range(_RANKS):
            environ = environment_of_rank(rank, _RANKS, port, keeps_memory=True)
            environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
            command = [sys.executable, "-m", "ligo_dist", str(config)]
            ranks.append(subprocess.Popen(command, env=environ, stdout=file, stderr=file, cwd=directory))
        codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit(f"{name}: exit codes {codes}\n{output.read_text()}")
    return run_dir


def _table(name: str, run_dir: Path) -> Iterator[str]:
    """A run's lines."""
    records = read_records(run_dir / METRICS_FILE)
    for stage in dict.fromkeys(record["stage"] for record in records):
        kept = [_lasting(record) for record in records if record["stage"] == stage]
        kept = [record for record in kept if len(record) > 3]  # more than stage, phase, step
        losses = {metric: record[metric] for record in kept for metric in _LOSSES if metric in record}
        words = [f"{metric.split('/')[1]}={value!r}" for metric, value in losses.items()]
        yield f"{name} {stage}: {'  '.join(words)}  all={_hash(json.dumps(kept, sort_keys=True).encode())}"
    exports = sorted((run_dir / "export").glob("*/*.safetensors"))
    yield f"{name} weights: {_hash(b''.join(path.read_bytes() for path in exports))}"


def _lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in record.items()
        if not key.startswith(_VARIES) and not key.endswith("tokens_per_second")
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


_SHARED: dict[str, Any] = {
    "seed": 3,
    "precision": "fp32",
    "defaults": {
        "train": {
            "steps": 4,
            "batch_size": 6,
            "micro_batch_size": 2,
            "optimizer": {"learning_rate": 3e-3},
            "schedule": {"kind": "wsd", "warmup_steps": 2, "decay_steps": 2},
        },
        "grow": {"learn": {"optimizer": {"learning_rate": 1e-3}, "schedule": {"warmup_steps": 1}}},
    },
    "data": {
        "source": "text",
        "files": ["texts/*.py"],
        "document": "paragraph",
        "validation_fraction": 0.2,
        "sequence_length": 32,
        "workers": 1,
        "cache_dir": "cache",
    },
    "tokenizer": {"vocab_size": 420},
    "evaluation": {"every_steps": 2, "sequences": 7, "micro_batch_size": 2},
    "tracking": {"mlflow": False, "log_every_steps": 1, "pictures": False},
    "checkpoints": {"every_steps": 2, "export_stages": True},
    "distributed": {"timeout_seconds": 120},
}


def _stages(sizes: list[dict[str, Any]], *grows: dict[str, Any], **train: Any) -> list[dict[str, Any]]:
    """Stages of these sizes, each but the first grown so."""
    return [
        {"name": f"s{index}", "size": size, "train": train, **({"grow": grow} if grow is not None else {})}
        for index, (size, grow) in enumerate(zip(sizes, (None, *grows), strict=True))
    ]


def _size(layers: int, width: int, heads: int, **more: int) -> dict[str, Any]:
    return {"layers": layers, "width": width, "heads": heads, **more}


_DEPTHS = [_size(1, 16, 2), _size(2, 24, 3), _size(3, 24, 3), _size(5, 32, 4), _size(6, 40, 5)]
_DOUBLED = [_size(2, 16, 2), _size(4, 32, 4), _size(4, 64, 8)]
_IMAGES: dict[str, Any] = {
    "source": "digits",
    "image_size": 8,
    "channels": 1,
    "labels": 10,
    "max_documents": 200,
    "validation_fraction": 0.2,
    "random_shift": 1,
    "cache_dir": "cache",
}
_LEARN = {"learn": {"steps": 3}}

_RUNS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model": {"family": "gpt2", "max_positions": 32},
        "stages": _stages(
            _DEPTHS,
            {"method": "ligo", "optimizer_state": "grown", **_LEARN},
            {"method": "lossless-dense", "optimizer_state": "asymmetric"},
            {"method": "lossless", **_LEARN},
            {"method": "net2net", "noise": 0.01},
        ),
    },
    "gpt2-copies": {
        "model": {"family": "gpt2", "max_positions": 32, "huggingface": {"resid_pdrop": 0.1}},
        "stages": _stages(
            _DEPTHS,
            {"method": "stack", "share_depth": True, **_LEARN},
            {"method": "interlace", "width": "bert2bert-fpi", "share_width": True, **_LEARN},
            {"method": "interpolate", **_LEARN},
            {"method": "ligo", "depth": "top-copy", "tied": True, "identity": "fixed", **_LEARN},
        ),
    },
    "gpt2-fresh": {
        "model": {"family": "gpt2", "max_positions": 32, "tie_embeddings": False},
        "stages": _stages(
            [_size(0, 16, 2), *_DEPTHS[:3], _size(4, 24, 3)],
            {"method": "progressive", "optimizer_state": "asymmetric"},
            {"method": "random", **_LEARN},
            {"method": "scratch"},
            {"method": "ligo", "depth": "random-layers", "optimizer_state": "grown", **_LEARN},
        ),
    },
    "gpt_neox": {
        "model": {"family": "gpt_neox", "max_positions": 32},
        "stages": _stages(_DOUBLED, {"method": "hypercloning"}, {"method": "ligo", **_LEARN}),
    },
    "llama": {
        "model": {"family": "llama", "max_positions": 32},
        "stages": _stages(
            [
                _size(2, 32, 4, key_value_heads=2),
                _size(3, 48, 6, key_value_heads=3, ffn=133),
                _size(5, 64, 8, key_value_heads=4),
            ],
            {"method": "ligo", "tied": False, "optimizer_state": "grown", **_LEARN},
            {"method": "zero-pad", "noise": 0.02},
            activation_checkpointing=True,
        ),
    },
    "llama-bf16": {
        "precision": "bf16",
        "model": {"family": "llama", "max_positions": 32, "tie_embeddings": True},
        "stages": _stages(
            [_size(2, 32, 4, key_value_heads=2), _size(3, 48, 6, key_value_heads=3)],
            {"method": "ligo", **_LEARN},
        ),
    },
    **{
        family: {
            "model": {"family": family, "max_positions": 32},
            "stages": _stages(
                [_size(2, 32, 4, key_value_heads=2), _size(3, 48, 6, key_value_heads=2)],
                {"method": "lossless-dense", **_LEARN},
            ),
        }
        for family in ("mistral", "qwen2")
    },
    "qwen3": {
        "model": {"family": "qwen3", "max_positions": 32},
        "stages": _stages(
            [_size(2, 24, 2, head_size=16), _size(3, 40, 4, head_size=16, key_value_heads=2)],
            {"method": "ligo", **_LEARN},
        ),
    },
    "bert": {
        "model": {"family": "bert", "max_positions": 32},
        "stages": _stages(
            _DEPTHS[:3],
            {"method": "bert2bert-aki", "optimizer_state": "grown"},
            {"method": "ligo", **_LEARN},
        ),
    },
    "roberta": {
        "model": {"family": "roberta", "max_positions": 32},
        "stages": _stages(_DEPTHS[:2], {"method": "bert2bert-fpi"}),
    },
    "vit": {
        "model": {"family": "vit", "patch_size": 4},
        "data": _IMAGES,
        "tokenizer": {},
        "stages": _stages(
            _DEPTHS[:3],
            {"method": "ligo", "optimizer_state": "grown", **_LEARN},
            {"method": "lossless"},
        ),
    },
    "deit": {
        "model": {"family": "deit", "patch_size": 4},
        "data": _IMAGES,
        "tokenizer": {},
        "stages": _stages(_DEPTHS[:2], {"method": "interlace", **_LEARN}),
    },
}


if __name__ == "__main__":
    sys.exit(main())
