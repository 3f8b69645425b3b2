"""`make` alone shows every target that can be asked for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_help_has_a_line_for_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    shown = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert re.findall(r"^  make (\S+) +\S", shown, re.MULTILINE) == phony[1].split()
