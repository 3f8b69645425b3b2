"""Lines over pipes that never block: a peer that is cut off must not hold up the one that watches the ranks."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

_CAPACITY = 4 << 20
_POLL_SECONDS = 0.1


class LineReader:
    """The lines of a pipe, as they come; the pipe is made non-blocking."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._partial = b""
        os.set_blocking(stream.fileno(), False)

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self) -> list[str] | None:
        """The whole lines that have come since the last call; None at the end."""
        try:
            chunk = os.read(self.fileno(), 1 << 20)
        except BlockingIOError:
            return []
        return self._lines(chunk) if chunk or not self._is_at_end() else None

    def first_lines(self) -> list[str] | None:
        """Wait for the first lines; None if there are none."""
        while (lines := self.read()) == []:
            time.sleep(_POLL_SECONDS)
        return lines

    def _lines(self, chunk: bytes) -> list[str]:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _is_at_end(self) -> bool:
        return True


class FileReader(LineReader):
    """The lines of a file that somebody else appends to; its end is when it is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(path.open("rb", buffering=0))

    def _is_at_end(self) -> bool:
        return not self._path.exists()


class LineWriter:
    """Writes lines to a pipe as far as it takes them, and keeps the rest for later.

    Where the other side reads nothing for long, lines that may be dropped are; the others wait.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._broken = False
        os.set_blocking(stream.fileno(), False)

    def write(self, line: str, may_drop: bool = False) -> None:
        """Write a line, its end included, or keep it until it can be written."""
        if self._broken or (may_drop and self._bytes > _CAPACITY):
            return
        self._waiting.append(line.encode())
        self._bytes += len(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as the pipe takes it."""
        while self._waiting and not self._broken:
            chunk = self._waiting[0]
            try:
                written = os.write(self._stream.fileno(), chunk)
            except BlockingIOError:
                return
            except (OSError, ValueError):  # nobody reads any more
                self._broken = True
                self._waiting.clear()
                return
            self._bytes -= written
            if written < len(chunk):
                self._waiting[0] = chunk[written:]
            else:
                self._waiting.popleft()

    def drain(self, seconds: float) -> None:
        """Write what waits, for so long at most."""
        deadline = time.monotonic() + seconds
        while self._waiting and not self._broken and time.monotonic() < deadline:
            self.flush()
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Let the other side know that nothing more comes."""
        self.flush()
        self._broken = True
        with suppress(OSError):
            self._stream.close()
