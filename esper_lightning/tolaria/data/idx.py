"""The IDX file format, in which MNIST and its successors are published.

A file is two zero bytes, a byte for the type of the elements (0x08: uint8), a byte for the number
of dimensions, the size of each dimension as a big-endian 32-bit integer, then the elements in
row-major order and nothing else.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from esper_lightning.tolaria.data.errors import DataDamaged

TYPE_UINT8 = 0x08
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path, *, num_dims: int) -> Tensor:
    """Read a file of unsigned bytes.

    Args:
        path: of the file; with the suffix ``.gz`` it is unpacked.
        num_dims: that it must have: 1 for labels, 3 for grey images.

    Returns:
        uint8, in the shape that the file states.

    Raises:
        DataDamaged: not an IDX file of unsigned bytes with so many dimensions, cut short, too long,
            or a gzip file that cannot be unpacked.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = _unpacked(content, path)
    expected = bytes([0, 0, TYPE_UINT8, num_dims])
    if content[:4] != expected:
        hint = "; it is gzip, end its name in .gz" if content.startswith(GZIP_MAGIC) else ""
        raise DataDamaged(
            f"{path} begins with 0x{content[:4].hex()}, expected 0x{expected.hex()}, the magic "
            f"number of an IDX file of unsigned bytes with {num_dims} dimensions{hint}"
        )
    begin = 4 + 4 * num_dims
    if len(content) < begin:
        raise DataDamaged(
            f"{path} is cut short: {len(content)} bytes, its header alone takes {begin}; {_REPLACE}"
        )
    shape = struct.unpack(f">{num_dims}I", content[4:begin])
    size = begin + math.prod(shape)
    if len(content) != size:
        fault = "is cut short" if len(content) < size else "is too long"
        raise DataDamaged(
            f"{path} {fault}: {len(content)} bytes, its header states {size} for the shape "
            f"{shape}; {_REPLACE}"
        )
    # A copy: a tensor must own memory that it may write to.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[begin:].reshape(shape)


def _unpacked(content: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataDamaged(f"{path} cannot be unpacked ({error}); {_REPLACE}") from error


_REPLACE = "put a whole copy in its place"
