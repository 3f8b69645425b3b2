"""The whole preparation: cached, safe, complete or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ligo_dist.corpus import PackedCorpus, SentencePieceTokenizer, find_source, is_validation
from ligo_dist.corpus import prepare as prepare_module
from ligo_dist.runtime.errors import DataError

Prepare = Callable[..., PackedCorpus]

SCRIPT = """
import multiprocessing, os, signal, sys
from pathlib import Path
from ligo_dist.corpus import packing, prepare
from ligo_dist.corpus.sources import find_source

packing._CHUNK_DOCUMENTS = 5
texts, cache, log, kill = sys.argv[1:]
pack = prepare.pack

def logged(documents, tokenizer, fraction, directory, workers, advance):
    with open(log, "a") as file:
        file.write("packing\\n")
    def advance_or_die(count):
        if kill == "kill":
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    return pack(documents, tokenizer, fraction, directory, workers, advance_or_die)

if __name__ == "__main__":
    prepare.pack = logged
    source = find_source("text", [texts])
    workers = 2 if kill else 1
    corpus = prepare.prepare_corpus(source, True, 0.2, None, 350, "bpe", workers, Path(cache), False)
    print(corpus.fingerprint)
"""


def _start(tmp_path: Path, text_dir: Path, kill: str = "") -> subprocess.Popen[str]:
    script = tmp_path / "prepare_once.py"
    script.write_text(SCRIPT)
    arguments = [f"{text_dir}/*.txt", str(tmp_path / "cache"), str(tmp_path / "log"), kill]
    return subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True)


def _fails(*arguments: object) -> None:
    pytest.fail("the corpus was prepared again")


def test_a_corpus_is_prepared_once_and_its_index_tells_what_it_is(
    prepare: Prepare, documents: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = prepare()
    index = json.loads((corpus.directory / "index.json").read_text())
    assert index["tokenizer"] == {"sha256": corpus.tokenizer.fingerprint, "vocab_size": 350, "eos_id": 2}
    assert (index["dtype"], index["fingerprint"]) == ("uint16", corpus.fingerprint)
    in_validation = [document for document in documents if is_validation(document, 0.2)]
    assert index["splits"]["validation"]["documents"] == len(in_validation)
    assert index["splits"]["train"]["bytes"] == sum(map(len, documents)) - sum(map(len, in_validation))
    assert corpus.token_file("train").stat().st_size == 2 * index["splits"]["train"]["tokens"]
    monkeypatch.setattr(prepare_module, "pack", _fails)
    assert prepare(workers=3, streaming=False).fingerprint == corpus.fingerprint


def test_streaming_and_workers_give_the_same_files(prepare: Prepare, tmp_path: Path) -> None:
    corpora = [
        prepare(cache_dir=tmp_path / f"{streaming}{workers}", streaming=streaming, workers=workers)
        for streaming, workers in ((True, 1), (False, 2))
    ]
    names = ("tokenizer.model", "train.bin", "validation.bin", "validation.jsonl", "index.json")
    for name in names:
        assert len({(corpus.directory / name).read_bytes() for corpus in corpora}) == 1
    assert sorted(path.name for path in corpora[0].directory.iterdir()) == sorted(names)


def test_every_input_counts(
    prepare: Prepare, text_dir: Path, tmp_path: Path, bpe: SentencePieceTokenizer
) -> None:
    (tmp_path / "t.model").write_bytes(bpe.model_bytes)
    corpora = [
        prepare(**changes)
        for changes in (
            {},
            {"validation_fraction": 0.3},
            {"vocab_size": 351},
            {"model_type": "unigram"},
            {"masked": True},
            {"given": SentencePieceTokenizer.from_file(tmp_path / "t.model")},
            {"source": find_source("text", [f"{text_dir}/*.txt"], max_documents=150)},
            {"source": find_source("text", [f"{text_dir}/*.txt"], document="line")},
        )
    ]
    assert len({corpus.fingerprint for corpus in corpora}) == len(corpora)
    assert corpora[5].tokenizer.fingerprint == bpe.fingerprint


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("train.bin", "has another size"),
        ("validation.bin", "has another checksum"),
        ("validation.jsonl", "validation.jsonl has another checksum"),
        ("tokenizer.model", "its tokenizer is not the one that made the tokens"),
        ("index.json", "is damaged"),
    ],
)
def test_a_damaged_cache_is_made_anew(
    prepare: Prepare, name: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = prepare()
    path = corpus.directory / name
    sound = path.read_bytes()
    changed = sound[:-2] if "size" in what or "index" in name else sound[:-1] + bytes([sound[-1] ^ 1])
    path.write_bytes(changed)
    assert prepare().fingerprint == corpus.fingerprint
    assert path.read_bytes() == sound
    assert what in caplog.text


def test_two_runs_that_start_together_do_the_work_once(text_dir: Path, tmp_path: Path) -> None:
    runs = [_start(tmp_path, text_dir) for _ in range(2)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    assert (tmp_path / "log").read_text() == "packing\n"


def test_a_killed_run_leaves_neither_a_corpus_nor_processes(
    prepare: Prepare, text_dir: Path, tmp_path: Path
) -> None:
    killed = _start(tmp_path, text_dir, "kill")
    output = killed.communicate(timeout=60)[0]
    assert killed.returncode == -signal.SIGKILL
    left = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(left) == 1
    assert ".partial-" in left[0].name
    corpus = prepare()
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [corpus.directory]
    workers = [int(word) for word in output.split()]
    assert workers
    deadline = time.monotonic() + 10
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, workers))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_progress_is_shown_on_standard_error_on_request(
    prepare: Prepare, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(streaming=False)
    assert capfd.readouterr() == ("", "")
    prepare(streaming=False, vocab_size=352, show_progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "training the tokenizer" in captured.err
    assert "tokenizing" in captured.err
    assert "200/200 documents" in captured.err


def test_no_vocabulary_and_no_file_is_an_error(prepare: Prepare) -> None:
    with pytest.raises(DataError, match=r"tokenizer.vocab_size: null, and tokenizer.file too"):
        prepare(vocab_size=None)


def test_errors_leave_no_corpus(prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leaves the validation split empty"):
        prepare(validation_fraction=1e-12, vocab_size=9999)  # told before the tokenizer is trained
    with pytest.raises(DataError, match=r"tokenizer.vocab_size: 9999 is more"):
        prepare(vocab_size=9999)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
