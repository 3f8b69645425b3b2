"""Documents kept apart in a packed block, against the same documents run one by one through the plain library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, modeling_flash_attention_utils

from ligo_dist.architectures import get_architecture
from ligo_dist.corpus import Boundaries, CausalSamples, MaskedSamples
from ligo_dist.engine import World
from ligo_dist.growth import Growth, GrowthLayout, get_method, initial_value
from ligo_dist.huggingface import heed_positions
from ranks import run_ranks
from small_models import VOCAB, library_model, load_weights, small_shape, weights_of

DECODERS = ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3"]
ENCODERS = ["bert", "roberta"]
LENGTHS = [3, 1, 9, 2, 6, 11]  # cut into two blocks of 16 inside of the fifth
LENGTH = 16
PIECES = [[3, 1, 9, 2, 1], [5, 11]]


class _Blocks:
    sequence_length = LENGTH

    def __init__(self) -> None:
        self.tokens = np.random.default_rng(0).integers(5, VOCAB, (2, LENGTH))

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, indices: Any) -> Any:
        return self.tokens[np.asarray(indices)].copy()


def packed(family: str) -> dict[str, Tensor]:
    """Both blocks, as a run reads them."""
    architecture = get_architecture(family)
    apart: Any = {
        "boundaries": Boundaries(np.cumsum(LENGTHS), LENGTH),
        "first_position": architecture.position_offset,
    }
    if architecture.objective == "causal_lm":
        samples: Any = CausalSamples(_Blocks(), **apart)
        assert samples.weights([1, 0]).tolist() == [LENGTH - 2, LENGTH - 5]
    else:
        samples = MaskedSamples(_Blocks(), 0.3, 4, frozenset(range(5)), VOCAB, seed=1, **apart)
        assert samples.weights([1, 0]).tolist() == [1, 1]
    return samples.read([0, 1], [0, 1])


def one_by_one(family: str, model: PreTrainedModel) -> Tensor:
    """The loss over all predictions, each document a call of its own that knows nothing of packing."""
    batch = packed(family)
    is_causal = get_architecture(family).objective == "causal_lm"
    total, predictions = torch.zeros(()), 0
    for tokens, labels, lengths in zip(batch["input_ids"], batch["labels"], PIECES, strict=True):
        for ids, wanted in zip(tokens.split(lengths), labels.split(lengths), strict=True):
            logits = model(input_ids=ids[None]).logits[0].float()
            pairs = (logits[:-1], ids[1:]) if is_causal else (logits, wanted)
            total = total + torch.nn.functional.cross_entropy(*pairs, ignore_index=-100, reduction="sum")
            predictions += len(ids) - 1 if is_causal else int((wanted != -100).sum())
    return total / predictions


def gradients(loss: Tensor, model: PreTrainedModel) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


def assert_as_one_by_one(family: str, attention: str) -> None:
    model = library_model(family, small_shape(family))
    expected = one_by_one(family, model)
    wanted = gradients(expected, model)
    model.config._attn_implementation = attention
    model.config.dtype, model.config._is_quantized = torch.float32, True  # flash attention asks, of GPT-2
    heed_positions(get_architecture(family), model, torch.float32)
    loss = model(**packed(family)).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(loss, model).items():
        if wanted[name] is not None:
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5, msg=name)
    mixed = model(**{key: value for key, value in packed(family).items() if key != "position_ids"}).loss
    assert abs(mixed - expected) > 1e-3, "without positions they see each other"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_a_packed_block_is_its_documents_one_by_one(family: str, attention: str) -> None:
    assert_as_one_by_one(family, attention)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "bert", "roberta"])
def test_flash_attention_is_told_the_documents(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels replaced by plain attention over the bounds that they are given, of all rows one after the other."""

    def varlen(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **how: Any
    ) -> Tensor:
        assert torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert cu_seqlens_q.dtype == torch.int32
        lengths = cu_seqlens_q.diff()
        assert lengths.tolist() == [length for block in PIECES for length in block]
        assert how["max_seqlen_q"] == how["max_seqlen_k"] >= lengths.max()
        outputs = []
        for one in zip(*(x.split(lengths.tolist()) for x in (q, k, v)), strict=True):
            heads = [x.transpose(0, 1)[None] for x in one]
            plain = torch.nn.functional.scaled_dot_product_attention(
                *heads, is_causal=how["causal"], scale=how["softmax_scale"], enable_gqa=True
            )
            outputs.append(plain[0].transpose(0, 1))
        return torch.cat(outputs)

    def whole(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
        heads = [x.transpose(1, 2) for x in (q, k, v)]
        plain = torch.nn.functional.scaled_dot_product_attention(
            *heads, is_causal=how["causal"], scale=how["softmax_scale"], enable_gqa=True
        )
        return plain.transpose(1, 2)

    def keywords(query_length: int, key_length: int, is_causal: bool, **how: Any) -> dict[str, Any]:
        taken = {key: how[key] for key in ("softmax_scale", "max_seqlen_q", "max_seqlen_k") if key in how}
        return {"causal": is_causal, **taken}

    kernels = ((whole, varlen, None, None, None), (keywords, None))
    monkeypatch.setattr(
        modeling_flash_attention_utils, "lazy_import_flash_attention", lambda *names, **how: kernels
    )
    assert_as_one_by_one(family, "flash_attention_2")


def learned_loss(world: World, family: str) -> tuple[float, Tensor]:
    """The loss on the packed blocks of a model whose weights are generated, and that of the grown model's documents."""
    from engines import bare_learner

    method = get_method("ligo")
    layout = GrowthLayout.for_method(
        get_architecture(family), small_shape(family), small_shape(family, layers=3), method
    )
    growth = Growth.of(layout)
    weights = weights_of(library_model(family, growth.source))
    operator = {p.name: initial_value(growth, method, p, "0") for p in growth.operator_parameters}
    grown = load_weights(library_model(family, growth.target), growth.grow_dense(weights, operator))
    learner = bare_learner(world, growth, torch.float32)
    with torch.no_grad():
        return float(learner(**packed(family)).loss), one_by_one(family, grown)


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_learning_an_operator_keeps_them_apart_too(family: str) -> None:
    ((loss, expected),) = run_ranks(learned_loss, 1, family)
    assert loss == pytest.approx(float(expected), abs=1e-5)
