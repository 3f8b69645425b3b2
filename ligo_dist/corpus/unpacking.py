"""Files as what their first bytes say they are, whatever their names say: unpacked, decoded, or refused by name."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import fsspec

from ligo_dist.runtime.errors import DataError

_HEAD_BYTES = 512


def _arrow_stream(codec: str, packed: Any) -> io.BufferedReader:
    import pyarrow  # not at the top: the launcher and the tokenizing processes import this module too

    return io.BufferedReader(pyarrow.CompressedInputStream(packed, codec), 1 << 16)


_COMPRESSED: list[tuple[bytes, Callable[[Any], Any]]] = [
    (b"\x1f\x8b\x08", lambda packed: gzip.GzipFile(fileobj=packed, mode="rb")),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
    (b"]\0\0", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", partial(_arrow_stream, "zstd")),
    *((bytes([number]) + b"\x2a\x4d\x18", partial(_arrow_stream, "zstd")) for number in range(0x50, 0x60)),
    (b"\x04\x22\x4d\x18", partial(_arrow_stream, "lz4")),
]
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
"""What follows `BZh` and a digit, where it is not the beginning of a text."""

_REFUSED = {
    b"PAR1": "a Parquet file (data.source: parquet)",
    b"ARROW1\0\0": "an Arrow file (data.source: arrow)",
    b"%PDF-": "a PDF document",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an office document",
    b"\x89PNG\r\n": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF87a": "an image (GIF)",
    b"GIF89a": "an image (GIF)",
    b"\x89HDF\r\n": "an HDF5 file",
    b"SQLite format 3\0": "an SQLite database",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "an array of numpy",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"LZIP\x01": "compressed by lzip",
    b"\x1f\x9d": "compressed by compress (.Z)",
    b"\x02\x21\x4c\x18": "compressed in the old format of lz4",
    b"\xff\x06\0\0sNaPpY": "compressed by snappy",
}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer ones first: that of UTF-16 begins one of UTF-32."""

READ_FAULTS = (
    OSError, EOFError, UnicodeDecodeError, RuntimeError, NotImplementedError,
    zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
"""What the unpackers raise. RuntimeError: an archive with a password."""

_Opener = Callable[[], AbstractContextManager[Any]]


def unpacked(path: str) -> Iterator[tuple[str, Any]]:
    """The texts in a file, one after the other: their names for messages, and each as a stream of bytes that gives
    lines or, with `read()`, everything.

    Compressed files are unpacked, archives (zip, tar) give their members, UTF-16 and UTF-32 become UTF-8. Other bytes
    are left as they are.

    Raises:
        ValueError: the file is of another kind; says which.
        and whatever unpackers raise, see `read_faults`.
    """
    yield from _streams(path, partial(open_file, path))


def open_file(path: str) -> Any:
    """A local path, whatever characters it has, or an address such as `hf://...`."""
    if "://" not in path or os.path.exists(path):
        return open(path, "rb")
    return fsspec.open(path, "rb").open()


def refuse_other_formats(paths: Iterable[str], key: str, kind: str) -> None:
    """Looks at the first bytes of files that should be text or JSON, as `kind` says.

    Raises:
        DataError: one of them is of a kind that is no text; names the file and the kind.
    """
    for path in sorted(paths):
        with read_faults(key, path, kind), open(path, "rb") as stream:
            _refuse(stream.read(_HEAD_BYTES))


@contextmanager
def read_faults(key: str, path: str, kind: str = "text") -> Iterator[None]:
    """Turns what is raised while a file is read into a `DataError` that begins with the key and names the file."""
    try:
        yield
    except (DataError, ConnectionError, TimeoutError):
        raise
    except (*READ_FAULTS, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{key}: {path!r}: cannot be read as {kind}: {lines[0]}") from error


def _streams(name: str, opener: _Opener) -> Iterator[tuple[str, Any]]:
    with opener() as stream:
        head = stream.read(_HEAD_BYTES)
    decompress = _decompressor(head)
    if decompress is not None:
        yield from _streams(name, partial(_decompressed, opener, decompress))
    elif head.startswith(b"PK\x03\x04"):
        yield from _zip_members(name, opener)
    elif head[257:262] == b"ustar":
        yield from _tar_members(name, opener)
    else:
        _refuse(head)
        encoding = _encoding(head)
        with opener() as stream:
            yield name, stream if encoding is None else _Recoded(stream, encoding)


def _decompressor(head: bytes) -> Callable[[Any], Any] | None:
    if head.startswith(b"BZh") and not head[4:].startswith(_BZIP2_BLOCKS):
        return None
    return next((decompress for magic, decompress in _COMPRESSED if head.startswith(magic)), None)


@contextmanager
def _decompressed(opener: _Opener, decompress: Callable[[Any], Any]) -> Iterator[Any]:
    with opener() as packed, decompress(packed) as plain:
        yield plain


def _zip_members(name: str, opener: _Opener) -> Iterator[tuple[str, Any]]:
    with opener() as stream, zipfile.ZipFile(stream) as archive:
        names = set(archive.namelist())
        if names & {"[Content_Types].xml", "mimetype"}:
            raise ValueError("it is an office document or an electronic book")
        for member in archive.infolist():
            if not member.is_dir() and _is_visible(member.filename):
                yield from _streams(f"{name}/{member.filename}", partial(archive.open, member))


def _tar_members(name: str, opener: _Opener) -> Iterator[tuple[str, Any]]:
    with opener() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() and _is_visible(member.name) else None
            if content is not None:
                yield from _streams(f"{name}/{member.name}", partial(io.BytesIO, content.read()))


def _is_visible(member: str) -> bool:
    """Not what systems put beside the files of an archive."""
    parts = member.removeprefix("./").split("/")
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _refuse(head: bytes) -> None:
    for magic, kind in _REFUSED.items():
        if head.startswith(magic):
            raise ValueError(f"it is {kind}")


def _encoding(head: bytes) -> str | None:
    """Of UTF-16 and UTF-32; None: bytes to be taken as they are."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    zeros = head.count(0)
    if len(head) < 8 or zeros * 4 < len(head):
        return None
    # Without a mark: western text has a zero in (nearly) each pair of bytes, always on the same side.
    sides = {"utf-16-be": head[::2].count(0), "utf-16-le": head[1::2].count(0)}
    return next((encoding for encoding, count in sides.items() if count == zeros), None)


class _Recoded:
    """A text in another encoding as a stream of UTF-8, its line ends as they are."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding=encoding, newline="\n")

    def read(self) -> bytes:
        return self._text.read().encode()

    def __iter__(self) -> Iterator[bytes]:
        return (line.encode() for line in self._text)
