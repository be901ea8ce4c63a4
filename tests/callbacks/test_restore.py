"""A grown module of somebody else's comes back from its checkpoint."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import FREE, Plain, Script, plain_data, plain_trainer, plant, same, tell, weights
from torch import nn

from esper_lightning import karn
from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.kasmina import restore
from esper_lightning.leyline import (
    CommandKind,
    DecodeError,
    InvalidArgument,
    UnknownBlueprint,
    UnknownSlot,
)
from esper_lightning.tolaria import Tolaria

LINES = {
    0: [plant("net.0", "parallel_mlp"), plant("net.2", "gated_mlp")],
    3: [tell(CommandKind.FOSSILIZE, "net.0")],
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plain, Path]:
    """A module with a fossil and a seed on trial, and its checkpoint."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, folder = Plain(), tmp_path_factory.mktemp("grown")
    trainer = plain_trainer(
        [
            Kasmina(slots=["net.0", "net.2"], monitor="val_loss", rules=FREE),
            Tamiyo(risk=False, policy=Script(LINES)),
        ],
        epochs=5,
    )
    trainer.fit(module, *plain_data())
    trainer.save_checkpoint(folder / "end.ckpt")
    return module, folder / "end.ckpt"


def test_a_fresh_module_becomes_the_grown_one(grown: tuple[Plain, Path]) -> None:
    module, path = grown
    torch.manual_seed(1)
    for given in (path, str(path), torch.load(path, weights_only=True)):
        again = restore(Plain(), given, build=karn.build)
        assert same(weights(again), weights(module))
        x = torch.randn(7, 64)
        assert torch.equal(again.eval().net(x), module.eval().net(x))
    assert len(again.net[0].fossils) == 1
    assert again.net[2].seed is not None


def test_a_restored_module_may_be_restored_again(grown: tuple[Plain, Path]) -> None:
    module, path = grown
    again = restore(restore(Plain(), path, build=karn.build), path, build=karn.build)
    assert same(weights(again), weights(module))


def test_a_live_seed_is_told_to_go_on_with_its_run(grown: tuple[Plain, Path]) -> None:
    again = restore(Plain(), grown[1], build=karn.build)
    with pytest.raises(InvalidArgument, match=r"'net.2'\] hold live seeds of an earlier run"):
        plain_trainer([Kasmina(slots=["net.0", "net.2"], monitor="val_loss")]).fit(
            again, *plain_data()
        )


def test_a_file_that_is_missing_or_damaged(grown: tuple[Plain, Path], tmp_path: Path) -> None:
    module = Plain()
    before = weights(module)
    with pytest.raises(InvalidArgument, match=r"nowhere.ckpt': there is no such file"):
        restore(module, tmp_path / "nowhere.ckpt", build=karn.build)
    whole = grown[1].read_bytes()
    path = tmp_path / "damaged.ckpt"
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint at all"):
        path.write_bytes(damaged)
        with pytest.raises(DecodeError, match=r"damaged.ckpt' is damaged"):
            restore(module, path, build=karn.build)
    assert same(weights(module), before)


class Anything:
    """Not a plain value."""


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({"state_dict": Anything()}, r"holds more than tensors.*weights_only=False"),
        ([1, 2], "it holds a list"),
        ({"weights": {}}, r"has no state_dict, but \['weights'\]"),
        ({"state_dict": {"net.0.weight": torch.ones(1)}}, "holds no slots.*load_state_dict"),
    ],
)
def test_what_is_no_checkpoint_of_a_grown_network(tmp_path: Path, held: Any, told: str) -> None:
    torch.save(held, tmp_path / "other.ckpt")
    with pytest.raises(DecodeError, match=told):
        restore(Plain(), tmp_path / "other.ckpt", build=karn.build)


def test_a_module_that_does_not_fit(grown: tuple[Plain, Path]) -> None:
    with pytest.raises(UnknownSlot, match=r"'net.0' is not a module of the host"):
        restore(nn.Linear(2, 2), grown[1], build=karn.build)
    wider = Plain()
    wider.net[4] = nn.Linear(6, 11)
    with pytest.raises(InvalidArgument, match=r"does not fit this Plain: size mismatch.*net.4"):
        restore(wider, grown[1], build=karn.build)
    more = Plain()
    more.extra = nn.Linear(2, 2)
    with pytest.raises(InvalidArgument, match=r"Missing key.*extra.weight.*Construct the module"):
        restore(more, grown[1], build=karn.build)


def test_what_is_gone_or_of_another_version_is_named(grown: tuple[Plain, Path]) -> None:
    held = torch.load(grown[1], weights_only=True)
    with pytest.raises(UnknownBlueprint, match=r"slot 'net.2' cannot.*no blueprint 'gated_map'"):
        restore(Plain(), _edited(held, b"gated_mlp", b"gated_map"), build=karn.build)
    with pytest.raises(DecodeError, match=r"version 9; this release reads version 1; load it"):
        restore(Plain(), _edited(held, b'"version":1', b'"version":9'), build=karn.build)


def test_what_grew_by_a_function_of_ones_own_loads_with_it(tmp_path: Path) -> None:
    def build(name: str, parameters: Any, shape: Any) -> Any:
        return karn.build("parallel_mlp" if name == "mine" else name, parameters, shape)

    def made(**options: Any) -> Tolaria:
        return Tolaria(host=Plain().net, num_classes=10, **options)

    kasmina = Kasmina(slots=["0"], rules=FREE, build=build)
    trainer = plain_trainer(
        [kasmina, Tamiyo(risk=False, policy=Script({0: [plant("0", "mine")]}))], epochs=2
    )
    module = made()
    trainer.fit(module, *plain_data())
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    load = functools.partial(
        Tolaria.load_from_checkpoint, tmp_path / "mine.ckpt", num_classes=10, weights_only=True
    )
    assert same(weights(load(host=Plain().net, build=build)), weights(module))
    with pytest.raises(UnknownBlueprint, match=r"no blueprint 'mine'.*build=... of .*Tolaria.load"):
        load(host=Plain().net)


def _edited(held: dict[str, Any], old: bytes, new: bytes) -> dict[str, Any]:
    edited = copy.deepcopy(held)
    for name, value in edited["state_dict"].items():
        if name.endswith("_extra_state"):
            raw = value.numpy().tobytes().replace(old, new)
            edited["state_dict"][name] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    return edited
