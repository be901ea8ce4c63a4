"""Adapters: equal at first, the base untouched, kept as PEFT keeps them."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from sampled_episodes import episodes, observations

from esper_lightning.leyline import DecodeError, InvalidArgument
from esper_lightning.simic.adapters import NOTE_NAME, TARGETS, Adapted, digest_of
from esper_lightning.simic.learning.round import see, tell
from esper_lightning.simic.softening import softened
from esper_lightning.tamiyo.learned import Actor, StoredPolicy

BASE = StoredPolicy.load("cloned")


def likeliest(odds):
    return int(odds.argmax())


def told(network):
    return tell(network, see(episodes(BASE, 4)).rows)


def moved(adapted, seed=1, scale=0.05):
    """As after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


def other_base():
    network = StoredPolicy.from_bytes(BASE.to_bytes()).network
    with torch.no_grad():
        network.value.bias.add_(1e-3)
    return StoredPolicy.of(network, name="other", version=1)


def test_at_first_it_says_what_its_base_says():
    adapted = Adapted(BASE).eval()
    one, other = told(adapted.network), told(BASE.network)
    assert one.log_probabilities.equal(other.log_probabilities)
    assert one.values.equal(other.values)


def test_every_linear_layer_behind_the_features_has_an_adapter():
    adapted = Adapted(BASE, rank=3)
    with_one = {
        key.split(".lora_A")[0] for key in adapted.network.state_dict() if ".lora_A." in key
    }
    linear = {
        name for name, each in BASE.network.named_modules() if isinstance(each, torch.nn.Linear)
    }
    embeddings = {f"encoder.embed.{name}" for name in ("run", "layers", "slots", "blueprints")}
    assert linear - with_one == {*embeddings, "value_expand"}
    assert with_one <= linear
    assert {name.rpartition(".")[2] for name in with_one} == set(TARGETS)
    own = {name for name, each in adapted.named_parameters() if each.requires_grad}
    assert own == set(adapted.learned())
    assert all("lora_" in name or "value_expand.modules_to_save" in name for name in own)


def test_the_base_is_frozen_through_training():
    adapted = Adapted(BASE)
    before = adapted.learned()
    before = {key: value.clone() for key, value in before.items()}
    kept = {key: value.clone() for key, value in adapted.state_dict().items() if key not in before}
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1, weight_decay=0.1)
    found = episodes(BASE, 4)
    steps = [step for each in found for step in each.steps]
    for _ in range(3):
        evaluated = adapted.network.evaluate(
            [step.observation for step in steps], [step.actions for step in steps]
        )
        optimizer.zero_grad()
        (evaluated.log_probabilities.sum() + evaluated.values.square().sum()).backward()
        optimizer.step()
    adapted.check_frozen()
    after = adapted.state_dict()
    assert all(value.equal(after[key]) for key, value in kept.items())
    assert digest_of(adapted.network) == digest_of(BASE.network)
    assert sum(not value.equal(after[key]) for key, value in before.items()) > len(before) / 2


def test_a_base_that_changed_is_told():
    adapted = Adapted(BASE)
    with torch.no_grad():
        adapted.network.encoder.standard["run"].mean[0] += 1
    with pytest.raises(InvalidArgument, match="weights of the base learned@1 have the digest"):
        adapted.check_frozen()
    with pytest.raises(InvalidArgument, match="train the parameters that require gradients"):
        adapted.merged(name="x", version=2)


def test_without_adapters_it_is_the_base():
    adapted = moved(Adapted(BASE))
    expected = told(BASE.network)
    with adapted.base_alone() as network:
        found = told(network)
    assert found.log_probabilities.equal(expected.log_probabilities)
    assert found.values.equal(expected.values)
    assert not told(adapted.network).values.equal(expected.values)
    assert {name for name, each in adapted.named_parameters() if each.requires_grad} == set(
        adapted.learned()
    )


def test_merged_it_decides_the_same_and_acts():
    adapted = moved(Adapted(BASE))
    policy = adapted.merged(name="mine", version=4, provenance={"by": "test"})
    one, other = told(adapted.network), told(policy.network)
    torch.testing.assert_close(one.log_probabilities, other.log_probabilities, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(one.values, other.values, atol=1e-4, rtol=1e-4)
    answered = Actor(policy.network).choose(observations()[0], likeliest)
    with torch.no_grad():
        evaluated = adapted.network.evaluate([observations()[0]], [answered.actions])
    assert evaluated.values.item() == pytest.approx(answered.value, abs=1e-4)
    again = StoredPolicy.from_bytes(policy.to_bytes())
    assert again.card == policy.card
    assert again.card.provenance == {
        "by": "test",
        "base": {
            "name": BASE.card.name,
            "version": BASE.card.version,
            "digest": digest_of(BASE.network),
            "provenance": "behaviour cloning",
        },
    }
    # To merge is to copy: it goes on from where it was.
    assert told(adapted.network).values.equal(one.values)


def test_saved_as_peft_saves_and_read_again(tmp_path: Path):
    adapted = moved(Adapted(BASE, rank=4, alpha=8.0))
    adapted.save(tmp_path / "adapters", version=9)
    config = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
    weights = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    assert len(weights) == len(adapted.learned())
    loaded, note = Adapted.load(tmp_path / "adapters", BASE)
    assert (note.base, note.base_version, note.version) == (BASE.card.name, BASE.card.version, 9)
    assert note.base_digest == digest_of(BASE.network)
    assert told(loaded.eval().network).values.equal(told(adapted.network).values)
    assert all(value.equal(loaded.learned()[key]) for key, value in adapted.learned().items())
    assert {name for name, each in loaded.named_parameters() if each.requires_grad} == set(
        loaded.learned()
    )
    foreign = PeftModel.from_pretrained(
        StoredPolicy.load("cloned").network, str(tmp_path / "adapters")
    ).base_model.model
    assert told(foreign.eval()).values.equal(told(adapted.network).values)


def test_another_base_is_refused(tmp_path: Path):
    Adapted(BASE).save(tmp_path, version=1)
    with pytest.raises(InvalidArgument, match="are for learned@1 with the digest .*got other@1"):
        Adapted.load(tmp_path, other_base())


@pytest.mark.parametrize("name", [NOTE_NAME, "adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name):
    Adapted(BASE).save(tmp_path, version=1)
    (tmp_path / name).unlink()
    with pytest.raises(InvalidArgument, match=f"has no {name}"):
        Adapted.load(tmp_path, BASE)


def test_a_damaged_note_is_refused(tmp_path: Path):
    Adapted(BASE).save(tmp_path, version=1)
    (tmp_path / NOTE_NAME).write_text('{"base": "learned"')
    with pytest.raises(DecodeError, match="is damaged"):
        Adapted.load(tmp_path, BASE)


def test_a_digest_is_of_names_types_and_numbers():
    first = digest_of(BASE.network)
    assert first == digest_of(StoredPolicy.from_bytes(BASE.to_bytes()).network)
    assert first == digest_of(moved(Adapted(BASE)).network)
    assert first != digest_of(other_base().network)
    assert first != digest_of(StoredPolicy.load("cloned").network.double())


def test_what_comes_with_the_package_was_learned_from_the_clone_that_comes_with_it():
    told = StoredPolicy.load().card.provenance
    assert told["by"] == "PPO"
    assert told["base"]["digest"] == digest_of(softened(BASE, 3.0).network)
