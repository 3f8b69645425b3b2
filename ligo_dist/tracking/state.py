"""What a store should have of a run beside its points, as `tracking.json` says it: names and values as MLflow takes
them, flat, of bounded length, of a limited set of characters, and without secrets."""

from __future__ import annotations

import json
import re
import time as clock
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ligo_dist.runtime.redaction import redact

STATE_FILE = "tracking.json"
PARENT = ""
"""Key of the parent run; those of the stages are keyed by the stage's name."""

KEY_LENGTH = 250
PARAMETER_LENGTH = 500  # what servers of all ages take; newer ones take 6000
TAG_LENGTH = 5000


class TrackedRun(BaseModel):
    """One MLflow run as it should be; names and values are such that MLflow takes them, without secrets.

    Attributes:
        name, parameters, tags: of the run.
        texts: artifacts that are texts, by name.
        files: artifacts that are files or directories: by name, their path, relative to the run directory if they lie
            in it.
        given: how often each artifact was given: what it holds may have changed.
        registered: names of registered models, each with the artifact that is a version of it.
        status: how it ended; `RUNNING` where nobody has said so: it goes on, or was killed.
        started, ended: in seconds since the epoch.
    """

    name: str
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}
    texts: dict[str, str] = {}
    files: dict[str, str] = {}
    given: dict[str, int] = {}
    registered: dict[str, str] = {}
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"] = "RUNNING"
    started: float
    ended: float | None = None

    @classmethod
    def begin(cls, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> TrackedRun:
        """A run that begins now."""
        return cls(
            name=redact(name), parameters=flatten(parameters), tags=clean_tags(tags), started=clock.time()
        )

    def resume(self, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> TrackedRun:
        """The run as it goes on; parameters that it has do not change, as MLflow lets none change."""
        more = {"parameters": flatten(parameters) | self.parameters, "tags": self.tags | clean_tags(tags)}
        return self.model_copy(update={**more, "status": "RUNNING", "ended": None}, deep=True)

    def killed(self, ended: float | None) -> TrackedRun:
        """The run with its end: one that nobody has ended was killed, at its last record or soon after."""
        if self.status != "RUNNING":
            return self
        return self.model_copy(update={"status": "KILLED", "ended": self.started if ended is None else ended})


class TrackingState(BaseModel):
    """What `tracking.json` says.

    Attributes:
        identity: a word that the run's MLflow runs bear as a tag, by which they are found in any store.
        address: of the store, without secrets; None: the run was not tracked in MLflow.
        experiment: its name.
        run: the parent run; None before it has begun.
        stages: the nested runs by stage, in their order.
    """

    identity: str
    address: str | None
    experiment: str
    run: TrackedRun | None = None
    stages: dict[str, TrackedRun] = {}

    def runs(self) -> Iterator[tuple[str, TrackedRun]]:
        """The runs with their keys, the parent first."""
        if self.run is not None:
            yield PARENT, self.run
        yield from self.stages.items()


def read_state(run_dir: Path) -> TrackingState | None:
    """What the tracking file of a run directory says; None if there is none, or one that cannot be read."""
    try:
        return TrackingState.model_validate_json((run_dir / STATE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def flatten(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Nested parameters with dotted keys: `{"stages": [{"size": {"width": 8}}]}` has `stages.0.size.width`.

    Lists of plain values stay one parameter, in JSON. Passwords in URIs are hidden, long values are cut.
    """
    flat: dict[str, str] = {}
    for path, value in _leaves("", parameters) if parameters else []:
        flat[clean_key(path)] = cut(redact(_text(value)), PARAMETER_LENGTH)
    return flat


def clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags with the keys and values that MLflow takes."""
    return {clean_key(key): cut(redact(str(value)), TAG_LENGTH) for key, value in tags.items()}


def clean_key(key: str) -> str:
    """`key` with `_` for each character that MLflow does not take, at most 250 long."""
    return re.sub(r"[^\w\-./ ]", "_", key, flags=re.ASCII)[:KEY_LENGTH] or "_"


def cut(text: str, length: int) -> str:
    """`text`, ending in `...` where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(path, value)]
    return [leaf for key, item in items for leaf in _leaves(f"{path}.{key}" if path else key, item)]


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
