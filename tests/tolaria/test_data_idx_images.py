"""MNIST and Fashion-MNIST: where files are found, what is refused, how they are split."""

import hashlib
import pickle
import re
import shutil
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from data_dir import data_dir
from idx_files import SOURCES, write_idx, write_idx_folder
from launching import CONF
from omegaconf import OmegaConf

from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.tolaria import MNIST, FashionMNIST
from esper_lightning.tolaria.data import DataDamaged, DataMissing, Digits, IdxImages, idx_file

SETS = [FashionMNIST, MNIST]


def tiny(path: Path, data: type[IdxImages] = FashionMNIST, **changes) -> IdxImages:
    return data(**{"data_dir": path, "verify": False, "num_val": 10, **changes})


def pixels(examples) -> list[bytes]:
    return [image.numpy().tobytes() for image in examples.inputs]


def published(folder: Path, name: str) -> type[IdxImages]:
    """A data module for which the files in ``folder`` are the published ones."""

    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    changes = {
        field: idx_file(
            name=file.name,
            gz_sha256=sha256(folder / f"{file.name}.gz"),
            sha256=sha256(folder / file.name),
        )
        for field, file in (
            (field, getattr(SOURCES[name], field))
            for field in ("train_images", "train_labels", "test_images", "test_labels")
        )
    }
    return type("Published", (IdxImages,), {"source": replace(SOURCES[name], **changes)})


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("data", "folder"), [(data, folder) for data in SETS for folder in (*data.source.folders, ".")]
)
def test_files_are_found_in_every_place_that_is_documented(tmp_path, data, folder, suffix):
    write_idx_folder(tmp_path, data.source.name, 30, 10, folder=folder, suffix=suffix)
    module = tiny(tmp_path, data)
    module.setup("fit")
    assert [len(examples) for examples in module.splits] == [20, 10, 10]
    assert (module.input_shape, module.num_classes) == ((1, 28, 28), 10)
    inputs = module.example_input(3)
    assert inputs.shape == (3, 1, 28, 28)
    assert inputs.dtype == torch.float32


def test_a_named_folder_comes_before_the_data_folder_and_packed_before_unpacked(tmp_path):
    write_idx_folder(tmp_path, "mnist", 50, 10, folder=".")
    write_idx_folder(tmp_path, "mnist", 40, 10)
    write_idx_folder(tmp_path, "mnist", 60, 10, suffix="")
    assert len(tiny(tmp_path, MNIST).splits.train) == 30


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path):
    broken = write_idx_folder(tmp_path, "mnist", 40, 10)
    (broken / "t10k-labels-idx1-ubyte.gz").unlink()
    write_idx_folder(tmp_path, "mnist", 50, 10, folder=".")
    assert len(tiny(tmp_path, MNIST).splits.train) == 40


@pytest.mark.parametrize("data", SETS)
def test_missing_files_are_told_with_every_place_and_what_to_do(tmp_path, data):
    folder = write_idx_folder(tmp_path, data.source.name, 30, 10)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataMissing) as error:
        tiny(tmp_path, data).setup("fit")
    message = str(error.value)
    assert f"{data.source.name} needs 4 files" in message
    assert f"{folder}: no t10k-labels-idx1-ubyte\n" in message
    assert f"{tmp_path}: none of them\n" in message
    for place in data.source.folders:
        assert f"{tmp_path / place}:" in message
    assert f"Put them into {folder}" in message
    assert "data.download=true" in message
    assert isinstance(error.value, EsperError)
    assert isinstance(error.value, FileNotFoundError)


def test_an_example_comes_out_scaled_by_the_mean_and_deviation_of_its_set(tmp_path):
    for data in SETS:
        write_idx_folder(tmp_path, data.source.name, 30, 10)
        module = tiny(tmp_path, data)
        inputs, _ = next(iter(module.test_dataloader()))
        stored = module.splits.test.inputs.float() / 255
        expected = (stored - data.source.mean) / data.source.std
        torch.testing.assert_close(inputs, expected, rtol=0, atol=1e-6)


def test_splits_are_disjoint_stratified_and_test_is_the_published_one(tmp_path):
    folder = write_idx_folder(tmp_path, "fashion_mnist", 120, 30, suffix="")
    train, val, test = tiny(tmp_path, num_val=40).splits
    together = pixels(train) + pixels(val)
    assert len(set(together)) == 120
    raw = (folder / "train-images-idx3-ubyte").read_bytes()[16:]
    assert {raw[i : i + 784] for i in range(0, len(raw), 784)} == set(together)
    assert b"".join(pixels(test)) == (folder / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert torch.bincount(val.labels).tolist() == [4] * 10
    assert torch.bincount(train.labels).tolist() == [8] * 10


def test_a_subset_is_stratified_and_measured_on_the_same_images(tmp_path):
    write_idx_folder(tmp_path, "fashion_mnist", 120, 30)
    whole, small = tiny(tmp_path).splits, tiny(tmp_path, subset=50).splits
    assert torch.bincount(small.train.labels).tolist() == [5] * 10
    assert set(pixels(small.train)) < set(pixels(whole.train))
    assert pixels(small.val) == pixels(whole.val)
    assert pixels(small.test) == pixels(whole.test)


def test_splits_do_not_depend_on_the_seed_of_the_run_but_on_the_split_seed(tmp_path):
    write_idx_folder(tmp_path, "mnist", 120, 30)

    def split(**changes):
        return [pixels(part) for part in tiny(tmp_path, MNIST, subset=50, **changes).splits]

    torch.manual_seed(1)
    one = split(seed=1)
    torch.manual_seed(2)
    assert split(seed=2) == one
    train, val, test = split(split_seed=1)
    assert test == one[2]
    assert val != one[1]
    assert train != one[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_order_and_generators_are_as_for_other_data(tmp_path, num_workers):
    write_idx_folder(tmp_path, "mnist", 120, 30)

    def epoch(seed, number):
        module = tiny(tmp_path, MNIST, seed=seed, num_workers=num_workers, batch_size=32)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([inputs for inputs, _ in loader])

    before = torch.get_rng_state()
    first = epoch(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(epoch(0, 0), first)
    assert not torch.equal(epoch(0, 1), first)
    assert not torch.equal(epoch(1, 0), first)


def test_a_data_module_travels_to_another_process(tmp_path):
    write_idx_folder(tmp_path, "mnist")
    data = tiny(tmp_path, MNIST)
    there = pickle.loads(pickle.dumps(data))
    assert torch.equal(there.example_input(), data.example_input())


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    folder = write_idx_folder(tmp_path, "mnist", 30, 10)
    write_idx(folder / "train-labels-idx1-ubyte.gz", torch.zeros(29))
    with pytest.raises(DataDamaged, match=r"train-images.* holds 30 images but train-labels.* 29"):
        tiny(tmp_path, MNIST).setup("fit")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("t10k-labels-idx1-ubyte.gz", torch.full((10,), 11), "labels are out of range"),
        ("t10k-images-idx3-ubyte.gz", torch.zeros(10, 32, 32), r"expected \(N, 1, 28, 28\)"),
    ],
)
def test_files_of_another_task_are_refused(tmp_path, name, values, message):
    folder = write_idx_folder(tmp_path, "mnist", 30, 10)
    write_idx(folder / name, values)
    with pytest.raises(InvalidArgument, match=f"mnist test: .*{message}"):
        tiny(tmp_path, MNIST).setup("fit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_val": 0}, "num_val must be at least 1 and below the 30 .* got 0"),
        ({"num_val": 30}, "num_val must be at least 1 and below the 30 .* got 30"),
        ({"subset": 0}, "subset must be between 1 and the 20 training examples, got 0"),
        ({"subset": 21}, "subset must be between 1 and the 20 training examples, got 21"),
    ],
)
def test_sizes_that_are_not_there_are_refused(tmp_path, changes, message):
    write_idx_folder(tmp_path, "mnist", 30, 10)
    with pytest.raises(InvalidArgument, match=message):
        tiny(tmp_path, MNIST, **changes).setup("fit")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("position", range(4))
def test_every_file_is_compared_with_its_checksum(tmp_path, suffix, position):
    for form in ("", ".gz"):
        folder = write_idx_folder(tmp_path / "all", "mnist", 30, 10, suffix=form)
    module = published(folder, "mnist")
    there = tmp_path / "some" / "mnist"
    there.mkdir(parents=True)
    for file in module.source.files:
        shutil.copy(folder / f"{file.name}{suffix}", there)
    tiny(tmp_path / "some", module, verify=True).setup("fit")

    damaged = there / f"{module.source.files[position].name}{suffix}"
    content = bytearray(damaged.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    damaged.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    told = f"{re.escape(str(damaged))} is not .* its SHA-256 is {found}, expected {expected}"
    with pytest.raises(DataDamaged, match=told + r".*download=true.*verify=false"):
        tiny(tmp_path / "some", module, verify=True).setup("fit")


@pytest.mark.parametrize("data", SETS)
def test_files_of_another_set_are_refused_unless_asked_for(tmp_path, data):
    write_idx_folder(tmp_path, data.source.name)
    with pytest.raises(DataDamaged, match="is not the published file"):
        data(data_dir=tmp_path).setup("fit")


@pytest.mark.parametrize(("name", "data"), [("fashion_mnist", FashionMNIST), ("mnist", MNIST)])
def test_the_configuration_names_every_option_with_its_default(name, data):
    told = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml"))
    defaults = {key: value.default for key, value in signature(data).parameters.items()}
    given = {"seed": "${seed}", "data_dir": "${paths.data_dir}"}
    assert told == defaults | given | {"_target_": f"esper_lightning.tolaria.{data.__name__}"}
    own = {"val_fraction", "test_fraction", "classes", "label_noise"}
    shared = signature(Digits).parameters.keys() - own
    assert shared < defaults.keys()


def test_fashion_mnist_is_what_its_authors_published():
    data = FashionMNIST(data_dir=data_dir("fashion-mnist"), subset=6000)
    train, val, test = data.splits
    assert [len(train), len(val), len(test)] == [6000, 5000, 10000]
    for part, share in ((train, 600), (val, 500), (test, 1000)):
        assert torch.bincount(part.labels).tolist() == [share] * 10


def test_no_image_of_fashion_mnist_is_in_two_splits_and_their_statistics_are_the_published():
    train, val, test = FashionMNIST(data_dir=data_dir("fashion-mnist")).splits
    assert [len(train), len(val), len(test)] == [55000, 5000, 10000]
    every = torch.cat([train.inputs, val.inputs]).double() / 255
    assert round(float(every.mean()), 4) == train.mean == 0.2860
    assert round(float(every.std(unbiased=False)), 4) == train.std == 0.3530
    parts = [set(pixels(part)) for part in (train, val, test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
