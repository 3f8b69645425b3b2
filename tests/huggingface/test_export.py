"""Leaving: what is exported is what the library opens, with the engine's logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engines import build_engine, causal, engine_model_config, train_on
from ligo_dist.architectures import get_architecture
from ligo_dist.engine.world import World
from ligo_dist.runtime.errors import CheckpointError
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


def export_fails(world: World, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        export(world, "llama", True, directory, None)
    return str(caught.value)


def test_a_directory_that_cannot_be_made_is_an_error_on_every_rank(tmp_path: Path):
    (tmp_path / "file").touch()
    expected = f"export directory {tmp_path / 'file' / '.writing-model'} cannot be made: Not a directory"
    assert run_ranks(export_fails, 2, tmp_path / "file" / "model") == [expected] * 2
