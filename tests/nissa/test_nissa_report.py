import pytest
from msgspec.structs import replace
from rich.console import Console

from esper_lightning.leyline import CulledSeed, GrownSeed, RunSummary
from esper_lightning.nissa.report import summary_text

SUMMARY = RunSummary(
    run_id="ab12",
    outcome="finished",
    seed=0,
    host="cnn",
    policy="heuristic",
    incubation="direct",
    epochs=24,
    steps=4512,
    validation={"val/loss": 0.412, "val/acc": 0.8548},
    test={"test/loss": 0.42, "test/acc": 0.8512},
    host_parameters=1702,
    parameters=7730,
    host_flops_per_sample=1.2e6,
    flops_per_sample=4.9e6,
    host_training_flops=1.7e11,
    training_flops=5.1e11,
    wall_s=73.2,
    grown=(
        GrownSeed(
            slot="features.1",
            blueprint="parallel_conv",
            parameters={"hidden": 16},
            num_parameters=3000,
            planted_epoch=3,
            fossilized_epoch=8,
            reason="G4 passed: gain 0.083 >= 0.012",
        ),
    ),
    culled=(
        CulledSeed(
            slot="features.2",
            blueprint="squeeze_excite",
            parameters={},
            planted_epoch=3,
            culled_epoch=5,
            reason="G1 failed: [gradient] norm 2e-09",
        ),
    ),
    versions={},
)


def told(summary: RunSummary, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(summary_text(summary))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    return text


def row(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


@pytest.mark.parametrize("width", [80, 140])
def test_everything_is_told(width):
    text = told(SUMMARY, width)
    assert row(text, "acc") == ["acc", "85.5", "%", "85.1", "%"]
    assert row(text, "loss") == ["loss", "0.412", "0.42"]
    assert row(text, "parameters") == ["parameters", "1,702", "7,730", "4.54x"]
    assert row(text, "training FLOPs per sample, last epoch")[-5:] == [
        "1.2",
        "MFLOP",
        "4.9",
        "MFLOP",
        "4.08x",
    ]
    assert row(text, "training FLOPs of the run")[-5:] == ["170", "GFLOP", "510", "GFLOP", "3x"]
    assert "◆ features.1  parallel_conv(hidden=16)  +3,000 parameters" in text
    assert "G4 passed: gain 0.083 >= 0.012" in text
    assert "✕ features.2  squeeze_excite  epochs 4 to 6" in text
    assert "G1 failed: [gradient] norm 2e-09" in text
    assert "1:13" in text


def test_missing_is_shown_as_missing():
    text = told(
        replace(
            SUMMARY,
            test={},
            training_flops=None,
            host_flops_per_sample=None,
            flops_per_sample=None,
        )
    )
    assert row(text, "acc") == ["acc", "85.5", "%", "-"]
    assert row(text, "training FLOPs of the run")[-4:] == ["170", "GFLOP", "-", "-"]
    assert row(text, "training FLOPs per sample, last epoch")[-3:] == ["-", "-", "-"]


def test_a_run_that_grew_nothing_says_so():
    text = told(replace(SUMMARY, grown=(), culled=(), parameters=1702, validation={}, test={}))
    assert "Nothing was grown" in text
    assert "Culled" not in text
    assert "none logged" in text
