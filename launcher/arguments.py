"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable

from ligo_dist.config import Config, load_config, with_source_apart
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.redaction import holds_secret


def add_config(parser: argparse.ArgumentParser) -> None:
    """A configuration file and overrides of its keys; the overrides may stand anywhere."""
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    parser.add_argument(
        "overrides",
        metavar="key.path=value",
        nargs="*",
        help="written over the file; a value is text as typed, or where the key is no text, YAML",
    )


def positive(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number, at least 1")
    return int(text)


def port(text: str) -> int:
    """A TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} should be a port, from 1 to 65535")
    return int(text)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The file with the section `cluster`."""
    parser.add_argument(
        "--cluster", metavar="FILE", help="a YAML file with the keys of the section `cluster`"
    )


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Which machines are used."""
    add_cluster(parser)
    parser.add_argument(
        "--hostfile", metavar="HOSTS", help="a file with a line `HOST slots=N` for each machine"
    )
    parser.add_argument("--include", metavar="FILTER", help="the only hosts, or slots, used: host1@host2:0,2")
    parser.add_argument("--exclude", metavar="FILTER", help="hosts, or slots, that are not used")


def read_config(arguments: argparse.Namespace) -> Config:
    """The checked configuration with what the command line says of the cluster.

    Raises:
        ConfigError: every fault of it.
    """
    keys = ("hostfile", "include", "exclude", "master_port")
    given = ((key, getattr(arguments, key, None)) for key in keys)
    of_cluster = [f"cluster.{key}={json.dumps(value)}" for key, value in given if value is not None]
    config = load_config(arguments.config, [*arguments.overrides, *of_cluster], arguments.cluster)
    return with_source_apart(config, arguments.config)


def fraction(text: str) -> float:
    """A number above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number above 0 and below 1")
    return value


def amount(text: str) -> float:
    """A number above 0: 300000, 3e9."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number above 0, such as 2e9")
    return value


def refuse_secrets(words: Iterable[str]) -> None:
    """See that no `key=value` word carries a password or a token: everyone on the machine can read a command line
    (`ps`).

    Raises:
        LigoError: one does; it names the keys alone.
    """
    keys = [word.partition("=")[0] for word in words if holds_secret(word)]
    if keys:
        raise LigoError(
            f"{', '.join(keys)}: holds a password or token, and everyone on this machine can read a command line;"
            " give user and password of an MLflow server in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,"
            " and any other address that needs one in MLFLOW_TRACKING_URI"
        )
