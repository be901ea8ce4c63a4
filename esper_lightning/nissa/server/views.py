"""What a browser is told of a run: plain records, one section for each part of the page."""

import msgspec

from esper_lightning.leyline import LayerState


class RiskView(msgspec.Struct, frozen=True, kw_only=True):
    """The latest risk; ``signals`` are from 0 to 1."""

    level: str
    signals: dict[str, float]
    conservative: bool
    reason: str


class HeadView(msgspec.Struct, frozen=True, kw_only=True):
    """A run in figures. What is not known is None.

    Attributes:
        run_id: of the records.
        outcome: ``finished``, ``failed: ...``, or empty while it is not over.
        policy: name of what decides.
        epoch: epochs that are over.
        start, end: of the time axis, in epochs.
        step: optimiser steps so far.
        validation, training: names of the curves.
        objective: what is optimised, with ``mode`` saying whether less or more is better.
        metrics: of the last epoch.
        host_flops, flops: training FLOPs of one sample, before and after growth.
        host_total_flops, total_flops: training FLOPs so far, of the host alone and as spent.
        damaged: lines of the journal that were left out.
        left_out: moves of slots that are no longer kept.
    """

    run_id: str
    outcome: str
    policy: str
    epoch: int
    max_epochs: int | None
    start: float
    end: float
    step: int
    validation: str
    training: str
    objective: str
    mode: str
    metrics: dict[str, float]
    host_parameters: int
    parameters: int
    host_flops: float | None
    flops: float | None
    host_total_flops: float | None
    total_flops: float | None
    learning_rate: float | None
    rollbacks: int | None
    step_s: float | None
    device: str
    risk: RiskView | None
    num_culled: int
    num_fossilized: int
    damaged: int
    left_out: int


class CurvesView(msgspec.Struct, frozen=True, kw_only=True):
    """Columns over time; a missing value is None.

    Attributes:
        times: in epochs.
        validation, training, objective: metrics.
        parameters: of the network as it was trained in the epoch that ended then.
        total_flops, host_total_flops: training FLOPs so far, as spent and of the host alone.
    """

    times: tuple[float, ...] = ()
    validation: tuple[float | None, ...] = ()
    training: tuple[float | None, ...] = ()
    objective: tuple[float | None, ...] = ()
    parameters: tuple[float | None, ...] = ()
    total_flops: tuple[float | None, ...] = ()
    host_total_flops: tuple[float | None, ...] = ()


class CurvesPatch(msgspec.Struct, frozen=True, kw_only=True):
    """New points: ``curves`` replace every point from number ``first`` on."""

    first: int
    curves: CurvesView


class SpanView(msgspec.Struct, frozen=True, kw_only=True):
    """A slot in one stage; ``alphas`` are pairs of time and alpha, while alpha moves."""

    stage: str
    start: float
    end: float
    alphas: tuple[tuple[float, float], ...] = ()


class MarkView(msgspec.Struct, frozen=True, kw_only=True):
    """A turning point of a seed: ``planted``, ``fossilized`` or ``culled``."""

    fate: str
    time: float
    blueprint: str


class FossilView(msgspec.Struct, frozen=True, kw_only=True):
    """A branch that is part of the host from ``time`` on."""

    blueprint: str
    num_parameters: int
    time: float


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """The life of a slot, and how it stands now."""

    slot: str
    spans: tuple[SpanView, ...]
    marks: tuple[MarkView, ...]
    fossils: tuple[FossilView, ...]
    stage: str
    paused: bool = False
    blueprint: str = ""
    num_parameters: int = 0
    alpha: float = 0.0
    gain: float | None = None
    rent: float | None = None
    reason: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, in words.

    Attributes:
        number: its place in the order; higher is later.
        time: in epochs.
        kind: ``move``, ``decision``, ``governor``, ``report``, ``policy`` or ``run``.
        tone: ``good``, ``bad`` or ``plain``.
        slot: that it is about, or empty.
        title: what.
        text: why.
    """

    number: int
    time: float
    kind: str
    tone: str
    slot: str
    title: str
    text: str


class RunPatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is new in a run. A section that is absent has not changed.

    Attributes:
        id: of the run.
        version: after this change.
        base: version that it changes; None where it needs none, since it holds everything.
        head, curves, lanes, layers: the sections.
        reasons: the latest first; those of a change come before the ones that are known.
    """

    id: str
    version: int
    base: int | None = None
    head: HeadView | None = None
    curves: CurvesPatch | None = None
    lanes: tuple[LaneView, ...] | None = None
    layers: tuple[LayerState, ...] | None = None
    reasons: tuple[Reason, ...] | None = None
