"""The page that leads through the core names each of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reading-the-code.md").read_text(encoding="utf-8")
CORE = ("architectures", "engine", "growth", "schedule", "checkpoints", "training")


@pytest.mark.parametrize("package", CORE)
def test_each_file_of_the_core_has_its_sentence(package: str) -> None:
    _, section = PAGE.split(f"\n**`{package}`**\n")
    section = section.partition("\n\n")[0]
    named = {name for name in section.split("`") if name.endswith(".py")}
    files = {path.name for path in (ROOT / "ligo_dist" / package).glob("*.py")} - {"__init__.py"}
    assert named == files


def test_each_package_is_told() -> None:
    packages = [path.parent.name for path in (ROOT / "ligo_dist").glob("*/__init__.py")]
    assert not [name for name in packages if f"`{name}`" not in PAGE]
