"""Reading pickles of plain values and arrays of unsigned bytes, and of nothing else.

A pickle is a program: it may ask for any function by name and call it. This reader knows the names
by which numpy's arrays are pickled and puts classes of its own in their place. Whatever else a
pickle asks for is refused before anything is called.
"""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper_lightning.tolaria.data.errors import DataDamaged


class ByteArray:
    """Stands for a pickled numpy array; ``values`` is a uint8 array once it is read."""

    values: NDArray[np.uint8]

    def __init__(self, *_: object) -> None:
        """As numpy's ``_reconstruct`` is called; what is in the array follows as its state."""

    def __setstate__(self, state: tuple[object, Any, object, bool, bytes]) -> None:
        _, shape, dtype, is_fortran, content = state
        self._take(content, dtype, shape, "F" if is_fortran else "C")

    def _take(self, content: bytes, dtype: object, shape: Any, order: Any) -> None:
        code = dtype.code if isinstance(dtype, _ElementType) else dtype
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, allowed is 'u1' (uint8)")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class _ArrayOfBuffer(ByteArray):
    """As numpy pickles arrays by protocol 5."""

    def __init__(self, content: bytes, dtype: object, shape: Any, order: Any) -> None:
        super().__init__()
        self._take(content, dtype, shape, order)


class _ElementType:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which bytes do not have."""


_STANDING_FOR: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): ByteArray,
    ("numpy", "dtype"): _ElementType,
    **{
        (f"numpy.{core}.{module}", name): kind
        for core in ("core", "_core")  # numpy 1 and 2
        for module, name, kind in (
            ("multiarray", "_reconstruct", ByteArray),
            ("numeric", "_frombuffer", _ArrayOfBuffer),
        )
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _STANDING_FOR:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, allowed are plain values and numpy arrays"
            )
        return _STANDING_FOR[module, name]


def read_byte_pickle(content: bytes, *, what: str) -> object:
    """The object in a pickle; strings of Python 2 become bytes, arrays :class:`ByteArray`.

    Args:
        content: of the file.
        what: name of the file, for the error.

    Raises:
        DataDamaged: not a pickle, cut short, or of something else than plain values and arrays of
            unsigned bytes.
    """
    try:
        return _Reader(io.BytesIO(content), encoding="bytes").load()
    # Damaged opcodes raise whatever they happen to lead to.
    except Exception as error:  # pylint: disable=broad-exception-caught
        raise DataDamaged(
            f"{what} cannot be read as a pickle ({error or type(error).__name__}); put a whole "
            f"copy of the published file in its place"
        ) from error
