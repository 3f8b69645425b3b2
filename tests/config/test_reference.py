from __future__ import annotations

from ligo_dist.config import reference


def test_the_committed_page_is_up_to_date(capsys):
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


def test_an_old_page_is_told_and_rewritten(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "PAGE", tmp_path / "configuration.md")
    assert reference.main(["--check"]) == 1
    assert "is out of date: run python -m ligo_dist.config.reference" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0


def test_every_section_and_its_bounds_are_there():
    page = reference.reference_page()
    assert "## `stages[].grow.learn.optimizer`" in page
    assert "| `validation_fraction` | number > 0, < 1 | `0.02` |" in page
    assert "| `vocab_size` | whole number ≥ 260 or `null` | `null` |" in page
