"""`ligo-dist init`: write a first configuration for a model or a size, and data."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path

from launcher.arguments import positive
from launcher.commands.run import choose_and_check
from launcher.first_config import IMAGE, PATCH, SEQUENCE, FirstData, find_data, first_config
from ligo_dist.architectures import (
    Architecture,
    ModelShape,
    architecture_names,
    architecture_of_class,
    get_architecture,
)
from ligo_dist.config import (
    config_from,
    is_image_family,
    parse_yaml,
    read_source_config_apart,
    with_source_apart,
)
from ligo_dist.huggingface import resolve_directory
from ligo_dist.runtime.errors import FINISHED, LigoError
from ligo_dist.runtime.machine import count_accelerators

_SIZE = re.compile(r"(\d+)x(\d+)(?:x(\d+))?")
_HEAD_SIZES = (64, 32, 16, 8)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Of which a directory with a tokenizer has one at least."""

_EXAMPLES = """\
examples:
  ligo-dist init mine.yaml --from openai-community/gpt2 --data 'books/**/*.txt' --nproc 8
  ligo-dist init mine.yaml --family llama --size 6x384 --data corpus.jsonl.gz
  ligo-dist init mine.yaml --family gpt2 --size 3x128 --data stdlib
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "init",
        help="write a first configuration for a model or a size, and data",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the YAML file, which must not be there yet")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--from",
        dest="model",
        metavar="MODEL",
        help="a Hugging Face directory, or a name on the hub, to grow",
    )
    model.add_argument(
        "--size", metavar="LAYERSxWIDTH", help="of a model to begin with; also LAYERSxWIDTHxHEADS"
    )
    parser.add_argument(
        "--family", metavar="NAME", help="of `ligo-dist architectures`; with --from as its config.json says"
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--data",
        metavar="PATH",
        nargs="+",
        help="files, globs or a directory; also stdlib (the standard library's sources), digits (images)",
    )
    data.add_argument("--hub", metavar="NAME", help="a data set of the Hugging Face hub")
    parser.add_argument(
        "--nproc", type=positive, metavar="N", help="ranks (default: one per accelerator, else one)"
    )


def run(arguments: argparse.Namespace) -> int:
    file: Path = arguments.file
    if file.exists() or not file.absolute().parent.is_dir():
        wrong = "is there already, and nothing is written over" if file.exists() else "lies in no directory"
        raise LigoError(f"{file}: {wrong}; choose another name")
    family = arguments.family or (_family_of(arguments.model) if arguments.model else None)
    if family is None:
        raise LigoError(f"--family: --size needs one of {', '.join(architecture_names())}")
    architecture = get_architecture(family)
    data = (
        FirstData({"source": "hub", "name": arguments.hub})
        if arguments.hub
        else find_data(arguments.data, architecture)
    )
    if arguments.model:
        source = architecture.shape_from(read_source_config_apart(family, arguments.model).values)
    else:
        source = _shape(arguments.size, architecture, data)
    ranks = arguments.nproc or count_accelerators() or 1
    nproc = f" --nproc {arguments.nproc}" if arguments.nproc else ""
    begin = f"ligo-dist run {shlex.quote(str(file))}{nproc}"
    next_commands = (f"{begin} --dry-run", begin)
    has_tokenizer = arguments.model is not None and _has_tokenizer(arguments.model)
    text = first_config(
        f"runs/{file.stem}",
        architecture,
        family,
        source,
        arguments.model,
        data,
        ranks,
        next_commands,
        has_tokenizer=has_tokenizer,
    )
    # All that a dry run checks, before there is a file.
    config = with_source_apart(config_from(parse_yaml(text), str(file)), str(file))
    asked = argparse.Namespace(config=str(file), slurm=False, nproc=arguments.nproc)
    _, plan = choose_and_check(asked, config)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise LigoError(f"{file}: cannot be written: {error.strerror}") from None
    sizes = " into ".join(f"{stage.shape.layers} x {stage.shape.width}" for stage in plan.stages)
    print(f"wrote {file}: {family}, {sizes}. Next:\n  " + "\n  ".join(next_commands))
    return FINISHED


def _family_of(model: str) -> str:
    """The family that a model's `config.json` speaks of: by its class, else by its type.

    Raises:
        LigoError: there is no such file, or it is of no family.
    """
    file = resolve_directory(model, weights=False) / "config.json"
    try:
        says = json.loads(file.read_text(encoding="utf-8"))
        classes, kind = says.get("architectures") or [], says.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise LigoError(f"--from: {str(file)!r} cannot be read: {error}") from None
    try:
        return architecture_of_class(classes[0]).name if classes else get_architecture(kind or "").name
    except LigoError as error:
        if kind in architecture_names():
            return str(kind)
        raise LigoError(f"--from: {error}; --family says another") from None


def _has_tokenizer(model: str) -> bool:
    directory = resolve_directory(model, weights=False)
    return any((directory / name).is_file() for name in _TOKENIZER_FILES)


def _shape(size: str, architecture: Architecture, data: FirstData) -> ModelShape:
    """The model that `--size` stands for.

    Raises:
        LigoError: it stands for none.
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise LigoError(f"--size: {size!r} should be LAYERSxWIDTH, such as 6x384, or LAYERSxWIDTHxHEADS")
    layers, width = int(match[1]), int(match[2])
    fitting = [width // head for head in _HEAD_SIZES if width % head == 0]
    heads = int(match[3]) if match[3] else next(iter(fitting), 0)
    if not heads or not width or width % heads:
        near = max(8, round(width / 64) * 64)
        wrong = f"{size!r}: no heads of one size make a width of {width}"
        raise LigoError(f"--size: {wrong}; {layers}x{near} would be right")
    images = is_image_family(architecture)
    image = int(str(data.keys.get("image_size", IMAGE))) if images else 0
    return ModelShape(
        layers,
        width,
        heads,
        heads,
        architecture.default_ffn(width),
        tied=architecture.tied_by_default,
        positions=0 if images else SEQUENCE,
        image_size=image,
        patch_size=0 if not images else PATCH if image > PATCH else 2,
    )
