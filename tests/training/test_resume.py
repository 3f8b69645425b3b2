"""Finding the checkpoint to go on from, and keeping two runs apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ligo_dist.config import load_config
from ligo_dist.engine import World
from ligo_dist.runtime.errors import CheckpointError, LigoError
from ligo_dist.training import agree_on_precision, find_checkpoint, recorded_config, run_lock
from ranks import run_ranks
from snapshots import ALONE, save

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def config(**changes: Any) -> dict[str, Any]:
    learn = {"steps": 5, "batch_size": None, "micro_batch_size": 4}
    resolved = {
        "run_dir": "runs/a",
        "seed": 0,
        "tracking": {"mlflow": True},
        "checkpoints": {"keep": 2},
        "distributed": {"timeout_seconds": 600},
        "profile": {"steps": 0},
        "data": {"source": "stdlib", "workers": None, "cache_dir": "data/cache"},
        "stages": [
            {"name": "small", "grow": None, "train": {"steps": 10, "micro_batch_size": 4}},
            {"name": "large", "grow": {"learn": learn}, "train": {"steps": 10, "micro_batch_size": 4}},
        ],
    }
    return recorded_config({**resolved, **changes}, "corpus-1")


def save_with(directory: Path, recorded: dict[str, Any]) -> Path:
    return save(ALONE, directory, config=recorded)


def test_a_new_run_has_none(tmp_path: Path):
    assert find_checkpoint(tmp_path, config(), ALONE) == (None, [])


def test_the_same_configuration_goes_on(tmp_path: Path):
    path = save_with(tmp_path, config())
    checkpoint, reports = find_checkpoint(tmp_path, config(), ALONE)
    assert checkpoint is not None
    assert (checkpoint.path, reports) == (path, [])


def test_what_does_not_change_the_numbers_may_change(tmp_path: Path):
    save_with(tmp_path, config())
    other = config(
        run_dir="runs/b",
        tracking={"mlflow": False},
        checkpoints={"keep": 5},
        distributed={},
        profile={"steps": 3},
        data={"source": "stdlib", "workers": 3, "cache_dir": "elsewhere"},
    )
    other["stages"][0]["train"]["micro_batch_size"] = 2
    other["stages"][1]["grow"]["learn"]["micro_batch_size"] = None
    assert find_checkpoint(tmp_path, other, ALONE)[0] is not None


def test_every_changed_key_is_named(tmp_path: Path):
    path = save_with(tmp_path, config())
    other = config(seed=1, data={"source": "text", "workers": None, "cache_dir": "data/cache"})
    other["stages"][1]["grow"]["learn"]["steps"] = 6
    other["corpus_fingerprint"] = "corpus-2"
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path, other, ALONE)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path} was made with another configuration:"
    assert lines[-2].startswith("resume with the old values, or choose another run_dir")
    assert lines[-1].startswith("what may change: run_dir, tracking, ")
    for key, before, after in (
        ("data.source", "'stdlib'", "'text'"),
        ("seed", "0", "1"),
        ("stages[1].grow.learn.steps", "5", "6"),
        ("corpus_fingerprint", "'corpus-1'", "'corpus-2'"),
    ):
        assert any(key in line and before in line and after in line for line in lines[1:-2]), (key, lines)
    assert len(lines) == 7
    assert path.exists()


def agree(world: World, run_dir: Path) -> tuple[str, str | None]:
    found, line = agree_on_precision(load_config(QUICKSTART), world.rank != 1, run_dir, world)
    return found.precision, line


def test_the_ranks_agree_on_a_precision(tmp_path: Path):
    """The one that all of them compute natively, or that the run's checkpoint was made with."""
    fp32 = ("fp32", "precision: fp32, as bf16 is not native to 1 of 2 ranks")
    assert run_ranks(agree, 2, tmp_path) == [fp32, fp32]
    save_with(tmp_path / "checkpoints", config(precision="bf16"))
    (bf16, line), other = run_ranks(agree, 2, tmp_path)
    assert other == (bf16, line)
    assert bf16 == "bf16"
    assert "as the run began" in line


SAME_RESULT: dict[str, dict[str, Any]] = {
    "files that were moved": {"data": {"source": "text", "files": ["elsewhere/*.txt"], "sequence_length": 8}},
    "another reader": {"data": {"source": "parquet", "text_column": "body", "sequence_length": 8}},
    "a tokenizer that lies elsewhere": {"tokenizer": {"huggingface": "a/copy", "vocab_size": None}},
    "a source that was moved": {"stages": [{"name": "small", "from": "a/copy"}]},
}


@pytest.mark.parametrize("case", SAME_RESULT)
def test_where_it_came_from_is_of_no_account_if_the_result_is_the_same(tmp_path: Path, case: str):
    data = {"source": "text", "files": ["here/*.txt"], "sequence_length": 8}
    before = config(data=data, stages=[{"name": "small", "from": "here"}], tokenizer={"vocab_size": 300})
    before["source_fingerprint"] = "source-1"
    after = {**before, **SAME_RESULT[case]}
    for stage in (*before["stages"], *after["stages"]):
        stage["train"] = None
    save_with(tmp_path, before)
    assert find_checkpoint(tmp_path, after, ALONE)[0] is not None
    for other in ("corpus_fingerprint", "source_fingerprint"):
        with pytest.raises(CheckpointError, match=f"{other}: '.*-1' -> 'another'"):
            find_checkpoint(tmp_path, {**after, other: "another"}, ALONE)
    with pytest.raises(CheckpointError, match=r"data\.sequence_length: 8 -> 9"):
        find_checkpoint(tmp_path, {**after, "data": {**after["data"], "sequence_length": 9}}, ALONE)


def find_otherwise(world: World, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(directory, config(seed=1), world)
    return str(caught.value).splitlines()[0]


def test_another_configuration_is_refused_before_the_files_are_read_and_on_every_rank(tmp_path: Path):
    save_with(tmp_path, config())
    path = save(ALONE, tmp_path, step=4, config=config())
    (path / "rank-00000.safetensors").write_bytes(b"damaged")
    expected = f"{path} was made with another configuration:"
    assert run_ranks(find_otherwise, 2, tmp_path) == [expected] * 2
    assert path.exists()


def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path):
    older, newest = (save(ALONE, tmp_path, step=step, config=config()) for step in (3, 4))
    (newest / "rank-00000.safetensors").write_bytes(b"damaged")
    checkpoint, (report,) = find_checkpoint(tmp_path, config(), ALONE)
    assert checkpoint is not None
    assert checkpoint.path == older
    assert report.startswith("damaged checkpoint: ")


def test_another_corpus_is_another_configuration(tmp_path: Path):
    save_with(tmp_path, config())
    with pytest.raises(CheckpointError, match="corpus_fingerprint"):
        find_checkpoint(tmp_path, {**config(), "corpus_fingerprint": "corpus-2"}, ALONE)


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path):
    (tmp_path / ".writing-step-00000009-0-train").mkdir()
    (tmp_path / ".removing-step-00000005-0-train").mkdir()
    find_checkpoint(tmp_path, config(), ALONE)
    assert list(tmp_path.iterdir()) == []


def lock(world: World, directory: Path) -> str | None:
    try:
        with run_lock(directory, world):
            return None
    except LigoError as error:
        return str(error)


def test_a_second_run_is_kept_out_on_every_rank_and_let_in_afterwards(tmp_path: Path):
    with run_lock(tmp_path / "run", ALONE):
        assert (
            run_ranks(lock, 2, tmp_path / "run")
            == [f"run_dir: another run is using {tmp_path / 'run'}; wait for it, or choose another directory"]
            * 2
        )
    assert run_ranks(lock, 2, tmp_path / "run") == [None, None]


def test_a_run_directory_that_cannot_be_written_is_an_error_on_every_rank(tmp_path: Path):
    (tmp_path / "file").touch()
    assert (
        run_ranks(lock, 2, tmp_path / "file" / "run")
        == [f"run_dir: {tmp_path / 'file' / 'run'} cannot be written: Not a directory"] * 2
    )
