"""`ligo_dist.grow`: a model out of a model, with no run around it, and yet what a run would have made."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

import ligo_dist
from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.engine import World, is_partitioned, partitions, write_partitions
from ligo_dist.huggingface import build_partitioned_model
from ligo_dist.runtime.errors import LigoError, PreservationError
from ranks import run_ranks
from runs import Site, run_warm
from small_models import library_model, outputs_of, random_inputs, small_shape, weights_of

SHAPE = ModelShape(2, 24, 3, 3, 96, tied=True, vocab=424, positions=32)
OF_A_RUN = {"dtype", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "_name_or_path"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As ranks have: a product may be added up in another order by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_package_is_imported_without_torch() -> None:
    lines = "import sys, ligo_dist; assert 'grow' in dir(ligo_dist); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lines]).returncode == 0


@pytest.mark.slow
def test_it_is_what_a_run_makes(site: Site) -> None:
    """Bit for bit, weights drawn at random among them, and the configuration with its rescaled epsilon."""
    directory = site.directory / "source-grow"
    model = library_model("gpt2", SHAPE, layer_norm_epsilon=1e-3, activation_function="relu")
    model.save_pretrained(directory)
    files = site.config("grown-by-a-run")
    stages = (
        f"[{{name: given, from: {directory}}},"
        " {name: medium, size: {layers: 3, width: 40, heads: 5}, grow: {method: progressive}, train: {steps: 0}},"
        " {name: large, size: {layers: 5, width: 48, heads: 6, ffn: 201}, grow: {learn: {steps: 0}},"
        " train: {steps: 0}}]"
    )
    more = ("tokenizer.replace_source=true", "checkpoints.export_stages=true", "model.max_positions=null")
    assert run_warm(
        files, 1, f"stages={stages}", "defaults={train: {batch_size: 8, micro_batch_size: 4}}", *more
    ) == (
        0,
        "",
    )
    medium = ligo_dist.grow(model, {"layers": 3, "width": 40}, "progressive", seed=3, name="medium")
    large = ligo_dist.grow(medium, {"layers": 5, "width": 48, "ffn": 201}, seed=3, name="large")
    for name, grown in (("medium", medium), ("large", large)):
        torch.testing.assert_close(weights_of(grown), files.weights(name), rtol=0, atol=0)
        exported = AutoModelForCausalLM.from_pretrained(files.run_dir / "export" / name).config.to_dict()
        ours = grown.config.to_dict()
        assert {key: ours.get(key) for key in exported if key not in OF_A_RUN} == {
            key: value for key, value in exported.items() if key not in OF_A_RUN
        }


PAIRS: list[tuple[str, dict[str, int], dict[str, Any]]] = [
    ("gpt2", {"layers": 3, "width": 64}, {}),
    ("gpt_neox", {"layers": 3, "width": 64}, {}),
    ("llama", {"layers": 3, "heads": 12}, {}),  # six heads on two key/value heads: twelve on four
    ("bert", {"layers": 3, "width": 96}, {"method": "net2net"}),
    ("bert_encoder", {"layers": 3, "width": 96}, {"method": "lossless"}),
    ("roberta", {"layers": 4}, {}),
    ("vit", {"width": 64}, {"method": "lossless"}),
]


@pytest.mark.parametrize(("family", "sizes", "how"), PAIRS, ids=[family for family, _, _ in PAIRS])
def test_the_function_is_kept(family: str, sizes: dict[str, int], how: dict[str, Any]) -> None:
    """By plain transformers, before and after; the model itself is left alone."""
    shape = small_shape(family)
    model = library_model(family, shape)
    before, inputs = weights_of(model), random_inputs(family, shape, 3)
    grown = ligo_dist.grow(model, sizes, **how)
    assert type(grown) is type(model)
    wanted = outputs_of(model, inputs)
    got = outputs_of(grown.eval(), inputs)
    if family == "bert_encoder":  # its output is the residual stream, here each unit twice
        got = got[..., : wanted.shape[-1]]
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(weights_of(model), before, rtol=0, atol=0)
    assert sum(p.numel() for p in grown.parameters()) > sum(p.numel() for p in model.parameters())


def test_the_dtype_is_the_models_and_the_heads_stay_tied() -> None:
    model = library_model("gpt2", SHAPE)
    exact = ligo_dist.grow(model, {"width": 40})
    state = torch.get_rng_state()
    grown = ligo_dist.grow(model.to(torch.bfloat16), {"width": 40}, "progressive")
    assert torch.equal(torch.get_rng_state(), state)
    assert grown.dtype == grown.config.dtype == torch.bfloat16
    assert grown.lm_head.weight is grown.transformer.wte.weight
    assert exact.dtype == torch.float32
    assert grown.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_a_configuration_says_the_target() -> None:
    model = library_model("gpt2", SHAPE, activation_function="relu")
    same = {"vocab_size": 424, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
    target = GPT2Config(n_layer=3, n_embd=40, n_head=5, resid_pdrop=0.3, **same)
    grown = ligo_dist.grow(model, target)
    torch.testing.assert_close(
        weights_of(grown), weights_of(ligo_dist.grow(model, {"layers": 3, "width": 40})), rtol=0, atol=0
    )
    # What it leaves at the class's default is the model's.
    assert (grown.config.activation_function, grown.config.resid_pdrop) == ("relu", 0.3)
    other = GPT2Config(n_layer=3, n_embd=40, n_head=5, activation_function="silu", **same)
    with pytest.raises(PreservationError, match="has to compute as the model's own does"):
        ligo_dist.grow(model, other)
    assert ligo_dist.grow(model, other, check=False).config.activation_function == "silu"


@pytest.mark.parametrize(
    ("target", "how", "said"),
    [
        ({"widht": 40}, {}, "target: no size 'widht'; .* did you mean 'width'"),
        ({"layers": 0}, {}, "target: layers: 0 should be a whole number, at least 1"),
        ({"width": 41}, {}, "width: 41 leaves no whole number of heads.*40 or 48 would be right"),
        ({"layers": 1}, {}, "gpt2 cannot grow so: layers shrinks from 2 to 1"),
        ({"width": 40, "heads": 10}, {}, "heads: 10 of 8, a size that stays, do not make the width 40"),
        ({"layers": 4}, {"method": "lossles"}, "method: 'lossles' is unknown; .* did you mean 'lossless'"),
        ({"layers": 4}, {"depth": "stck"}, "depth: 'stck' is unknown; .* did you mean 'stack'"),
        ({"layers": 4}, {"method": "ligo"}, "'ligo' is learned on data, for 100 steps, which a run does"),
        ({"layers": 4}, {"method": "scratch"}, "'scratch' takes nothing over"),
        ({"layers": 4}, {"tied": True}, "tied: false"),
        ({"layers": 4}, {"family": "gtp2"}, "no model family 'gtp2'"),
        (LlamaConfig(), {}, "target: a LlamaConfig, and gpt2 has GPT2Config"),
        (GPT2Config(), {}, "vocab differs: 424 and 50257"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(target: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(LigoError, match=said):
        ligo_dist.grow(library_model("gpt2", SHAPE), target, **how)


def test_a_model_of_no_family_is_told() -> None:
    with pytest.raises(
        LigoError, match="no model family has the class 'GPT2Model'; there are GPT2LMHeadModel"
    ):
        ligo_dist.grow(library_model("gpt2", SHAPE).transformer, {"layers": 3})


def test_the_lines_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller model, that is not downloaded."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    library_model("gpt2", SHAPE).save_pretrained("small")
    for written, here in (("openai-community/gpt2", "small"), ("1024", "40"), ("24", "3")):
        assert written in lines
        lines = lines.replace(written, here)
    exec(lines, {})
    grown = AutoModelForCausalLM.from_pretrained("grown")
    assert (grown.config.n_layer, grown.config.n_embd) == (3, 40)


def grown_on_ranks(world: World) -> list[dict[str, torch.Tensor]]:
    """Whole weights of the model grown of a whole one, and this rank's partitions of that grown of partitions."""
    model, sizes = library_model("gpt2", SHAPE), {"layers": 5, "width": 40}
    whole = ligo_dist.grow(model, sizes, "progressive")
    partitioned = build_partitioned_model(get_architecture("gpt2"), SHAPE, model.config, torch.float32)
    write_partitions(partitioned, partitions(model, world))
    grown = ligo_dist.grow(partitioned, sizes, "progressive")
    assert all(is_partitioned(parameter) for parameter in grown.parameters())
    return [weights_of(whole), partitions(grown, world)]


def test_in_a_process_group_it_is_made_in_parts() -> None:
    alone = weights_of(
        ligo_dist.grow(library_model("gpt2", SHAPE), {"layers": 5, "width": 40}, "progressive")
    )
    first, second = run_ranks(grown_on_ranks, 2)
    for whole, _ in (first, second):
        torch.testing.assert_close(whole, alone, rtol=1e-6, atol=1e-6)
    for name, tensor in alone.items():
        parts = torch.cat([first[1][name], second[1][name]])[: tensor.numel()]
        torch.testing.assert_close(parts.view(tensor.shape), tensor, rtol=1e-6, atol=1e-6)
