"""What changed between two resolved configurations."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

_MAY_CHANGE = (
    *("run_dir", "tracking", "checkpoints", "distributed", "profile", "data.workers", "data.cache_dir"),
    "model.attention",
)
"""What does not change the numbers of a run, or their rounding alone."""

_OF_THE_CORPUS = (
    "source", "files", "name", "subset", "split", "document", "include_tests", "text_column", "image_column",
    "label_column", "streaming", "max_documents", "validation_fraction",
)  # fmt: skip
_STANDS_FOR = {
    "corpus_fingerprint": (
        *(f"data.{place}{key}" for place in ("", "mixture.*.") for key in _OF_THE_CORPUS),
        "tokenizer",
    ),
    "source_fingerprint": ("stages.0.from",),
}
"""Keys of what a run was made with, each with those that say where that lies or how it was made: of no account where
the result is the same."""


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What keeps a run that was made with one recorded configuration from going on with another, a line each."""
    same = (key for key in _STANDS_FOR if old.get(key) is not None and old.get(key) == new.get(key))
    of_no_account = [path for key in same for path in _STANDS_FOR[key]]
    if "auto" in (old.get("precision"), new.get("precision")):  # whatever it is, it stays
        of_no_account.append("precision")
    return difference(comparable(old, of_no_account), comparable(new, of_no_account))


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line per value that differs: its dotted path, `old -> new`; a part that only one has is `absent` in
    the other.

    Empty where the two say the same.
    """
    return list(_changes("", old, new))


def comparable(config: dict[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """A resolved configuration without what does not change the numbers of a run, a run may be resumed with another
    value of it; and without the dotted paths that are named."""
    config = copy.deepcopy(config)
    for path in (*_MAY_CHANGE, *without):
        *parents, last = path.split(".")
        sections: list[Any] = [config]
        for parent in parents:
            sections = [inner for section in sections for inner in _inside(section, parent)]
        for section in sections:
            section.pop(last, None)
    if not config.get("data", {}).get("mixture", True):  # runs from before there were mixtures do not say it
        del config["data"]["mixture"]
    for stage in config.get("stages", []):
        stage.pop("nodes", None)
        if not stage.get("data", {}).get("weights", True):
            del stage["data"]
        # Another split into micro-batches changes how many fit into memory, not what is computed.
        learn = (stage.get("grow") or {}).get("learn", {})
        for phase in (stage["train"] or {}, learn):
            phase.pop("micro_batch_size", None)
    return config


def _inside(section: Any, key: str) -> list[Any]:
    """What stands under a key, `*` being any, or at a place in a list."""
    if isinstance(section, list):
        return [section[int(key)]]
    return list(section.values()) if key == "*" else [section.get(key, {})]


_ABSENT = object()


def _changes(path: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{path}.{key}" if path else str(key), key) for key in keys]
        lines = [_changes(name, old.get(key, _ABSENT), new.get(key, _ABSENT)) for name, key in pairs]
        return [line for group in lines for line in group]
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict) for item in old + new):
        width = max(len(old), len(new))
        padded = [items + [_ABSENT] * (width - len(items)) for items in (old, new)]
        lines = [_changes(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(*padded, strict=True))]
        return [line for group in lines for line in group]
    return [] if old == new else [f"{path}: {_show(old)} -> {_show(new)}"]


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, dict) and "name" in value:
        return f"{value['name']!r}"
    return repr(value)
