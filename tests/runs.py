"""Whole runs on a tiny corpus: a configuration, ways to start it, and what it left behind."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from ligo_dist.config import load_config
from ligo_dist.corpus import build_corpus
from ligo_dist.engine import World
from ranks import run_ranks

ROOT = Path(__file__).parents[1]
TEXTS = ("bisect.py", "heapq.py", "shlex.py", "string.py", "stat.py", "textwrap.py")

_CONFIG = """
run_dir: {run_dir}
seed: 3
precision: fp32
model: {model}
defaults:
  train:
    steps: 5
    batch_size: 8
    micro_batch_size: 4
    optimizer: {{learning_rate: 3e-3}}
    schedule: {{kind: wsd, warmup_steps: 2, decay_steps: 2}}
  grow: {{learn: {{steps: 5, optimizer: {{learning_rate: 1e-3}}, schedule: {{warmup_steps: 1}}}}}}
stages: {stages}
data: {{source: text, files: ['{texts}/*.py'], document: paragraph, validation_fraction: 0.2, sequence_length: 32,
        workers: 1, cache_dir: '{cache}'}}
tokenizer: {{vocab_size: 420}}
evaluation: {{every_steps: 3, sequences: 7, micro_batch_size: 4}}
tracking: {{mlflow: false, log_every_steps: 1, pictures: false}}
checkpoints: {{every_steps: 2, keep: 2}}
distributed: {{timeout_seconds: 120}}
"""

MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model": {"family": "gpt2", "max_positions": 32},
        "stages": [
            {"name": "small", "size": {"layers": 2, "width": 24, "heads": 3}, "train": {}},
            {
                "name": "medium",
                "size": {"layers": 3, "width": 40, "heads": 5},
                "grow": {
                    "method": "ligo",
                    "optimizer_state": "grown",
                },
                "train": {},
            },
            {
                "name": "large",
                "size": {"layers": 5, "width": 48, "heads": 6, "ffn": 201},
                "grow": {
                    "method": "lossless",
                    "optimizer_state": "asymmetric",
                },
                "train": {"activation_checkpointing": True},
            },
        ],
    },
    "two stages": {  # whose batches divide by one, two and three ranks
        "model": {"family": "gpt2", "max_positions": 32},
        "stages": [
            {
                "name": "small",
                "size": {"layers": 2, "width": 24, "heads": 3},
                "train": {"batch_size": 12},
            },
            {
                "name": "large",
                "size": {"layers": 3, "width": 40, "heads": 5},
                "grow": {
                    "method": "ligo",
                    "optimizer_state": "grown",
                    "learn": {
                        "optimizer": {"weight_decay": 0.05},
                    },
                },
                "train": {"batch_size": 12},
            },
        ],
    },
    "llama": {
        "model": {"family": "llama", "max_positions": 32},
        "stages": [
            {
                "name": "small",
                "size": {"layers": 2, "width": 32, "heads": 4, "key_value_heads": 2},
                "train": {},
            },
            {
                "name": "large",
                "size": {"layers": 5, "width": 48, "heads": 6, "key_value_heads": 3, "ffn": 133},
                "grow": {"method": "ligo", "tied": False},
                "train": {},
            },
        ],
    },
}

_NOT_COMPARED = {
    "time", "stage", "phase", "step", "memory/held_bytes", "memory/peak_bytes", "grow/seconds", "cumulative/seconds",
    "train/tokens_per_second", "learn/tokens_per_second",
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A directory with a corpus and a cache that runs share."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Site:
        (directory / "texts").mkdir()
        library = Path(sysconfig.get_path("stdlib"))
        for name in TEXTS:
            shutil.copy(library / name, directory / "texts")
        site = cls(directory)
        # Now, so that no run shows a progress bar and the seconds of a run are its own.
        build_corpus(load_config(site.config("corpus").config, []), show_progress=False)
        return site

    def config(self, name: str, family: str = "gpt2") -> RunFiles:
        """A new run's configuration; its run directory does not exist yet."""
        path, run_dir = self.directory / f"{name}.yaml", self.directory / "runs" / name
        parts = {
            key: yaml.safe_dump(value, default_flow_style=True, width=10**6)
            for key, value in MODELS[family].items()
        }
        path.write_text(
            _CONFIG.format(
                run_dir=run_dir, texts=self.directory / "texts", cache=self.directory / "cache", **parts
            )
        )
        return RunFiles(path, run_dir)


@dataclass(frozen=True)
class RunFiles:
    """A run's configuration and what it leaves behind."""

    config: Path
    run_dir: Path

    def records(self) -> list[dict[str, Any]]:
        from ligo_dist.tracking import read_records

        return read_records(self.run_dir / "metrics.jsonl")

    def numbers(self, only: str = "") -> dict[tuple[str, str, int, str], float]:
        """What a run measured, by (stage, phase, step, metric): without times, memory and load, which are never the
        same."""
        numbers: dict[tuple[str, str, int, str], float] = {}
        seen = set()
        for record in self.records():
            if any(name.startswith("system/") for name in record):
                continue
            place = (record["stage"], record["phase"], record["step"])
            identity = (*place, frozenset(record))
            assert identity not in seen, f"{identity} is recorded twice"
            seen.add(identity)
            for name in sorted(set(record) - _NOT_COMPARED):
                if only in name:
                    assert numbers.setdefault((*place, name), record[name]) == record[name]
        return numbers

    def statuses(self) -> list[str]:
        """How the run and its stages ended, in this order, as any store is told."""
        from ligo_dist.tracking import read_state

        ledger = read_state(self.run_dir)
        assert ledger is not None
        return [run.status for _, run in ledger.runs()]

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.run_dir / "checkpoints").glob("*"))

    def weights(self, stage: str) -> dict[str, Tensor]:
        return load_file(self.run_dir / "export" / stage / "model.safetensors")

    def contents(self) -> dict[str, bytes]:
        """Every file of the run directory, to see that nothing was harmed."""
        files = (path for path in sorted(self.run_dir.rglob("*")) if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(self.run_dir)): path.read_bytes() for path in files}

    def copy(self, name: str) -> RunFiles:
        """The same configuration and run directory under another name, as they are now."""
        config, run_dir = self.config.with_name(f"{name}.yaml"), self.run_dir.with_name(name)
        config.write_text(self.config.read_text().replace(str(self.run_dir), str(run_dir)))
        shutil.copytree(self.run_dir, run_dir)
        return RunFiles(config, run_dir)


def worker_main(world: World, argv: list[str]) -> tuple[int, str]:
    """The worker's `main` on one rank; its exit code and standard error."""
    from ligo_dist.__main__ import main

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main(argv)
    return code, errors.getvalue()


def run_warm(files: RunFiles, world_size: int, *overrides: str) -> tuple[int, str]:
    """The worker's `main` on warm ranks: exit code, and what one of them says on standard error, without its name."""
    results = run_ranks(worker_main, world_size, [str(files.config), *overrides], timeout=300)
    assert len({code for code, _ in results}) == 1, results
    said = [text for _, text in results if text]
    assert len(said) <= 1, f"one message, not one per rank: {said}"
    return results[0][0], re.sub(r"^ligo-dist: rank \d+ on \S+: ", "ligo-dist: ", said[0]) if said else ""


def environment() -> dict[str, str]:
    """That of a shell in which the virtual environment is active, with the code that is tested, whichever is installed,
    and an import less for DeepSpeed's launcher."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'startup'}",
    }


@contextlib.contextmanager
def started_by_hand(files: RunFiles, world_size: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One process per rank, as a launcher would start them; killed at the end, if they still run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    with (files.config.with_suffix(".out")).open("ab") as output:
        for rank in range(world_size):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
            environ = {**environment(), "MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in place.items()}}
            command = [sys.executable, "-m", "ligo_dist", str(files.config)]
            processes.append(subprocess.Popen(command, env=environ, stdout=output, stderr=output))
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def launcher(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "launcher", *arguments]


def has_finished(files: RunFiles) -> bool:
    """Whether the run has come to its end and said what it came to."""
    return (files.run_dir / "summary.json").exists()


def measured(files: RunFiles, stage: str, phase: str, step: int) -> Callable[[], bool]:
    """Whether a step has been recorded."""
    wanted = (stage, phase, step)
    return lambda: any((r["stage"], r["phase"], r["step"]) == wanted for r in files.records())


def checkpointed(files: RunFiles, pattern: str) -> Callable[[], bool]:
    """Whether there is a checkpoint of such a name."""
    return lambda: any((files.run_dir / "checkpoints").glob(pattern))


def assert_same_weights(files: RunFiles, reference: RunFiles) -> None:
    weights, expected = files.weights("large"), reference.weights("large")
    assert set(weights) == set(expected)
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name
