"""The numbers of the lifecycle, each with its unit. The defaults live here and nowhere else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from esper_lightning.leyline import BlendSchedule, InvalidArgument, SeedStage
from esper_lightning.leyline.arguments import check_flag, check_whole, is_number


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """Thresholds of the gates.

    Attributes:
        min_gradient_norm: G1; mean L2 norm of the seed's gradient over the last epoch.
        max_dropped: G1, G4; share of the last epoch's steps whose seed gradient was not finite.
        max_gradient_spread: G2; standard deviation over mean of the seed's gradient norm.
        max_loss_spread: G2; standard deviation over mean of the training loss within an epoch.
        max_regression: G2, G3; worsening of the objective since the stage was entered, relative.
        max_output_ratio: G0 (unless direct, or the slot is zero as yet), G3; norm of the seed's
            output over the slot's.
        window: G4; epochs over which the objective is averaged.
        doubt: G4; how kind the forecast is that a gain is measured against, 0 to below 0.5. 0 is
            the likeliest curve, 0.4 one that improves less than nine tenths of its past tell.
        price_per_parameter: G4; relative gain asked for doubling the network's parameters.
        price_per_flop: G4; relative gain asked for doubling the network's training FLOPs.
        max_noise: G3, G4; difference of two outputs on one sample in evaluation, over their norm.
        max_parameters: G0, G4; parameters of the whole network, None for no limit.
        judge_gain: G4; False asks for no gain, so that whatever does no harm is kept: the rival
            that shows what judging is worth.
    """

    min_gradient_norm: float = 1e-8
    max_dropped: float = 0.0
    max_gradient_spread: float = 2.0
    max_loss_spread: float = 2.0
    max_regression: float = 0.25
    max_output_ratio: float = 2.0
    max_noise: float = 0.01
    window: int = 2
    doubt: float = 0.4
    price_per_parameter: float = 0.002
    price_per_flop: float = 0.002
    max_parameters: int | None = None
    judge_gain: bool = True

    def __post_init__(self) -> None:
        check_flag("gate rule judge_gain", self.judge_gain)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "judge_gain" or (value is None and entry.name == "max_parameters"):
                continue
            if not (is_number(value) and 0 <= value < math.inf):
                raise InvalidArgument(
                    f"gate rule {entry.name} must be a finite number of at least 0, got {value!r}"
                )
        if not self.doubt < 0.5:
            raise InvalidArgument(f"gate rule doubt must be below 0.5, got {self.doubt}")
        if not isinstance(self.window, int) or self.window < 1:
            raise InvalidArgument(
                f"gate rule window must be whole epochs, at least 1, got {self.window!r}"
            )


_MIN_AGES = {"TRAINING": 1, "BLENDING": 1, "SHADOWING": 1, "PROBATIONARY": 2}
_MAX_AGES = {"GERMINATED": 2, "TRAINING": 10, "BLENDING": 10, "SHADOWING": 10, "PROBATIONARY": 20}


@dataclass(frozen=True, kw_only=True, slots=True)
class LifecycleRules:
    """How seeds live.

    Attributes:
        blend: alpha ramp unless the command says otherwise; a cull ramps out along it.
        trust_radius: of straight-through incubation, relative to the norm of the slot's output.
        min_ages: epochs a stage lasts before its gate is asked, by stage name; at least 1.
        max_ages: epochs after which a live seed is culled, by stage name.
        embargo: epochs a slot rests after a cull, at least 1.
        max_fossils: after so many a slot is TERMINATED, None for no limit.
        shadow_share: share of the batches on which seeds are incubated in shadow, above 0 to 1.
        monitor_every: epochs between two checks of a seed's isolation, None for none at all.
        max_violations: so many failed checks quarantine a seed.
        gates: thresholds.
        seed: of the streams that seeds draw their weights and noise from.
    """

    blend: BlendSchedule = field(default_factory=BlendSchedule)
    trust_radius: float = 0.2
    min_ages: Mapping[str, int] = field(default_factory=dict)
    max_ages: Mapping[str, int] = field(default_factory=dict)
    embargo: int = 2
    max_fossils: int | None = 4
    shadow_share: float = 0.5
    monitor_every: int | None = 1
    max_violations: int = 3
    gates: GateRules = field(default_factory=GateRules)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, given, kind in (
            ("blend", self.blend, BlendSchedule),
            ("gates", self.gates, GateRules),
            ("min_ages", self.min_ages, Mapping),
            ("max_ages", self.max_ages, Mapping),
        ):
            if not isinstance(given, kind):
                raise InvalidArgument(f"{name} must be of type {kind.__name__}, got {given!r}")
        check_whole("seed", self.seed)
        for name, ages, known in (
            ("min_ages", self.min_ages, _MIN_AGES),
            ("max_ages", self.max_ages, _MAX_AGES),
        ):
            for stage, age in ages.items():
                if stage not in known or not isinstance(age, int) or age is True or age < 1:
                    raise InvalidArgument(
                        f"{name}[{stage!r}] = {age!r}: stages are {', '.join(known)}, "
                        f"ages whole epochs, at least 1"
                    )
        if not (is_number(self.trust_radius) and 0 < self.trust_radius < math.inf):
            raise InvalidArgument(
                f"trust_radius must be positive and finite, got {self.trust_radius!r}"
            )
        if not (is_number(self.shadow_share) and 0 < self.shadow_share <= 1):
            raise InvalidArgument(
                f"shadow_share must be above 0 and at most 1, got {self.shadow_share!r}"
            )
        for name, number, optional in (
            ("embargo", self.embargo, False),
            ("max_fossils", self.max_fossils, True),
            ("monitor_every", self.monitor_every, True),
            ("max_violations", self.max_violations, False),
        ):
            check_whole(name, number, least=1, or_none=optional)
        for name in _MIN_AGES:
            least, most = self.min_age(SeedStage[name]), self.max_age(SeedStage[name])
            if most < least:
                raise InvalidArgument(
                    f"max_ages[{name!r}] = {most} epochs is below min_ages, {least}; a seed there "
                    f"could only be culled"
                )

    def min_age(self, stage: SeedStage) -> int:
        """Epochs that ``stage`` lasts at least."""
        return self.min_ages.get(stage.name, _MIN_AGES.get(stage.name, 0))

    def max_age(self, stage: SeedStage) -> int:
        """Epochs after which a seed in ``stage`` is culled."""
        return self.max_ages.get(stage.name, _MAX_AGES[stage.name])
