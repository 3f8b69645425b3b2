"""A real MLflow server over an SQLite file, started as docs/tracking.md says, which tests may kill and start again."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from runs import ROOT

_START_SECONDS = 180


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def documented_command(port: int, directory: Path, backend: str | None = None) -> list[str]:
    """The command of docs/tracking.md that starts a server, with this machine, a port and a directory in it; and with
    another `--backend-store-uri`, if one is given."""
    text = (ROOT / "docs" / "tracking.md").read_text().replace("\\\n", "")
    (line,) = re.findall(r"^ +(mlflow server .*)$", text, re.MULTILINE)
    if backend is not None:
        line = re.sub(r"(?<=--backend-store-uri )\S+", backend, line)
    for documented, here in (
        ("0.0.0.0", "127.0.0.1"),
        ("10.0.0.5:*,NAME:*", "127.0.0.1:*"),
        ("5000", str(port)),
        ("/srv/mlflow/", f"{directory}/"),
    ):
        assert documented in line, f"{documented} is not in: {line}"
        line = line.replace(documented, here)
    return [sys.executable, "-m", *shlex.split(line)]


class MlflowServer:
    """A server in a directory of its own; started again, it has the same address and the same runs. It keeps them in an
    SQLite file there, or in the database `backend`."""

    def __init__(self, directory: Path, backend: str | None = None) -> None:
        directory.mkdir()
        self.directory, self.port, self._backend = directory, free_port(), backend
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = documented_command(self.port, self.directory, self._backend)
        # Four workers, and ten processes for jobs that nobody gives it, take this machine from the run.
        environment = {**os.environ, "MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            said = (self.directory / "server.log").read_text()
            assert self._process.poll() is None and time.monotonic() < deadline, said  # noqa: PT018
            time.sleep(0.2)

    def kill(self) -> None:
        """End it and its workers at once, as a machine that fails does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False


def stored_runs(uri: str, experiment: str) -> dict[str, Any]:
    """The runs of an experiment by name; none where there is no such experiment."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = [] if found is None else client.search_runs([found.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(set(names)) == len(names), names
    return dict(zip(names, runs, strict=True))


def stored_points(uri: str, run: Any) -> Counter[tuple[str, int]]:
    """How many points a stored run has, by metric and step."""
    client = MlflowClient(uri)
    return Counter(
        (metric, point.step)
        for metric in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, metric)
    )
