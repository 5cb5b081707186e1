"""Zstandard as a file that can be read line by line; one that was cut says so instead of ending early."""

import io
from typing import IO

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"
PIECE = 1 << 16


class Unpacked(io.RawIOBase):
    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            piece = (self._frame.unused_data if self._frame.eof else b"") or self._packed.read(PIECE)
            if not piece:
                if not self._frame.eof:
                    raise zstandard.ZstdError("it ends within a frame")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(piece))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
