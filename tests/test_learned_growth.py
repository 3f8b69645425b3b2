"""The benchmark of learned growth: what its mixtures, closed forms, costs and verdicts come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.horizon.runs import Target
from benchmarks.learned.closed_form import SCALES, dealt_direction, least_squares, set_new_outputs
from benchmarks.learned.results import gains_over, table, verdict
from benchmarks.learned.trial import Trial
from benchmarks.learned.weights import CLIP, DEPTH, SOURCE, WEIGHT_DECAY, WEIGHTS, Training, Weights

OUTPUTS = ("attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")


@dataclass
class RandomBlocks:
    """Samples that are random tokens."""

    labelled = True
    tokens_per_sample = 64

    def __len__(self) -> int:
        return 4096

    def read(self, indices: Any, draws: Any) -> dict[str, Tensor]:
        numbers = np.random.default_rng(int(indices[0])).integers(3, 512, (len(indices), 64))
        return {"input_ids": torch.from_numpy(numbers), "labels": torch.from_numpy(numbers.copy())}

    def weights(self, indices: Any) -> Any:
        return np.ones(len(indices), dtype=np.int64)


@dataclass
class RandomCorpus:
    train = RandomBlocks()
    validation = RandomBlocks()

    def library_keys(self) -> dict[str, Any]:
        return {"bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A source with values large enough that every weight matters, not trained."""
    directory: Path = tmp_path_factory.mktemp("trial")
    trial = Trial(Target("deep", 1e-2, every_text=False), RandomCorpus(), 0, directory)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(5)
    model = trial._model(2, 0)
    state = {
        name: tensor.detach() + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.named_parameters()
    }
    torch.save(state, directory / "source-0.01-0.pt")
    return trial


def a_batch(trial: Trial) -> dict[str, Tensor]:
    return next(trial.batches(0, 4))


def library_logits(trial: Trial, state: dict[str, Tensor], layers: int, inputs: dict[str, Tensor]) -> Tensor:
    model = trial._model(layers, 9)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing in ([], ["lm_head.weight"])
    assert unexpected == []
    with torch.no_grad():
        return model(input_ids=inputs["input_ids"]).logits


def test_folded_weights_have_the_loss_and_logits_of_the_mixture(trial: Trial):
    weights = trial.grown("damped")
    generator = torch.Generator().manual_seed(1)
    for tensors in (weights.delta, weights.depth):
        for tensor in tensors.values():
            tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    inputs = a_batch(trial)
    role = "transformer.h.{layer}.mlp.c_fc.weight"
    by_hand = (
        sum(weights.depth[role][5, j] * weights.source[role][j] for j in range(2)) + weights.delta[role][5]
    )
    before, mixed = weights.loss(inputs), {name: tensor.clone() for name, tensor in weights.state().items()}
    assert torch.allclose(mixed[role.format(layer=5)], by_hand, atol=1e-6)
    weights.fold()
    assert not weights.depth
    assert torch.equal(weights.loss(inputs), before)
    logits = library_logits(trial, mixed, 16, inputs)
    assert torch.allclose(logits, library_logits(trial, dict(weights.state()), 16, inputs), atol=1e-5)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten()
    )
    assert float(before) == pytest.approx(float(expected), abs=1e-5)


def test_damped_copies_write_together_what_their_layer_wrote(trial: Trial):
    source, state = trial.source(), trial.grown("damped").state()
    for copied in range(2):
        for output in OUTPUTS:
            copies = [state[f"transformer.h.{layer}.{output}"] for layer in range(copied, 16, 2)]
            assert torch.allclose(sum(copies), source[f"transformer.h.{copied}.{output}"], atol=1e-6)
    name = "transformer.h.{}.attn.c_attn.weight"
    assert torch.equal(state[name.format(7)], source[name.format(1)])


def test_identity_copies_compute_what_the_source_does(trial: Trial):
    inputs, weights = a_batch(trial), trial.grown("identity")
    logits = library_logits(trial, dict(weights.state()), 16, inputs)
    assert torch.allclose(logits, library_logits(trial, trial.source(), 2, inputs), atol=1e-4)


def test_random_layers_follow_those_of_the_source(trial: Trial):
    state, name = trial.grown("random").state(), "transformer.h.{}.mlp.c_fc.weight"
    assert torch.equal(state[name.format(1)], trial.source()[name.format(1)])
    assert float(state[name.format(2)].std()) == pytest.approx(0.1, rel=0.1)


def test_joint_steps_move_all_parts_and_the_moments_survive_folding(trial: Trial):
    weights, inputs = trial.grown("damped"), a_batch(trial)
    role = "transformer.h.{layer}.attn.c_attn.weight"
    before = {part: tensors[role].clone() for part, tensors in _parts(weights).items()}
    training = Training(weights, {WEIGHTS: 1.0, DEPTH: 1.0, SOURCE: 0.1})
    training.step(inputs, 1e-2)
    for part, tensors in _parts(weights).items():
        assert not torch.equal(tensors[role], before[part]), part
    # Adam's first step is the rate in size, but for the decay: at a tenth of the rate that is ten times as strong.
    stay = 1 - 1e-2 * WEIGHT_DECAY
    step = (weights.source[role].detach() - stay * before[SOURCE]).abs()
    assert float(step.median()) == pytest.approx(1e-3, rel=1e-2)
    mixed = {name: tensor.detach().clone() for name, tensor in weights.state().items()}
    weights.fold()
    assert all(torch.equal(tensor, mixed[name]) for name, tensor in weights.state().items())
    training.step(inputs, 1e-2)
    assert not torch.equal(weights.state()[role.format(layer=0)], mixed[role.format(layer=0)])


def _parts(weights: Weights) -> dict[str, dict[str, Tensor]]:
    return {WEIGHTS: weights.delta, DEPTH: weights.depth, SOURCE: weights.source}


def test_plain_steps_are_those_of_the_library(trial: Trial):
    weights, inputs = trial.grown("damped"), a_batch(trial)
    weights.fold()
    model = trial._model(16, 3)
    model.load_state_dict(dict(weights.state()), strict=False)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if (p.dim() > 1) == decays], "weight_decay": 0.1 * decays}
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    training = Training(weights, {WEIGHTS: 1.0})
    for _ in range(2):
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        training.step(inputs, 1e-2)
    with torch.no_grad():
        assert float(weights.loss(inputs)) == pytest.approx(float(model(**inputs).loss), abs=1e-3)


# --- closed forms ---


def test_dealt_directions_add_up_to_the_gradient():
    gradient = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    parts = [dealt_direction(gradient, turn, 3) for turn in range(3)]
    assert torch.allclose(sum(parts), -gradient, atol=1e-5)
    assert float((parts[0] * parts[1]).sum()) == pytest.approx(0, abs=1e-5)


def test_least_squares_moves_what_is_written_against_its_gradient():
    generator = torch.Generator().manual_seed(0)
    read, wanted = torch.randn(500, 6, generator=generator), torch.randn(6, 4, generator=generator)
    gradient = read.T @ (read @ wanted) / len(read)  # of outputs whose gradient is read @ wanted
    assert torch.allclose(least_squares(gradient, read), -wanted, atol=0.05)


@pytest.mark.parametrize("form", ["gradmax", "tiny"])
def test_new_outputs_lower_the_loss_of_their_batch(trial: Trial, form: str):
    weights, inputs = trial.grown("identity"), a_batch(trial)
    weights.fold()
    before = float(weights.loss(inputs))
    passes, scale = set_new_outputs(weights, inputs, form)
    assert float(weights.loss(inputs)) < before
    assert scale in SCALES
    assert passes == 8 + (form == "tiny")
    stack = weights.delta["transformer.h.{layer}.mlp.c_proj.weight"].detach()
    assert float(stack[3].norm()) == pytest.approx(scale * float(stack[0].norm()), rel=1e-4)


# --- costs and verdicts ---


def test_learning_is_paid_for_with_training_steps(trial: Trial):
    assert (trial.steps, trial.source_steps, trial.steps_left(0)) == (1083, 866, 217)
    assert trial.steps_left(10 * trial.learning_flops(64)) == 207
    assert trial.steps_left(10 * trial.learning_flops(16)) == 214  # 2.502 steps: to the nearest
    assert 0 < trial.joint_flops - trial.step_flops < 0.001 * trial.step_flops


def test_learning_takes_other_batches_than_training(trial: Trial):
    trained = next(trial.batches(trial.source_steps))["input_ids"]
    again = next(trial.batches(trial.source_steps))["input_ids"]
    learned = next(trial.learning_batches(16))["input_ids"]
    assert torch.equal(trained, again)
    assert learned.shape == (16, 64)
    assert not torch.equal(trained[:16], learned)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.0099, 0.0099], "dropped"),
        ([0.011, 0.011, 0.012], "kept"),
        ([0.001, 0.02, 0.03], "dropped"),
        ([-0.1], "dropped (one seed)"),
        ([0.02], "undecided (one seed)"),
    ],
)
def test_what_gains_too_little_is_dropped(gains: list[float], said: str):
    assert verdict(gains) == said


def test_gains_are_paired_by_seed():
    def result(way: str, seed: int, loss: float) -> dict[str, Any]:
        about = {"way": way, "seed": seed, "rate": 1e-2, "source": 2.5, "flops": 100.0}
        return about | {"loss": loss, "grown": 3.0, "learning_flops": 5.0}

    results = [result("damped", 0, 2.0), result("damped", 1, 2.2), result("stack", 1, 2.1)]
    row = next(line for line in table(results) if line.startswith("stack  "))
    assert row.split()[:5] == ["stack", "1", "2.1000", "+0.1000", "-"]
    assert gains_over("damped", "stack", results) == [pytest.approx(0.1)]
