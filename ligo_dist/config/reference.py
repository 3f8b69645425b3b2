"""Writes `docs/configuration.md` from the docstrings under the fields of `schema.py`.

python -m ligo_dist.config.reference            write the page
python -m ligo_dist.config.reference --check    say whether it is up to date
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ligo_dist.config.deepspeed_keys import ALLOWED, OWNED, ZERO_OWNED
from ligo_dist.config.schema import Config
from ligo_dist.config.section import Section
from ligo_dist.growth import DEPTHS, METHODS, WIDTHS

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

_INTRODUCTION = """\
# Configuration

<!-- Generated from ligo_dist/config/schema.py by `python -m ligo_dist.config.reference`. Do not edit. -->

One YAML file describes a run; `configs/reference.yaml` shows every key in its place. An unknown key, a value
of another type, and values that contradict each other are errors, told before a process starts.

**Ten keys** are what most runs say; all else has a default:

| key | such as |
| --- | --- |
| `run_dir` | `runs/first` |
| `model.family` | `llama`; `ligo-dist architectures` lists them |
| `model.max_positions` | `1024` |
| `stages[].name` | `small` |
| `stages[].size` | `{layers: 12, width: 768, heads: 12}`; or `from`, a Hugging Face model for the first stage |
| `stages[].grow.method` | `lossless-dense`; `ligo-dist methods` lists them |
| `stages[].train.steps` | `10000` |
| `stages[].train.batch_size`, `micro_batch_size` | `512` over all ranks, `8` a rank and forward pass |
| `stages[].train.optimizer.learning_rate` | `6e-4` |
| `data.source`, `files` | `text`, `[texts/*.txt]`; with `data.sequence_length` |

**Overrides.** `ligo-dist run CONFIG key.path=value ...` writes values over the file's. Items of a list are
named by their number, from 0: `'stages[1].train.steps=5'` or `stages.1.train.steps=5`. A value is text as
it was typed, blanks and `#` included; where the key wants something else it is read as YAML: `seed=1`,
`tracking.uri=null`, `'data.files=[a.txt, b.txt]'`. In files too `12:00:00`, `007` and `2026-11-29` are text.

**Inheritance.** `defaults.train` and `defaults.grow` are what every stage's `train` and `grow` start from,
key by key and at any depth; what a stage says itself wins (`null` too). A stage that says nothing of `train`
takes `defaults.train` (unless it has `from`: then its model is taken as it is), and from the second stage on the
same holds for `grow`.

**Paths** are relative to the directory the command is run in.
"""

_MANY: dict[type, str] = {list: "list of", dict: "names and their"}
_TYPES = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`", Any: "anything"}
_BOUNDS = (("gt", "> "), ("ge", "≥ "), ("lt", "< "), ("le", "≤ "))


def reference_page() -> str:
    """The whole page."""
    seen: dict[type[Section], str] = {}
    parts = [_INTRODUCTION]
    for path, section in _sections("", Config):
        title = f"## `{path}`" if path else "## The file"
        if section in seen:
            parts.append(f"{title}\n\nThe keys of [`{seen[section]}`](#{_anchor(seen[section])}).\n")
            continue
        seen[section] = path
        parts.append(f"{title}\n\n{_sentence(section.__doc__)}\n\n{_table(path, section)}\n")
        parts += [_methods()] if path == "stages[].grow" else []
    parts.append(_deepspeed())
    return "\n".join(parts)


def _sections(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    yield path, section
    for name, field in section.model_fields.items():
        inner, kind = _inner_section(field.annotation)
        if inner is not None:
            yield from _sections(_join(path, name, kind), inner)


def _inner_section(annotation: Any) -> tuple[type[Section] | None, type | None]:
    """The section that a field holds, if it holds one, and whether it holds a list or a mapping of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, None
    origin = get_origin(annotation)
    if origin in (list, dict, types.UnionType, Union):
        inner = (_inner_section(argument)[0] for argument in get_args(annotation))
        kind = origin if origin in (list, dict) else None
        return next((section for section in inner if section), None), kind
    return None, None


def _table(path: str, section: type[Section]) -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in section.model_fields.items():
        inner, many = _inner_section(field.annotation)
        shown = _join(path, name, many)
        kind = f"[section](#{_anchor(shown)})" if inner else _type(field.annotation, field.metadata)
        kind = f"{_MANY[many]} {kind}s" if inner and many else kind
        rows.append(
            f"| `{field.alias or name}` | {kind} | {_default(field, inner)} | {_sentence(field.description)} |"
        )
    return "\n".join(rows)


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        field = next(extra for extra in arguments[1:] if isinstance(extra, FieldInfo))
        return _type(arguments[0], field.metadata)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (types.UnionType, Union):
        return " or ".join(_type(argument, metadata) for argument in arguments)
    if annotation is type(None):
        return "`null`"
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)}: {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    return _TYPES[annotation] + _bounds(metadata)


def _bounds(metadata: Iterable[Any]) -> str:
    shown = [
        f"{sign}{getattr(bound, name):g}"
        for bound in metadata
        for name, sign in _BOUNDS
        if hasattr(bound, name)
    ]
    return " " + ", ".join(shown) if shown else ""


def _default(field: FieldInfo, inner: type[Section] | None) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    if inner is not None and field.default is not None:
        return ""
    return f"`{json.dumps(field.default)}`"


def _methods() -> str:
    parts = []
    for title, entries in (("method", METHODS), ("depth", DEPTHS), ("width", WIDTHS)):
        lines = [f"- `{name}`: {entry.description}." for name, entry in entries.items()]
        parts += [f"For `{title}`:", "", *lines, ""]
    return "\n".join([*parts, "What each preserves, and its source: `ligo-dist methods`.", ""])


def _deepspeed() -> str:
    lines = [
        "## `deepspeed`: which keys",
        "",
        "A mapping, or the path of a JSON file. Keys that may be given: " + _names(ALLOWED) + ".",
        "",
        "Inside `zero_optimization`: all [of DeepSpeed's](https://www.deepspeed.ai/docs/config-json/) but those below."
        " DeepSpeed itself checks names and values: in the dry run, `plan` and `doctor`, and in a run's ranks.",
        "",
        "Keys that may not, as the project sets what they say or cannot work with it:",
        "",
    ]
    lines += [f"- `{key}`: {reason}." for key, reason in OWNED.items()]
    lines += [f"- `zero_optimization.{key}`: {reason}." for key, reason in ZERO_OWNED.items()]
    lines += ["- `zero_optimization.stage` other than 3, and an offload whose `device` is `nvme`."]
    return "\n".join([*lines, ""])


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _join(path: str, name: str, many: type | None) -> str:
    inside: dict[type | None, str] = {list: "[]", dict: ".NAME"}
    return (f"{path}.{name}" if path else name) + inside.get(many, "")


def _anchor(path: str) -> str:
    """The anchor that GitHub gives a heading."""
    return "".join(letter for letter in path.lower() if letter.isalnum() or letter in "_-")


def _sentence(text: str | None) -> str:
    assert text, "every section and every field has a docstring: it is the documentation"
    return " ".join(text.split()).replace("|", "\\|")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with `--check` give exit code 1 where it is not up to date."""
    parser = argparse.ArgumentParser(prog="python -m ligo_dist.config.reference", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, say whether the page is up to date"
    )
    if not parser.parse_args(argv).check:
        PAGE.write_text(reference_page(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == reference_page():
        return 0
    print(f"{PAGE} is out of date: run python -m ligo_dist.config.reference", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
