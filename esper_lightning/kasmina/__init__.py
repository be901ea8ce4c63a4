"""Kasmina: seeds in slots of any host; their lifecycle, gates, isolation and blending.

Design: docs/design/detailed_design/02-kasmina.md
"""

from esper_lightning.kasmina.bed import SeedBed
from esper_lightning.kasmina.blame import acting, suspects, what_grew
from esper_lightning.kasmina.branch import Branch, BuildBranch
from esper_lightning.kasmina.bypass import Phase, PhaseCalls
from esper_lightning.kasmina.dataflow import HostLayers
from esper_lightning.kasmina.export import NotExportable, save_program, save_source
from esper_lightning.kasmina.faster import run_by
from esper_lightning.kasmina.feature_maps import feature_map, probing
from esper_lightning.kasmina.flops import FlopCount, FlopMeter
from esper_lightning.kasmina.graft import (
    auto_slots,
    insert_slots,
    possible_slots,
    regraft,
    saved_slots,
)
from esper_lightning.kasmina.grown import Grown, grown_in
from esper_lightning.kasmina.host_gradients import ENOUGH_LOOKS, HostGradients, host_overflow
from esper_lightning.kasmina.host_paths import check_eager
from esper_lightning.kasmina.judgement import unreached
from esper_lightning.kasmina.moment import Moment
from esper_lightning.kasmina.optimizers import slot_groups_in_new_optimizers
from esper_lightning.kasmina.parameter_groups import (
    PLANTED_AT,
    SlotGroups,
    add_slot_groups,
    has_slot_groups,
)
from esper_lightning.kasmina.passes import Loss
from esper_lightning.kasmina.ranks import Ranks
from esper_lightning.kasmina.reduction import average_seeds
from esper_lightning.kasmina.restore import restore
from esper_lightning.kasmina.rules import GateRules, LifecycleRules
from esper_lightning.kasmina.second_passes import SecondPasses
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.kasmina.view import system_state

__all__ = [
    "ENOUGH_LOOKS",
    "PLANTED_AT",
    "Branch",
    "BuildBranch",
    "FlopCount",
    "FlopMeter",
    "GateRules",
    "Grown",
    "HostGradients",
    "HostLayers",
    "LifecycleRules",
    "Loss",
    "Moment",
    "NotExportable",
    "Phase",
    "PhaseCalls",
    "Ranks",
    "SecondPasses",
    "SeedBed",
    "SeedSlot",
    "SlotGroups",
    "acting",
    "add_slot_groups",
    "auto_slots",
    "average_seeds",
    "check_eager",
    "feature_map",
    "grown_in",
    "has_slot_groups",
    "host_overflow",
    "insert_slots",
    "possible_slots",
    "probing",
    "regraft",
    "restore",
    "run_by",
    "save_program",
    "save_source",
    "saved_slots",
    "slot_groups_in_new_optimizers",
    "suspects",
    "system_state",
    "unreached",
    "what_grew",
]
