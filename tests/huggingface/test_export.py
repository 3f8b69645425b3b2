"""Leaving: what is exported is what the library opens, with the engine's logits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config

from engines import build_engine, causal, engine_model_config, train_on
from ligo_dist.architectures import ParameterSpec, get_architecture
from ligo_dist.engine import World
from ligo_dist.huggingface import writer
from ligo_dist.runtime import files
from ligo_dist.runtime.errors import CheckpointError, DataError, LigoError
from ranks import run_ranks
from small_models import library_model, logits_of, model_shape, token_ids, weights_of

SIZES = {"gpt2": (2, 33, 3, 3, 77), "llama": (2, 24, 6, 2, 41)}


def export(world: World, family: str, tied: bool, directory: Path, max_file_bytes: int | None) -> Tensor:
    """Export an engine's weights after a training step; returns its logits."""
    from ligo_dist.huggingface import writer as module

    shape = model_shape(SIZES[family], tied)
    engine = build_engine(world, family, shape, weights_of(library_model(family, shape)))
    train_on(engine, [causal(token_ids(8, seed=3).chunk(world.size)[world.rank])], {"model": 0.01})
    logits = engine.logits(causal(token_ids(3)))
    before = module.MAX_FILE_BYTES
    module.MAX_FILE_BYTES = max_file_bytes or before
    try:
        module.export_model(
            directory,
            get_architecture(family).parameters(shape),
            engine.read_shards(),
            engine_model_config(family, shape),
            lambda target: (target / "tokenizer.txt").write_text("written on the first rank"),
            world,
        )
    finally:
        module.MAX_FILE_BYTES = before
        engine.release()
    return logits


@pytest.mark.parametrize(("world_size", "max_file_bytes"), [(1, None), (2, None), (2, 6000)])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", SIZES)
def test_the_library_opens_it_and_computes_the_same(
    family: str, tied: bool, world_size: int, max_file_bytes: int | None, tmp_path: Path
):
    directory = tmp_path / "export" / "model"
    logits = run_ranks(export, world_size, family, tied, directory, max_file_bytes)[0]
    files = {path.name for path in directory.iterdir()}
    assert {"config.json", "tokenizer.txt"} <= files
    weight_files = {name for name in files if name.endswith(".safetensors")}
    if max_file_bytes is None:
        assert weight_files == {"model.safetensors"}
    else:
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        assert len(weight_files) > 3
        assert set(index["weight_map"].values()) == weight_files
        sizes = sum(
            w.numel() * 4
            for w in weights_of(library_model(family, model_shape(SIZES[family], tied))).values()
        )
        assert index["metadata"]["total_size"] == sizes
        assert all(f"-of-{len(weight_files):05d}." in name for name in weight_files)
    model, report = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.tie_word_embeddings is tied
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits_of(model.eval(), token_ids(3)), logits, rtol=1e-4, atol=1e-5)
    assert not list(directory.parent.glob(".writing-*"))


def test_an_older_export_is_replaced_whole(tmp_path: Path):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model-00001-of-00002.safetensors").touch()
    run_ranks(export, 1, "llama", True, directory, None)
    assert {path.name for path in directory.iterdir()} >= {"config.json", "model.safetensors"}
    assert not (directory / "model-00001-of-00002.safetensors").exists()


# --- the name ---


@pytest.fixture
def exports(tmp_path: Path) -> tuple[Path, Path]:
    """A new export that is complete, and the old one of the name that it shall have."""
    for name in (".writing-model", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    return tmp_path / ".writing-model", tmp_path / "model"


class Killed(BaseException):
    """Nothing in the code catches it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_old_export_is_there_until_the_new_one_has_its_name(
    exports: tuple[Path, Path], exchanges: bool, monkeypatch: pytest.MonkeyPatch
):
    new, name = exports
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    seen = []
    rmtree = shutil.rmtree

    def remove(path: Path, **options: bool) -> None:
        seen.append((name / "config.json").read_text())
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", remove)
    files.replace_directory(new, name)
    assert seen[-1] == ".writing-model", "nothing is removed before"
    assert [path.name for path in name.parent.iterdir()] == ["model"]
    assert (name / "config.json").read_text() == ".writing-model"


def test_a_replacement_that_is_killed_between_two_renamings_is_undone(
    exports: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    new, name = exports
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: killed() if path == new else rename(path, to))
    with pytest.raises(Killed):
        files.replace_directory(new, name)
    monkeypatch.undo()
    rehearse(name)
    assert (name / "config.json").read_text() == "model"
    assert [path.name for path in name.parent.iterdir()] == ["model"]


def test_a_name_that_cannot_be_had_leaves_the_old_export(
    exports: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    new, name = exports
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    shutil.rmtree(new)
    with pytest.raises(FileNotFoundError):
        files.replace_directory(new, name)
    assert (name / "config.json").read_text() == "model"


def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    run_ranks(export, 1, "llama", True, tmp_path / "model", None)
    assert (tmp_path / "model").is_symlink()
    assert (tmp_path / "elsewhere" / "model.safetensors").is_file()


# --- what is tried before training ---

ALONE = World(0, 1, torch.device("cpu"))


def rehearse(directory: Path, write_processor: Callable[[Path], None] = lambda directory: None) -> None:
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1)
    writer.rehearse_export(directory, config, write_processor, ALONE, "{}")


def test_a_rehearsal_writes_all_but_the_weights_and_leaves_nothing(tmp_path: Path):
    seen: list[set[str]] = []
    rehearse(tmp_path / "model", lambda path: seen.append({file.name for file in path.iterdir()}))
    assert seen == [{"config.json", "generation_config.json"}]
    assert list(tmp_path.iterdir()) == []


def refuse(error: Exception) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("the tokenizer differs"), r"^the tokenizer differs$"),
        (
            OSError(28, "No space left on device", "f"),
            r"^export .*/model cannot be written: f: No space left",
        ),
        (
            ValueError("the library refuses it"),
            r"^export .*/model cannot be written: the library refuses it$",
        ),
    ],
)
def test_what_a_rehearsal_meets_is_one_error(tmp_path: Path, error: Exception, message: str):
    with pytest.raises(LigoError, match=message):
        rehearse(tmp_path / "model", refuse(error))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told_before_training(tmp_path: Path):
    (tmp_path / "model").touch()
    with pytest.raises(
        CheckpointError, match=r"/model is no directory, and in the way of an export of that name"
    ):
        rehearse(tmp_path / "model")


@pytest.mark.parametrize("error", [SafetensorError("I/O error: No space left"), OSError(28, "No space left")])
def test_weights_that_cannot_be_written_are_one_error(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(writer, "write_tensors", full)
    spec = ParameterSpec("weight", "weight", None, (), (2,))
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1)
    with pytest.raises(CheckpointError, match=r"^export .*/model cannot be written: .*No space left"):
        writer.export_model(
            tmp_path / "model", [spec], {"weight": torch.zeros(2)}, config, lambda path: None, ALONE
        )
    assert list(tmp_path.iterdir()) == []


def export_fails(world: World, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        export(world, "llama", True, directory, None)
    return str(caught.value)


def test_a_directory_that_cannot_be_made_is_an_error_on_every_rank(tmp_path: Path):
    (tmp_path / "file").touch()
    expected = f"export directory {tmp_path / 'file' / '.writing-model'} cannot be made: Not a directory"
    assert run_ranks(export_fails, 2, tmp_path / "file" / "model") == [expected] * 2
