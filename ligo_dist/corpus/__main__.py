"""`python -m ligo_dist.corpus CONFIG [key.path=value ...]`: prepare a corpus without a run. `ligo-dist prepare` starts
it, as the launcher itself imports neither torch nor `datasets`. At the top neither does this file, which the tokenizing
processes import too."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ligo_dist.config import Config, load_config, with_source
from ligo_dist.huggingface import resolve_directory
from ligo_dist.runtime.errors import FINISHED, LigoError
from ligo_dist.runtime.quantities import size
from ligo_dist.runtime.redaction import redact

if TYPE_CHECKING:
    from ligo_dist.corpus import Corpus


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the corpus is there; 2: a mistake in what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist.corpus", description=__doc__)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", metavar="key.path=value", nargs="*")
    arguments = parser.parse_args(argv)
    from ligo_dist.corpus import build_corpus

    logging.basicConfig(format="%(message)s")
    try:
        config = with_source(load_config(arguments.config, arguments.overrides), arguments.config)
        name = config.stages[0].from_
        source = None if name is None else resolve_directory(name)
        corpus = build_corpus(config, source)
    except LigoError as error:
        print(f"ligo-dist: {redact(str(error))}", file=sys.stderr, flush=True)
        return error.exit_code
    show(Console(), config, corpus)
    if source is not None:
        print(f"stages[0].from: in {source}")
    return FINISHED


def show(console: Console, config: Config, corpus: Corpus) -> None:
    """Print what was prepared: a table with each source's splits, then where each lies."""
    from ligo_dist.corpus import parts_of
    from ligo_dist.corpus.order import SPLITS

    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    table.add_column("source", no_wrap=True)
    table.add_column("split", no_wrap=True)
    is_text = corpus.tokenizer is not None
    counted = ("documents", "tokens", "samples", "bytes of text") if is_text else ("images", "bytes")
    for name in counted:
        table.add_column(name, justify="right", no_wrap=True)
    parts: list[tuple[str, str, Any]] = list(parts_of(config, corpus))
    for name, _, part in parts:
        for split in SPLITS:
            *counts, of_bytes = _numbers(part, split)
            table.add_row(name or "-", split, *(f"{number:,}" for number in counts), size(of_bytes))
    console.print(table)
    for _, read_from, part in parts:
        held = sum(file.stat().st_size for file in part.directory.rglob("*") if file.is_file())
        said = f"{read_from}: in {part.directory}, {size(held)}"
        console.print(said, soft_wrap=True, highlight=False, markup=False)
    if corpus.tokenizer is not None:
        pieces = f"tokenizer: {corpus.vocab_size:,} pieces ({corpus.tokenizer.origin})"
        console.print(pieces, soft_wrap=True, highlight=False, markup=False)


def _numbers(corpus: Any, split: str) -> tuple[int, ...]:
    """Of a split of text or images what it holds, and last the bytes of the text, or of the pixels."""
    samples = getattr(corpus, split)
    if corpus.tokenizer is None:
        return len(samples), samples.images.nbytes
    held = corpus.statistics[split]
    return held.documents, held.tokens, len(samples), held.bytes


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(main())
