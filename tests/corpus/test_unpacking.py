"""A file is what its first bytes say, whatever its name says."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from ligo_dist.corpus import find_source, unpacked
from ligo_dist.runtime.errors import DataError

TEXT = "def grow(width):\r\n    return \u010de\u0161tina, \u6f22\u5b57, \U0001f469\n\n\u2028last\x0bline" * 40
BYTES = TEXT.encode()


def _arrow(codec: str, content: bytes) -> bytes:
    target = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(target, codec) as stream:
        stream.write(content)
    return bytes(target.getvalue())


def _zip(**members: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def _gzip(content: bytes) -> bytes:
    """The same bytes at any time: they are in the names of tests."""
    return gzip.compress(content, mtime=0)


def _tar(**members: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


PACKED = {
    "zstd": _arrow("zstd", BYTES),
    "zstd frames": b"\x51\x2a\x4d\x18\4\0\0\0skip"
    + _arrow("zstd", BYTES[:1000])
    + _arrow("zstd", BYTES[1000:]),
    "lz4": _arrow("lz4", BYTES),
    "gzip": _gzip(BYTES),
    "gzip members": _gzip(BYTES[:999]) + _gzip(BYTES[999:]),
    "bzip2": bz2.compress(BYTES),
    "xz": lzma.compress(BYTES),
    "lzma": lzma.compress(BYTES, lzma.FORMAT_ALONE),
    "gzip twice": _gzip(_gzip(BYTES)),
    "zip": _zip(**{"a.txt": BYTES[:77], "__MACOSX/._a.txt": b"\0", "b/.hidden": b"x", "b/c.txt": BYTES[77:]}),
    "tar": _tar(**{"./a.txt": BYTES[:77], "./._a.txt": b"\0", "b.txt.gz": _gzip(BYTES[77:])}),
    "tar.gz": _gzip(_tar(a=BYTES)),
    "tar.zst": _arrow("zstd", _tar(a=BYTES)),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 big": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
    "utf-16 without a mark": TEXT.encode("utf-16-le"),
    "utf-16 big without a mark": TEXT.encode("utf-16-be"),
    "utf-16 in gzip": _gzip(TEXT.encode("utf-16")),
    "utf-8": BYTES,
}
ASCII_ONLY = {"utf-16 without a mark": "utf-16-le", "utf-16 big without a mark": "utf-16-be"}


@pytest.mark.parametrize("kind", PACKED)
def test_texts_come_out(kind: str, tmp_path: Path) -> None:
    content, expected = PACKED[kind], BYTES
    if kind in ASCII_ONLY:  # without a mark, western texts are known for what they are
        expected = TEXT.encode("ascii", "ignore")
        content = expected.decode().encode(ASCII_ONLY[kind])
    path = tmp_path / "text.gz"  # whatever the name says
    path.write_bytes(content)
    assert b"".join(stream.read() for _, stream in unpacked(str(path))) == expected
    lines = [line for _, stream in unpacked(str(path)) for line in stream]
    assert b"".join(lines) == expected
    assert all(line.count(b"\n") <= 1 for line in lines)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BZh9 is how a text may begin",
        b"\xef\xbb\xbfmarked",
        b"a\0b",
        b"\0\0\0\1\0\0\0\2",
        b"caf\xe9",
        b"PK",
    ],
)
def test_other_bytes_are_left_as_they_are(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(content)
    assert [stream.read() for _, stream in unpacked(str(path))] == [content]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1....", r"it is a Parquet file \(data.source: parquet\)"),
        (b"%PDF-1.7", "it is a PDF document"),
        (b"\x89PNG\r\n\x1a\n", r"it is an image \(PNG\)"),
        (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive"),
        (b"\x1f\x9d\x90", r"it is compressed by compress \(.Z\)"),
    ],
)
def test_other_kinds_are_refused_by_name_before_anything_is_read(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "b.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"data.files: '.*b.txt': cannot be read as text: {message}"):
        find_source("text", [f"{tmp_path}/*.txt"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_gzip(b"%PDF-1.7"), "it is a PDF document"),
        (_zip(**{"[Content_Types].xml": b"<x/>"}), "it is an office document or an electronic book"),
        (_gzip(BYTES)[:-20], "Compressed file ended"),
        (PACKED["zstd"][:-20], "Truncated compressed stream"),
        (PACKED["xz"][:-20], "Compressed file ended"),
        (PACKED["zip"][:-20], "File is not a zip file"),
        (PACKED["utf-16"][:-1], ".*utf-16.*truncated"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_files_are_named(content: bytes, message: str, streaming: bool, tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_bytes(content)
    source = find_source("text", [str(path)], document="line")
    with pytest.raises(DataError, match=rf"data.files: '.*b.txt': cannot be read as text: {message}"):
        list(source.open(streaming, tmp_path / "arrow"))


def _noise(number: int) -> bytes:
    return b"".join(bytes([(number * 31 + i * i * 7 + (i * 2654435761 >> 7)) % 256]) for i in range(4000))


NOISE: dict[str, Callable[[], bytes]] = {
    "of any bytes": lambda: _noise(1),
    "cp1251": lambda: ("\u043f\u0440\u0438\u0432\u0435\u0442 " * 50).encode("cp1251"),
    "numbers": lambda: b"".join(number.to_bytes(4, "little") for number in range(300)),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", NOISE)
def test_a_corpus_that_decodes_to_nothing_is_an_error(kind: str, streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a little text")
    (tmp_path / "b.txt").write_bytes(NOISE[kind]())
    (tmp_path / "c.txt").write_bytes(NOISE[kind]())
    source = find_source("text", [f"{tmp_path}/*.txt"])
    with pytest.raises(DataError, match=r"data.files: '.*b.txt': holds no text: [\d,]+ of the first"):
        list(source.open(streaming, tmp_path / "arrow"))
    (tmp_path / "a.txt").write_bytes(BYTES * 10)
    assert len(list(find_source("text", [f"{tmp_path}/*.txt"]).open(streaming, tmp_path / "other"))) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_a_corpus_that_is_cut_short_is_judged_too(streaming: bool, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(_noise(2))
    with pytest.raises(DataError, match="holds no text"):
        list(find_source("text", [f"{tmp_path}/*"], max_documents=1).open(streaming, tmp_path / "arrow"))
