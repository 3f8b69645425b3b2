"""From the configuration to samples of text, for each objective."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligo_dist.config import reads_tokens
from ligo_dist.corpus.boundaries import Boundaries
from ligo_dist.corpus.cache import remember, size_and_checksum
from ligo_dist.corpus.hub_data import check_answer
from ligo_dist.corpus.order import SPLITS
from ligo_dist.corpus.packing import Blocks, SplitStatistics, summed
from ligo_dist.corpus.prepare import PackedCorpus, prepare_corpus, recall_corpus
from ligo_dist.corpus.pretrained_tokenizer import PretrainedTokenizer
from ligo_dist.corpus.samples import (
    TRAINING,
    VALIDATION,
    CausalSamples,
    MaskedSamples,
    Samples,
    UnlabelledSamples,
)
from ligo_dist.corpus.sources import DataSource, find_source
from ligo_dist.corpus.text_tokenizer import OpenTokenizer, TextTokenizer, check_masking, given_tokenizer
from ligo_dist.corpus.token_corpus import TokenCorpus, TokenSource, prepare_tokens, recall_tokens
from ligo_dist.corpus.tokenizer import TOKENIZER_FILE, SentencePieceTokenizer
from ligo_dist.runtime.errors import DataError

if TYPE_CHECKING:
    from ligo_dist.architectures import Architecture
    from ligo_dist.config import Config, Data
    from ligo_dist.corpus.corpus import Corpus


@dataclass(frozen=True)
class TextCorpus:
    """A corpus of text that is ready to be trained on; see `Corpus`.

    Attributes:
        tokenizer: the one that made the tokens.
        objective: what the samples are for.
        train, validation: samples of the sequence length.
        validation_blocks: the text of the latter.
        fingerprint: of the tokens.
        statistics: documents, tokens and bytes of text of "train" and "validation".
        directory: where it lies in the cache.
        max_positions: longest sequence of the model.
        broken_lines: of the source, that were left out.
        note: what a user should know of how it was made; empty: nothing.
        source_says: keys of special tokens' ids that the source itself says, if the tokenizer is its own.
        attended: see `Corpus`.
        sources: none; see `MixtureCorpus`.
    """

    tokenizer: TextTokenizer
    objective: str
    train: Samples
    validation: Samples
    validation_blocks: Blocks
    fingerprint: str
    statistics: dict[str, SplitStatistics]
    directory: Path
    max_positions: int | None
    broken_lines: int = 0
    note: str = ""
    source_says: frozenset[str] = frozenset()
    attended: int | None = None
    sources: Mapping[str, Corpus] = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def description(self) -> str:
        train, total = self.statistics["train"], summed(self.statistics.values())
        if not total.bytes:  # of text: tokens that exist, as they are
            what = f"{train.documents:,} documents, {train.tokens:,} tokens to train on, where they are"
            return f"{what}; their index in {self.directory}{self.note}"
        without = f" (without {self.broken_lines:,} broken lines)" if self.broken_lines else ""
        tokens = total.tokens - total.documents
        each = f"{total.bytes / tokens:.1f} bytes each" if tokens else "none of them text"
        unknown = f", {total.unknown / tokens:.1%} unknown" if total.unknown else ""
        what = (
            f"{train.documents:,} documents{without}, {train.tokens:,} tokens to train on ({each}{unknown})"
        )
        return f"{what}, in {self.directory}{self.note}"

    def library_keys(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        keys = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        # Causal models have no use for it, and the library would leave that token's embedding untrained.
        return keys | ({"pad_token_id": tokenizer.pad_id} if self.objective == "masked_lm" else {})

    def exported_keys(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        ids = {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.padding_id,
        }
        return {key: number for key, number in ids.items() if key not in self.source_says}

    def write_processor(self, directory: Path) -> None:
        self.tokenizer.write(directory, self.sample_documents(4), self.max_positions)

    def sample_documents(self, count: int) -> list[bytes]:
        """The first documents of the validation split, at most `count`, where its tokenizer is one without loss."""
        if not isinstance(self.tokenizer, SentencePieceTokenizer):
            return []
        blocks = self.validation_blocks
        tokens = blocks.read(range(min(len(blocks), 4096))).ravel()
        ends = (tokens == self.tokenizer.eos_id).nonzero()[0][:count]
        starts = [0, *(ends + 1)]
        return [self.tokenizer.decode(tokens[start:end]) for start, end in zip(starts, ends, strict=False)]


def _is_of_source(tokenizer: TextTokenizer, source: Path) -> bool:
    """Whether a tokenizer is that of the model in a directory."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        file = source / TOKENIZER_FILE
        return file.is_file() and size_and_checksum(file)["sha256"] == tokenizer.fingerprint
    if isinstance(tokenizer, PretrainedTokenizer) and tokenizer.directory.resolve() == source.resolve():
        return True
    try:
        return PretrainedTokenizer(source).fingerprint == tokenizer.fingerprint
    except DataError:
        return False


def _said_by_source(
    tokenizer: TextTokenizer, source: Path | None, architecture: Architecture
) -> frozenset[str]:
    """Keys of special tokens' ids that the source says anything of, in either of its files, if its tokenizer is used.
    Where positions are counted from the padding id on, that is the tokenizer's, with which the model is trained."""
    if source is None or not isinstance(tokenizer, PretrainedTokenizer):
        return frozenset()
    if tokenizer.directory.resolve() != source.resolve():
        return frozenset()
    ids = {"bos_token_id", "eos_token_id", *(() if architecture.position_offset else ("pad_token_id",))}
    said: set[str] = set()
    for name in ("config.json", "generation_config.json"):
        if (source / name).is_file():
            said |= json.loads((source / name).read_text(encoding="utf-8")).keys()
    return frozenset(said & ids)


def build_text_corpus(
    config: Config,
    architecture: Architecture,
    source_directory: Path | None,
    show_progress: bool,
    open_tokenizer: OpenTokenizer | None = None,
) -> TextCorpus:
    """See `build_corpus`."""
    packed = _packed(config, source_directory, show_progress, open_tokenizer or given_tokenizer)
    data, masked = config.data, architecture.objective == "masked_lm"
    is_another = source_directory is not None and not _is_of_source(packed.tokenizer, source_directory)
    blocks = {split: packed.blocks(split, data.sequence_length) for split in SPLITS}
    boundaries = {split: _boundaries(packed, split, data) for split in SPLITS}

    def samples(split: str, stream: int) -> Samples:
        apart: Any = {"boundaries": boundaries[split], "first_position": architecture.position_offset}
        if architecture.objective == "causal_lm":
            return CausalSamples(blocks[split], **apart)
        if not masked:
            return UnlabelledSamples(blocks[split], **apart)
        tokenizer = packed.tokenizer
        assert tokenizer.mask_id is not None, "checked, or trained with one"
        return MaskedSamples(
            blocks[split],
            data.mask_fraction,
            tokenizer.mask_id,
            tokenizer.special_ids,
            tokenizer.vocab_size,
            config.seed if stream == TRAINING else 0,
            stream,
            **apart,
        )

    return TextCorpus(
        tokenizer=packed.tokenizer,
        objective=architecture.objective,
        train=samples("train", TRAINING),
        validation=samples("validation", VALIDATION),
        validation_blocks=blocks["validation"],
        fingerprint=packed.checksum(),
        statistics=packed.statistics,
        directory=packed.directory,
        max_positions=config.model.max_positions,
        broken_lines=packed.broken_lines,
        note=packed.note + ("; the tokenizer is not that of stages[0].from" if is_another else ""),
        source_says=_said_by_source(packed.tokenizer, source_directory, architecture),
        attended=None if boundaries["train"] is None else boundaries["train"].attended(),
    )


def find_text(config: Config) -> tuple[DataSource, dict[str, Any]]:
    """What is to be read, and its identity.

    Raises:
        DataError: it is not there.
    """
    data = config.data
    check_answer(config)
    assert data.source is not None, "a checked configuration says it"
    source = find_source(
        kind=data.source,
        files=data.files,
        name=data.name,
        subset=data.subset,
        split=data.split,
        text_column=data.text_column,
        document=data.document,
        include_tests=data.include_tests,
        max_documents=data.max_documents,
        broken_lines=data.broken_lines,
    )
    return source, source.identity()


def _boundaries(packed: PackedCorpus | TokenCorpus, split: str, data: Data) -> Boundaries | None:
    """Of a split's documents, where they are kept apart.

    Raises:
        DataError: each of them is a single token in its sequence.
    """
    if not data.separate_documents:
        return None
    boundaries = Boundaries(packed.ends(split), data.sequence_length)
    if boundaries.attended() == data.sequence_length:
        raise DataError(
            f"data.separate_documents: true leaves nothing to predict from in the {split} split: its documents are"
            f" single tokens in sequences of {data.sequence_length}; longer ones of either, or false, would be right"
        )
    return boundaries


def _packed(
    config: Config, source_directory: Path | None, show_progress: bool, open_tokenizer: OpenTokenizer
) -> PackedCorpus | TokenCorpus:
    """The tokens: prepared now, or before, then also where what they are made from is not there any more."""
    if reads_tokens(config.data):
        return _found_tokens(config, show_progress)
    architecture, data = config.architecture, config.data
    masked, settings = architecture.objective == "masked_lm", config.tokenizer
    is_named = settings.file is not None or settings.huggingface is not None
    given = None if is_named else open_tokenizer(settings, source_directory)  # which is there
    try:
        source, identity = find_text(config)
        if is_named:
            given = open_tokenizer(settings, source_directory)
    except DataError as error:
        return recall_corpus(config, error)
    if masked and given is not None:
        check_masking(given, architecture.name, architecture.position_offset)
    packed = prepare_corpus(
        source=source,
        streaming=data.streaming,
        validation_fraction=data.validation_fraction,
        given=given,
        vocab_size=config.tokenizer.vocab_size,
        model_type=config.tokenizer.model_type,
        workers=data.workers,
        cache_dir=Path(data.cache_dir),
        show_progress=show_progress,
        masked=masked,
        identity=identity,
    )
    remember(config, packed.directory)
    return packed


def _found_tokens(config: Config, show_progress: bool) -> TokenCorpus:
    """The same of tokens that exist."""
    architecture, data = config.architecture, config.data
    assert data.source is not None, "a checked configuration says it"
    try:
        source = TokenSource.find(data.source, data.files, data.token_column, data.max_documents)
        identity = source.identity()
        tokenizer = given_tokenizer(config.tokenizer, None)
        assert tokenizer is not None, "checked with the configuration"
    except DataError as error:
        return recall_tokens(config, error)
    if architecture.objective == "masked_lm":
        check_masking(tokenizer, architecture.name, architecture.position_offset)
    tokens = prepare_tokens(
        source,
        data.validation_fraction,
        tokenizer,
        data.workers,
        Path(data.cache_dir),
        show_progress,
        identity,
    )
    remember(config, tokens.directory)
    return tokens
