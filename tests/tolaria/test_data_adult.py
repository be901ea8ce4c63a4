"""Adult: where its files are found, how rows become features, what is refused."""

import hashlib
import math
import pickle
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from adult_files import FIRST_LINE_OF_TEST, line, row, text_of_test, text_of_train
from adult_files import write_adult_folder as write
from data_dir import data_dir
from launching import CONF
from omegaconf import OmegaConf

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria import Adult, FashionMNIST
from esper_lightning.tolaria.data import DataDamaged, DataMissing, PublishedFile, hold_out_val
from esper_lightning.tolaria.data.adult_table import CATEGORIES, NUMBERS, read_table

REAL = ("tabular/adult_train.csv", "tabular/adult_test.csv")


def tiny(path: Path, **changes) -> Adult:
    return Adult(**{"data_dir": path, "verify": False, "num_val": 20, **changes})


def table(path: Path, *rows: dict[str, str]) -> torch.Tensor:
    path.write_text(text_of_train(list(rows)))
    return read_table(path).inputs


def rows(examples) -> list[bytes]:
    return [example.numpy().tobytes() for example in examples.inputs]


def decoded(example: torch.Tensor) -> dict[str, str]:
    """The categories of one input, from its one-hot vectors."""
    sizes = [len(values) for values in CATEGORIES.values()]
    parts = zip(CATEGORIES.items(), example[len(NUMBERS) :].split(sizes), strict=True)
    found = {}
    for (column, values), part in parts:
        assert sorted(part.tolist()) == [0.0] * (len(values) - 1) + [1.0]
        found[column] = values[int(part.argmax())]
    return found


@pytest.mark.parametrize("folder", [*Adult.source.folders, "."])
@pytest.mark.parametrize("copies", [False, True])
def test_files_are_found_in_every_place_and_form_that_is_documented(tmp_path, folder, copies):
    there = write(tmp_path, folder=folder)
    if copies:
        (there / "adult.data").rename(there / "adult_train.csv")
        text = (there / "adult.test").read_text().removeprefix(f"{FIRST_LINE_OF_TEST}\n")
        (there / "adult_test.csv").write_text(text)
        (there / "adult.test").unlink()
    module = tiny(tmp_path)
    module.setup("fit")
    assert [len(examples) for examples in module.splits] == [40, 20, 20]
    assert (module.input_shape, module.num_classes) == ((108,), 2)
    assert module.example_input(3).shape == (3, 108)
    assert module.example_input(3).dtype == torch.float32
    assert next(iter(module.train_dataloader()))[0].shape == (40, 108)


def test_missing_files_are_told_with_every_place_and_what_to_do(tmp_path):
    there = write(tmp_path)
    (there / "adult.test").unlink()
    with pytest.raises(DataMissing) as error:
        tiny(tmp_path).setup("fit")
    message = str(error.value)
    assert "adult needs 2 files" in message
    assert "adult.data or adult_train.csv\n" in message
    assert "adult.test or adult_test.csv\n" in message
    assert f"{there}: no adult.test\n" in message
    assert f"{tmp_path / 'tabular'}: none of them\n" in message
    assert f"{tmp_path}: none of them\n" in message
    assert "data.download=true" in message


def test_missing_files_are_fetched_as_they_are_published(tmp_path):
    served = write(tmp_path / "served")

    def published(file: PublishedFile) -> PublishedFile:
        content = (served / file.name).read_bytes()
        return replace(file, forms={file.name: hashlib.sha256(content).hexdigest()})

    source = Adult.source
    source = replace(
        source,
        mirrors=(f"{served.as_uri()}/",),
        train=published(source.train),
        test=published(source.test),
    )
    module = type("Served", (Adult,), {"source": source})
    there = tmp_path / "data"
    module(data_dir=there, num_val=20, download=True).setup("fit")
    assert sorted(path.name for path in (there / "adult").iterdir()) == ["adult.data", "adult.test"]
    (there / "adult/adult.data").write_text(text_of_train([row()] * 60))
    with pytest.raises(DataDamaged, match="adult.data is not the published file: its SHA-256"):
        module(data_dir=there, num_val=20).setup("fit")


@pytest.mark.parametrize("name", ["adult.data", "adult.test"])
def test_files_that_are_not_the_published_ones_are_refused_unless_asked_for(tmp_path, name):
    there = write(tmp_path)
    file = next(file for file in Adult.source.files if file.name == name)
    with pytest.raises(DataDamaged, match=f"{name} is not the published file.*verify=false"):
        file.verify(there / name)
    with pytest.raises(DataDamaged, match="adult.data is not the published file"):
        Adult(data_dir=tmp_path).setup("fit")


def test_a_row_becomes_numbers_and_positions_of_its_categories(tmp_path):
    values = row(7, age="39", capital_gain="2174", workclass="?", native_country="?", sex="Male")
    (found,) = table(tmp_path / "some", values).tolist()
    assert found[: len(NUMBERS)] == [float(values[column]) for column in NUMBERS]
    told = zip(CATEGORIES.items(), found[len(NUMBERS) :], strict=True)
    assert {column: allowed[int(code)] for (column, allowed), code in told} == {
        column: values[column] for column in CATEGORIES
    }


def test_labels_are_read_with_and_without_a_dot_and_lines_that_hold_no_example_passed_over(
    tmp_path,
):
    people = [row(i) for i in range(8)]
    (tmp_path / "data").write_text(text_of_train(people))
    (tmp_path / "test").write_text(text_of_test(people))
    (tmp_path / "other").write_bytes(text_of_test(people).replace("\n", " \r\n\r\n").encode())
    for name in ("data", "test", "other"):
        found = read_table(tmp_path / name)
        assert found.labels.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
        assert torch.equal(found.inputs, read_table(tmp_path / "data").inputs)


def test_categories_are_one_hot_over_lists_that_do_not_depend_on_the_data(tmp_path):
    there = write(tmp_path, 40, 5)
    told = [row(10_000 + i) for i in range(5)]
    examples = tiny(tmp_path, num_val=20).splits.test.inputs
    for values, example in zip(told, examples, strict=True):
        assert decoded(example) == {column: values[column] for column in CATEGORIES}
    (there / "adult.test").write_text(text_of_test([told[0]]))
    (alone,) = tiny(tmp_path, num_val=20).splits.test.inputs
    assert torch.equal(alone, examples[0])


def raw_numbers(inputs: torch.Tensor) -> torch.Tensor:
    columns = []
    for column, values in zip(NUMBERS, inputs.T, strict=False):
        columns.append(values.log1p() if column.startswith("capital") else values)
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("subset", [None, 50])
def test_numbers_are_standardised_by_train_alone(tmp_path, subset):
    there = write(tmp_path, 200, 50)
    tables = hold_out_val(
        *(read_table(there / name) for name in ("adult.data", "adult.test")),
        num_val=60,
        split_seed=0,
        subset=subset,
    )
    splits = tiny(tmp_path, num_val=60, subset=subset).splits
    scale = raw_numbers(tables.train.inputs)
    for found, told in zip(splits, tables, strict=True):
        expected = (raw_numbers(told.inputs) - scale.mean(0)) / scale.std(0, unbiased=False)
        torch.testing.assert_close(found.inputs[:, :6], expected.float())
        assert torch.equal(found.labels, told.labels)


def test_train_does_not_change_with_what_val_and_test_hold(tmp_path):
    there = write(tmp_path, 200, 50)
    before = tiny(tmp_path, num_val=60).splits
    everyone = read_table(there / "adult.data")
    val = hold_out_val(everyone, everyone, num_val=60, split_seed=0).val
    held_out = {int(weight) - 1000 for weight in val.inputs[:, 1]}
    assert len(held_out) == 60
    people = [row(i, **({"age": "9999"} if i in held_out else {})) for i in range(200)]
    (there / "adult.data").write_text(text_of_train(people))
    (there / "adult.test").write_text(text_of_test([row(i, age="9999") for i in range(50)]))
    after = tiny(tmp_path, num_val=60).splits
    assert torch.equal(after.train.inputs, before.train.inputs)
    assert float(after.val.inputs[:, 0].min()) > 100
    assert float(after.test.inputs[:, 0].min()) > 100


def test_a_number_that_is_the_same_everywhere_becomes_zero(tmp_path):
    there = write(tmp_path)
    (there / "adult.data").write_text(text_of_train([row(i, capital_loss="0") for i in range(60)]))
    train, val, test = tiny(tmp_path).splits
    column = NUMBERS.index("capital-loss")
    assert not train.inputs[:, column].any()
    assert not val.inputs[:, column].any()
    assert torch.isfinite(test.inputs).all()


def test_splits_are_disjoint_stratified_and_measured_on_the_same_people(tmp_path):
    write(tmp_path, 120, 30)
    whole, small = tiny(tmp_path).splits, tiny(tmp_path, subset=40).splits
    for part, share in ((whole.train, 25), (whole.val, 5), (small.train, 10), (small.val, 5)):
        assert torch.bincount(part.labels).tolist() == [3 * share, share]
    assert len({*rows(whole.train), *rows(whole.val)}) == 120

    def categories(examples) -> list[bytes]:
        return [example[6:].numpy().tobytes() for example in examples.inputs]

    assert categories(small.val) == categories(whole.val)
    assert categories(small.test) == categories(whole.test)
    assert set(categories(small.train)) < set(categories(whole.train))
    assert rows(tiny(tmp_path, seed=1).splits.val) == rows(whole.val)
    other = tiny(tmp_path, split_seed=1).splits
    assert categories(other.val) != categories(whole.val)
    assert categories(other.test) == categories(whole.test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workclass": "Privat"}, "workclass is 'Privat'; allowed are Private, .*, Never-worked, "),
        ({"sex": "?"}, "sex is '\\?'; allowed are Female, Male"),
        ({"native_country": ""}, "native-country is ''; allowed are United-States, Cambodia, "),
        ({"age": "?"}, "age is '\\?'; allowed are numbers of at least 0"),
        ({"capital_gain": "-1"}, "capital-gain is '-1'; allowed are numbers of at least 0"),
        ({"fnlwgt": "nan"}, "fnlwgt is 'nan'; allowed are numbers"),
        ({"hours_per_week": "inf"}, "hours-per-week is 'inf'; allowed are numbers"),
        ({"income": ">50"}, "income is '>50.'; allowed are <=50K, >50K"),
        ({"age": "39, Private"}, "16 values, expected 15 \\(age, workclass, .*income\\)"),
        ({"race": "\ufffd\x00"}, "race is .* allowed are White, "),
    ],
)
def test_a_value_that_is_not_allowed_is_told_with_its_line_and_column(tmp_path, changes, message):
    there = write(tmp_path)
    path = there / "adult.test"
    path.write_text(text_of_test([row(1), row(2, **changes)]), encoding="utf-8")
    with pytest.raises(DataDamaged, match=f"{path}, line 3: {message}.*Put the published file"):
        tiny(tmp_path).setup("fit")


def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut_within_a_row(tmp_path):
    path = tmp_path / "adult.data"
    whole = f"{line(row(1))}\n{line(row(2))}"
    start = whole.index("\n") + 2
    for end in range(start, len(whole)):
        path.write_text(whole[:end])
        with pytest.raises(DataDamaged, match="line 2: "):
            read_table(path)
    path.write_text(whole)
    assert len(read_table(path)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rows"),
        (b"|1x3 Cross validator\n\n", "holds no rows"),
        (bytes(range(256)) * 3000, "line 1: "),
        (b"x" * 200_000, "line 1: field larger than field limit"),
        (b"\n|1x3 Cross validator\n", "line 2: 1 values, expected 15"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "adult.data"
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match=f"{path}.*{message}"):
        read_table(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_val": 60}, "num_val must be at least 1 and below the 60 .* got 60"),
        ({"subset": 41}, "subset must be between 1 and the 40 training examples, got 41"),
        ({"batch_size": 0}, "adult: batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_sizes_that_are_not_there_are_refused(tmp_path, changes, message):
    write(tmp_path)
    with pytest.raises(InvalidArgument, match=message):
        tiny(tmp_path, **changes).setup("fit")


def test_a_data_module_travels_to_another_process(tmp_path):
    write(tmp_path)
    data = tiny(tmp_path)
    there = pickle.loads(pickle.dumps(data))
    assert torch.equal(there.example_input(), data.example_input())


def test_the_configuration_names_every_option_with_its_default():
    told = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "adult.yaml"))
    defaults = {key: value.default for key, value in signature(Adult).parameters.items()}
    given = {"seed": "${seed}", "data_dir": "${paths.data_dir}"}
    assert told == defaults | given | {"_target_": "esper_lightning.tolaria.Adult"}
    assert defaults.keys() == signature(FashionMNIST).parameters.keys()


def test_the_documents_name_every_value():
    text = (CONF.parent / "docs" / "data.md").read_text()
    for column, values in CATEGORIES.items():
        names = ", ".join(f"`{value}`" for value in values)
        assert f"| `{column}` | {len(values)} | {names} |" in text


def test_adult_is_what_its_authors_published():
    folder = data_dir(*REAL)
    train, val, test = Adult(data_dir=folder).splits
    assert [len(train), len(val), len(test)] == [27561, 5000, 16281]
    ones = [int(part.labels.sum()) for part in (train, val, test)]
    assert (ones[0] + ones[1], ones[2]) == (7841, 3846)
    assert ones[1] == round(5000 * 7841 / 32561)
    every = torch.cat([part.inputs for part in (train, val, test)])
    for column, used in zip(
        (f"{name}={value}" for name, values in CATEGORIES.items() for value in values),
        every[:, 6:].any(dim=0).tolist(),
        strict=True,
    ):
        assert used, f"nobody has {column}"
    assert math.isclose(float(train.inputs[:, :6].mean()), 0, abs_tol=1e-5)
    assert len(Adult(data_dir=folder, subset=6000).splits.train) == 6000


def test_the_official_test_file_is_its_copy_with_a_first_line(tmp_path):
    folder = data_dir(*REAL) / "tabular"
    first = f"{FIRST_LINE_OF_TEST}\n".encode()
    path = tmp_path / "adult.test"
    path.write_bytes(first + (folder / "adult_test.csv").read_bytes())
    Adult.source.test.verify(path)
    copy = read_table(folder / "adult_test.csv")
    assert torch.equal(read_table(path).inputs, copy.inputs)
    assert len(copy) == 16281
