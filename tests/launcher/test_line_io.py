from __future__ import annotations

import os

import pytest

from launcher.line_io import FileReader, LineReader, LineWriter


@pytest.fixture
def pipe():
    read, write = os.pipe()
    reading, writing = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
    yield reading, writing
    reading.close()
    writing.close()


def test_lines_come_whole(pipe):
    reading, writing = pipe
    reader = LineReader(reading)
    assert reader.read() == []
    writing.write(b"one\ntw")
    assert reader.read() == ["one"]
    writing.write(b"o\n\n")
    assert reader.read() == ["two", ""]
    writing.close()
    assert reader.read() is None


def test_a_file_that_grows_ends_when_it_is_removed(tmp_path):
    file = tmp_path / "messages"
    file.write_text("job\n")
    reader = FileReader(file)
    assert reader.first_lines() == ["job"]
    assert reader.read() == []
    with file.open("a") as more:
        more.write("order\n")
    assert reader.read() == ["order"]
    file.unlink()
    assert reader.read() is None


def test_a_reader_that_sleeps_holds_nobody_up_and_misses_nothing_that_counts(pipe):
    reading, writing = pipe
    writer = LineWriter(writing)
    for number in range(200_000):
        writer.write(f"{number:060d}\n", may_drop=True)
    writer.write("the end\n")
    reader, lines = LineReader(reading), []
    while "the end" not in lines:
        lines += reader.read() or []
        writer.flush()
    assert lines[:1000] == [f"{number:060d}" for number in range(1000)]
    assert len(lines) < 200_001, "what may be dropped does not fill the memory"


def test_nobody_reads_any_more(pipe):
    reading, writing = pipe
    writer = LineWriter(writing)
    reading.close()
    writer.write("line\n")
    writer.write("line\n")
    writer.drain(1.0)
