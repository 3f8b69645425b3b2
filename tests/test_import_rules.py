"""The linter holds the architecture: each rule is tried with an offending import at a place where it must bite."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OFFENCES = [
    ("ligo_dist/huggingface/models.py", "import deepspeed"),
    ("ligo_dist/growth/transfer.py", "from deepspeed.utils import safe_get_local_fp32_param"),
    ("ligo_dist/training/hooks.py", "import mlflow"),
    ("ligo_dist/tracking/record.py", "from mlflow.tracking import MlflowClient"),
    ("ligo_dist/growth/sharded.py", "import torch.distributed as dist"),
    ("ligo_dist/growth/learner.py", "from torch import distributed"),
    ("ligo_dist/architectures/gpt.py", "from torch.distributed import all_reduce"),
    ("ligo_dist/checkpoints/writer.py", "import torch.distributed"),
    ("ligo_dist/training/hooks.py", "from ligo_dist.training.trainer import Trainer"),
    ("ligo_dist/training/phase.py", "from ligo_dist.training import trainer"),
    ("launcher/preflight.py", "import torch"),
    ("launcher/preflight.py", "from torch import nn"),
    ("launcher/preflight.py", "import transformers"),
    ("launcher/preflight.py", "import deepspeed"),
    ("launcher/preflight.py", "from datasets import load_dataset"),
    ("launcher/commands/sync.py", "import mlflow"),
    ("launcher/commands/report.py", "import matplotlib"),
    ("launcher/commands/report.py", "from matplotlib.figure import Figure"),
    ("launcher/preflight.py", "from matplotlib.figure import Figure"),
    ("ligo_dist/tracking/mirror.py", "import mlflow"),
    ("ligo_dist/report/read.py", "import mlflow"),
    ("launcher/cli.py", "from ligo_dist.training.run import run"),
    ("launcher/cli.py", "from ligo_dist.engine import Engine"),
]
ALLOWED = [
    ("ligo_dist/engine/engine.py", "import deepspeed"),
    ("ligo_dist/tracking/mlflow.py", "import mlflow.tracking"),
    ("ligo_dist/engine/world.py", "import torch.distributed as dist"),
    ("ligo_dist/training/run.py", "from ligo_dist.training.trainer import Trainer"),
    ("ligo_dist/growth/algebra.py", "import torch"),
    ("launcher/cli.py", "from launcher.preflight import plan_of"),
    ("launcher/cli.py", "from ligo_dist.config import load_config"),
    ("tests/engine/test_engine.py", "import deepspeed"),
]


def banned(path: str, line: str) -> bool:
    """Whether the linter refuses a line in a file of this project, at the top or inside a function."""
    answers = set()
    for source in (f"{line}\n", f"def late():\n    {line}\n"):
        command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251"]
        done = subprocess.run(
            [*command, "--stdin-filename", path, "-"], input=source, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode in (0, 1), done.stderr
        assert ("TID251" in done.stdout) == (done.returncode == 1), done.stdout
        answers.add(done.returncode == 1)
    assert len(answers) == 1, "an import inside a function is judged as one at the top"
    return answers.pop()


@pytest.mark.parametrize(("path", "line"), OFFENCES)
def test_the_rule_bites(path: str, line: str) -> None:
    assert banned(path, line)


@pytest.mark.parametrize(("path", "line"), ALLOWED)
def test_what_is_allowed_is_allowed(path: str, line: str) -> None:
    assert not banned(path, line)


@pytest.mark.parametrize("path", sorted({path for path, _ in OFFENCES + ALLOWED[:-1]}))
def test_the_files_are_there(path: str) -> None:
    assert (ROOT / path).is_file(), "a rule about a file that was renamed guards nothing"


def test_a_package_is_imported_by_its_face() -> None:
    """By the others, the launcher, benchmarks and tests; `runtime` has none, as its modules have nothing in common."""
    deep = []
    for top in ("ligo_dist", "launcher", "tests", "benchmarks"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.ImportFrom) or node.module is None:
                    continue
                module = node.module.split(".")
                is_deep = module[0] == "ligo_dist" and len(module) > 2 and module[1] != "runtime"
                if is_deep and module[:2] != list(parts[:2]):
                    deep.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.module}")
    assert deep == []


UPWARD = [
    ("runtime/files.py", "import ligo_dist.config"),
    ("engine/shards.py", "from ligo_dist.growth import algebra"),
    ("growth/methods.py", "def late():\n    import ligo_dist.training.trainer"),
    ("report/tables.py", "from ligo_dist import planning"),
    ("config/load.py", "from launcher.cli import main"),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, in which every import is allowed."""
    directory = tmp_path_factory.mktemp("packages")
    for package in ("ligo_dist", "launcher"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    assert "0 broken" in layers(directory)
    return directory


@pytest.mark.parametrize(("path", "line"), UPWARD)
def test_no_import_points_upward(packages: Path, path: str, line: str) -> None:
    file = packages / "ligo_dist" / path
    text = file.read_text()
    file.write_text(f"{text}\n{line}\n")
    try:
        assert "is not allowed to import" in layers(packages)
    finally:
        file.write_text(text)


def layers(directory: Path) -> str:
    """What the linter says of the layers of the packages in a directory."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=directory, env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "ligo_dist.architectures",
        "ligo_dist.schedule.flops",
        "ligo_dist.config",
        "ligo_dist.planning",
        "ligo_dist.tracking.sync",
        "ligo_dist.report",
        "ligo_dist.runtime.watch",
    ],
)
def test_what_the_launcher_uses_loads_no_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'deepspeed', 'datasets', 'mlflow', 'matplotlib', 'scipy'}"
    script = f"import sys, {module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
