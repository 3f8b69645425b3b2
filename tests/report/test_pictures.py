"""Pictures of whole runs and on several ranks: they are there, in MLflow too, and what goes wrong stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

from ligo_dist.engine import World, shard_of
from ligo_dist.growth import Growth, gathered_operator
from ligo_dist.report import OperatorNumbers, RunPictures
from ligo_dist.tracking import Tracker, read_state
from pairs import small_pair, start
from ranks import run_ranks
from runs import Site, run_warm
from servers import stored_runs

CURVES = {"loss.png"}
OPERATOR = {"depth.png", "depth_change.png", "moved.png", "operator.json"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


# --- whole runs ---


@pytest.mark.slow
def test_every_stage_has_its_pictures_in_mlflow_too(site: Site):
    files = site.config("drawn", "two stages")
    assert run_warm(files, 2, "tracking.pictures=true", "tracking.mlflow=true") == (0, "")
    assert "pictures of" not in (files.run_dir / "run.log").read_text()
    uri = f"sqlite:///{files.run_dir.parent / 'mlflow.db'}"
    runs, state = stored_runs(uri, "ligo_dist"), read_state(files.run_dir)
    assert state is not None
    for stage, names in (("small", CURVES), ("large", CURVES | OPERATOR)):
        paths = list((files.run_dir / "pictures" / stage).iterdir())
        assert {path.name for path in paths} == names
        for path in paths:
            assert path.stat().st_size < 250_000
            assert state.stages[stage].files[f"pictures/{path.name}"] == f"pictures/{stage}/{path.name}"
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    picture.verify()
                    assert picture.format == "PNG"
                    assert min(picture.size) >= 200
        stored = MlflowClient(uri).list_artifacts(runs[stage].info.run_id, "pictures")
        assert {artifact.path for artifact in stored} == {f"pictures/{name}" for name in names}
    numbers = json.loads((files.run_dir / "pictures" / "large" / "operator.json").read_text())
    assert numbers["columns"] == ["0", "1"]
    assert np.shape(numbers["depth"]["attn.c_attn.weight"]["now"]) == (3, 2)
    assert all(0 < width["moved"] < 0.1 for width in numbers["width"].values()), "it has learned a little"


@pytest.mark.slow
def test_a_run_that_cannot_draw_goes_on(site: Site):
    """A file lies where the pictures' directory is to be."""
    files = site.config("hindered", "two stages")
    files.run_dir.mkdir(parents=True)
    (files.run_dir / "pictures").write_text("in the way")
    assert run_warm(files, 2, "tracking.pictures=true") == (0, "")
    log = (files.run_dir / "run.log").read_text()
    assert log.count("pictures of large: not all could be drawn, the run goes on") == 2
    assert "exported large" in log


# --- the operator, on several ranks ---

METHOD = "bert2bert-aki"


class Collector(Tracker):
    """Keeps the names of the artifacts that it is given."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def artifact(self, content: Path | str, name: str) -> None:
        assert isinstance(content, Path)
        assert content.is_file()
        self.names.append(name)


def example() -> tuple[Growth, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A pair of models, the operator's first values, and those that it has learned."""
    growth = small_pair("bert", METHOD, (2, 5), (2, 3))
    begin, generator = start(growth, METHOD), torch.Generator().manual_seed(1)
    now = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in begin.items()}
    return growth, begin, now


def add_operator(
    world: World, run_dir: Path, enabled: bool, spoilt: str | None
) -> tuple[list[str], list[str], int]:
    """Names of the artifacts, messages, and how many parameters were gathered."""
    growth, begin, now = example()
    if spoilt is not None:
        now[spoilt][0, 0] = float("nan")
    shards = {name: shard_of(value, world.rank, world.size) for name, value in now.items()}
    gather, gathered = gathered_operator(growth, shards, world), []

    def operator(name: str) -> torch.Tensor:
        gathered.append(name)
        return gather(name)

    tracker, messages = Collector(), []
    pictures = RunPictures(run_dir, world, tracker, messages.append, enabled)
    pictures.add_operator("large", growth, begin.__getitem__, operator)
    return tracker.names, messages, len(gathered)


def test_an_operator_in_partitions(tmp_path: Path):
    (artifacts, messages, gathered), other = run_ranks(add_operator, 2, tmp_path, True, None)
    growth, begin, now = example()
    names = OPERATOR | {"new_depth.png", "new_depth_change.png"}
    assert (set(artifacts), messages) == ({f"pictures/{name}" for name in names}, [])
    assert gathered == len(growth.operator_parameters)
    assert other == ([], [], gathered), "only the first rank draws; all gather alike"
    directory = tmp_path / "pictures" / "large"
    assert {path.name for path in directory.iterdir()} == names
    numbers = OperatorNumbers(growth, begin.__getitem__)
    for parameter in growth.operator_parameters:
        numbers.add(parameter, now[parameter.name])
    assert json.loads((directory / "operator.json").read_text()) == numbers.to_dict()


def test_an_operator_that_cannot_be_measured_stops_no_rank(tmp_path: Path):
    (artifacts, (message,), gathered), second = run_ranks(add_operator, 2, tmp_path, True, "hidden.out")
    assert message.startswith("pictures of large: not all could be drawn, the run goes on (")
    assert artifacts == []
    assert gathered == second[2] == len(example()[0].operator_parameters)


def test_no_pictures_cost_nothing(tmp_path: Path):
    assert run_ranks(add_operator, 2, tmp_path, False, None) == [([], [], 0)] * 2
    assert list(tmp_path.iterdir()) == []
