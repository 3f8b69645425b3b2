"""A progress bar for work on many documents or images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(
    title: str, total: int | None, show: bool, unit: str = "documents"
) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves the bar by a number of documents (or whatever `unit` says).

    On standard error; where that is no terminal, one line at the end. `total` None: unknown.
    """
    if not show:
        yield lambda documents: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        done = 0

        def advance(documents: int) -> None:
            nonlocal done
            done += documents
            progress.update(task, completed=done)

        yield advance
        progress.update(task, completed=done, total=done)
