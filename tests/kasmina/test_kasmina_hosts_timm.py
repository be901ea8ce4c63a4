"""Slots in a ResNet of timm, where timm is installed."""

import copy

import pytest
import torch

from esper_lightning import karn
from esper_lightning.kasmina import SeedSlot, insert_slots, possible_slots, probing, regraft
from esper_lightning.leyline import GrownSeed

timm = pytest.importorskip(
    "timm", reason="timm needs torchvision, which is not there for every build of torch"
)


def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model("resnet18", pretrained=False, num_classes=5)
    return model.eval()


def test_a_resnet_of_timm_grows_and_returns_from_its_state() -> None:
    model, x = resnet(), torch.randn(2, 3, 48, 40)
    suggested = [slot.path for slot in possible_slots(model, lambda: model(x)) if slot.suggested]
    assert {"conv1", "layer1.0", "layer2.0", "layer4.1"} <= set(suggested)
    assert "fc" not in suggested
    plain = copy.deepcopy(model)
    slots = insert_slots(model, ["layer1.0", "layer2.0", "layer3.1.act1"], build=karn.build)
    with probing(model):
        model(x)
    assert torch.equal(model(x), plain(x))
    for slot in slots.values():
        assert isinstance(slot, SeedSlot)
        assert slot.record.shape is not None
        fossil = slot.construct("parallel_conv", {}, rng_seed=1)
        with torch.no_grad():
            for parameter in fossil.parameters():
                parameter.add_(0.01)
        slot.fossils.append(fossil)
        slot.record.fossils = [GrownSeed(slot=slot.path, blueprint="parallel_conv")]
    assert not torch.equal(model(x), plain(x))
    fresh = resnet()
    regraft(fresh, model.state_dict(), build=karn.build)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(fresh(x), model(x))
