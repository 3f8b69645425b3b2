"""LiGO as published, for a whole BERT: every parameter from the equations of the paper, written out densely.

Wang et al., ICLR 2023, arXiv 2303.00980, equations 4 to 8 and algorithm 1, with what its published code makes of them:

- a width operator is the identity above rows that are learned, so `B W` is W above `rows W`;
- one operator for the residual stream (embeddings, norms, what reads and what writes it), and one per target layer for
  query, key, value and the inner units of the feed-forward block; what reads value or inner units has theirs;
- depth coefficients of their own for each module, one vector for its weight and one for its bias;
- the head's transform has an operator, which its norm and the decoder share; the decoder is no longer tied to the
  embedding while the operator is learned. (Tied, as the library has it, the decoder is the grown embedding.)
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ligo_dist.architectures import get_architecture
from ligo_dist.growth import Growth
from pairs import method_named, pair_of, start
from small_models import library_model, small_shape, weights_of

BERT = get_architecture("bert")
SOURCE = small_shape("bert", 2, 3, head_size=4, ffn=30)
TARGET = small_shape("bert", 5, 5, head_size=4, ffn=41)
DECODER = "cls.predictions.decoder.weight"


def untied_table(shape) -> dict[str, str]:
    """The published head: a decoder of its own."""
    norm = "cls.predictions.transform.LayerNorm."
    changed = {
        f"{norm}weight": "transform.gain",
        f"{norm}bias": "transform.bias",
        DECODER: "vocab transform.in",
    }
    return {**BERT.table(shape), **changed}


UNTIED = replace(BERT, name="bert with its own decoder", table=untied_table)


def growth_and_source(architecture) -> tuple[Growth, dict[str, Tensor]]:
    weights = weights_of(library_model("bert", SOURCE))
    if architecture is UNTIED:
        weights[DECODER] = weights["bert.embeddings.word_embeddings.weight"].clone()
    ligo = method_named("ligo")
    known = pair_of("bert", SOURCE, TARGET, ligo)
    return replace(known, architecture=architecture), weights


class Published:
    """The equations. `rows` are the learned rows of each width operator, `depth(l, name)` the coefficients w^l."""

    def __init__(self, source: dict[str, Tensor], operator: dict[str, Tensor], roles: list[str]) -> None:
        self.source, self.operator, self.roles = source, operator, roles
        self.target: dict[str, Tensor] = {}

    def rows(self, layer: int | None, axis: str) -> Tensor:
        return self.operator[f"{axis}.out" if layer is None else f"layers.{layer}.{axis}.out"]

    def mixed(self, layer: int, name: str) -> Tensor:
        """Equation 7: the weighted sum of all source layers."""
        row = self.roles.index(f"bert.encoder.layer.{{layer}}.{name}")
        coefficients = self.operator[f"layers.{layer}.depth"][row]
        assert coefficients.shape == (2,)
        first, second = (self.source[f"bert.encoder.layer.{k}.{name}"] for k in range(2))
        return coefficients[0] * first + coefficients[1] * second

    @staticmethod
    def taller(weight: Tensor, rows: Tensor) -> Tensor:
        """B W."""
        return torch.vstack([weight, rows @ weight])

    def small(self, name: str, layer: int | None) -> Tensor:
        """A tensor of the source; of a layer: what the target layer's coefficients make of all."""
        return self.source[name] if layer is None else self.mixed(layer, name)

    def put_linear(self, name: str, layer: int | None, out: Tensor, read: Tensor) -> None:
        """B W A^T and B b: equations 4 and 6."""
        place = "" if layer is None else f"bert.encoder.layer.{layer}."
        tall = self.taller(self.small(f"{name}.weight", layer), out)
        self.target[f"{place}{name}.weight"] = self.taller(tall.T, read).T
        self.target[f"{place}{name}.bias"] = self.taller(self.small(f"{name}.bias", layer)[:, None], out)[
            :, 0
        ]

    def put_norm(self, name: str, layer: int | None, out: Tensor) -> None:
        """Equation 8: a norm is a diagonal matrix in the axis it lies on."""
        place = "" if layer is None else f"bert.encoder.layer.{layer}."
        for kind in ("weight", "bias"):
            small = self.small(f"{name}.{kind}", layer)
            self.target[f"{place}{name}.{kind}"] = self.taller(small[:, None], out)[:, 0]

    def model(self, own_decoder: bool) -> dict[str, Tensor]:
        emb = self.rows(None, "hidden")
        for table in ("word", "position", "token_type"):  # equation 5, as it lies in memory: a row per token
            name = f"bert.embeddings.{table}_embeddings.weight"
            self.target[name] = self.taller(self.source[name].T, emb).T
        self.put_norm("bert.embeddings.LayerNorm", None, emb)
        for layer in range(5):
            query, key, value, ffn = (self.rows(layer, axis) for axis in ("query", "key", "value", "ffn"))
            self.put_linear("attention.self.query", layer, query, emb)
            self.put_linear("attention.self.key", layer, key, emb)
            self.put_linear("attention.self.value", layer, value, emb)
            self.put_linear("attention.output.dense", layer, emb, value)
            self.put_norm("attention.output.LayerNorm", layer, emb)
            self.put_linear("intermediate.dense", layer, ffn, emb)
            self.put_linear("output.dense", layer, emb, ffn)
            self.put_norm("output.LayerNorm", layer, emb)
        head = self.rows(None, "transform")
        self.put_linear("cls.predictions.transform.dense", None, head, emb)
        self.put_norm("cls.predictions.transform.LayerNorm", None, head)
        self.target["cls.predictions.bias"] = self.source["cls.predictions.bias"]
        if own_decoder:
            self.target[DECODER] = self.taller(self.source[DECODER].T, head).T
        return self.target


@pytest.mark.parametrize("architecture", [BERT, UNTIED], ids=["tied head", "published head"])
def test_a_whole_bert_grows_as_published(architecture):
    growth, source = growth_and_source(architecture)
    generator = torch.Generator().manual_seed(4)
    operator = {p.name: torch.randn(p.shape, generator=generator) for p in growth.operator_parameters}
    expected = Published(source, operator, growth.layer_roles).model(own_decoder=architecture is UNTIED)
    grown = growth.grow_dense(source, operator)
    assert set(grown) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(grown[name], weight, msg=name)


@pytest.mark.parametrize("architecture", [BERT, UNTIED], ids=["tied head", "published head"])
def test_the_operator_has_the_published_parameters_and_no_more(architecture):
    """New rows alone, tied by axis; a depth vector for each weight and each bias of each module."""
    growth, _ = growth_and_source(architecture)
    shapes = {p.name: p.shape for p in growth.operator_parameters}
    expected = {"hidden.out": (8, 12), "transform.out": (8, 12)}
    for layer in range(5):
        expected |= {f"layers.{layer}.{axis}.out": (8, 12) for axis in ("query", "key", "value")}
        expected[f"layers.{layer}.ffn.out"] = (11, 30)
        expected[f"layers.{layer}.depth"] = (16, 2)
    assert shapes == expected


def test_the_published_start():
    """Width: rows of U[0, 1], scaled to sum 1. Depth: one for layer l mod K, the rest U[0, 0.03], scaled likewise."""
    growth, _ = growth_and_source(BERT)
    uniform, noise = [], []
    for parameter in growth.operator_parameters:
        value = start(growth, "ligo")[parameter.name]
        torch.testing.assert_close(value.sum(dim=1), torch.ones(len(value)), msg=parameter.name)
        assert value.unique().numel() >= value.numel() - 1, "each coefficient is drawn for itself"
        assert (value > 0).all()
        if parameter.kind == "width":
            uniform.append((value / value.amax(dim=1, keepdim=True)).flatten())
        else:
            assert parameter.layer is not None
            own = parameter.layer % 2
            noise.append(value[:, 1 - own] / value[:, own])
    # The largest of n uniform numbers is n / (n + 1) on average.
    assert torch.cat(uniform).mean() == pytest.approx(0.5 * 13 / 12, abs=0.02)
    assert torch.cat(noise).max() <= 0.03
    assert torch.cat(noise).mean() == pytest.approx(0.015, abs=0.003)
