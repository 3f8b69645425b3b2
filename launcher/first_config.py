"""A first configuration for what somebody has: a model or a size, and data. Written with comments, to be changed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.config import is_image_family
from ligo_dist.corpus import find_files, unpacked
from ligo_dist.growth import target_shape  # noqa: TID251 - plain numbers: no torch
from ligo_dist.runtime.errors import LigoError

BATCH, MICRO_BATCH, SEQUENCE, IMAGE, PATCH = 32, 8, 256, 224, 16
_BYTES_PER_TOKEN = 4
_FEWEST_STEPS, _STEPS, _MOST_STEPS = 20, 1000, 20_000
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
_KINDS = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
_STDLIB_BYTES = 12_000_000


@dataclass(frozen=True)
class FirstData:
    """What is trained on.

    Attributes:
        keys: of the section `data`.
        size: bytes of text; None: not known.
    """

    keys: dict[str, object]
    size: int | None = None


def find_data(words: Sequence[str], architecture: Architecture) -> FirstData:
    """The section `data` for paths, globs and directories, or for `stdlib` or `digits`.

    Raises:
        LigoError: nothing is there, or it is of several kinds.
    """
    if is_image_family(architecture):
        return _images(words)
    if list(words) == ["stdlib"]:
        return FirstData({"source": "stdlib"}, _STDLIB_BYTES)
    patterns = [_inside(word) if os.path.isdir(os.path.expanduser(word)) else word for word in words]
    files = find_files(patterns, "any")
    kinds = Counter(_kind(file) for file in files)
    if len(kinds) > 1:
        told = ", ".join(f"{number} of {kind}" for kind, number in kinds.most_common())
        raise LigoError(f"--data: files of several kinds ({told}); name those of one")
    (kind,) = kinds
    keys: dict[str, object] = {"source": kind, "files": patterns}
    if kind in ("json", "parquet") and (column := _text_column(kind, files[0])) not in (None, "text"):
        keys["text_column"] = column
    return FirstData(keys, sum(map(os.path.getsize, files)))


def _images(words: Sequence[str]) -> FirstData:
    if list(words) == ["digits"]:
        return FirstData({"source": "digits", "image_size": 8, "channels": 1, "labels": 10})
    directory = Path(words[0]).expanduser()
    if len(words) > 1 or not directory.is_dir():
        raise LigoError(
            f"--data: {' '.join(words)!r} should be a directory with a folder of images for each class, or digits;"
            " tables of images: docs/data.md"
        )
    labels = sum(path.is_dir() for path in directory.iterdir())
    return FirstData({"source": "images", "name": words[0], "image_size": IMAGE, "labels": labels})


def _inside(directory: str) -> str:
    """A glob for the files of a directory that are most like each other."""
    suffixes: Counter[str] = Counter()
    for _, names, files in os.walk(os.path.expanduser(directory)):
        names[:] = [name for name in names if not name.startswith(".")]
        suffixes.update(_suffix(name) for name in files if not name.startswith("."))
    if not suffixes:
        raise LigoError(f"--data: {directory!r} is a directory without files")
    return f"{directory.rstrip('/')}/**/*{suffixes.most_common(1)[0][0]}"


def _suffix(name: str) -> str:
    """`.jsonl.gz` of `a.b.jsonl.gz`."""
    packed = Path(name).suffix if name.endswith(_PACKED) else ""
    return Path(name.removesuffix(packed)).suffix + packed


def _kind(file: str) -> str:
    suffix = _suffix(os.path.basename(file))
    return _KINDS.get(
        suffix.removesuffix(Path(suffix).suffix) if suffix.endswith(_PACKED) else suffix, "text"
    )


def _text_column(kind: str, file: str) -> str | None:
    """`text` where there is such a column, else the one with the longest text in the first row, or the first that holds
    text at all; None: it cannot be told."""
    if kind == "parquet":
        from pyarrow import parquet, types

        schema = parquet.read_schema(file)
        names = [
            field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)
        ]
    else:
        try:
            for _, stream in unpacked(file):
                row = json.loads(stream.readline())
                texts = {name: value for name, value in row.items() if isinstance(value, str)}
                names = sorted(texts, key=lambda name: len(texts[name]), reverse=True)
                break
        except (ValueError, AttributeError):
            return None  # a fault of the file, which the run tells
    return "text" if "text" in names else next(iter(names), None)


def first_config(
    run_dir: str,
    architecture: Architecture,
    family: str,
    source: ModelShape,
    model: str | None,
    data: FirstData,
    ranks: int,
    command: Sequence[str],
    *,
    has_tokenizer: bool,
) -> str:
    """The text of the configuration.

    Args:
        run_dir: of the run.
        architecture: of the models.
        family: its name.
        source: shape of the first stage's model.
        model: directory or hub name of that; None: it begins with random values.
        data: what is trained on.
        ranks: that it is to be run on.
        command: what is to be typed next.
        has_tokenizer: the model comes with one.
    """
    images = is_image_family(architecture)
    target = target_shape(architecture, source, layers=max(1, 2 * source.layers), width=2 * source.width)
    sequence = min(source.positions, SEQUENCE)
    batch = -(-BATCH // ranks) * ranks
    steps = _steps(data, batch * sequence, stages=1 if model else 2) if not images else _STEPS
    steps = 0 if architecture.objective == "features" else steps
    every, micro = max(1, steps // 10), min(MICRO_BATCH, batch // ranks)
    begin = (
        f"  - name: given\n    from: {_text(model)}"
        f"    # {source.layers} x {source.width}; its sizes and its tokenizer come along"
        if model
        else f"  - name: small\n    size: {_size(architecture, source)}\n    train: {{steps: {steps}}}"
    )
    of_model = [f"  family: {family}"]
    if model is None:
        of_model += (
            [f"  patch_size: {source.patch_size}"] if images else [f"  max_positions: {source.positions}"]
        )
    keys = [f"  {key}: {_text(value)}" for key, value in data.keys.items()]
    if images and model is not None:  # its configuration says the rest
        keys = [line for line in keys if line.split(":")[0].strip() in ("source", "name")]
    if not images:
        keys.append(f"  sequence_length: {sequence}")
    tokenizer = [] if images or has_tokenizer else ["", "tokenizer:", *_tokenizer(data, model)]
    follows_data = data.size is not None and _FEWEST_STEPS < steps < _MOST_STEPS
    about = "    # about one pass over the data, all stages together" if follows_data else ""
    rate = "3.0e-4" if model else "1.0e-3"
    return "\n".join(
        [
            f"# First   {command[0]}   (checks everything, shows sizes and costs, starts nothing)",
            f"# then    {command[1]}   (the same command resumes)",
            "# Every key: docs/configuration.md. What else can be grown, and how: ligo-dist methods, docs/methods.md",
            f"run_dir: {_text(run_dir)}    # checkpoints, metrics, exports",
            "",
            "model:",
            *of_model,
            "",
            "defaults:                      # of every stage's training",
            "  train:",
            f"    batch_size: {batch}             # sequences per optimizer step, over all ranks",
            f"    micro_batch_size: {micro}        # per rank and forward pass; less: less memory",
            f"    optimizer: {{learning_rate: {rate}}}",
            f"    schedule: {{kind: constant, warmup_steps: {steps // 20}}}    # it falls at the very end alone",
            "    activation_checkpointing: false    # true: less memory, a third more compute",
            "",
            "stages:",
            begin,
            "  - name: large                # nothing may shrink, and the head size stays: more heads, not larger ones",
            f"    size: {_size(architecture, target)}",
            "    grow: {method: lossless-dense}     # starts as the function of the stage before, where that can be",
            *_last_training(steps, about),
            "",
            "data:",
            *keys,
            *tokenizer,
            "",
            f"evaluation: {{every_steps: {every}}}",
            f"checkpoints: {{every_steps: {every}, keep: 2}}",
            "",
        ]
    )


def _last_training(steps: int, about: str) -> list[str]:
    """Lines of the last stage's section `train`: its rate falls in the last fifth."""
    if not steps:
        return [f"    train: {{steps: {steps}}}{about}"]
    schedule = f"{{kind: wsd, decay_steps: {max(1, steps // 5)}}}"
    return ["    train:", f"      steps: {steps}{about}", f"      schedule: {schedule}"]


def _tokenizer(data: FirstData, model: str | None) -> list[str]:
    """Keys of a tokenizer that is trained on the data, and so has more pieces where there is more."""
    size = _STDLIB_BYTES if data.size is None else data.size
    pieces = 512 if size < 300_000 else 4096 if size < 50_000_000 else 32_000
    keys = [f"  vocab_size: {pieces}         # one is trained on the data; or `file: my.model`"]
    return (
        keys if model is None else [*keys, "  replace_source: true     # the model has come without its own"]
    )


def _steps(data: FirstData, tokens_per_step: int, stages: int) -> int:
    """Of each stage, that together go about once through the data."""
    if data.size is None:
        return _STEPS
    steps = data.size // _BYTES_PER_TOKEN // tokens_per_step // stages
    return min(max(steps, _FEWEST_STEPS), _MOST_STEPS)


def _size(architecture: Architecture, shape: ModelShape) -> str:
    """A section `size` on a line, what follows by itself left out."""
    keys = {"layers": shape.layers, "width": shape.width, "heads": shape.heads}
    if shape.key_value_heads != shape.heads:
        keys["key_value_heads"] = shape.key_value_heads
    if shape.attention_width != shape.width:
        keys["head_size"] = shape.head_size
    if shape.ffn != architecture.default_ffn(shape.width):
        keys["ffn"] = shape.ffn
    return "{" + ", ".join(f"{key}: {value}" for key, value in keys.items()) + "}"


def _text(value: object) -> str:
    """A value as YAML has it, which JSON is."""
    return json.dumps(value, ensure_ascii=False)
