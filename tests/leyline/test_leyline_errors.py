"""Errors say what, the value, what is allowed; and each can be caught as what it is."""

import copy
import pickle

import pytest

from esper_lightning import leyline
from esper_lightning.leyline import EsperError, IllegalTransition, SeedStage

ERRORS = [
    value
    for value in (getattr(leyline, name) for name in leyline.__all__)
    if isinstance(value, type) and issubclass(value, EsperError)
]


def made(kind: type[EsperError]) -> EsperError:
    if kind is IllegalTransition:
        return IllegalTransition("a", SeedStage.DORMANT, "CULL", ["GERMINATE"], "why not")
    return kind("told")


def test_an_illegal_move_names_slot_stage_request_and_what_is_allowed() -> None:
    error = IllegalTransition(
        "features.2", SeedStage.TRAINING, "-> FOSSILIZED", ["BLENDING", "CULLED"]
    )
    assert str(error) == (
        "slot 'features.2' in stage TRAINING cannot take -> FOSSILIZED; allowed: BLENDING, CULLED"
    )
    assert (error.slot, error.stage, error.request) == (
        "features.2",
        SeedStage.TRAINING,
        "-> FOSSILIZED",
    )
    assert error.allowed == ("BLENDING", "CULLED")


def test_an_illegal_move_says_why_and_says_when_nothing_is_allowed() -> None:
    error = IllegalTransition("a", SeedStage.TERMINATED, "GERMINATE", [], "the seed is paused")
    assert str(error) == (
        "slot 'a' in stage TERMINATED cannot take GERMINATE; allowed: nothing (the seed is paused)"
    )


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_reaches_another_process_as_it_is(kind: type[EsperError]) -> None:
    error = made(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize(
    ("name", "also"),
    [
        ("InvalidArgument", ValueError),
        ("DecodeError", ValueError),
        ("UnknownSlot", ValueError),
        ("SlotUnsuitable", ValueError),
        ("UnknownBlueprint", ValueError),
        ("UnsupportedOptimizer", ValueError),
        ("NonFiniteTraining", ArithmeticError),
    ],
)
def test_errors_can_be_caught_as_what_python_calls_them(name: str, also: type[Exception]) -> None:
    assert issubclass(getattr(leyline, name), also)


def test_a_refused_command_is_not_an_argument_error() -> None:
    for kind in (leyline.CommandRefused, IllegalTransition, leyline.GateFailed):
        assert issubclass(kind, leyline.CommandRefused)
        assert not issubclass(kind, ValueError)
