"""The sections `data` and `tokenizer`: what is trained on, and the pieces it is cut into."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ligo_dist.config.section import (
    Count,
    CountOrZero,
    Fraction,
    PathText,
    PositiveOrZero,
    Section,
    Text,
)


class Source(Section):
    """What is read."""

    source: Text | None = None
    """What is read; it has no default. `stdlib`: the Python sources of the running interpreter's standard library, so
    that nothing needs a download; `text`, `json` (JSON lines), `parquet`, `arrow`: local `files`; `hub`: the data
    set `name`. Of tokens that exist: `megatron` (`.bin`, with the `.idx` beside), `datatrove` (`.ds`, with the
    `.ds.index` beside), and `parquet`, `arrow` with a `token_column`. For image models: `digits`, the handwritten
    digits that scikit-learn ships; `images`: the directory `name` with a folder of image files for each class;
    `parquet`, `arrow`, `hub` with an `image_column` and a `label_column`. Or `package.module:FUNCTION` of your own,
    which is called with the paths of `files` and yields documents, as bytes or text."""
    files: list[PathText] = []
    """Paths or globs, relative to the working directory; for `text`, `json`, `parquet`, `arrow`, `megatron`,
    `datatrove`, and a function."""
    name: PathText | None = None
    """Name of a data set on the Hugging Face hub, or a local directory; for `hub` and `images`."""
    subset: Text | None = None
    """Subset (configuration) of the data set; for `hub`."""
    split: Text = "train"
    """Split of the data set; for `hub`."""
    text_column: Text = "text"
    """The column that holds a document's text; for `json`, `parquet`, `arrow`, `hub`."""
    token_column: Text | None = None
    """The column that holds lists of token ids, in the place of a column with text; for `parquet`, `arrow`. Of all
    tokens that exist `tokenizer.huggingface` or `tokenizer.file` has to name the tokenizer that made them."""
    image_column: Text = "image"
    """The column that holds the images; for image models and `parquet`, `arrow`, `hub`."""
    label_column: Text = "label"
    """The column that holds an image's class; for image models and `parquet`, `arrow`, `hub`."""
    document: Literal["file", "paragraph", "line"] = "file"
    """What one document is; for `text`."""
    include_tests: bool = False
    """Read the standard library's own tests too (about 30 MB instead of 12); for `stdlib`."""
    streaming: bool = False
    """Read as a stream, with no copy of the corpus in the Arrow cache."""
    broken_lines: Literal["stop", "skip"] = "stop"
    """What is done with a line of a JSON file that cannot be read. `stop`: it ends the run, with its file and number;
    `skip`: it is left out, and how many there were is said and kept in the corpus' `index.json`. For `json`, `hub`."""
    max_documents: Count | None = None
    """Read no more documents than this; `null`: all."""


class MixtureSource(Source):
    """A source of a mixture, under a name of its own: letters, digits, `_`, `-`."""

    weight: PositiveOrZero = 1.0
    """Its share of the training samples, as a part of the sum of all weights; 0: none, unless a stage says otherwise
    (`stages[].data.weights`). By these weights the mean of the sources' validation losses is taken too, in every stage
    the same. Another weight prepares nothing again."""


class Data(Source):
    """The corpus, and how it becomes sequences."""

    mixture: dict[str, MixtureSource] = {}
    """Several sources, each prepared by itself, in the place of `source` and the keys that say what is read. They share
    the tokenizer; one that is trained is trained on all of them, whatever their weights."""
    image_size: Count | None = None
    """Side of the square that images are resized to, in pixels, a multiple of the patch size; for image models.
    `null` only where `stages[0].from` says it."""
    channels: Literal[1, 3] = 3
    """1: images are read as grey values, 3: as colours; for image models."""
    labels: Count | None = None
    """Number of classes, at least 2; for image models. `null` only where `stages[0].from` says it. If that has another
    number, its classifier begins with random values."""
    random_shift: CountOrZero = 0
    """Training images are shifted by up to so many pixels either way, differently at every step; for image
    models."""
    random_flip: bool = False
    """Half of the training images are mirrored; for image models."""
    mask_fraction: Fraction = 0.15
    """Part of a sequence's tokens that are to be predicted: 80 % of them are replaced by the mask, 10 % by a
    random token, 10 % left; for masked language models."""
    validation_fraction: Fraction = 0.02
    """Part of the documents, chosen by a hash of their content, that is kept for validation."""
    sequence_length: Count = 128
    """Tokens per sequence; at most the model's positions. For text."""
    separate_documents: bool = False
    """Keep the documents of a sequence apart, as if each were a sequence of its own: positions begin anew with each,
    none is attended to from another (intra-document attention masking), and the first token of one is not predicted
    from the one before. For text."""
    workers: Count | None = None
    """Processes that tokenize, or threads that decode images; `null`: one per core."""
    cache_dir: PathText = "data/cache"
    """Where tokenizers and packed tokens are kept; any number of runs may share it."""


class Tokenizer(Section):
    """The tokenizer of the text: sentencepiece, trained on the corpus or given, or a Hugging Face one."""

    file: PathText | None = None
    """An existing sentencepiece `.model`; `null`: one is trained on the corpus."""
    vocab_size: Annotated[int, Field(ge=260)] | None = None
    """Pieces of the vocabulary, with the 256 single bytes; needed where the tokenizer is trained, `null` or
    the file's own number where it is given."""
    huggingface: PathText | None = None
    """A directory (or a name on the hub) with a Hugging Face tokenizer, instead of a sentencepiece one; `null`: that of
    `stages[0].from`, if there is one and no other tokenizer is asked for."""
    model_type: Literal["bpe", "unigram"] = "bpe"
    """The kind of tokenizer that is trained."""
    replace_source: bool = False
    """Train a tokenizer of `vocab_size` pieces although `stages[0].from` has its own: the rows of its embedding then
    stand for other pieces than they were learned for."""
