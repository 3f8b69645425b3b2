"""The configurations with the paper's settings: each passes the dry run, and its models have the published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import cli

PAPER = Path(__file__).parents[1] / "configs" / "paper"
COUNTS = {
    "bert_small_to_base": ("35,099,962", "109,514,298"),
    "roberta_small_to_base": ("45,228,633", "124,697,433"),
    "gpt2_base_to_medium": ("124,439,808", "354,823,168"),
    "deit_small_to_base": ("22,050,664", "86,567,656"),
}
"""Parameters of source and target. Those of the two small text models are not published, as their authors trained
them for the paper; the others are held against their origin in `architectures/test_published_counts.py`."""


def test_every_file_is_here():
    assert {path.stem for path in PAPER.iterdir()} == set(COUNTS)


@pytest.mark.usefixtures("answered_here")
@pytest.mark.parametrize("name", COUNTS)
def test_the_dry_run_passes_and_shows_the_published_sizes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    code = cli.main(["run", str(PAPER / f"{name}.yaml"), "--dry-run", "--nproc", "4"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    for count in COUNTS[name]:
        assert f" {count} " in out
    assert list(tmp_path.iterdir()) == []
