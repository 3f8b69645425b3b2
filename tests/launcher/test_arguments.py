"""Passwords are kept off command lines: any command that takes overrides refuses them before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import cli
from launcher.arguments import refuse_secrets
from ligo_dist.runtime.errors import LigoError

QUICKSTART = str(Path(__file__).parents[2] / "configs" / "quickstart.yaml")


@pytest.mark.parametrize(
    "word",
    [
        "tracking.uri=http://me:hunter22@host:5000",
        "tracking={mlflow: true, uri: 'http://me:hunter22@host'}",
        "tracking.uri=postgresql://me:hunter22@db/x",
        "data.name=https://host/x?token=hunter22",
        "data.name=hunter22",
    ],
)
def test_an_override_with_a_secret_is_refused(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_TOKEN", "hunter22")
    with pytest.raises(LigoError, match=r"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as caught:
        refuse_secrets(["seed=1", word])
    assert str(caught.value).startswith(f"{word.partition('=')[0]}: holds a password or token")
    assert "hunter22" not in str(caught.value)


def test_other_words_pass() -> None:
    refuse_secrets(
        ["seed=1", "tracking.uri=http://host:5000", "tracking.uri=http://me@host", "run_dir=runs/a@b"]
    )


def test_it_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", QUICKSTART, "tracking.uri=http://me:hunter22@host"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ligo-dist: tracking.uri: holds a password or token")
    assert "hunter22" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_a_file_is_not_shown_when_the_file_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    text = Path(QUICKSTART).read_text()
    config.write_text(
        f"{text}\ntracking: {{uri: 'http://me:hunter22@host', experiment: ['http://me:hunter22@host']}}\n"
    )
    assert cli.main(["run", str(config)]) == 2
    assert "hunter22" not in capsys.readouterr().err
