"""The lifecycle: one table of moves, one of commands, and they agree."""

import itertools

import pytest

from esper_lightning.leyline import (
    LEGAL_COMMANDS,
    LIVE_STAGES,
    TRANSITIONS,
    CommandKind,
    SeedStage,
    legal_commands,
    mermaid,
)

S, K = SeedStage, CommandKind

SLOT_COMMANDS = set(K) - {K.ROLLBACK, K.OPTIMIZER, K.BREAKER}

MOVES = {
    (S.UNKNOWN, S.DORMANT),
    (S.DORMANT, S.GERMINATED),
    (S.DORMANT, S.CULLED),
    (S.DORMANT, S.TERMINATED),
    (S.GERMINATED, S.TRAINING),
    (S.GERMINATED, S.PROBATIONARY),
    (S.GERMINATED, S.CULLED),
    (S.TRAINING, S.BLENDING),
    (S.TRAINING, S.CULLED),
    (S.BLENDING, S.SHADOWING),
    (S.BLENDING, S.CULLED),
    (S.SHADOWING, S.PROBATIONARY),
    (S.SHADOWING, S.CULLED),
    (S.PROBATIONARY, S.FOSSILIZED),
    (S.PROBATIONARY, S.CULLED),
    (S.FOSSILIZED, S.DORMANT),
    (S.FOSSILIZED, S.CULLED),
    (S.FOSSILIZED, S.TERMINATED),
    (S.CULLED, S.EMBARGOED),
    (S.EMBARGOED, S.RESETTING),
    (S.RESETTING, S.DORMANT),
    (S.RESETTING, S.TERMINATED),
    (S.TERMINATED, S.CULLED),
}


def test_the_numbers_of_stages_are_those_of_every_saved_file() -> None:
    assert {stage.name: stage.value for stage in S} == {
        "UNKNOWN": 0,
        "DORMANT": 1,
        "GERMINATED": 2,
        "TRAINING": 3,
        "BLENDING": 4,
        "SHADOWING": 5,
        "PROBATIONARY": 6,
        "FOSSILIZED": 7,
        "CULLED": 8,
        "EMBARGOED": 9,
        "RESETTING": 10,
        "TERMINATED": 11,
    }


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_every_pair_of_stages_is_a_move_or_is_not(before: SeedStage, after: SeedStage) -> None:
    assert (after in TRANSITIONS[before]) == ((before, after) in MOVES)


def test_every_stage_can_be_reached_and_only_pruning_leads_out_of_the_last() -> None:
    reached, frontier = {S.UNKNOWN}, [S.UNKNOWN]
    while frontier:
        new = TRANSITIONS[frontier.pop()] - reached
        reached |= new
        frontier += new
    assert reached == set(S)
    assert all(TRANSITIONS.values())
    assert TRANSITIONS[S.TERMINATED] == {S.CULLED}


def test_seeds_that_are_alive_and_fossils_of_slots_at_rest_can_go() -> None:
    ends = {stage for stage in S if S.CULLED in TRANSITIONS[stage]}
    assert ends == LIVE_STAGES | {S.FOSSILIZED, S.DORMANT, S.TERMINATED}


def test_a_culled_seed_comes_back_only_through_embargo_and_reset() -> None:
    path = [S.CULLED]
    while path[-1] is not S.RESETTING:
        (after,) = TRANSITIONS[path[-1]]
        path.append(after)
    assert path == [S.CULLED, S.EMBARGOED, S.RESETTING]
    assert not TRANSITIONS[S.RESETTING] & LIVE_STAGES


def test_kinds_that_address_a_slot_have_an_entry_and_the_others_have_none() -> None:
    assert set(LEGAL_COMMANDS) == SLOT_COMMANDS


@pytest.mark.parametrize("stage", S)
def test_commands_agree_with_moves(stage: SeedStage) -> None:
    """A command that moves a slot is legal just where its move is in the table."""
    moves = TRANSITIONS[stage]
    assert (stage in LEGAL_COMMANDS[K.GERMINATE]) == (S.GERMINATED in moves)
    assert (stage in LEGAL_COMMANDS[K.FOSSILIZE]) == (S.FOSSILIZED in moves)
    leaves = stage in LEGAL_COMMANDS[K.CULL] | LEGAL_COMMANDS[K.PRUNE]
    assert leaves == (S.CULLED in moves)
    assert LEGAL_COMMANDS[K.CULL] <= LEGAL_COMMANDS[K.EMERGENCY]
    onwards = moves & LIVE_STAGES if stage in LIVE_STAGES else frozenset()
    assert (stage in LEGAL_COMMANDS[K.ADVANCE]) == bool(onwards)


@pytest.mark.parametrize("stage", S)
def test_legal_commands_are_those_of_the_table(stage: SeedStage) -> None:
    table = {kind for kind, stages in LEGAL_COMMANDS.items() if stage in stages}
    needs_fossil = {K.PRUNE, K.EMERGENCY} if K.PRUNE in table else set()
    assert set(legal_commands(stage)) == table - {K.RESUME} - needs_fossil
    assert set(legal_commands(stage, has_fossils=True)) == table - {K.RESUME}
    rests = {K.RESUME, K.CULL, K.EMERGENCY, K.NOOP}
    assert set(legal_commands(stage, paused=True)) == (table - needs_fossil) & rests
    for paused in (False, True):
        legal = legal_commands(stage, paused=paused)
        assert list(legal) == [kind for kind in K if kind in legal]
        assert K.NOOP in legal


@pytest.mark.parametrize("stage", S)
def test_pause_and_resume_are_never_legal_together(stage: SeedStage) -> None:
    assert K.RESUME not in legal_commands(stage)
    assert K.PAUSE not in legal_commands(stage, paused=True)
    can_rest = K.PAUSE in legal_commands(stage)
    assert (K.RESUME in legal_commands(stage, paused=True)) == can_rest
    assert can_rest == (stage in LIVE_STAGES - {S.GERMINATED})


def test_the_diagram_holds_every_move_and_no_other() -> None:
    first, *lines = mermaid().splitlines()
    assert first == "stateDiagram-v2"
    arrows = [tuple(line.strip().split(" --> ")) for line in lines]
    assert arrows[0] == ("[*]", "UNKNOWN")
    assert arrows[-1] == ("TERMINATED", "[*]")
    drawn = arrows[1:-1]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(before.name, after.name) for before, after in MOVES}
