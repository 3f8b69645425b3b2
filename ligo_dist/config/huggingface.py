"""Whether the keys of `model.huggingface` exist, and have values that the family's configuration class takes.

Only `transformers` knows, and importing it imports torch. So the launcher asks in a process of its own
(`python -m ligo_dist.config.huggingface`), and only where there are such keys; a rank calls the check itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ligo_dist.architectures import get_architecture
from ligo_dist.config.faults import suggestion
from ligo_dist.config.schema import Config
from ligo_dist.errors import Fault, LigoError

_ROTARY_KEYS = ("rope_theta", "rope_scaling", "partial_rotary_factor")
"""Keys from before `rope_parameters`, which the library still takes."""


def check_huggingface_keys(config: Config) -> list[Fault]:
    """Unknown keys of `model.huggingface`, or values that the class refuses. Imports transformers, so
    torch."""
    return _faults(get_architecture(config.model.family).config_class, config.model.huggingface)


def check_huggingface_keys_apart(config: Config) -> list[Fault]:
    """The same in a process of its own, so that this one stays without torch; none is started if there are no
    keys.

    Raises:
        LigoError: if that process fails.
    """
    if not config.model.huggingface:
        return []
    request = json.dumps([get_architecture(config.model.family).config_class, config.model.huggingface])
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LigoError(f"the keys of model.huggingface could not be checked:\n{done.stderr.strip()}")
    return [Fault(path, message) for path, message in json.loads(done.stdout.splitlines()[-1])]


def _faults(config_class: str, keys: dict[str, Any]) -> list[Fault]:
    import dataclasses

    import transformers

    cls = getattr(transformers, config_class)
    valid = {field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")}
    valid |= set(cls.attribute_map)
    if "rope_parameters" in valid:
        valid |= set(_ROTARY_KEYS)
    faults = []
    for key, value in keys.items():
        path = f"model.huggingface.{key}"
        if key not in valid:
            faults.append(Fault(path, f"unknown key of {config_class}{suggestion(key, valid)}"))
            continue
        try:
            cls(**{key: value})
        except Exception as error:  # whatever the class raises is its verdict on the value
            faults.append(Fault(path, f"{config_class} refuses {value!r}: {_first_words(error)}"))
    return faults


def _first_words(error: Exception) -> str:
    """The innermost message of a chain of errors, on one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return " ".join(str(cause).split())


def _main() -> None:
    config_class, keys = json.loads(sys.stdin.read())
    print(json.dumps([(fault.path, fault.message) for fault in _faults(config_class, keys)]))


if __name__ == "__main__":
    _main()
