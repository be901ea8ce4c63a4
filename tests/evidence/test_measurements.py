"""The commands that measure: that they run, and what they write. Never how long anything took."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from esper_lightning.callbacks import Kasmina
from esper_lightning.evidence import (
    device,
    incubation,
    library,
    overhead,
    planting,
    rollback,
    stack,
)
from esper_lightning.evidence.__main__ import COMMANDS, main
from esper_lightning.leyline import Signer
from esper_lightning.tezzeret import is_supported
from esper_lightning.urza import Library


def test_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "memory.json"
    main(["memory", "--cycles", "10", "--looks", "2", "--out", str(out)])
    told = json.loads(out.read_text())
    assert told["command"].startswith("memory --cycles 10")
    assert [line["cycles"] for line in told["figures"]] == [8, 10]
    assert told["machine"]["cores"] >= 1
    assert capsys.readouterr().out.startswith("| cycles | RSS MiB |")


@pytest.mark.slow
def test_overhead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "overhead.json"
    main(["overhead", "--fits", "2", "--turns", "2", "--size", "4", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert [(figure["arm"], figure["fits"]) for figure in figures] == [
        (overhead.BARE, 2),
        (overhead.SLOTS, 2),
        (overhead.LORA, 2),
        (overhead.BARE, 2),
        (overhead.SLOTS, 2),
    ]
    assert figures[0]["cpu_ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert all(figure["step_ms"] > 0 for figure in figures)
    assert "8 dormant slots" in capsys.readouterr().out


def test_a_disabled_adapter_leaves_the_host_to_train() -> None:
    net = overhead.convolutions()
    trained = sum(parameter.numel() for parameter in net.parameters())
    adapted = overhead.disabled_lora(net, overhead.CONVOLUTIONS)
    asked = dict(adapted.named_parameters())
    assert sum(p.numel() for p in asked.values() if p.requires_grad) == trained
    assert sum("lora_A" in name for name in asked) == len(overhead.CONVOLUTIONS) == 8


@pytest.mark.slow
def test_incubation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "incubation.json"
    main(["incubation", "--epochs", "2", "--steps", "6", "--size", "4", "--out", str(out)])
    figures = {figure["way"]: figure for figure in json.loads(out.read_text())["figures"]}
    assert list(figures) == list(incubation.WAYS)
    assert all(figure["epochs"] == 2 for figure in figures.values())
    flops = {way: figure["flops_ratio"] for way, figure in figures.items()}
    assert flops[incubation.NONE] == 1.0
    assert 1.0 < flops["straight-through"] < flops["straight-through, monitored"]
    assert 1.0 < flops["shadow, half of the batches"] < flops["shadow, every batch"]
    assert "shadow, every batch" in capsys.readouterr().out


@pytest.mark.slow
def test_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stack.json"
    main(["stack", "--epochs", "4", "--examples", "640", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert figures["epochs"] == 2
    assert figures["boundary"]["num"] == 6
    assert figures["boundary"]["p50"] > 0
    assert capsys.readouterr().out.startswith("| parameters | epoch s |")


def test_both_sides_of_the_stack_train_the_same_network() -> None:
    bare = stack._bare_network()
    model = stack._module(stack._host())
    kasmina = stack._stack()[0]
    assert isinstance(kasmina, Kasmina)
    kasmina.setup(Trainer(accelerator="cpu", logger=False), model, "fit")
    sizes = [sum(p.numel() for p in network.parameters()) for network in (bare, model)]
    assert sizes[0] == sizes[1] > sum(p.numel() for p in stack._host().parameters())


@pytest.mark.slow
def test_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "device.json"
    small = ("--width", "4", "--size", "8", "--batch-size", "4", "--epochs", "1", "--steps", "8")
    main(["device", "--accelerator", "cpu", *small, "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert [figure["arm"] for figure in figures] == [device.BARE, *device.ARMS]
    assert figures[0]["ratio"]["value"] == 1.0
    assert all(figure["step_ms"] > 0 and figure["turns"] == 2 for figure in figures)
    assert "3 coupled seeds" in capsys.readouterr().out


def test_the_host_of_the_device_benchmark_is_as_large_as_a_resnet_18() -> None:
    host = device.ResNet()
    assert sum(parameter.numel() for parameter in host.parameters()) == 11_172_170
    assert set(device.SEEDED) < set(device.SLOTS)


@pytest.mark.slow
def test_planting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "planting.json"
    main(["planting", "--epochs", "7", "--batches", "2", "--out", str(out)])
    (digits,) = json.loads(out.read_text())["figures"]
    assert digits["data"] == "digits"
    assert digits["command"]["num"] % len(planting.SLOTS) == 0
    assert digits["command"]["num"] >= 3
    assert digits["boundary"]["p50"] > 0
    assert digits["epoch_steps"] > 2
    assert "| digits |" in capsys.readouterr().out


def test_rollback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rollback.json"
    main(["rollback", "--widths", "4", "8", "--rounds", "2", "--out", str(out)])
    costs = json.loads(out.read_text())["figures"]
    assert [cost["across"] for cost in costs] == [*rollback.ACROSS] * 2
    small, large = costs[: len(rollback.ACROSS)], costs[len(rollback.ACROSS) :]
    assert all(a["parameters"] < b["parameters"] for a, b in zip(small, large, strict=True))
    for cost in costs:
        assert min(cost["copy_ms"], cost["fast_ms"], cost["full_ms"], cost["take_ms"]) > 0
    assert "| across | parameters | copy ms |" in capsys.readouterr().out
    parameters = {cost["across"]: cost["parameters"] for cost in small}
    assert parameters["graft"] < parameters["nothing"], "before the seeds"
    assert parameters["nothing"] == parameters["fossilisation"] == parameters["cull"]


@pytest.mark.slow
def test_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "library.json"
    few = ("--artifacts", "30", "--lookups", "40", "--processes", "2", "--kills", "2")
    main(["library", *few, "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert figures["artifacts"] == 30
    ways = {found["way"]: found for found in figures["lookups"]}
    assert ways.keys() >= {library.DICTIONARY, library.SQLITE, library.CACHED, library.COLD}
    assert [found["num"] for found in figures["lookups"]] == [30] * 5 + [2] * 2
    assert all(found["p99_us"] >= found["p50_us"] > 0 for found in figures["lookups"])
    assert ways[library.DICTIONARY]["over_dictionary"] == pytest.approx(1.0)
    assert figures["kills"]["kills"] == 2
    assert (figures["kills"]["lost"], figures["kills"]["damaged"]) == (0, 0)
    told = capsys.readouterr().out
    assert told.startswith("| look-up |")
    assert "| kills |" in told


def test_a_library_that_is_filled_quickly_is_as_if_it_was_stored(tmp_path: Path) -> None:
    signer = Signer(b"the key of this test")
    library.fill(tmp_path, signer, artifacts=12)
    with Library(tmp_path, signer=signer) as filled:
        found = filled.verify()
        assert (found.versions, found.intact) == (12, True)
        artifact = filled.get(library.KIND, library.name(7))
        assert artifact is not None
        assert len(artifact.read("graph")) == 4096
        assert artifact.about["number"] == 7


@pytest.mark.parametrize("across", ["fossilisation", "cull"])
def test_a_rollback_goes_back_from_what_it_says(across: str) -> None:
    bed, optimizer, before = rollback.planted(4)
    snapshot, after = rollback._undone(bed, optimizer, before, across)
    seeds, fossils = (
        [[part in name for name in state.tensors].count(True) for state in (snapshot, after)]
        for part in (".seed.", ".fossils.")
    )
    assert seeds[0] > 0 == seeds[1]
    assert fossils == ([0, seeds[0]] if across == "fossilisation" else [0, 0])


def test_what_is_no_command_is_refused() -> None:
    with pytest.raises(SystemExit, match="'growth' is not a command; those: frontier, overhead"):
        main(["growth"])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(
        f"usage: python -m esper_lightning.evidence {name} [-h]"
    )


def test_turns_belong_to_the_epoch_they_were_measured_in() -> None:
    assert incubation.epoch_means([1.0, 1.0, 1.0, 4.0, 5.0, 6.0], epochs=2) == [1.0, 5.0]
    with pytest.raises(ValueError, match="5 turns are not those of 2 epochs"):
        incubation.epoch_means([1.0] * 5, epochs=2)


@pytest.mark.slow
@pytest.mark.skipif(not is_supported(), reason="this torch cannot save compiled code")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compiling.json"
    one = ["--blueprints", "vector_affine", "--planted", "vector_affine", "--repeats", "3"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch, when it loads code
        main(["compiling", *one, "--root", str(tmp_path / "library"), "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    assert [outcome["is_compiled"] for outcome in figures["outcomes"]] in ([True], [False])
    assert figures["outcomes"][0]["speedup"] > 0
    assert figures["latencies"][0]["blueprint"] == "vector_affine"
    assert "| vector_affine | tokens 64x64, batch 16 |" in capsys.readouterr().out
