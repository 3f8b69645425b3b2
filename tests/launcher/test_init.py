"""`ligo-dist init`: what it writes is right as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher import cli
from ligo_dist.architectures import ModelShape
from ligo_dist.config import load_config
from small_models import library_model

SHAPE = ModelShape(2, 24, 3, 3, 96, tied=True, vocab=424, positions=64)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def init(*words: str) -> dict[str, Any]:
    """What was written, as its values, after the two commands that it names were found to be right."""
    assert cli.main(["init", "my.yaml", *words]) == 0
    config = load_config("my.yaml")
    assert config.run_dir == "runs/my"
    return config.values()


def test_a_family_and_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    values = init("--family", "llama", "--size", "3x128", "--data", "stdlib", "--nproc", "3")
    said = capsys.readouterr().out
    assert said.startswith("wrote my.yaml: llama, 3 x 128 into 6 x 256. Next:\n")
    dry_run, run = (line.split() for line in said.splitlines()[1:])
    assert run == ["ligo-dist", "run", "my.yaml", "--nproc", "3"]
    assert dry_run == [*run, "--dry-run"]
    small, large = values["stages"]
    assert [small["size"][key] for key in ("layers", "width", "heads")] == [3, 128, 2]
    assert [large["size"][key] for key in ("layers", "width", "heads")] == [6, 256, 4]
    assert small["train"]["batch_size"] == 33  # as many for each rank
    assert cli.main(dry_run[1:]) == 0
    assert "nothing was started" in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["my.yaml"]


def test_a_model_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    library_model("gpt2", SHAPE, n_inner=100).save_pretrained("model")
    rows = [{"id": "x", "body": f"some words, {number} of them"} for number in range(3)]
    Path("dump").mkdir()
    Path("dump/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("dump/notes").write_text("not it")
    Path("dump/b.jsonl").write_text(json.dumps(rows[0]))
    values = init("--from", "model", "--data", "dump")
    given, large = values["stages"]
    assert (given["from"], given["size"], values["model"]["family"]) == ("model", None, "gpt2")
    assert (large["size"]["layers"], large["size"]["width"], large["size"]["heads"]) == (4, 48, 6)
    assert large["size"]["ffn"] == 200
    assert (values["data"]["source"], values["data"]["files"]) == ("json", ["dump/**/*.jsonl"])
    assert (values["data"]["text_column"], values["data"]["sequence_length"]) == ("body", 64)
    assert values["tokenizer"]["replace_source"], "the directory has none"


def test_images() -> None:
    pytest.importorskip("sklearn")
    values = init("--family", "vit", "--size", "2x48x3", "--data", "digits")
    assert (values["model"]["patch_size"], values["data"]["labels"]) == (2, 10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["there.yaml"], "there.yaml: is there already, and nothing is written over; choose another name"),
        (["no/my.yaml"], "no/my.yaml: lies in no directory; choose another name"),
        (["my.yaml", "--size", "3*128"], "--size: '3*128' should be LAYERSxWIDTH, such as 6x384"),
        (["my.yaml", "--size", "3x100"], "--size: '3x100': no heads of one size make a width of 100; 3x128 would"),
        (["my.yaml", "--family", "gtp2"], "no model family 'gtp2'"),
        (["my.yaml", "--data", "no.txt"], "data.files: no such file: 'no.txt'"),
        (["my.yaml", "--data", "empty"], "--data: 'empty' is a directory without files"),
        (["my.yaml", "--data", "a.txt", "b.jsonl"], "files of several kinds (1 of text, 1 of json)"),
        (["my.yaml", "--nproc", "3", "--data", "c.parquet"], "c.parquet"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_nothing_written(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.yaml").write_text("precious")
    Path("empty").mkdir()
    for name in ("a.txt", "b.jsonl"):
        Path(name).write_text("{}\n")
    defaults = {"--family": "gpt2", "--size": "3x128", "--data": "stdlib"}
    more = [word for key, value in defaults.items() if key not in words for word in (key, value)]
    assert cli.main(["init", *words, *more]) == 2
    assert said in capsys.readouterr().err
    assert Path("there.yaml").read_text() == "precious"
    assert not Path("my.yaml").exists()


def test_a_model_of_no_family(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "t5", "architectures": ["T5Model"]}')
    assert cli.main(["init", "my.yaml", "--from", "model", "--data", "stdlib"]) == 2
    assert "--from: no model family has the class 'T5Model'" in capsys.readouterr().err


def test_it_needs_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "my.yaml", "--size", "3x128", "--data", "stdlib"]) == 2
    assert "--family: --size needs one of gpt2, " in capsys.readouterr().err
