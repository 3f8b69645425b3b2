"""The collectives of torch.distributed, wrapped where DeepSpeed and the project take them from."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Collective = Callable[..., Any]

KINDS = {
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_reduce": "all_reduce",
    "all_to_all_single": "all_to_all",
}


@contextlib.contextmanager
def counted_bytes() -> Iterator[Counter[str]]:
    """Bytes of the whole tensors of all collectives that are called inside, by kind."""
    counted: Counter[str] = Counter()

    def counting(name: str, original: Collective) -> Collective:
        def collective(*arguments: Any, **named: Any) -> Any:
            sizes = [tensor.numel() * tensor.element_size() for tensor in _tensors(arguments, named).values()]
            # To an all-to-all all ranks bring as much; the first rank, whose own tensor is the largest, has more of
            # that than of its parts of all.
            whole = dist.get_world_size() * min(sizes) if name == "all_to_all_single" else max(sizes)
            counted[KINDS[name]] += whole
            return original(*arguments, **named)

        return collective

    with _wrapped(counting):
        yield counted


@contextlib.contextmanager
def out_of_sight() -> Iterator[None]:
    """Collectives work on copies that torch's allocator does not know, and are over when they return: otherwise their
    own threads free tensors, and nobody sees when."""

    def hiding(_name: str, original: Collective) -> Collective:
        def collective(*arguments: Any, **named: Any) -> Any:
            copies = {key: _copy(tensor) for key, tensor in _tensors(arguments, named).items()}
            hidden = [copies.get(index, value) for index, value in enumerate(arguments)]
            others = {key: copies.get(key, value) for key, value in named.items()}
            work = original(*hidden, **others)
            if work is not None:
                work.wait()
            for key, tensor in _tensors(arguments, named).items():
                tensor.copy_(copies[key])
            return _Done() if work is not None else None

        return collective

    with _wrapped(hiding):
        yield


class _Done:
    """The work of a collective that is over."""

    def wait(self) -> None:
        pass


@contextlib.contextmanager
def _wrapped(wrap: Callable[[str, Collective], Collective]) -> Iterator[None]:
    import deepspeed.comm.comm

    # DeepSpeed keeps these two where it found them first.
    kept = {
        "all_gather_into_tensor": "all_gather_function",
        "reduce_scatter_tensor": "reduce_scatter_function",
    }
    with contextlib.ExitStack() as stack:
        for name in KINDS:
            wrapped = wrap(name, getattr(dist, name))
            stack.enter_context(mock.patch.object(dist, name, wrapped))
            if name in kept:
                stack.enter_context(mock.patch.object(deepspeed.comm.comm.cdb, kept[name], wrapped))
        yield


def _tensors(arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[int | str, Tensor]:
    """The tensors among the arguments, by place or name."""
    everything: list[tuple[int | str, Any]] = [*enumerate(arguments), *named.items()]
    return {key: value for key, value in everything if isinstance(value, Tensor)}


def _copy(tensor: Tensor) -> Tensor:
    raw = torch.from_numpy(np.empty(tensor.numel() * tensor.element_size(), dtype=np.uint8))
    return raw.view(tensor.dtype).view(tensor.shape).copy_(tensor)
