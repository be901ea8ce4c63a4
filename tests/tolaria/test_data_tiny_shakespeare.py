"""A text: where it is found, what is refused, how it is cut, and what an epoch is."""

import hashlib
import pickle
import re
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from data_dir import data_dir
from launching import CONF
from omegaconf import OmegaConf
from text_files import tiny, write_text, written_text

from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.tolaria import TinyShakespeare
from esper_lightning.tolaria.data import DataDamaged, DataMissing, Digits, DownloadFailed

PLACES = TinyShakespeare.source.places


def text_of(data: TinyShakespeare, ids: torch.Tensor) -> str:
    return "".join(data.vocabulary[index] for index in ids.flatten().tolist())


def published(path: Path) -> type[TinyShakespeare]:
    """A data module for which the file at ``path`` is the published one."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    source = replace(TinyShakespeare.source, num_bytes=len(content), sha256=sha256)
    return type("Published", (TinyShakespeare,), {"source": source})


@pytest.mark.parametrize("place", PLACES)
def test_the_file_is_found_in_every_place_that_is_documented(tmp_path, place):
    write_text(tmp_path, place=place)
    data = tiny(tmp_path)
    data.setup("fit")
    assert (data.input_shape, data.label_shape, data.num_classes) == ((16,), (16,), 22)
    assert data.example_input(3).shape == (3, 16)
    assert data.example_input().is_contiguous()


def test_an_earlier_place_comes_first(tmp_path):
    for number, place in enumerate(PLACES):
        write_text(tmp_path, 1000 * (len(PLACES) - number), place=place)
    assert len(tiny(tmp_path).splits.train.ids) == 3600


def test_a_missing_file_is_told_with_every_place_and_what_to_do(tmp_path):
    with pytest.raises(DataMissing) as error:
        tiny(tmp_path).setup("fit")
    for place in PLACES:
        assert str(tmp_path / place) in str(error.value)
    assert "data.download=true" in str(error.value)
    assert isinstance(error.value, EsperError)
    assert isinstance(error.value, FileNotFoundError)


def test_the_published_file_is_known_by_its_checksum(tmp_path):
    path = write_text(tmp_path)
    module = published(path)
    data = module(data_dir=tmp_path, context=16)
    data.setup("fit")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataDamaged, match=r"is cut short: 3999 bytes, the published file has 4000"):
        module(data_dir=tmp_path, context=16).setup("fit")
    path.write_bytes(content[:-1] + b"?")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    told = f"{re.escape(str(path))} is not the published file: its SHA-256 is {found}, expected"
    with pytest.raises(DataDamaged, match=told + r".*download=true.*verify=false"):
        module(data_dir=tmp_path, context=16).setup("fit")
    module(data_dir=tmp_path, context=16, verify=False).setup("fit")


def test_a_text_of_your_own_brings_its_own_characters(tmp_path):
    path = write_text(tmp_path)
    path.write_bytes(("zé☃\r\n" * 300).encode())
    data = tiny(tmp_path)
    assert data.vocabulary == "\n\rzé☃"
    assert data.num_classes == 5
    path.write_bytes(b"\xff\xfe" * 900)
    with pytest.raises(DataDamaged, match="is no UTF-8 text"):
        tiny(tmp_path).setup("fit")


def test_a_download_goes_to_the_first_place_and_only_if_it_may(tmp_path):
    served = write_text(tmp_path / "served", place="input.txt")
    source = replace(published(served).source, mirrors=(served.parent.as_uri() + "/",))
    module = type("Mirrored", (TinyShakespeare,), {"source": source})
    there = tmp_path / "data"
    with pytest.raises(DataMissing):
        module(data_dir=there, context=16).setup("fit")
    assert not there.exists()
    module(data_dir=there, context=16, download=True).setup("fit")
    assert (there / PLACES[0]).read_bytes() == served.read_bytes()
    served.unlink()
    module(data_dir=there, context=16, download=True).setup("fit")
    with pytest.raises(DownloadFailed, match="input.txt could not be downloaded"):
        module(data_dir=tmp_path / "other", context=16, download=True).setup("fit")


def test_the_three_parts_are_the_text_as_it_stands_and_share_no_character(tmp_path):
    write_text(tmp_path)
    data = tiny(tmp_path)
    text = written_text()
    parts = [text_of(data, part.ids) for part in data.splits]
    assert "".join(parts) == text
    assert [len(part) for part in parts] == [3600, 200, 200]
    assert data.vocabulary == "".join(sorted(set(text)))
    train, val, test = data.splits
    for part, known in zip((val, test), parts[1:], strict=True):
        num = (len(known) - 1) // 16
        assert text_of(data, part.inputs) == known[: 16 * num]
        assert text_of(data, part.labels) == known[1 : 16 * num + 1]
    assert len(train) == 3600 - 16
    owners = {part.ids.data_ptr() for part in data.splits}
    assert len(owners) == 3
    other = tiny(tmp_path, val_fraction=0.25, test_fraction=0.1)
    assert [len(part.ids) for part in other.splits] == [2600, 1000, 400]


def epoch(data: TinyShakespeare, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def test_an_epoch_is_windows_that_do_not_overlap_with_what_comes_next(tmp_path):
    write_text(tmp_path)
    data = tiny(tmp_path, windows_per_epoch=None)
    batches = epoch(data, 0)
    assert [len(inputs) for inputs, _ in batches] == [8] * 28
    inputs = torch.cat([inputs for inputs, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(inputs[:, 1:], labels[:, :-1])
    train = text_of(data, data.splits.train.ids)
    order = data.train_order()
    order.set_epoch(0)
    starts = list(order)
    assert [text_of(data, row) for row in inputs] == [train[s : s + 16] for s in starts]
    assert [text_of(data, row) for row in labels] == [train[s + 1 : s + 17] for s in starts]
    assert len({s % 16 for s in starts}) == 1
    assert len(set(starts)) == 3584 // 16


def test_epochs_and_seeds_differ_and_the_global_generators_are_left_alone(tmp_path):
    write_text(tmp_path)
    before = torch.get_rng_state()
    found = {
        (seed, number): torch.cat([x for x, _ in epoch(tiny(tmp_path, seed=seed), number)])
        for seed in range(2)
        for number in range(2)
    }
    assert torch.equal(torch.get_rng_state(), before)
    assert {len(inputs) for inputs in found.values()} == {48}
    assert len({inputs.numpy().tobytes() for inputs in found.values()}) == 4
    again = torch.cat([x for x, _ in epoch(tiny(tmp_path, seed=1, num_workers=1), 1)])
    assert torch.equal(again, found[1, 1])


def test_splits_do_not_depend_on_the_seed_and_a_subset_is_the_beginning_of_train(tmp_path):
    write_text(tmp_path)
    torch.manual_seed(1)
    whole, other = tiny(tmp_path).splits, tiny(tmp_path, seed=3).splits
    small = tiny(tmp_path, subset=500)
    for one, two in zip(whole, other, strict=True):
        assert torch.equal(one.ids, two.ids)
    assert torch.equal(small.splits.train.ids, whole.train.ids[:500])
    assert torch.equal(small.splits.val.ids, whole.val.ids)
    assert torch.equal(small.splits.test.ids, whole.test.ids)
    assert len(torch.cat([x for x, _ in epoch(small, 0)])) == (500 - 16) // 16, "fewer than 48"


def test_a_data_module_travels_to_another_process(tmp_path):
    write_text(tmp_path)
    data = tiny(tmp_path)
    data.setup("fit")
    there = pickle.loads(pickle.dumps(data))
    assert torch.equal(there.example_input(), data.example_input())
    assert there.vocabulary == data.vocabulary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 0}, "context must be a whole number of at least 1, got 0"),
        ({"val_fraction": 0.0}, "must be above 0 and their sum below 1, got 0.0 and 0.05"),
        ({"test_fraction": 0.95}, "must be above 0 and their sum below 1, got 0.05 and 0.95"),
        ({"windows_per_epoch": 0}, "windows_per_epoch must be at least 1, or null .* got 0"),
        ({"subset": 0}, "subset must be between 1 and the 3600 characters of train, got 0"),
        ({"subset": 3601}, "subset must be between 1 and the 3600 .* got 3601"),
        ({"subset": 31}, "train: 31 characters are too few for windows of 16"),
        ({"context": 200}, "val: 200 characters are too few for a window of 200"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, changes, message):
    write_text(tmp_path)
    with pytest.raises(InvalidArgument, match=f"tiny_shakespeare.*{message}"):
        tiny(tmp_path, **changes).setup("fit")


def test_the_configuration_names_every_option_with_its_default():
    told = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "tiny_shakespeare.yaml"))
    defaults = {key: value.default for key, value in signature(TinyShakespeare).parameters.items()}
    given = {"seed": "${seed}", "data_dir": "${paths.data_dir}"}
    target = {"_target_": "esper_lightning.tolaria.TinyShakespeare"}
    assert told == defaults | given | target
    own = {"split_seed", "classes", "label_noise"}
    assert signature(Digits).parameters.keys() - own < defaults.keys()


def test_the_real_text_is_what_was_published():
    data = TinyShakespeare(data_dir=data_dir("text/tinyshakespeare.txt"))
    data.setup("fit")
    assert data.num_classes == len(data.vocabulary) == 65
    assert data.vocabulary.startswith("\n !$&',-.3:;?ABC")
    assert [len(part.ids) for part in data.splits] == [1_003_854, 55_770, 55_770]
    assert [len(part) for part in data.splits[1:]] == [871, 871]
    assert text_of(data, data.splits.train.ids[:14]) == "First Citizen:"
    assert len(data.train_order()) == 1024
    assert len(TinyShakespeare(data_dir=data.data_dir, windows_per_epoch=None).train_order()) == (
        1_003_790 // 64
    )
