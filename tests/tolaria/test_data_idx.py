"""The IDX format."""

import gzip

import pytest
import torch
from idx_files import write_idx

from esper_lightning.tolaria.data import DataDamaged, read_idx


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 4, 5)])
def test_what_was_written_is_read(tmp_path, suffix, shape):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    path = write_idx(tmp_path / f"file{suffix}", values)
    read = read_idx(path, num_dims=len(shape))
    assert read.dtype == torch.uint8
    assert torch.equal(read, values)


def test_sizes_are_big_endian_and_elements_row_major(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes.fromhex("00000803 00000001 00000002 00000003 000102030405"))
    assert read_idx(path, num_dims=3).tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_what_was_read_may_be_written_to(tmp_path):
    path = write_idx(tmp_path / "file", torch.zeros(3))
    read_idx(path, num_dims=1).add_(1)
    assert read_idx(path, num_dims=1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content[:-1],
            r"is cut short: 27 bytes, its header states 28 .*\(2, 3, 2\)",
        ),
        (lambda content: content + b"x", "is too long: 29 bytes, its header states 28"),
        (lambda content: content[:9], "is cut short: 9 bytes, its header alone takes 16"),
        (lambda content: b"", "begins with 0x, expected 0x00000803"),
        (lambda content: b"<htm" + content[4:], "begins with 0x3c68746d, expected 0x00000803"),
        (lambda content: bytes([0, 0, 13, 3]) + content[4:], "begins with 0x00000d03"),
        (lambda content: bytes([0, 0, 8, 1]) + content[4:], "with 3 dimensions"),
    ],
)
def test_damage_is_named(tmp_path, suffix, change, message):
    whole = write_idx(tmp_path / "whole", torch.zeros(2, 3, 2)).read_bytes()
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(gzip.compress(change(whole)) if suffix else change(whole))
    with pytest.raises(DataDamaged, match=rf"broken{suffix}.* {message}"):
        read_idx(path, num_dims=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-20],
        lambda content: content[:30],
        lambda content: content[:4],
        lambda content: content[:15] + b"\xff\xff\xff" + content[18:],
        lambda content: content[:-6] + bytes(6),
        lambda content: b"<html>" + content,
    ],
)
def test_a_damaged_gzip_file_is_named(tmp_path, change):
    path = write_idx(tmp_path / "images.gz", torch.randint(0, 256, (20, 3)))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataDamaged, match=r"images.gz cannot be unpacked \(.+\); put a whole copy"):
        read_idx(path, num_dims=2)


def test_a_packed_file_under_an_unpacked_name_is_told(tmp_path):
    packed = write_idx(tmp_path / "file.gz", torch.zeros(3))
    with pytest.raises(DataDamaged, match="it is gzip, end its name in .gz"):
        read_idx(packed.rename(tmp_path / "file"), num_dims=1)
