"""Samples as a model takes them: what is read, and what is made of it at random.

Whatever is random is a pure function of (seed, draw), `draw` being the sample's number in the whole run: the same on
any number of ranks, after a resume, and different each time that the same text or image comes by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ligo_dist.corpus.packing import PackedBlocks

NOT_PREDICTED = -100
"""Label of what is not to be predicted: the library's losses leave it out."""

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers: what is drawn for validation is never drawn for training."""

MASKED_PART, RANDOM_PART = 0.8, 0.1
"""Of the tokens to be predicted: replaced by the mask, by any token; the rest stays (Devlin et al. 2019, section
3.1)."""


class Samples(Protocol):
    """What a model is trained on, sample by sample; all samples have equally many predictions.

    Attributes:
        tokens_per_sample: positions that the model works on: the sequence length, or an image's patches and the
            special tokens beside them.
        labelled: whether there is anything to be predicted; a model without an objective is neither trained nor
            evaluated.
    """

    @property
    def labelled(self) -> bool: ...

    @property
    def tokens_per_sample(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | NDArray[np.int64], draws: Sequence[int]) -> dict[str, Tensor]:
        """The model's inputs by name, "labels" among them if it is labelled, each with a row per index.

        Args:
            indices: which samples.
            draws: for each, the number that what is random about it is drawn with.
        """
        ...


@dataclass(frozen=True)
class _BlockSamples:
    """Blocks of text as samples."""

    blocks: PackedBlocks

    @property
    def tokens_per_sample(self) -> int:
        return self.blocks.sequence_length

    def __len__(self) -> int:
        return len(self.blocks)


@dataclass(frozen=True)
class CausalSamples(_BlockSamples):
    """Blocks of text, each token to be predicted from those before it."""

    labelled: ClassVar[bool] = True

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        tokens = torch.from_numpy(self.blocks.read(indices))
        return {"input_ids": tokens, "labels": tokens.clone()}


@dataclass(frozen=True)
class UnlabelledSamples(_BlockSamples):
    """Blocks of text alone, for a model without an objective."""

    labelled: ClassVar[bool] = False

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        return {"input_ids": torch.from_numpy(self.blocks.read(indices))}


@dataclass(frozen=True)
class MaskedSamples(_BlockSamples):
    """Blocks of text with some tokens to be predicted from all others.

    Exactly round(fraction x length) tokens of each block, so that means over micro-batches are means over tokens.
    Special tokens are chosen only where there are not enough others.

    Attributes:
        blocks: the text.
        fraction: part of the tokens that are to be predicted.
        mask_id: the token they are replaced by, mostly.
        special_ids: tokens that stand for no text; never put in at random.
        vocab_size: tokens there are.
        seed: of what is chosen.
        stream: `TRAINING` or `VALIDATION`.
    """

    labelled: ClassVar[bool] = True

    fraction: float
    mask_id: int
    special_ids: frozenset[int]
    vocab_size: int
    seed: int
    stream: int = TRAINING
    _ordinary: NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    _ordinary_ids: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordinary = np.ones(self.vocab_size, dtype=bool)
        ordinary[sorted(self.special_ids)] = False
        object.__setattr__(self, "_ordinary", ordinary)
        object.__setattr__(self, "_ordinary_ids", ordinary.nonzero()[0])

    @property
    def predictions_per_sample(self) -> int:
        return max(1, round(self.fraction * self.blocks.sequence_length))

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        tokens = self.blocks.read(indices)
        labels = np.full_like(tokens, NOT_PREDICTED)
        for row, draw in enumerate(draws):
            self._mask(tokens[row], labels[row], random_numbers(self.seed, int(draw), self.stream))
        return {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}

    def _mask(
        self, tokens: NDArray[np.int64], labels: NDArray[np.int64], random: np.random.Generator
    ) -> None:
        count = self.predictions_per_sample
        order = random.random(len(tokens))
        order[~self._ordinary[tokens]] += 1  # special tokens come last
        chosen = np.argsort(order, kind="stable")[:count]
        labels[chosen] = tokens[chosen]
        what = random.random(count)
        anything = self._ordinary_ids[random.integers(len(self._ordinary_ids), size=count)]
        replaced = np.where(what < MASKED_PART + RANDOM_PART, anything, tokens[chosen])
        tokens[chosen] = np.where(what < MASKED_PART, self.mask_id, replaced)


@dataclass(frozen=True)
class ImageSamples:
    """Images of one size with their classes.

    Attributes:
        images: [samples, channels, height, width] uint8.
        classes: [samples], the class of each.
        mean, standard_deviation: of each channel, by which values between 0 and 1 are normalised.
        tokens_per_sample: patches and special tokens.
        seed: of what is random.
        shift: images are moved by up to so many pixels either way; what comes in is black.
        flip: half of the images are mirrored.
    """

    labelled: ClassVar[bool] = True

    images: NDArray[np.uint8]
    classes: NDArray[np.integer[Any]]
    mean: Sequence[float]
    standard_deviation: Sequence[float]
    tokens_per_sample: int
    seed: int = 0
    shift: int = 0
    flip: bool = False

    def __len__(self) -> int:
        return len(self.classes)

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        indices = np.asarray(indices, dtype=np.int64)
        images = self.images[indices]
        if self.shift or self.flip:
            for row, draw in enumerate(draws):
                images[row] = self._changed(images[row], random_numbers(self.seed, int(draw), TRAINING))
        values = images.astype(np.float32) / 255
        mean, deviation = (
            np.asarray(x, dtype=np.float32)[:, None, None] for x in (self.mean, self.standard_deviation)
        )
        return {
            "pixel_values": torch.from_numpy((values - mean) / deviation),
            "labels": torch.from_numpy(self.classes[indices].astype(np.int64)),
        }

    def _changed(self, image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        down, right = random.integers(-self.shift, self.shift, size=2, endpoint=True)
        mirrored = random.random() < 0.5
        if self.flip and mirrored:
            image = image[:, :, ::-1]
        size = image.shape[1]
        padded = np.pad(image, ((0, 0), (self.shift, self.shift), (self.shift, self.shift)))
        top, left = self.shift - down, self.shift - right
        return padded[:, top : top + size, left : left + size]


@dataclass(frozen=True)
class MixedSamples:
    """The samples of several sources, those of the second after those of the first.

    Attributes:
        sources: of one kind, in their order.
    """

    sources: Sequence[Samples]

    @property
    def labelled(self) -> bool:
        return self.sources[0].labelled

    @property
    def tokens_per_sample(self) -> int:
        return self.sources[0].tokens_per_sample

    @property
    def sizes(self) -> list[int]:
        """Samples of each source."""
        return [len(source) for source in self.sources]

    def __len__(self) -> int:
        return sum(self.sizes)

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        indices = np.asarray(indices, dtype=np.int64)
        ends = np.cumsum(self.sizes)
        of_source = np.searchsorted(ends, indices, side="right")
        inputs: dict[str, Tensor] = {}
        for number in np.unique(of_source).tolist():
            source, rows = self.sources[number], (of_source == number).nonzero()[0]
            own = indices[rows] - (ends[number] - len(source))
            for name, tensor in source.read(own, [draws[row] for row in rows]).items():
                whole = inputs.setdefault(name, tensor.new_empty((len(indices), *tensor.shape[1:])))
                whole[torch.from_numpy(rows)] = tensor
        return inputs


def random_numbers(seed: int, draw: int, stream: int) -> np.random.Generator:
    """Random numbers of their own for each (seed, draw, stream): the counter-based Philox (Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=[seed, draw], counter=[0, 0, 0, stream]))
