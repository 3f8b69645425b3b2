"""The linter holds the architecture: each rule is tried with an offending import at a place where it must bite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OFFENCES = [
    ("ligo_dist/models.py", "import deepspeed"),
    ("ligo_dist/growth/transfer.py", "from deepspeed.utils import safe_get_local_fp32_param"),
    ("ligo_dist/hooks.py", "import mlflow"),
    ("ligo_dist/tracking/jsonl.py", "from mlflow.tracking import MlflowClient"),
    ("ligo_dist/growth/algebra.py", "import torch.distributed as dist"),
    ("ligo_dist/growth/learner.py", "from torch import distributed"),
    ("ligo_dist/architectures/gpt2.py", "from torch.distributed import all_reduce"),
    ("ligo_dist/checkpoints/writer.py", "import torch.distributed"),
    ("ligo_dist/hooks.py", "from ligo_dist.trainer import Trainer"),
    ("ligo_dist/phases.py", "from ligo_dist import trainer"),
    ("ligo_dist/config/load.py", "from launcher.cli import main"),
    ("launcher/plan.py", "import torch"),
    ("launcher/plan.py", "from torch import nn"),
    ("launcher/plan.py", "import transformers"),
    ("launcher/plan.py", "import deepspeed"),
    ("launcher/plan.py", "from datasets import load_dataset"),
    ("launcher/commands/sync.py", "import mlflow"),
    ("launcher/commands/report.py", "import matplotlib"),
    ("launcher/commands/report.py", "from matplotlib.figure import Figure"),
    ("launcher/plan.py", "from matplotlib.figure import Figure"),
    ("ligo_dist/tracking/mlflow_tracker.py", "import mlflow"),
    ("ligo_dist/report/reading.py", "import mlflow"),
    ("launcher/cli.py", "from ligo_dist.worker import run"),
    ("launcher/cli.py", "from ligo_dist.engine import Engine"),
]
ALLOWED = [
    ("ligo_dist/engine/engine.py", "import deepspeed"),
    ("ligo_dist/tracking/mlflow.py", "import mlflow.tracking"),
    ("ligo_dist/distributed.py", "import torch.distributed as dist"),
    ("ligo_dist/growth/sharded.py", "import torch.distributed as dist"),
    ("ligo_dist/worker.py", "from ligo_dist.trainer import Trainer"),
    ("ligo_dist/growth/algebra.py", "import torch"),
    ("launcher/cli.py", "from launcher.plan import plan_stages"),
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


@pytest.mark.parametrize(
    "module",
    [
        "ligo_dist.architectures",
        "ligo_dist.accounting",
        "ligo_dist.config",
        "ligo_dist.planning",
        "ligo_dist.tracking.sync",
        "ligo_dist.report",
    ],
)
def test_what_the_launcher_uses_loads_no_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'deepspeed', 'datasets', 'mlflow', 'matplotlib'}"
    script = f"import sys, {module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
