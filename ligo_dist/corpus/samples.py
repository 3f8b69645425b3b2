"""Samples as a model takes them: what is read, and what is made of it at random.

Whatever is random is a pure function of (seed, draw), `draw` being the sample's number in the whole run: the same on
any number of ranks, after a resume, and different each time that the same text or image comes by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ligo_dist.corpus.boundaries import Boundaries
from ligo_dist.corpus.packing import Blocks

NOT_PREDICTED = -100
"""Label of what is not to be predicted: the library's losses leave it out."""

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers: what is drawn for validation is never drawn for training."""

MASKED_PART, RANDOM_PART = 0.8, 0.1
"""Of the tokens to be predicted: replaced by the mask, by any token; the rest stays (Devlin et al. 2019, section
3.1)."""


class Samples(Protocol):
    """What a model is trained on, sample by sample.

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
        """The model's inputs by name, "labels" among them if it is labelled, each with a row per index; still to be
        finished.

        Args:
            indices: which samples.
            draws: for each, the number that what is random about it is drawn with.
        """
        ...

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a model takes of what was read, once that is where the model is."""
        ...

    def weights(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(indices)], what each sample counts in a mean over predictions: how many it has, or 1 where all have
        equally many."""
        ...


@dataclass(frozen=True)
class _BlockSamples:
    """Blocks of text as samples.

    Attributes:
        blocks: the text.
        boundaries: of its documents, where they are to be kept apart; None: a block is one text.
        first_position: that the model counts positions from (RoBERTa: 2), where documents are kept apart.
    """

    blocks: Blocks
    boundaries: Boundaries | None = field(default=None, kw_only=True)
    first_position: int = field(default=0, kw_only=True)

    @property
    def tokens_per_sample(self) -> int:
        return self.blocks.sequence_length

    def __len__(self) -> int:
        return len(self.blocks)

    def weights(self, indices: Any) -> NDArray[np.int64]:
        return np.ones(len(indices), dtype=np.int64)

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return inputs

    def _positions(self, indices: Any) -> dict[str, Tensor]:
        """What tells a model where documents begin; nothing where that does not matter."""
        if self.boundaries is None:
            return {}
        return {"position_ids": torch.from_numpy(self.boundaries.positions(indices) + self.first_position)}


@dataclass(frozen=True)
class CausalSamples(_BlockSamples):
    """Blocks of text, each token to be predicted from those before it; of a document, where those are kept apart."""

    labelled: ClassVar[bool] = True

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        tokens = self.blocks.read(indices)
        # numpy's copy takes one core; torch's would call upon all of them for so little.
        inputs = {
            "input_ids": torch.from_numpy(tokens),
            "labels": torch.from_numpy(tokens.copy()),
            **self._positions(indices),
        }
        if self.boundaries is not None:
            inputs["labels"][inputs["position_ids"] == self.first_position] = NOT_PREDICTED
        return inputs

    def weights(self, indices: Any) -> NDArray[np.int64]:
        if self.boundaries is None:
            return super().weights(indices)
        return self.blocks.sequence_length - self.boundaries.counts(indices)


@dataclass(frozen=True)
class UnlabelledSamples(_BlockSamples):
    """Blocks of text alone, for a model without an objective."""

    labelled: ClassVar[bool] = False

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        return {"input_ids": torch.from_numpy(self.blocks.read(indices)), **self._positions(indices)}


@dataclass(frozen=True)
class MaskedSamples(_BlockSamples):
    """Blocks of text with some tokens to be predicted from all others.

    Exactly round(fraction x length) tokens of each block, so that means over micro-batches are means over tokens.
    Special tokens are chosen only where there are not enough others.

    Attributes:
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
        if len(tokens):
            self._mask(tokens, labels, draws)
        inputs = {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}
        return {**inputs, **self._positions(indices)}

    def _mask(self, tokens: NDArray[np.int64], labels: NDArray[np.int64], draws: Sequence[int]) -> None:
        """Each row's numbers are drawn by themselves, all else is done for all rows at once."""
        count = self.predictions_per_sample
        order = np.empty(tokens.shape)
        what, drawn = np.empty((len(tokens), count)), np.empty((len(tokens), count), dtype=np.int64)
        for row, random in enumerate(random_numbers(self.seed, draws, self.stream)):
            random.random(out=order[row])
            random.random(out=what[row])
            drawn[row] = random.integers(len(self._ordinary_ids), size=count)
        order[~self._ordinary[tokens]] += 1  # special tokens come last
        chosen = _smallest(order, count)
        there = np.take_along_axis(tokens, chosen, axis=1)
        np.put_along_axis(labels, chosen, there, axis=1)
        replaced = np.where(what < MASKED_PART + RANDOM_PART, self._ordinary_ids[drawn], there)
        np.put_along_axis(tokens, chosen, np.where(what < MASKED_PART, self.mask_id, replaced), axis=1)


def _smallest(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The places of each row's `count` smallest values, in their order; of equal ones the first comes first."""
    places = np.argsort(values, axis=1)  # the quick way does not promise that
    in_order = np.take_along_axis(values, places, axis=1)
    if (in_order[:, 1:] == in_order[:, :-1]).any():
        places = np.argsort(values, axis=1, kind="stable")
    return places[:, :count]


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

    def weights(self, indices: Any) -> NDArray[np.int64]:
        return np.ones(len(indices), dtype=np.int64)

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        indices = np.asarray(indices, dtype=np.int64)
        images = np.asarray(self.images)  # each slice of a file's array would make another such array
        pixels = np.empty((len(indices), *images.shape[1:]), dtype=np.uint8)
        if self.shift or self.flip:
            numbers = random_numbers(self.seed, draws, TRAINING)
            for row, index, random in zip(pixels, indices, numbers, strict=True):
                self._put_changed(row, images[index], random)
        else:
            for row, index, _ in zip(pixels, indices, draws, strict=True):
                row[...] = images[index]
        return {
            "pixel_values": torch.from_numpy(pixels),
            "labels": torch.from_numpy(self.classes[indices].astype(np.int64)),
        }

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Pixels from 0 to 255 normalised: a quarter of the bytes travels, and a GPU has the arithmetic for it."""
        pixels = inputs["pixel_values"]
        # None is a number: dividing by one, a GPU would multiply by its inverse, which rounds otherwise.
        white, mean, deviation = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device)[:, None, None]
            for values in ([255.0], self.mean, self.standard_deviation)
        )
        values = pixels.to(torch.float32)
        return {**inputs, "pixel_values": values.div_(white).sub_(mean).div_(deviation)}

    def _put_changed(
        self, row: NDArray[np.uint8], image: NDArray[np.uint8], random: np.random.Generator
    ) -> None:
        """Write an image [channels, height, width], moved and perhaps mirrored, into another array of that shape."""
        down, right = random.integers(-self.shift, self.shift, size=2, endpoint=True)
        mirrored = random.random() < 0.5
        if self.flip and mirrored:
            image = image[:, :, ::-1]
        *_, height, width = image.shape
        (rows, from_rows), (columns, from_columns) = _moved(down, height), _moved(right, width)
        row[:, rows, columns] = image[:, from_rows, from_columns]
        row[:, : rows.start] = row[:, rows.stop :] = 0
        row[:, rows, : columns.start] = row[:, rows, columns.stop :] = 0


def _moved(by: int, size: int) -> tuple[slice, slice]:
    """Which part of an axis of so many elements is filled when all are moved by some, and which part fills it."""
    left = max(size - abs(by), 0)
    to, origin = min(max(by, 0), size), min(max(-by, 0), size)
    return slice(to, to + left), slice(origin, origin + left)


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

    def weights(self, indices: Any) -> NDArray[np.int64]:
        counted = np.empty(len(indices), dtype=np.int64)
        for source, own, rows in self._parts(indices):
            counted[rows] = source.weights(own)
        return counted

    def read(self, indices: Any, draws: Sequence[int]) -> dict[str, Tensor]:
        inputs: dict[str, Tensor] = {}
        for source, own, rows in self._parts(indices):
            for name, tensor in source.read(own, [draws[row] for row in rows]).items():
                whole = inputs.setdefault(name, tensor.new_empty((len(indices), *tensor.shape[1:])))
                whole[torch.from_numpy(rows)] = tensor
        return inputs

    def finish(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.sources[0].finish(inputs)

    def _parts(self, indices: Any) -> Iterator[tuple[Samples, NDArray[np.int64], NDArray[np.int64]]]:
        """Each source that some of the samples are of, the numbers that they have there, and which of them they are."""
        indices = np.asarray(indices, dtype=np.int64)
        ends = np.cumsum(self.sizes)
        of_source = np.searchsorted(ends, indices, side="right")
        for number in np.unique(of_source).tolist():
            source, rows = self.sources[number], (of_source == number).nonzero()[0]
            yield source, indices[rows] - (ends[number] - len(source)), rows


def random_numbers(seed: int, draws: Iterable[int], stream: int) -> Iterator[np.random.Generator]:
    """Random numbers of their own for each (seed, draw, stream), each good until the next one is asked for: the
    counter-based Philox (Salmon et al. 2011), begun anew, which takes a tenth of the time of making another."""
    bits = np.random.Philox(key=[seed, 0], counter=[0, 0, 0, stream])
    random, state = np.random.Generator(bits), bits.state
    for draw in draws:
        state["state"]["key"][1] = draw
        bits.state = state
        yield random
