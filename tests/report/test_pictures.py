"""Pictures of whole runs and on several ranks: they are there, in MLflow too, and what goes wrong stops nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

from ligo_dist.engine.shards import shard_of
from ligo_dist.engine.world import World
from ligo_dist.growth.methods import Method
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.transfer import gathered_operator
from ligo_dist.report.pictures import RunPictures
from ligo_dist.tracking import Tracker
from pairs import method_named, pair_of, start
from ranks import run_ranks
from runs import RunFiles, Site, run_warm
from servers import stored_runs
from small_models import small_shape

CURVES = {"loss.png"}
OPERATOR = {"depth.png", "depth_change.png", "moved.png", "operator.json"}
SEED = 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def drawn_run(site: Site) -> RunFiles:
    files = site.config("drawn", "two stages")
    assert run_warm(files, 2, "tracking.pictures=true", "tracking.mlflow=true") == (0, "")
    return files


# --- whole runs ---


@pytest.mark.slow
def test_every_stage_has_its_pictures(drawn_run: RunFiles):
    for stage, names in (("small", CURVES), ("large", CURVES | OPERATOR)):
        paths = list((drawn_run.run_dir / "pictures" / stage).iterdir())
        assert {path.name for path in paths} == names
        for path in paths:
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    picture.verify()
                    assert picture.format == "PNG"
                    assert min(picture.size) >= 200
                assert path.stat().st_size < 250_000
    assert "pictures of" not in (drawn_run.run_dir / "run.log").read_text()


@pytest.mark.slow
def test_mlflow_has_them_as_artifacts_of_the_stages(drawn_run: RunFiles):
    uri = f"sqlite:///{drawn_run.run_dir.parent / 'mlflow.db'}"
    runs = stored_runs(uri, "ligo_dist")
    for stage, names in (("small", CURVES), ("large", CURVES | OPERATOR)):
        stored = MlflowClient(uri).list_artifacts(runs[stage].info.run_id, "pictures")
        assert {artifact.path for artifact in stored} == {f"pictures/{name}" for name in names}


@pytest.mark.slow
def test_a_later_delivery_finds_them(drawn_run: RunFiles):
    ledger = json.loads((drawn_run.run_dir / "tracking.json").read_text())
    assert ledger["stages"]["large"]["files"]["pictures/depth.png"] == "pictures/large/depth.png"


@pytest.mark.slow
def test_the_numbers_are_those_of_the_run(drawn_run: RunFiles):
    numbers = json.loads((drawn_run.run_dir / "pictures" / "large" / "operator.json").read_text())
    assert numbers["columns"] == ["0", "1"]
    assert np.shape(numbers["depth"]["attn.c_attn.weight"]["now"]) == (3, 2)
    assert {name for name in numbers["width"] if name.startswith("layers.0.")} == {
        f"layers.0.{axis}.out" for axis in ("query", "key", "value", "ffn")
    }
    assert all(0 < width["moved"] < 0.1 for width in numbers["width"].values())


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


class Collector(Tracker):
    """Keeps the names of the artifacts that it is given."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def artifact(self, content: Path | str, name: str) -> None:
        assert isinstance(content, Path) and content.is_file()  # noqa: PT018
        self.names.append(name)


def example() -> tuple[Growth, Method]:
    shapes = [
        small_shape("bert", layers, heads, ffn=ffn, head_size=4)
        for layers, heads, ffn in ((2, 2, 19), (5, 3, 31))
    ]
    method = method_named("bert2bert-aki")
    return pair_of("bert", *shapes, method), method


def learned(growth: Growth, method: Method) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in start(growth, method, SEED).items()
    }


def add_operator(
    world: World, run_dir: Path, enabled: bool, spoilt: str | None
) -> tuple[list[str], list[str], int]:
    """Names of the artifacts, messages, and how many parameters were gathered."""
    growth, method = example()
    values = learned(growth, method)
    if spoilt is not None:
        values[spoilt][0, 0] = float("nan")
    shards = {name: shard_of(value, world.rank, world.size) for name, value in values.items()}
    gather, gathered = gathered_operator(growth, shards, world), []

    def operator(name: str) -> torch.Tensor:
        gathered.append(name)
        return gather(name)

    tracker, messages = Collector(), []
    pictures = RunPictures(run_dir, run_dir / "metrics.jsonl", world, tracker, messages.append, enabled)
    pictures.add_operator("large", growth, start(growth, method, SEED).__getitem__, operator)
    return tracker.names, messages, len(gathered)


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_operator_in_partitions(tmp_path: Path, world_size: int):
    first, *others = run_ranks(add_operator, world_size, tmp_path, True, None)
    growth, method = example()
    names = OPERATOR | {"new_depth.png", "new_depth_change.png"}
    assert set(first[0]) == {f"pictures/{name}" for name in names}
    assert first[1] == []
    assert first[2] == len(growth.operator_parameters)
    assert all(other == ([], [], first[2]) for other in others), "only the first rank draws; all gather alike"
    directory = tmp_path / "pictures" / "large"
    assert {path.name for path in directory.iterdir()} == names
    assert_right(json.loads((directory / "operator.json").read_text()), growth, method)


def assert_right(numbers: dict[str, Any], growth: Growth, method: Method) -> None:
    begin, now = start(growth, method, SEED), learned(growth, method)
    width = {parameter.name for parameter in growth.operator_parameters if parameter.kind == "width"}
    assert set(numbers["width"]) == width
    for name, measured in numbers["width"].items():
        before, after = begin[name].double().numpy(), now[name].double().numpy()
        assert measured["moved"] == pytest.approx(
            np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5
        )
    for kind in ("depth", "new_depth"):
        for row, role in enumerate(growth.layer_roles):
            matrix = np.array(numbers[kind][role.split("{layer}.")[1]]["now"])
            expected = np.stack([now[f"layers.{layer}.{kind}"][row].numpy() for layer in range(5)])
            np.testing.assert_allclose(matrix, expected, rtol=1e-5)


def test_an_operator_that_cannot_be_measured_stops_no_rank(tmp_path: Path):
    growth, _ = example()
    first, second = run_ranks(add_operator, 2, tmp_path, True, "hidden.out")
    (message,) = first[1]
    assert message.startswith("pictures of large: not all could be drawn, the run goes on (")
    assert first[0] == []
    assert first[2] == second[2] == len(growth.operator_parameters)


def test_no_pictures_cost_nothing(tmp_path: Path):
    assert run_ranks(add_operator, 2, tmp_path, False, None) == [([], [], 0)] * 2
    assert list(tmp_path.iterdir()) == []
