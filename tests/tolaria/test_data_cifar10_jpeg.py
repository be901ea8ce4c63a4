"""CIFAR-10 as JPEG images: the packed file, and the pixels that are kept of it."""

import hashlib
import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import PACKED, random_images, write_packed
from data_dir import data_dir
from launching import CONF
from omegaconf import OmegaConf
from PIL import Image

from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.tolaria import CIFAR10, CIFAR10Jpeg
from esper_lightning.tolaria.data import AugmentedPixels, DataDamaged, DataMissing
from esper_lightning.tolaria.data.pixel_cache import cached_pixels


def tiny(path: Path, **changes) -> CIFAR10Jpeg:
    arguments = {"data_dir": path, "verify": False, "num_val": 10, "augment": False, **changes}
    return CIFAR10Jpeg(**arguments)


def kept(path: Path) -> list[Path]:
    return sorted(path.rglob("*_pixels.npz"))


def test_images_come_out_as_pillow_decodes_them(tmp_path):
    path = write_packed(tmp_path)
    with np.load(path) as file:
        header, scans = file["header"].tobytes(), file["scan_test"].tobytes()
        ends = file["off_test"].tolist()
    first = Image.open(io.BytesIO(header + scans[: ends[1]]))
    module = tiny(tmp_path)
    module.setup("fit")
    assert [len(part) for part in module.splits] == [50, 10, 20]
    expected = torch.from_numpy(np.asarray(first).transpose(2, 0, 1).copy())
    assert torch.equal(module.splits.test.inputs[0], expected)
    assert module.splits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert (module.name, module.input_shape) == ("CIFAR-10 (JPEG q75)", (3, 32, 32))


def test_it_is_split_and_augmented_like_cifar10(tmp_path):
    write_packed(tmp_path)
    train, val, test = tiny(tmp_path, augment=True, seed=4, subset=20).splits
    assert isinstance(train, AugmentedPixels)
    assert (train.seed, len(train), len(val), len(test)) == (4, 20, 10, 20)
    assert torch.bincount(val.labels).tolist() == [1] * 10
    assert (train.mean, train.std) == (CIFAR10Jpeg.mean, CIFAR10Jpeg.std)


def test_images_are_decoded_once(tmp_path, monkeypatch):
    path = write_packed(tmp_path)
    first = tiny(tmp_path).splits
    (cache,) = kept(tmp_path)
    assert cache.parent == path.parent
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in cache.name
    monkeypatch.setitem(sys.modules, "PIL", None)
    for ours, theirs in zip(tiny(tmp_path).splits, first, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs)
    assert [file.name for file in path.parent.iterdir() if file.name.endswith(".part")] == []


def test_pixels_are_kept_where_the_user_says(tmp_path):
    write_packed(tmp_path / "data")
    _ = tiny(tmp_path / "data", cache_dir=tmp_path / "cache").splits
    assert [file.parent for file in kept(tmp_path)] == [tmp_path / "cache"]


def test_another_file_gets_pixels_of_its_own(tmp_path):
    write_packed(tmp_path, 60, 20)
    assert len(tiny(tmp_path).splits.train) == 50
    write_packed(tmp_path, 70, 20)
    assert len(tiny(tmp_path).splits.train) == 60
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty", "other images", "other type"])
def test_kept_pixels_that_are_damaged_are_made_again(tmp_path, damage, caplog):
    write_packed(tmp_path)
    first = tiny(tmp_path).splits
    (cache,) = kept(tmp_path)
    whole = bytearray(cache.read_bytes())
    if damage == "cut short":
        cache.write_bytes(whole[: len(whole) // 2])
    elif damage == "one bit":
        whole[len(whole) // 2] ^= 1
        cache.write_bytes(whole)
    elif damage == "empty":
        cache.write_bytes(b"")
    else:
        images = random_images(59 if damage == "other images" else 60)
        kind = float if damage == "other type" else np.uint8
        np.savez(cache, train=images.astype(kind), test=random_images(20))
    again = tiny(tmp_path).splits
    assert "decoded again" in caplog.text
    assert torch.equal(again.train.inputs, first.train.inputs)
    caplog.clear()
    assert torch.equal(tiny(tmp_path).splits.train.inputs, first.train.inputs)
    assert caplog.text == ""


def test_where_the_data_folder_takes_nothing_pixels_go_to_the_user_s_cache(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setattr("esper_lightning.tolaria.data.cifar10_jpeg.USER_CACHE", home)
    path = write_packed(tmp_path / "data")
    # A folder in its place cannot be replaced by a file, not even by the superuser.
    name = f"{path.stem}_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}_pixels.npz"
    (path.parent / name).mkdir()
    _ = tiny(tmp_path / "data").splits
    assert [file.name for file in home.iterdir()] == [name]
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([PACKED, name])


def test_pixels_that_can_be_kept_nowhere_are_decoded_and_that_is_told(tmp_path, caplog):
    taken = tmp_path / "taken"
    taken.write_text("a file, not a folder")
    write_packed(tmp_path)
    assert len(tiny(tmp_path, cache_dir=taken).splits.train) == 50
    assert "decoded again next time" in caplog.text
    assert str(taken) in caplog.text


def test_several_may_ask_at_once(tmp_path):
    everybody = threading.Barrier(8, timeout=30)

    def make():
        everybody.wait()  # none has written before all have begun
        return {"train": random_images(64)}

    def ask(_):
        shapes = {"train": (64, 3, 32, 32)}
        return cached_pixels("some.npz", folders=[tmp_path], shapes=shapes, make=make)["train"]

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(ask, range(8)), *pool.map(ask, range(40))]
    assert all(np.array_equal(each, random_images(64)) for each in found)
    assert [file.name for file in tmp_path.iterdir()] == ["some.npz"]


def test_a_missing_file_is_told_with_every_place(tmp_path):
    with pytest.raises(DataMissing, match=r"CIFAR-10 \(JPEG q75\) needs one file") as error:
        tiny(tmp_path).setup("fit")
    message = str(error.value)
    assert str(tmp_path / "cifar10" / PACKED) in message
    assert str(tmp_path / PACKED) in message
    assert "data=cifar10" in message
    assert isinstance(error.value, EsperError)


def test_another_file_is_refused_unless_asked_for(tmp_path):
    path = write_packed(tmp_path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(
        DataDamaged, match=rf"not the CIFAR-10 \(JPEG q75\).* {found}.*verify=false"
    ):
        tiny(tmp_path, verify=True).setup("fit")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.zeros(59, np.uint8)}, "61 offsets of train for 59 labels"),
        ({"off_test": np.arange(21)}, "offsets of test run from 0 to 20 of"),
        ({"off_train": np.zeros((61, 1))}, "offsets of train are no row of integers"),
        ({"y_test": np.zeros(20)}, "labels of test are no row of integers"),
        ({"header": np.zeros(600, np.uint8)}, "train: image 0 cannot be decoded"),
        ({"header": np.array([{}], dtype=object)}, "cannot be read .*allow_pickle"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, changes, message):
    write_packed(tmp_path, **changes)
    with pytest.raises(DataDamaged, match=message):
        tiny(tmp_path).setup("fit")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, share):
    path = write_packed(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataDamaged, match=r"cannot be read .*put a whole copy in its place"):
        tiny(tmp_path).setup("fit")


def test_an_image_that_is_cut_short_is_refused(tmp_path):
    path = write_packed(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["off_train"][3] = arrays["off_train"][2] + 9
    np.savez(path, **arrays)
    with pytest.raises(DataDamaged, match=r"train: image [23] cannot be decoded"):
        tiny(tmp_path).setup("fit")


def test_images_of_another_size_are_refused(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (16, 32)).save(content, "JPEG")
    scan = np.frombuffer(content.getvalue(), np.uint8)
    write_packed(
        tmp_path,
        header=np.zeros(0, np.uint8),
        scan_train=scan,
        off_train=np.array([0, len(scan)]),
        y_train=np.array([0]),
    )
    with pytest.raises(DataDamaged, match=r"image 0 has shape \(32, 16, 3\), expected"):
        tiny(tmp_path).setup("fit")


def test_without_pillow_the_error_says_what_to_install(tmp_path, monkeypatch):
    write_packed(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InvalidArgument, match="needs Pillow: pip install pillow"):
        tiny(tmp_path).setup("fit")


def test_the_configuration_names_every_option_with_its_default():
    told = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "cifar10_jpeg.yaml"))
    defaults = {key: value.default for key, value in signature(CIFAR10Jpeg).parameters.items()}
    given = {"seed": "${seed}", "data_dir": "${paths.data_dir}"}
    assert told == defaults | given | {"_target_": "esper_lightning.tolaria.CIFAR10Jpeg"}
    shared = signature(CIFAR10).parameters.keys() - {"download"}
    assert shared == defaults.keys() - {"cache_dir"}


@pytest.mark.slow
def test_the_real_copy_is_what_the_documents_say(tmp_path):
    folder = data_dir(f"cifar10/{PACKED}")
    train, val, test = CIFAR10Jpeg(data_dir=folder, cache_dir=tmp_path).splits
    assert [len(train), len(val), len(test)] == [45_000, 5_000, 10_000]
    for part, share in ((train, 4500), (val, 500), (test, 1000)):
        assert torch.bincount(part.labels).tolist() == [share] * 10
    every = torch.cat([train.inputs, val.inputs]).double() / 255
    for channel in range(3):
        values = every[:, channel]
        assert round(float(values.mean()), 4) == CIFAR10Jpeg.mean[channel]
        assert round(float(values.std(correction=0)), 4) == CIFAR10Jpeg.std[channel]
    again = CIFAR10Jpeg(data_dir=folder, cache_dir=tmp_path).splits
    assert torch.equal(again.train.inputs, train.inputs)
    assert len(kept(tmp_path)) == 1
