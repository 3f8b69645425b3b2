"""Runs delivered to an MLflow server that keeps them in PostgreSQL, three at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from ligo_dist.tracking import METRICS_FILE, PARENT, points_of, read_records
from recorded_runs import Leg, Recorder
from servers import MlflowServer, free_port, stored_points

_SMALL = Leg("small", [(1e9 * step, 5.0 - step / 100) for step in range(1, 40)])
_LARGE = Leg(
    "large",
    [(4e9 * step, 4.5 - step / 100) for step in range(1, 40)],
    [(1e9, 4.6), (2e9, 4.5)],
    source_loss=4.61,
)


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database, whose server is this test's own."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    # Not pytest's directory, which is root's alone, as the server must not be.
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        shutil.chown(directory, "postgres")

        def as_postgres(program: str, *words: str) -> None:
            command = ["runuser", "-u", "postgres", "--", programs / program, *words]
            subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL)

        data, port = f"{directory}/data", free_port()
        as_postgres("initdb", "-D", data, "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8")
        places = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={directory}"
        as_postgres(
            "pg_ctl", "-D", data, "-w", "-o", f"{places} -c fsync=off", "-l", f"{directory}/log", "start"
        )
        try:
            as_postgres("createdb", "-h", directory, "-p", str(port), "mlflow")
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/mlflow"
        finally:
            as_postgres("pg_ctl", "-D", data, "-m", "immediate", "stop")


def test_runs_are_delivered_side_by_side_and_once(database: str, tmp_path: Path) -> None:
    run_dirs = [tmp_path / "runs" / name for name in ("a", "b", "c")]
    for seed, run_dir in enumerate(run_dirs):
        Recorder(run_dir, seed=seed).record(_SMALL, _LARGE)
    server = MlflowServer(tmp_path / "server", database)
    server.start()
    try:
        command = [sys.executable, "-m", "ligo_dist.tracking.sync", f"--uri={server.uri}"]
        started = [
            subprocess.Popen([*command, run_dir], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for run_dir in run_dirs
        ]
        for process in started:
            said, _ = process.communicate()
            assert process.returncode == 0, said
        assert not (server.directory / "mlflow.db").exists()
        client = MlflowClient(server.uri)
        experiment = client.get_experiment_by_name("runs")  # which each of them found missing
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        for run_dir in run_dirs:
            expected = points_of(read_records(run_dir / METRICS_FILE), PARENT)
            stored = stored_points(server.uri, runs[run_dir.name])
            assert stored == Counter((point.metric, point.step) for point in expected)
        again = subprocess.run([*command, *run_dirs], stdout=subprocess.PIPE, text=True, check=True)
        assert again.stdout.count("nothing was missing") == 3
    finally:
        server.kill()
