"""What is drawn at random is a function of (seed, draw), and is what it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ligo_dist.corpus import (
    NOT_PREDICTED,
    TRAINING,
    VALIDATION,
    Batches,
    CausalSamples,
    ImageSamples,
    MaskedSamples,
    PackedBlocks,
    UnlabelledSamples,
    fixed_batches,
)

VOCAB, MASK, SEPARATOR = 300, 4, 2
SPECIAL = frozenset({0, 1, SEPARATOR, 3, MASK})
LENGTH = 50


@pytest.fixture
def blocks(tmp_path: Path) -> PackedBlocks:
    """400 blocks of 50 random ordinary tokens, a separator in every tenth place."""
    tokens = np.random.default_rng(0).integers(5, VOCAB, size=400 * LENGTH).astype("uint16")
    tokens[::10] = SEPARATOR
    tokens.tofile(tmp_path / "train.bin")
    return PackedBlocks(tmp_path / "train.bin", "uint16", LENGTH)


def masked(blocks: PackedBlocks, **changes: Any) -> MaskedSamples:
    arguments: dict[str, Any] = {
        "fraction": 0.15,
        "mask_id": MASK,
        "special_ids": SPECIAL,
        "vocab_size": VOCAB,
        "seed": 7,
        "stream": TRAINING,
    }
    return MaskedSamples(blocks, **(arguments | changes))


def test_causal_samples_predict_their_own_tokens(blocks: PackedBlocks) -> None:
    batch = CausalSamples(blocks).read([3, 5], [0, 1])
    assert torch.equal(batch["input_ids"], torch.from_numpy(blocks.read([3, 5])))
    assert torch.equal(batch["labels"], batch["input_ids"])
    assert batch["labels"].data_ptr() != batch["input_ids"].data_ptr()


def test_masking_is_that_of_each_block_by_itself(blocks: PackedBlocks) -> None:
    samples, draws = masked(blocks, fraction=0.5), [9, 2, 2**40]
    batch = samples.read([4, 5, 6], draws)
    ordinary = np.array([token for token in range(VOCAB) if token not in SPECIAL])
    for row, draw in enumerate(draws):
        tokens = blocks.read([4 + row])[0]
        random = np.random.Generator(np.random.Philox(key=[7, draw], counter=[0, 0, 0, TRAINING]))
        order = [
            value + (token in SPECIAL) for value, token in zip(random.random(LENGTH), tokens, strict=True)
        ]
        what, other = random.random(25), ordinary[random.integers(len(ordinary), size=25)]
        wanted, labels = tokens.copy(), np.full(LENGTH, NOT_PREDICTED)
        for place, kind, anything in zip(
            sorted(range(LENGTH), key=order.__getitem__), what, other, strict=False
        ):
            labels[place] = tokens[place]
            wanted[place] = MASK if kind < 0.8 else anything if kind < 0.9 else tokens[place]
        assert batch["input_ids"][row].tolist() == wanted.tolist()
        assert batch["labels"][row].tolist() == labels.tolist()


def test_samples_without_labels(blocks: PackedBlocks) -> None:
    assert set(UnlabelledSamples(blocks).read([0], [0])) == {"input_ids"}
    (batch,) = fixed_batches(UnlabelledSamples(blocks), 1, 0, 1, 1)
    assert set(batch.inputs) == {"input_ids"}


@pytest.mark.parametrize(("fraction", "count"), [(0.15, 8), (0.3, 15), (0.001, 1), (0.999, 50)])
def test_every_sequence_has_equally_many_predictions(
    blocks: PackedBlocks, fraction: float, count: int
) -> None:
    samples = masked(blocks, fraction=fraction)
    assert samples.predictions_per_sample == count
    labels = samples.read(range(100), range(100))["labels"]
    assert ((labels != NOT_PREDICTED).sum(dim=1) == count).all()


def test_the_shares_of_masks_random_tokens_and_untouched_ones(blocks: PackedBlocks) -> None:
    original = torch.from_numpy(blocks.read(range(400)))
    parts = []
    for epoch in range(5):
        batch = masked(blocks).read(range(400), range(400 * epoch, 400 * epoch + 400))
        ids, labels = batch["input_ids"], batch["labels"]
        chosen = labels != NOT_PREDICTED
        assert torch.equal(labels[chosen], original[chosen])
        assert torch.equal(ids[~chosen], original[~chosen])
        parts.append((ids[chosen], original[chosen], chosen))
    ids, were = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    assert len(ids) == 5 * 400 * 8
    is_mask, is_same = ids == MASK, ids == were
    random = ~is_mask & ~is_same
    # Three standard deviations of 16,000 draws; one in 295 random tokens happens to be the one that was there.
    assert is_mask.float().mean().item() == pytest.approx(0.8, abs=0.0095)
    assert is_same.float().mean().item() == pytest.approx(0.1 + 0.1 / 295, abs=0.0072)
    assert random.float().mean().item() == pytest.approx(0.1 - 0.1 / 295, abs=0.0072)
    assert not SPECIAL & set(ids[random].tolist())
    assert len(set(ids[random].tolist())) > 280, "any ordinary token may come in"
    assert not SPECIAL & set(were.tolist()), "there were enough ordinary tokens to choose from"
    places = torch.stack([part[2] for part in parts]).float().mean(dim=(0, 1))
    ordinary = torch.ones(LENGTH, dtype=torch.bool)
    ordinary[::10] = False
    assert (places[~ordinary] == 0).all()
    assert (places[ordinary] - 8 / 45).abs().max() < 0.04, "no place is preferred"


def test_special_tokens_are_predicted_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    tokens = np.full(20, SEPARATOR, dtype="uint16")
    tokens[[3, 7]] = 100
    tokens.tofile(tmp_path / "train.bin")
    blocks = PackedBlocks(tmp_path / "train.bin", "uint16", 20)
    labels = masked(blocks, fraction=0.2).read([0], [0])["labels"][0]
    assert labels[3] == labels[7] == 100
    assert (labels == SEPARATOR).sum() == 2


def test_masks_depend_on_seed_and_draw_and_on_nothing_else(blocks: PackedBlocks) -> None:
    def read(draw: int, **changes: Any) -> Tensor:
        return masked(blocks, **changes).read([9], [draw])["input_ids"]

    assert torch.equal(read(5), read(5))
    together = masked(blocks).read([1, 9, 2], [4, 5, 6])["input_ids"][1]
    assert torch.equal(together, read(5)[0]), "not on what is read beside it"
    others = [read(6), read(5 + 2**40), read(5, seed=8), read(5, stream=VALIDATION)]
    assert len({tuple(ids[0].tolist()) for ids in (read(5), *others)}) == 5


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_masks_do_not_depend_on_the_ranks(blocks: PackedBlocks, world_size: int) -> None:
    batches = Batches(masked(blocks), seed=3, batch_size=8, first_sample=1000)
    alone, _ = next(batches.micro_batches(2, 0, 1, 8))
    parts = [part for rank in range(world_size) for part, _ in batches.micro_batches(2, rank, world_size, 2)]
    for name in ("input_ids", "labels"):
        assert torch.equal(torch.cat([part[name] for part in parts]), alone[name])
    later, _ = next(Batches(masked(blocks), 3, 4, first_sample=1016).micro_batches(0, 0, 1, 4))
    assert torch.equal(later["input_ids"], alone["input_ids"][:4]), "a sample's number in the run counts"


def test_the_validation_masks_are_fixed(blocks: PackedBlocks) -> None:
    samples = masked(blocks, seed=0, stream=VALIDATION)

    def rows(world_size: int) -> set[tuple[int, ...]]:
        batches = (
            batch for rank in range(world_size) for batch in fixed_batches(samples, 7, rank, world_size, 2)
        )
        return {tuple(row.tolist()) for inputs, valid in batches for row in inputs["input_ids"][:valid]}

    assert len(rows(1)) == 7
    assert rows(1) == rows(2) == rows(3)


# --- images ---


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(1, 256, size=(20, 3, 6, 6)).astype("uint8")


def images(pixels: np.ndarray, **changes: Any) -> ImageSamples:
    arguments: dict[str, Any] = {
        "images": pixels,
        "classes": np.arange(20, dtype="int32"),
        "mean": [0.1, 0.2, 0.3],
        "standard_deviation": [0.5, 0.25, 1.0],
        "tokens_per_sample": 10,
    }
    return ImageSamples(**(arguments | changes))


def test_images_are_normalised_channel_by_channel(pixels: np.ndarray) -> None:
    samples = images(pixels)
    batch = samples.finish(samples.read([4, 2], [0, 1]))
    assert batch["labels"].tolist() == [4, 2]
    assert batch["labels"].dtype == torch.int64
    assert batch["pixel_values"].dtype == torch.float32
    for channel, (mean, deviation) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 1.0))):
        expected = (torch.from_numpy(pixels[4, channel]) / 255 - mean) / deviation
        torch.testing.assert_close(batch["pixel_values"][0, channel], expected)


def test_shifted_images_move_as_a_whole(pixels: np.ndarray) -> None:
    samples = images(pixels, shift=2)
    seen = set()
    for draw in range(300):
        image = samples.read([0], [draw])["pixel_values"][0].numpy()
        moves = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(image, _moved(pixels[0], down, right))
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) == 25


def _moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """By hand: what moves out is lost, what comes in is black."""
    result = np.zeros_like(image)
    for y in range(6):
        for x in range(6):
            if 0 <= y - down < 6 and 0 <= x - right < 6:
                result[:, y, x] = image[:, y - down, x - right]
    return result


def test_half_of_the_images_are_mirrored(pixels: np.ndarray) -> None:
    samples = images(pixels, flip=True)
    mirrored = 0
    for draw in range(400):
        image = samples.read([1], [draw])["pixel_values"][0].numpy()
        is_mirrored = np.array_equal(image, pixels[1, :, :, ::-1])
        assert is_mirrored or np.array_equal(image, pixels[1])
        mirrored += is_mirrored
    assert 160 < mirrored < 240


def test_changes_depend_on_seed_and_draw_alone_and_leave_the_images_as_they_are(pixels: np.ndarray) -> None:
    before = pixels.copy()

    def read(draw: int, **changes: Any) -> Tensor:
        return images(pixels, **{"shift": 2, "flip": True, "seed": 3, **changes}).read([0], [draw])[
            "pixel_values"
        ]

    assert torch.equal(read(8), read(8))
    together = images(pixels, shift=2, flip=True, seed=3).read([0, 0], [2**40, 8])["pixel_values"]
    assert torch.equal(together, torch.cat([read(2**40), read(8)]))
    assert any(not torch.equal(read(draw), read(8)) for draw in range(9, 12))
    assert any(not torch.equal(read(draw), read(draw, seed=4)) for draw in range(4))
    assert np.array_equal(pixels, before)


def test_padding_of_the_last_validation_batch_does_not_count(pixels: np.ndarray) -> None:
    batches = list(fixed_batches(images(pixels), 5, 1, 2, 2))
    assert [valid for _, valid in batches] == [2, 0]
    (inputs, valid), _ = list(fixed_batches(images(pixels), 3, 0, 1, 2))[::-1]
    assert valid == 1
    assert inputs["labels"].tolist() == [13, NOT_PREDICTED]
