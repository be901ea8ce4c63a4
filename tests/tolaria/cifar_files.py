"""Tiny files in the formats of CIFAR-10: pickles of Python 2, their archive, packed JPEG images."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
PACKED = "cifar10_jpegq75_packed.npz"
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def random_images(num: int, *, seed: int = 0) -> np.ndarray:
    """``(num, 3, 32, 32)`` uint8, no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (num, 3, 32, 32), dtype=np.uint8)


def string(content: bytes) -> bytes:
    """A string as Python 2 pickles it by protocol 2."""
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + struct.pack("<i", len(content)) + content


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def python2_batch(rows: np.ndarray, labels: list[int], *, keys=(b"data", b"labels")) -> bytes:
    """The published form: a dictionary that Python 2 pickled, with an array of numpy 1."""
    shape = b"".join(number(size) for size in rows.shape) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        + number(0)
        + b"\x85"
        + string(b"b")
        + b"tR("
        + number(1)
        + shape
        + b"cnumpy\ndtype\n("
        + string(b"u1")
        + number(0)
        + number(1)
        + b"tR("
        + number(3)
        + string(b"|")
        + b"NNN"
        + number(-1) * 2
        + number(0)
        + b"tb\x89"
        + string(rows.tobytes())
        + b"tb"
    )
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    name = string(b"batch_label") + string(b"training batch 1 of 5")
    return b"\x80\x02}(" + name + string(keys[1]) + listed + string(keys[0]) + array + b"u."


def write_batches(
    data_dir: Path, num_train: int = 60, num_test: int = 20, *, folder: str = f"cifar10/{FOLDER}"
) -> Path:
    """Write the six unpacked files; class ``i % 10`` belongs to image ``i``.

    Returns:
        The folder with the files.
    """
    there = data_dir / folder
    there.mkdir(parents=True, exist_ok=True)
    images = random_images(num_train + num_test).reshape(-1, 3072)
    labels = [index % 10 for index in range(num_train)] + [i % 10 for i in range(num_test)]
    share = num_train // 5
    for position, name in enumerate([*TRAIN, "test_batch"]):
        begin = position * share
        end = begin + share if name != "test_batch" else num_train + num_test
        (there / name).write_bytes(python2_batch(images[begin:end], labels[begin:end]))
    return there


def write_archive(data_dir: Path, batches: Path, *, folder: str = "cifar10") -> Path:
    """Pack what :func:`write_batches` has written, with a file that nobody asks for."""
    path = data_dir / folder / ARCHIVE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        readme = tarfile.TarInfo(f"{FOLDER}/readme.html")
        archive.addfile(readme, io.BytesIO(b""))
        for file in sorted(batches.iterdir()):
            archive.add(file, f"{FOLDER}/{file.name}")
    return path


def packed(images: np.ndarray) -> tuple[bytes, list[bytes]]:
    """What all JPEG images begin with, and the rest of each; ``images`` are ``(N, 3, H, W)``."""
    contents = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=75)
        contents.append(file.getvalue())
    length = contents[0].index(b"\xff\xda")
    assert all(content.startswith(contents[0][:length]) for content in contents)
    return contents[0][:length], [content[length:] for content in contents]


def write_packed(data_dir: Path, num_train: int = 60, num_test: int = 20, **changes) -> Path:
    """Write a packed file of smooth random images; class ``i % 10`` belongs to image ``i``.

    Args:
        data_dir: the data folder.
        num_train, num_test: of images.
        changes: arrays in place of those that would be written.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (num_train + num_test, 3, 4, 4))
    images = coarse.repeat(8, axis=2).repeat(8, axis=3).astype(np.uint8)
    header, scans = packed(images)
    arrays = {"header": np.frombuffer(header, np.uint8)}
    for name, part in (("train", scans[:num_train]), ("test", scans[num_train:])):
        arrays[f"scan_{name}"] = np.frombuffer(b"".join(part), np.uint8)
        arrays[f"off_{name}"] = np.cumsum([0, *map(len, part)]).astype(np.int32)
        arrays[f"y_{name}"] = (np.arange(len(part)) % 10).astype(np.uint8)
    path = data_dir / "cifar10" / PACKED
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**arrays, **changes})
    return path
