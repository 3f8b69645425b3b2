"""`python -m ligo_dist.corpus CONFIG [key.path=value ...]`: prepare a corpus without a run. `ligo-dist prepare` starts
it, as the launcher itself imports neither torch nor `datasets`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ligo_dist.config import Config, load_config, source_configs, with_source
from ligo_dist.corpus import Corpus, ImageCorpus, TextCorpus, build_corpus, corpus_name
from ligo_dist.huggingface import resolve_directory
from ligo_dist.runtime.errors import FINISHED, LigoError
from ligo_dist.runtime.quantities import size
from ligo_dist.runtime.redaction import redact

_SPLITS = ("train", "validation")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the corpus is there; 2: a mistake in what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist.corpus", description=__doc__)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", metavar="key.path=value", nargs="*")
    arguments = parser.parse_args(argv)
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
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    table.add_column("source", no_wrap=True)
    table.add_column("split", no_wrap=True)
    parts = dict(zip(source_configs(config), corpus.sources.values() or [corpus], strict=True))
    kinds = ("images", "samples", "bytes")
    if corpus.tokenizer is not None:
        kinds = ("documents", "tokens", "samples", "bytes of text")
    for kind in kinds:
        table.add_column(kind, justify="right", no_wrap=True)
    for name, part in parts.items():
        for split, numbers in zip(_SPLITS, _numbers(part), strict=True):
            *counts, of_bytes = numbers
            table.add_row(name or "-", split, *(f"{number:,}" for number in counts), size(of_bytes))
    console.print(table)
    for name, alone in source_configs(config).items():
        directory = _directory(parts[name])
        held = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
        said = f"{corpus_name(alone, name)}: in {directory}, {size(held)}"
        console.print(said, soft_wrap=True, highlight=False, markup=False)
    if corpus.tokenizer is not None:
        pieces = f"tokenizer: {corpus.vocab_size:,} pieces ({corpus.tokenizer.origin})"
        console.print(pieces, soft_wrap=True, highlight=False, markup=False)


def _numbers(corpus: Corpus) -> Iterator[tuple[int, ...]]:
    """Of each split what it holds, its samples, and the bytes of the text or of the pixels."""
    if isinstance(corpus, TextCorpus):
        for split in _SPLITS:
            held = corpus.statistics[split]
            yield held.documents, held.tokens, len(getattr(corpus, split)), held.bytes
    elif isinstance(corpus, ImageCorpus):
        for images in (corpus.train, corpus.validation):
            yield len(images), len(images), images.images.nbytes


def _directory(corpus: Corpus) -> Path:
    assert isinstance(corpus, TextCorpus | ImageCorpus)
    return corpus.directory


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(main())
