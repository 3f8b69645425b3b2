"""What the README tells people to type exists: commands, options, targets, files, configurations, links."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import cli
from ligo_dist.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data/README.md", *ROOT.glob("docs/**/*.md")]
)


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


COMMANDS = [
    line
    for page in (README, GUIDE)
    for block in blocks("sh", page)
    for line in (shlex.split(line, comments=True) for line in block.splitlines())
    if line
]


def test_the_two_commands_come_first() -> None:
    assert COMMANDS[:2] == [["make", "quickstart"], ["make", "test"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_can_be_typed(command: list[str]) -> None:
    checks = {
        "make": _check_make,
        "ligo-dist": _check_ligo_dist,
        "mlflow": _check_mlflow,
        "python": _check_script,
        "source": lambda words: None,
        "pip": lambda words: None,
    }
    checks[command[0]](command[1:])


def _check_make(words: list[str]) -> None:
    # What `make` started from tests inherits of an outer make is none of its business.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def _check_ligo_dist(words: list[str]) -> None:
    arguments = cli._parse(words)
    if arguments.command == "report":  # of runs that are to be made first
        return
    if not hasattr(arguments, "config"):  # it starts nothing
        with contextlib.chdir(ROOT):
            assert cli.main(words) == 0
        return
    load_config(ROOT / arguments.config, arguments.overrides)


def _check_mlflow(words: list[str]) -> None:
    command, *rest = words
    _check_options([sys.executable, "-m", "mlflow", command], rest)


def _check_script(words: list[str]) -> None:
    script, *rest = words
    _check_options([sys.executable, str(ROOT / script)], rest)


def _check_options(command: list[str], rest: list[str]) -> None:
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in (word for word in rest if word.startswith("-")):
        assert option in done.stdout


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    example, *parts = blocks("yaml", GUIDE)
    path = tmp_path / "example.yaml"
    for whole in blocks("yaml", README):
        path.write_text(whole)
        load_config(path)
    path.write_text(example)
    names = [stage.name for stage in load_config(path).stages]
    assert names == ["small", "large"]
    for part in parts:
        path.write_text(yaml.safe_dump(_merged(yaml.safe_load(example), yaml.safe_load(part))))
        load_config(path)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` takes the place of whole sections."""
    return {**base, **over}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "#")):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page}: {target}"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *ROOT.glob("docs/**/*.md")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_files_it_names_are_there(page: Path) -> None:
    named = re.findall(
        r"`((?:launcher|ligo_dist|configs|tests|docs|benchmarks)/[\w./-]*)`", page.read_text(encoding="utf-8")
    )
    for path in named:
        assert (ROOT / path).exists(), f"{page.name}: {path}"
