"""One MLflow database for all tests: its tables take a second to make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from ligo_dist.tracking import Tracker, build_tracker


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


class Desk:
    """A run directory and a store, with what tests ask of them."""

    def __init__(self, run_dir: Path, uri: str) -> None:
        self.run_dir, self.uri, self.experiment = run_dir, uri, run_dir.parent.name
        self.warnings: list[str] = []
        self._open: list[Tracker] = []

    def tracker(
        self, resume_step: int | None = None, uri: str | None = None, mlflow: bool = True, recorded: int = 0
    ) -> Tracker:
        section = SimpleNamespace(
            mlflow=mlflow, uri=uri or self.uri, experiment=self.experiment, run_name=None
        )
        config: Any = SimpleNamespace(tracking=section)
        tracker = build_tracker(config, self.run_dir, 0, resume_step, self.warnings.append, recorded)
        self._open.append(tracker)
        return tracker

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def runs(self) -> dict[str, Any]:
        """The experiment's runs by name; a name that is there twice is an error."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        assert experiment is not None
        runs = self.client.search_runs([experiment.experiment_id])
        names = [run.info.run_name for run in runs]
        assert len(set(names)) == len(names), names
        return dict(zip(names, runs, strict=True))

    def has_begun(self, run: str) -> bool:
        """Whether the store has a run of that name."""
        return self.client.get_experiment_by_name(self.experiment) is not None and run in self.runs()

    def steps(self, run: str, metric: str) -> list[int]:
        """The steps of a metric, repetitions included."""
        return sorted(
            point.step for point in self.client.get_metric_history(self.runs()[run].info.run_id, metric)
        )

    def close(self) -> None:
        for tracker in self._open:
            tracker.close()


@pytest.fixture
def desk(tmp_path: Path, store: str) -> Iterator[Desk]:
    desk = Desk(tmp_path / "run", store)
    yield desk
    desk.close()
