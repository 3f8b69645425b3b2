"""Micro-batches on their way to a GPU: the next one is read, pinned and copied while this one computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

Given = TypeVar("Given")
Made = TypeVar("Made")

FedBatch = tuple[Mapping[str, Tensor], int]
"""A micro-batch's tensors by name, and what its mean loss counts."""


def fed(
    micro_batches: Iterable[FedBatch],
    device: torch.device,
    finish: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> Iterator[FedBatch]:
    """The same micro-batches as `finish` leaves them, on the device where it is a GPU. Ranks on processors need these
    for computing, and get each micro-batch when they ask for it."""
    if device.type != "cuda":
        for tensors, weight in micro_batches:
            yield finish(tensors), weight
        return
    stream = torch.cuda.Stream(device)

    def sent(batch: FedBatch) -> tuple[FedBatch, torch.cuda.Event]:
        tensors, weight = batch
        with torch.cuda.device(device), torch.cuda.stream(stream):
            there = finish({name: _sent(tensor, device) for name, tensor in tensors.items()})
            return (there, weight), stream.record_event()

    for batch, event in made_ahead(micro_batches, sent):
        computing = torch.cuda.current_stream(device)
        computing.wait_event(event)
        for tensor in batch[0].values():
            # Its memory goes back to the copies' stream, which must wait for this one.
            tensor.record_stream(computing)
        yield batch


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


def made_ahead(items: Iterable[Given], make: Callable[[Given], Made]) -> Iterator[Made]:
    """What is made of each item, in their order: in a thread, the next one while the caller has this one.

    Raises:
        Exception: whatever the items or `make` raise, when the caller comes to that item.
    """
    iterator = iter(items)

    def following() -> list[Made]:
        return [make(item) for item in islice(iterator, 1)]

    with ThreadPoolExecutor(1, "feeding") as pool:
        made = pool.submit(following)
        while got := made.result():
            made = pool.submit(following)
            yield from got
