"""The next micro-batch is made while this one is used; on processors when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from ligo_dist.engine import fed, made_ahead


class Source:
    """Numbers, and an event for each that is set when it is taken."""

    def __init__(self, count: int) -> None:
        self.taken = [threading.Event() for _ in range(count)]

    def __iter__(self) -> Iterator[int]:
        for number, event in enumerate(self.taken):
            event.set()
            yield number


def test_the_next_is_made_while_this_one_is_used_and_no_more():
    source = Source(4)
    for number in made_ahead(source, lambda number: number):
        if number < 3:
            assert source.taken[number + 1].wait(10)
        assert not any(event.is_set() for event in source.taken[number + 2 :])


def test_all_come_in_their_order():
    assert list(made_ahead(range(50), lambda number: -number)) == [-number for number in range(50)]
    assert list(made_ahead([], str)) == []


def test_an_error_is_raised_where_its_item_is_asked_for():
    made = made_ahead([1, 0, 1], lambda number: 1 / number)
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_whoever_stops_early_leaves_no_thread():
    before = threading.active_count()
    made = made_ahead(range(10), str)
    assert next(made) == "0"
    made.close()
    assert threading.active_count() == before


def _doubled(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: 2 * tensor for name, tensor in inputs.items()}


def test_on_processors_a_micro_batch_is_read_when_it_is_asked_for():
    source = Source(3)
    batches = fed((({"labels": torch.tensor(number)}, 1) for number in source), torch.device("cpu"), _doubled)
    for number, (tensors, _) in enumerate(batches):
        assert int(tensors["labels"]) == 2 * number
        assert [event.is_set() for event in source.taken] == [index <= number for index in range(3)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_all_arrive_and_are_finished_there():
    device = torch.device("cuda", 0)
    given = [({"pixel_values": torch.full((64, 3, 32, 32), float(number))}, number) for number in range(20)]
    for (tensors, num_valid), (expected, number) in zip(fed(given, device, _doubled), given, strict=True):
        assert (tensors["pixel_values"].device, num_valid) == (device, number)
        assert torch.equal(tensors["pixel_values"].cpu(), 2 * expected["pixel_values"])
