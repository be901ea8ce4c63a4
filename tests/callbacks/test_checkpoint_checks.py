"""Checkpoints from which a fit cannot go on: said before a weight is loaded, with the remedy."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant
from torch import nn

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.leyline import DecodeError, InvalidArgument, UnsupportedTraining
from esper_lightning.tolaria import Tolaria

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def growing(slots: Sequence[str]) -> list[Callback]:
    lines = {0: [plant("net.0", "parallel_mlp")]}
    kasmina = Kasmina(slots=list(slots), monitor="val_loss", rules=FREE)
    return [Tamiyo(risk=False, policy=Script(lines)), kasmina]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of a grown network and one of a network that never had slots."""
    folder = tmp_path_factory.mktemp("saved")
    for name, callbacks in (("grown", growing(["net.0"])), ("plain", [])):
        trainer = plain_trainer(callbacks, epochs=2)
        trainer.fit(Plain(), *plain_data())
        trainer.save_checkpoint(folder / f"{name}.ckpt")
    return folder


def go_on(slots: Sequence[str], checkpoint: Path, module: LightningModule | None = None) -> None:
    trainer = plain_trainer(growing(slots), epochs=3)
    trainer.fit(module or Plain(), *plain_data(), ckpt_path=checkpoint)


# Slots


@pytest.mark.parametrize("slots", [["net.2"], ["net.0", "net.2"]])
def test_a_run_goes_on_with_its_own_slots_only(saved: Path, slots: list[str]) -> None:
    module = Plain()
    before = [parameter.clone() for parameter in module.parameters()]
    told = (
        rf"checkpoint's slots are \['net.0'\], those of this network are "
        rf"{str(slots).replace('[', '.')}.*Kasmina\(slots=\['net.0'\]\), kasmina.slots=\[net.0\]"
    )
    with pytest.raises(InvalidArgument, match=told):
        go_on(slots, saved / "grown.ckpt", module)
    after = module.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "nothing was loaded"
    go_on(["net.0"], saved / "grown.ckpt")


def test_a_network_that_never_had_slots_is_told_how_to_grow(saved: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"without slots.*\['net.0'\].*give the fit no ckpt"):
        go_on(["net.0"], saved / "plain.ckpt")
    module = Plain()  # and that remedy works
    module.load_state_dict(torch.load(saved / "plain.ckpt", weights_only=True)["state_dict"])
    plain_trainer(growing(["net.0"]), epochs=2).fit(module, *plain_data())
    assert any(".seed." in name for name in module.state_dict())


@pytest.mark.parametrize("name", ["grown", "plain"])
def test_evaluating_with_other_slots_is_refused_too(saved: Path, name: str) -> None:
    trainer = plain_trainer(growing(["net.2"]))
    with pytest.raises(InvalidArgument, match=r"this (network are|one has) \['net.2'\]"):
        trainer.validate(Plain(), plain_data()[1], ckpt_path=saved / f"{name}.ckpt", verbose=False)


def test_paths_are_told_as_they_are_given(tmp_path: Path) -> None:
    """Relative to the host of a Tolaria, which makes place for what a checkpoint holds."""

    def made() -> Tolaria:
        return Tolaria(host=Plain().net, num_classes=10)

    def fit(slot: str, **options: Any) -> Any:
        kasmina = Kasmina(slots=[slot], monitor="val/loss", rules=FREE)
        script = Script({0: [plant(slot, "parallel_mlp")]})
        trainer = plain_trainer([Tamiyo(risk=False, policy=script), kasmina], epochs=1)
        trainer.fit(made(), *plain_data(), **options)
        return trainer

    fit("0").save_checkpoint(tmp_path / "0.ckpt")
    with pytest.raises(InvalidArgument, match=r"slots are \['0'\], those of this.*\['2'\]"):
        fit("2", ckpt_path=tmp_path / "0.ckpt")
    trainer = plain_trainer([Kasmina(slots=["0"])])
    trainer.validate(made(), plain_data()[1], ckpt_path=tmp_path / "0.ckpt", verbose=False)


def test_a_slot_of_a_shared_module_is_one_slot(tmp_path: Path) -> None:
    class Shared(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net[2] = nn.Linear(6, 6)
            self.again = nn.ModuleList([self.net[2]])

    trainer = plain_trainer(growing(["net.2"]), epochs=2)
    trainer.fit(Shared(), *plain_data())
    trainer.save_checkpoint(tmp_path / "shared.ckpt")
    go_on(["net.2"], tmp_path / "shared.ckpt", Shared())


class Partial(Plain):
    """Saves a part of itself, and takes what there is."""

    leaves_out = ("net.4",)

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        whole = super().state_dict(*args, **kwargs)
        return {k: v for k, v in whole.items() if not k.startswith(self.leaves_out)}


def test_a_module_that_takes_a_part_may_miss_a_whole_slot_only(saved: Path, tmp_path: Path) -> None:
    trainer = plain_trainer(growing(["net.0", "net.2"]), epochs=2)
    module = Partial()
    module.leaves_out = ("net.2",)
    trainer.fit(module, *plain_data())
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    go_on(["net.0", "net.2"], tmp_path / "part.ckpt", Partial())
    with pytest.raises(InvalidArgument, match=r"those of this network are \['net.0', 'net.2'\]"):
        go_on(["net.0", "net.2"], saved / "grown.ckpt", Partial())  # net.2 would not be loaded


# Versions


@pytest.mark.parametrize("callback", ["Kasmina", "Tamiyo"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: {"version": 99}, "has version 99"),
        (lambda state: {**state, "version": "2b", "bed": 5, "policy": 5}, "has version '2b'"),
        (lambda state: {k: v for k, v in state.items() if k != "version"}, "has no version"),
        (lambda state: [1, 2], "has no version"),
    ],
)
def test_state_of_another_version_is_told_whatever_is_in_it(
    saved: Path, tmp_path: Path, callback: str, change: Callable[[Any], Any], told: str
) -> None:
    held = copy.deepcopy(torch.load(saved / "grown.ckpt", weights_only=True))
    held["callbacks"][callback] = change(held["callbacks"][callback])
    if callback == "Kasmina":
        held["esper_lightning"] = {"of": "another release"}
    torch.save(held, tmp_path / "other.ckpt")
    told = f"state of {callback} {told}, this release reads version 2; resume with"
    with pytest.raises(DecodeError, match=told):
        go_on(["net.0"], tmp_path / "other.ckpt")


# Finders


class Sized(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 8
        self.lr = 0.01

    def train_dataloader(self) -> Any:
        return plain_data(batch_size=self.batch_size)[0]

    def val_dataloader(self) -> Any:
        return plain_data()[1]


class Later(LearningRateFinder):
    """Finds nothing at the start."""

    def on_fit_start(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "finder",
    [
        lambda: BatchSizeFinder(mode="power", max_trials=1, steps_per_trial=1),
        lambda: LearningRateFinder(num_training_steps=2, early_stop_threshold=None),
    ],
    ids=["batch size", "rate"],
)
def test_a_finder_in_a_fit_that_goes_on_is_refused(
    saved: Path, tmp_path: Path, finder: Callable[[], Callback], first: bool
) -> None:
    found = finder()
    callbacks = [found, *growing(["net.0"])] if first else [*growing(["net.0"]), found]
    trainer = plain_trainer(callbacks, epochs=3, default_root_dir=tmp_path)
    told = f"{type(found).__name__} in a fit that goes on from.* step 12:.*leave it out"
    with pytest.raises(UnsupportedTraining, match=told):
        trainer.fit(Sized(), ckpt_path=saved / "grown.ckpt")
    assert not list(tmp_path.glob(".*.ckpt")), "no step was tried"


def test_a_finder_that_tries_nothing_at_the_start_may_stay(saved: Path, tmp_path: Path) -> None:
    trainer = plain_trainer([Later(), *growing(["net.0"])], epochs=3, default_root_dir=tmp_path)
    trainer.fit(Sized(), ckpt_path=saved / "grown.ckpt")
    assert trainer.current_epoch == 3
