import pytest
from rich.console import Console
from synthetic_run import HOST, RUN_ID, synthetic_run

from esper_lightning.leyline import (
    FossilState,
    Objective,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.board import BatchCount, Board
from esper_lightning.nissa.plain_line import plain_line
from esper_lightning.nissa.slot_table import slot_table
from esper_lightning.nissa.stage_look import STAGE_LOOKS

FOSSIL = FossilState(
    blueprint="parallel_conv",
    parameters={},
    num_parameters=10,
    planted_epoch=0,
    fossilized_epoch=2,
)


def state(*slots: SeedState, **fields) -> SystemState:
    known = {
        "run_id": RUN_ID,
        "epoch": 6,
        "max_epochs": 24,
        "global_step": 70,
        "steps_per_epoch": 10,
        "objective": Objective(name="val/acc", mode="max", value=0.9312),
        "metrics": {"val/acc": 0.9312, "train/loss": 0.5, "lr": 0.1},
        "slots": slots,
        "host_parameters": HOST,
        "num_parameters": 7730,
    }
    return SystemState(**(known | fields))


def drawn(renderable, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


def change(after: SeedStage, **fields) -> StageChanged:
    known = {
        "run_id": RUN_ID,
        "epoch": 6,
        "step": 70,
        "slot": "a",
        "before": SeedStage.DORMANT,
        "after": after,
        "reason": "because",
    }
    return StageChanged(**(known | fields))


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("stage", SeedStage)
def test_every_stage_reads_without_colour(stage, width):
    slot = SeedState(slot="features.1", stage=stage, age=3, alpha=0.5, reason="some reason")
    lines = drawn(slot_table(state(slot)), width)
    row = lines[-1]
    assert f"{STAGE_LOOKS[stage].symbol} {stage.name.lower()}" in row
    assert row.startswith("features.1 ")
    assert " 3 " in row
    assert row.rstrip().endswith("some reason")
    assert all(len(line) <= width for line in lines)


def test_symbols_tell_stages_apart():
    assert len({look.symbol for look in STAGE_LOOKS.values()}) == len(SeedStage)
    assert set(STAGE_LOOKS) == set(SeedStage)


def test_head_says_epoch_objective_and_growth():
    head = drawn(slot_table(state()))[0]
    assert " ".join(head.split()) == "epoch 7/24 val/acc 93.1 % parameters 7,730 (4.54x of 1,702)"
    open_ended = state(max_epochs=None, num_parameters=HOST, objective=Objective(name="val/loss"))
    head = drawn(slot_table(open_ended))[0]
    assert " ".join(head.split()) == "epoch 7 val/loss - parameters 1,702"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_one_line_a_slot_at_any_width(width):
    slots = [
        SeedState(
            slot=f"backbone.encoder.layers.{i}.self_attention.out_projection",
            stage=SeedStage.TRAINING,
            blueprint="a_blueprint_with_a_very_long_name",
            fossils=(FOSSIL, FOSSIL),
            reason="a long reason\nof two lines " * 9,
        )
        for i in range(4)
    ]
    lines = drawn(slot_table(state(*slots)), width)
    assert len(lines) == 3 + len(slots)
    assert all(len(line) <= width for line in lines)
    assert all("out_projection" in line[:20] or "projection" in line[:30] for line in lines[3:])
    assert all("+2" in line for line in lines[3:])


def test_fossils_are_counted_in_words_where_there_is_room():
    slot = SeedState(slot="a", stage=SeedStage.DORMANT, fossils=(FOSSIL,))
    assert "+1 fossil " in drawn(slot_table(state(slot)))[-1]
    slot = SeedState(slot="a", stage=SeedStage.BLENDING, blueprint="conv", fossils=(FOSSIL, FOSSIL))
    assert "conv +2 fossils" in drawn(slot_table(state(slot)), 140)[-1]


@pytest.mark.parametrize(
    ("alpha", "bar"), [(0.0, "──────"), (0.25, "━╸────"), (0.5, "━━━───"), (1.0, "━━━━━━")]
)
def test_alpha_is_a_bar_and_a_number(alpha, bar):
    slot = SeedState(slot="a", stage=SeedStage.BLENDING, alpha=alpha)
    assert f"{bar} {alpha:.2f}" in drawn(slot_table(state(slot)))[-1]


def test_paused_seed_is_marked():
    slot = SeedState(slot="a", stage=SeedStage.TRAINING, paused=True)
    assert "‖ training" in drawn(slot_table(state(slot)))[-1]


def test_moves_after_the_state_are_shown():
    slot = SeedState(slot="a", stage=SeedStage.PROBATIONARY, blueprint="conv", alpha=1.0, age=4)
    other = SeedState(slot="b", stage=SeedStage.DORMANT, reason="waits")
    moved = {"a": change(SeedStage.FOSSILIZED, blueprint="conv", reason="G4 passed")}
    lines = drawn(slot_table(state(slot, other), changes=moved))
    assert "◆ fossilized" in lines[-2]
    assert "+1 fossil" in lines[-2]
    assert lines[-2].rstrip().endswith("0 G4 passed")
    assert "○ dormant" in lines[-1]


def test_before_the_first_state_the_slots_are_those_of_the_start():
    start = RunStarted(
        run_id=RUN_ID, slots=("a", "b"), host_parameters=HOST, max_epochs=3, versions={}
    )
    lines = drawn(slot_table(None, started=start, changes={"b": change(SeedStage.DORMANT)}))
    assert "1,702" in lines[0]
    assert "? unknown" in lines[-2]
    assert "○ dormant" in lines[-1]
    assert len(drawn(slot_table(None))) == 3


def test_plain_lines_are_one_for_each_epoch_and_move():
    run = synthetic_run(("a",), 9)
    lines = [line for line in map(plain_line, run) if line is not None]
    told = [e for e in run if isinstance(e, StageChanged | SystemState)]
    assert len(lines) == len(told)
    assert all("\n" not in line for line in lines)
    assert lines[0] == "start: a UNKNOWN -> DORMANT: maps vector 8"


def test_plain_line_of_an_epoch():
    assert plain_line(state()) == (
        "epoch 7/24: val/acc 93.1 %  train/loss 0.5  parameters 7,730 (4.54x)"
    )
    bare = state(metrics={}, objective=Objective(name="val/loss"), max_epochs=None)
    assert plain_line(bare) == "epoch 7: val/loss -  parameters 7,730 (4.54x)"


def test_board_shows_slots_epochs_and_batches():
    now = [0.0]
    board = Board(fitting=True, max_epochs=4, clock=lambda: now[0])
    board.start_clock(0)
    for event in synthetic_run(("a",), 2)[:-1]:
        board.see(event)
    board.epoch, board.training = 2, BatchCount("train", 40, done=20)
    now[0] = 50.0
    text = "\n".join(drawn(board))
    assert "3/4 50 s elapsed, 30 s left" in text
    assert "20/40 val/acc" in text
    board.evaluation = BatchCount("validate", float("inf"), done=7)
    assert any(line.split()[:2] == ["validate", "7"] for line in drawn(board))


def test_board_outside_of_a_fit_shows_the_batches_only():
    board = Board(evaluation=BatchCount("test", 10, done=10))
    (line,) = drawn(board)
    assert line.startswith("test ")
    assert line.rstrip().endswith("10/10")


def test_board_forgets_the_run_before():
    board = Board(fitting=True)
    for event in synthetic_run(("first_slot",), 2):
        board.see(event)
    board.see(
        RunStarted(run_id="next", slots=("second",), host_parameters=1, max_epochs=1, versions={})
    )
    text = "\n".join(drawn(board))
    assert "second" in text
    assert "first_slot" not in text
