"""CIFAR-10 from its python version: where files are found, what is refused, how they are split."""

import hashlib
import os
import pickle
import re
import shutil
import tarfile
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import (
    ARCHIVE,
    FOLDER,
    TRAIN,
    python2_batch,
    random_images,
    string,
    write_archive,
    write_batches,
)
from launching import CONF
from omegaconf import OmegaConf

from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.tolaria import CIFAR10
from esper_lightning.tolaria.data import (
    AugmentedPixels,
    DataDamaged,
    DataMissing,
    FashionMNIST,
    LabelledPixels,
)
from esper_lightning.tolaria.data.byte_pickle import ByteArray, read_byte_pickle


def tiny(path: Path, data: type[CIFAR10] = CIFAR10, **changes) -> CIFAR10:
    return data(**{"data_dir": path, "verify": False, "num_val": 10, **changes})


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pixels(examples) -> list[bytes]:
    return [image.numpy().tobytes() for image in examples.inputs]


def published(batches: Path, archive: Path) -> type[CIFAR10]:
    """A data module for which these are the published files."""
    source = replace(
        CIFAR10.source,
        archive_md5=md5(archive),
        archive_sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        mirrors=(f"{archive.parent.as_uri()}/",),
        train={name: md5(batches / name) for name in CIFAR10.source.train},
        test={name: md5(batches / name) for name in CIFAR10.source.test},
    )
    return type("Published", (CIFAR10,), {"source": source})


# Where files are found


@pytest.mark.parametrize("folder", [f"cifar10/{FOLDER}", FOLDER, "."])
def test_batches_are_found_in_every_place_that_is_documented(tmp_path, folder):
    write_batches(tmp_path, folder=folder)
    module = tiny(tmp_path)
    module.setup("fit")
    assert [len(examples) for examples in module.splits] == [50, 10, 20]
    assert (module.input_shape, module.num_classes, module.name) == ((3, 32, 32), 10, "CIFAR-10")
    assert module.example_input(3).shape == (3, 3, 32, 32)


@pytest.mark.parametrize("folder", ["cifar10", "."])
def test_the_archive_holds_the_same_images(tmp_path, folder):
    batches = write_batches(tmp_path / "unpacked")
    write_archive(tmp_path / "packed", batches, folder=folder)
    for ours, theirs in zip(
        tiny(tmp_path / "packed").splits, tiny(tmp_path / "unpacked").splits, strict=True
    ):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.labels, theirs.labels)
    assert [path.name for path in (tmp_path / "packed").rglob("*") if path.is_file()] == [ARCHIVE]


def test_batches_that_are_unpacked_come_before_the_archive(tmp_path):
    write_archive(tmp_path, write_batches(tmp_path / "other", 100, 20))
    write_batches(tmp_path, 60, 20)
    assert len(tiny(tmp_path).splits.train) == 50


def test_missing_files_are_told_with_every_place_and_what_to_do(tmp_path):
    folder = write_batches(tmp_path)
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataMissing) as error:
        tiny(tmp_path).setup("fit")
    message = str(error.value)
    assert "CIFAR-10 needs its python version" in message
    assert f"{folder}: no data_batch_3\n" in message
    assert f"{tmp_path / FOLDER}: none of them\n" in message
    assert f"{tmp_path / 'cifar10' / ARCHIVE}: no such file\n" in message
    assert f"{tmp_path / ARCHIVE}: no such file\n" in message
    assert f"Put {ARCHIVE} into {tmp_path / 'cifar10'}" in message
    assert "data.download=true" in message
    assert isinstance(error.value, EsperError)
    assert isinstance(error.value, FileNotFoundError)


def test_the_archive_is_fetched_when_it_is_missing_and_only_if_it_may(tmp_path):
    batches = write_batches(tmp_path / "there")
    archive = write_archive(tmp_path / "there", batches)
    module, here = published(batches, archive), tmp_path / "here"
    with pytest.raises(DataMissing, match="download=true"):
        module(data_dir=here, num_val=10).setup("fit")
    assert not here.exists()
    data = module(data_dir=here, num_val=10, download=True)
    assert len(data.splits.train) == 50
    before = (here / "cifar10" / ARCHIVE).stat()
    data.prepare_data()
    assert (here / "cifar10" / ARCHIVE).stat().st_mtime_ns == before.st_mtime_ns


# What is in them


def test_pixels_are_rows_of_red_then_green_then_blue(tmp_path):
    write_batches(tmp_path)
    module = tiny(tmp_path, augment=False)
    expected = torch.from_numpy(random_images(80))
    assert torch.equal(module.splits.test.inputs, expected[60:])
    assert module.splits.test.labels.tolist() == [i % 10 for i in range(20)]
    train, val, _ = module.splits
    assert set(pixels(train) + pixels(val)) == {image.numpy().tobytes() for image in expected[:60]}
    by_pixels = {image.numpy().tobytes(): index % 10 for index, image in enumerate(expected[:60])}
    for part in (train, val):
        assert part.labels.tolist() == [by_pixels[image] for image in pixels(part)]


def test_each_channel_is_scaled_by_its_own_mean_and_deviation(tmp_path):
    write_batches(tmp_path)
    module = tiny(tmp_path)
    inputs, _ = next(iter(module.test_dataloader()))
    for channel, (mean, std) in enumerate(zip(module.mean, module.std, strict=True)):
        expected = (module.splits.test.inputs[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(inputs[:, channel], expected.float(), rtol=0, atol=1e-6)


def test_a_subset_is_stratified_and_measured_on_the_same_images(tmp_path):
    write_batches(tmp_path, 120, 30)
    whole, small = tiny(tmp_path).splits, tiny(tmp_path, subset=50).splits
    assert torch.bincount(small.train.labels).tolist() == [5] * 10
    assert set(pixels(small.train)) < set(pixels(whole.train))
    assert pixels(small.val) == pixels(whole.val)
    assert pixels(small.test) == pixels(whole.test)
    other = tiny(tmp_path, split_seed=1, seed=3).splits
    assert pixels(other.val) != pixels(whole.val)
    assert pixels(other.test) == pixels(whole.test)
    assert pixels(tiny(tmp_path, seed=3).splits.train) == pixels(whole.train)


def test_training_images_are_augmented_by_the_seed_of_the_run_unless_told_otherwise(tmp_path):
    write_batches(tmp_path)
    train, val, test = tiny(tmp_path, seed=7).splits
    assert isinstance(train, AugmentedPixels)
    assert train.seed == 7
    plain = tiny(tmp_path, augment=False).splits.train
    assert {type(part) for part in (val, test, plain)} == {LabelledPixels}
    assert pixels(plain) == pixels(train)


@pytest.mark.parametrize("augment", [False, True])
def test_workers_give_the_same_batches_and_leave_the_generator_alone(tmp_path, augment):
    write_batches(tmp_path, 120, 30)

    def epoch(num_workers: int, number: int) -> torch.Tensor:
        module = tiny(tmp_path, num_workers=num_workers, batch_size=32, augment=augment)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([inputs for inputs, _ in loader])

    before = torch.get_rng_state()
    first = epoch(0, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(epoch(2, 1), first)
    assert not torch.equal(epoch(0, 2), first)


def test_a_data_module_travels_to_another_process(tmp_path):
    write_batches(tmp_path)
    data = tiny(tmp_path)
    there = pickle.loads(pickle.dumps(data))
    assert torch.equal(there.example_input(), data.example_input())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_val": 0}, "num_val must be at least 1 and below the 60 .* got 0"),
        ({"subset": 51}, "subset must be between 1 and the 50 training examples, got 51"),
        ({"batch_size": 0}, "CIFAR-10: batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_sizes_that_are_not_there_are_refused(tmp_path, changes, message):
    write_batches(tmp_path)
    with pytest.raises(InvalidArgument, match=message):
        tiny(tmp_path, **changes).setup("fit")


def test_the_configuration_names_every_option_with_its_default():
    told = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "cifar10.yaml"))
    defaults = {key: value.default for key, value in signature(CIFAR10).parameters.items()}
    given = {"seed": "${seed}", "data_dir": "${paths.data_dir}"}
    assert told == defaults | given | {"_target_": "esper_lightning.tolaria.CIFAR10"}
    assert signature(FashionMNIST).parameters.keys() < defaults.keys()


# Damage


def test_every_file_is_compared_with_its_checksum(tmp_path):
    batches = write_batches(tmp_path / "all")
    archive = write_archive(tmp_path / "all", batches)
    module = published(batches, archive)
    for form, path in [("batches", batches / name) for name in (*TRAIN, "test_batch")] + [
        ("archive", archive)
    ]:
        there = tmp_path / "some" / path.name
        if form == "batches":
            shutil.copytree(batches, there / FOLDER)
        else:
            there.mkdir(parents=True)
            shutil.copy(archive, there)
        tiny(there, module, verify=True).setup("fit")
        damaged = there / FOLDER / path.name if form == "batches" else there / path.name
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        told = f"{re.escape(str(damaged))} is not .* MD5 is {md5(damaged)}, expected {md5(path)}"
        with pytest.raises(DataDamaged, match=told + r".*download=true.*verify=false"):
            tiny(there, module, verify=True).setup("fit")


def test_files_of_another_set_are_refused_unless_asked_for(tmp_path):
    batches = write_batches(tmp_path)
    with pytest.raises(DataDamaged, match="data_batch_1 is not the published file"):
        CIFAR10(data_dir=tmp_path).setup("fit")
    write_archive(tmp_path / "packed", batches)
    with pytest.raises(DataDamaged, match=f"{ARCHIVE} is not the published file"):
        CIFAR10(data_dir=tmp_path / "packed").setup("fit")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, share):
    archive = write_archive(tmp_path, write_batches(tmp_path / "other"))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        DataDamaged, match=f"{ARCHIVE}.*(cannot be unpacked|holds no).* in its place"
    ):
        tiny(tmp_path).setup("fit")


def test_names_in_an_archive_cannot_write_anywhere_or_stand_for_batches(tmp_path):
    batches = write_batches(tmp_path / "other")
    archive = write_archive(tmp_path, batches)
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(batches.iterdir()):
            file.add(path, f"../{FOLDER}/{path.name}")
        link = tarfile.TarInfo(f"{FOLDER}/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(batches / "test_batch")
        file.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataDamaged, match=f"holds no {FOLDER}/data_batch_1, .*{FOLDER}/test_batch"):
        tiny(tmp_path).setup("fit")
    assert sorted(tmp_path.rglob("*")) == before


ROWS = random_images(12).reshape(-1, 3072)
LABELS = [i % 10 for i in range(12)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a pickle .*put a whole copy"),
        (b"\x80\x02}", "cannot be read as a pickle"),
        (python2_batch(ROWS, LABELS)[:-5000], "cannot be read as a pickle"),
        (pickle.dumps([1, 2]), "holds a list, expected a dictionary"),
        (python2_batch(ROWS, LABELS[:-1]), "holds 12 images but 11 labels"),
        (
            python2_batch(ROWS[:, :-1], LABELS),
            r"array of shape \(12, 3071\), expected .* \(N, 3072\)",
        ),
        (python2_batch(ROWS, LABELS, keys=(b"date", b"labels")), "'data' is NoneType"),
        (python2_batch(ROWS, LABELS, keys=(b"data", b"fine_labels")), "'labels' must be a list"),
        (python2_batch(ROWS, [-1] * 12), "'labels' must be a list of the classes"),
        (pickle.dumps({"data": ROWS, "labels": ["1"] * 12}), "'labels' must be a list"),
        (pickle.dumps({"data": ROWS.astype(float), "labels": LABELS}), "array of 'f8', allowed"),
        (python2_batch(ROWS, [10] * 12), "CIFAR-10 train: .* labels are out of range"),
    ],
)
def test_batches_that_are_none_are_refused(tmp_path, content, message):
    folder = write_batches(tmp_path)
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises((DataDamaged, InvalidArgument), match=message):
        tiny(tmp_path).setup("fit")


# Pickles


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_and_plain_values_of_python_3_are_read(protocol, order):
    rows = np.asarray(ROWS, order=order)
    table = {"data": rows, b"labels": LABELS, "more": (1.5, None, True, ["a"], b"b", 2**70)}
    found = read_byte_pickle(pickle.dumps(table, protocol=protocol), what="it")
    assert isinstance(found["data"], ByteArray)
    assert found["data"].values.dtype == np.uint8
    assert np.array_equal(found["data"].values, rows)
    assert {**found, "data": 0} == {**table, "data": 0}


def test_a_pickle_of_python_2_is_read():
    found = read_byte_pickle(python2_batch(ROWS, LABELS), what="it")
    assert np.array_equal(found[b"data"].values, ROWS)
    assert found[b"labels"] == LABELS
    assert found[b"batch_label"] == b"training batch 1 of 5"


class Hostile:
    """Asks to be made by a function of the pickle's choice."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(path: Path) -> dict[str, bytes]:
    command = b"mkdir " + str(path).encode()
    return {
        "eval": pickle.dumps(Hostile(eval, f"__import__('os').mkdir({str(path)!r})")),
        "mkdir": pickle.dumps({"data": Hostile(os.mkdir, str(path))}),
        "os.system": b"\x80\x02cposix\nsystem\n(" + string(command) + b"tR.",
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        "protocol 0": b"cos\nsystem\n(S'" + command + b"'\ntR.",
        "instance": b"(S'" + command + b"'\nios\nsystem\n.",
        "numpy": pickle.dumps(Hostile(np.save, str(path), ROWS)),
        "numpy file": b"\x80\x02cnumpy\nfromfile\n.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02K\x01Q.",
        "class state": b"\x80\x02cnumpy\ndtype\n}" + string(b"x") + b"K\x01sb.",
        "deep": b"(" * 100 + b"]" * 10,
        "huge": b"\x80\x04\x8e" + b"\xff" * 8,
        "objects": pickle.dumps({"data": np.array([Hostile(os.mkdir, str(path))], dtype=object)}),
    }


@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_a_pickle_that_asks_for_anything_else_is_refused_before_it_runs(tmp_path, kind):
    trace = tmp_path / "trace"
    content = hostile(trace)[kind]
    with pytest.raises(DataDamaged, match="it cannot be read as a pickle"):
        read_byte_pickle(content, what="it")
    assert not trace.exists()
    folder = write_batches(tmp_path)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DataDamaged, match="data_batch_1 cannot be read"):
        tiny(tmp_path).setup("fit")
    assert not trace.exists()


def test_what_a_hostile_pickle_asks_for_would_leave_a_trace(tmp_path):
    trace = tmp_path / "trace"
    for kind in ("eval", "mkdir", "os.system", "protocol 0", "instance", "objects"):
        pickle.loads(hostile(trace)[kind])
        trace.rmdir()


def test_a_state_that_does_not_fit_its_array_is_refused():
    content = python2_batch(ROWS, LABELS)
    shorter = content.replace(b"J" + (12).to_bytes(4, "little"), b"J" + (13).to_bytes(4, "little"))
    assert shorter != content
    with pytest.raises(DataDamaged, match="cannot reshape"):
        read_byte_pickle(shorter, what="it")
