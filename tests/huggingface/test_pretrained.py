"""Models that exist, read from Hugging Face directories as `transformers` writes and wrote them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from engines import whole
from ligo_dist.architectures import ModelShape, architecture_names, get_architecture
from ligo_dist.engine import World
from ligo_dist.huggingface import (
    SafetensorsTensor,
    initial_shards,
    read_shards,
    stored_tensors,
    weights_fingerprint,
)
from ligo_dist.runtime.errors import CheckpointError
from ranks import RanksError, run_ranks
from small_models import library_model, small_shape, weights_of

WORLD = World(0, 1, torch.device("cpu"))
GPT2 = small_shape("gpt2")


def save(family: str, directory: Path, shape: ModelShape | None = None, **how: object) -> PreTrainedModel:
    """A small model with weights that hide nothing, in a directory as the library writes it."""
    model = library_model(family, shape or small_shape(family))
    model.save_pretrained(directory, **how)
    return model


def read(family: str, directory: Path, shape: ModelShape | None = None) -> dict[str, Tensor]:
    """The model's flat weights, on one rank."""
    shape, architecture = shape or small_shape(family), get_architecture(family)
    config = library_model(family, shape).config
    return read_shards(directory, architecture, shape, config, WORLD)


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, weight in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], weight.float().reshape(-1)), name


def rewrite(directory: Path, change: object) -> None:
    """Change the mapping of names to tensors in a directory of one file."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refusal(family: str, directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(family, directory)
    return str(caught.value)


@pytest.mark.parametrize("family", architecture_names())
@pytest.mark.parametrize("size", ["1GB", "10KB"], ids=["one file", "sharded"])
def test_reads_what_the_library_saves(family, size, tmp_path):
    model = save(family, tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "10KB")
    assert_same(read(family, tmp_path), weights_of(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_converts_every_type_of_weights_to_fp32(dtype, tmp_path):
    model = library_model("llama", small_shape("llama")).to(dtype)
    model.save_pretrained(tmp_path)
    assert_same(read("llama", tmp_path), weights_of(model))


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_reads_torch_files(sharded, tmp_path):
    model = library_model("bert", small_shape("bert"))
    state = model.state_dict()  # ties and buffers are there under all their names
    parts = {f"pytorch_model-{n}.bin": dict(list(state.items())[n::2]) for n in (0, 1)}
    if sharded:
        weight_map = {name: file for file, part in parts.items() for name in part}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for file, part in (parts if sharded else {"pytorch_model.bin": state}).items():
        torch.save(part, tmp_path / file)
    assert_same(read("bert", tmp_path), weights_of(model))


def read_whole(world: World, family: str, shape: ModelShape, directory: Path) -> dict[str, Tensor]:
    architecture, config = get_architecture(family), library_model(family, shape).config
    shards = read_shards(directory, architecture, shape, config, world)
    return whole(world, family, shape, shards)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("family", ["gpt2", "vit"])
def test_each_rank_reads_its_own_part(family, world_size, tmp_path):
    shape = small_shape(family)
    expected = weights_of(save(family, tmp_path))
    for weights in run_ranks(read_whole, world_size, family, shape, tmp_path):
        assert set(weights) == set(expected)
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("rank", range(4))
def test_a_rank_reads_no_more_than_its_part_and_the_rows_around_it(family, rank, tmp_path, monkeypatch):
    """Counted where the files are asked: beyond a partition come the rows in which it begins and ends, nothing else."""
    model = save(family, tmp_path, max_shard_size="10KB")
    asked: Counter[str] = Counter()
    read_rows = SafetensorsTensor.rows

    def counted(self: SafetensorsTensor, start: int, stop: int) -> Tensor:
        rows = read_rows(self, start, stop)
        asked[self.name] += rows.numel()
        return rows

    monkeypatch.setattr(SafetensorsTensor, "rows", counted)
    monkeypatch.setattr("ligo_dist.huggingface.reader.raise_together", lambda failure, world: None)
    architecture, world = get_architecture(family), World(rank, 4, torch.device("cpu"))
    read_shards(tmp_path, architecture, small_shape(family), model.config, world)
    weights = weights_of(model)
    assert set(asked) <= set(weights)
    assert sum(asked.values()) < 0.3 * sum(weight.numel() for weight in weights.values())
    for name, weight in weights.items():
        assert asked[name] <= -(-weight.numel() // 4) + 2 * math.prod(weight.shape[1:]), name


def read_and_initial(
    world: World, family: str, shape: ModelShape, directory: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    architecture, config = get_architecture(family), library_model(family, shape).config
    initial = whole(world, family, shape, initial_shards(architecture, config, (3,), world))
    shards = read_shards(directory, architecture, shape, config, world, seed=3)
    return whole(world, family, shape, shards), initial


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize(
    ("family", "sizes", "anew"),
    [
        ("gpt2", {"vocab": 90, "positions": 40}, {}),
        ("llama", {"vocab": 90, "positions": 16}, {}),
        ("vit", {"labels": 3}, {"classifier.weight", "classifier.bias"}),
    ],
)
def test_what_is_not_in_the_files_begins_as_the_library_initialises_it(
    family, sizes, anew, world_size, tmp_path
):
    there = weights_of(save(family, tmp_path, small_shape(family, **sizes)))
    for weights, initial in run_ranks(read_and_initial, world_size, family, small_shape(family), tmp_path):
        for name, weight in weights.items():
            rows = 0 if name in anew else min(len(weight), len(there[name]))
            assert torch.equal(weight[:rows], there[name][:rows]), name
            assert torch.equal(weight[rows:], initial[name][rows:]), name


def test_all_ranks_raise_together(tmp_path):
    save("gpt2", tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop("transformer.ln_f.bias"))
    with pytest.raises(RanksError) as caught:
        run_ranks(read_whole, 2, "gpt2", GPT2, tmp_path)
    assert str(caught.value).count("transformer.ln_f.bias: missing") >= 2


# Names.


def prefixed(tensors: dict[str, Tensor], old: str, new: str) -> None:
    for name in list(tensors):
        if name.startswith(old):
            tensors[new + name.removeprefix(old)] = tensors.pop(name)


def test_the_base_models_prefix_may_be_missing_or_there(tmp_path):
    model = save("gpt2", tmp_path / "gpt2")
    rewrite(tmp_path / "gpt2", lambda tensors: prefixed(tensors, "transformer.", ""))
    assert_same(read("gpt2", tmp_path / "gpt2"), weights_of(model))
    model = save("bert_encoder", tmp_path / "bert")
    rewrite(tmp_path / "bert", lambda tensors: prefixed(tensors, "", "bert."))
    assert_same(read("bert_encoder", tmp_path / "bert"), weights_of(model))


def test_names_of_older_versions_of_the_library(tmp_path):
    model = save("bert", tmp_path / "bert")

    def age(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "LayerNorm" in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            tensors[old] = tensors.pop(name)

    rewrite(tmp_path / "bert", age)
    assert_same(read("bert", tmp_path / "bert"), weights_of(model))
    save("vit", tmp_path / "vit")
    assert any(
        name.startswith("vit.encoder.layer.0.") for name in load_file(tmp_path / "vit/model.safetensors")
    )


def test_buffers_are_left_out(tmp_path):
    buffers = {
        "gpt2": ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"],
        "gpt_neox": ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"],
        "llama": ["model.layers.0.self_attn.rotary_emb.inv_freq"],
        "bert_encoder": ["embeddings.position_ids"],
    }
    for family, names in buffers.items():
        model = save(family, tmp_path / family)
        rewrite(
            tmp_path / family, lambda tensors, names=names: tensors.update({n: torch.ones(3) for n in names})
        )
        assert_same(read(family, tmp_path / family), weights_of(model))


def test_a_tied_head_may_be_there_twice_or_under_its_own_name(tmp_path):
    model = save("gpt2", tmp_path)
    embedding = "transformer.wte.weight"
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding].clone()}))
    assert_same(read("gpt2", tmp_path), weights_of(model))
    rewrite(tmp_path, lambda tensors: tensors.pop(embedding))
    assert_same(read("gpt2", tmp_path), weights_of(model))


def test_the_fingerprint_tells_models_apart(tmp_path):
    for name in ("a", "b", "c"):
        library_model("gpt2", GPT2, seed=int(name == "c")).save_pretrained(tmp_path / name)
    same, again, other = (weights_fingerprint(tmp_path / name) for name in ("a", "b", "c"))
    assert same == again != other
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: No such file"):
        weights_fingerprint(tmp_path / "a")


# What is refused.


def test_everything_that_does_not_match_is_listed(tmp_path):
    save("gpt2", tmp_path)

    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["transformer.wpe.weight"]
        tensors["transformer.h.0.ln_1.bias"] = torch.ones(7)
        tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].to(torch.int8)
        tensors["score.weight"], tensors["transformer.h.99.ln_1.bias"] = torch.ones(2), torch.ones(2)

    rewrite(tmp_path, spoil)
    assert refusal("gpt2", tmp_path).splitlines() == [
        f"stages[0].from: the weights in {tmp_path} are not those of a GPT2LMHeadModel with this configuration:",
        f"  transformer.h.0.ln_1.bias: shape (7,), the configuration gives ({GPT2.width},)",
        "  transformer.ln_f.bias: neither fp32 nor bf16 nor fp16",
        "  transformer.wpe.weight: missing",
        "  transformer.h.99.ln_1.bias: of no use to GPT2LMHeadModel",
    ]


def test_a_head_that_the_configuration_ties_and_the_weights_do_not(tmp_path):
    save("gpt2", tmp_path)
    rewrite(
        tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"] + 1})
    )
    said = refusal("gpt2", tmp_path)
    assert (
        "lm_head.weight and transformer.wte.weight" in said
        or "transformer.wte.weight and lm_head.weight" in said
    )
    assert said.endswith("Is `tie_word_embeddings: false` missing in its config.json?")


def test_weights_that_the_library_would_compute(tmp_path, monkeypatch):
    from transformers.core_model_loading import Concatenate, WeightConverter

    save("gpt2", tmp_path)
    merge = WeightConverter(["c_q", "c_k"], "c_attn", operations=[Concatenate(dim=0)])
    monkeypatch.setattr("ligo_dist.huggingface.matching.get_model_conversion_mapping", lambda model: [merge])
    rewrite(tmp_path, lambda tensors: tensors.update({"transformer.h.0.attn.c_q.weight": torch.ones(2)}))
    assert "the library computes transformer.h.0.attn.c_attn.weight from stored tensors" in refusal(
        "gpt2", tmp_path
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, None, "no weights; there should be one of model.safetensors, pytorch_model.bin, "),
        ("model.safetensors", b"xx", "model.safetensors cannot be read: "),
        ("pytorch_model.bin", b"xx", "pytorch_model.bin cannot be read: "),
        (
            "model.safetensors.index.json",
            b"{}",
            "cannot be read as an index of weights: KeyError('weight_map')",
        ),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "b"}}', "names files that are not there: b"),
    ],
)
def test_files_that_cannot_be_read(name, content, said, tmp_path):
    if name is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        stored_tensors(tmp_path)
    assert said in str(caught.value)


def test_a_torch_file_of_something_else(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"should map names to tensors, and does not \(model\)"):
        stored_tensors(tmp_path)


def test_a_torch_file_of_the_old_format(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(
        CheckpointError, match=r"from before torch 1\.6, which could only be read whole; `from_pre"
    ):
        stored_tensors(tmp_path)


def test_a_torch_file_that_would_run_code(tmp_path):
    torch.save({"a": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read: Weights only load failed"):
        stored_tensors(tmp_path)
