"""Kasmina: seeds in slots of any host; their lifecycle, gates, isolation and blending."""

from esper_lightning.kasmina.bed import SeedBed
from esper_lightning.kasmina.branch import Branch, BuildBranch
from esper_lightning.kasmina.feature_maps import feature_map, probing
from esper_lightning.kasmina.flops import FlopCount, FlopMeter
from esper_lightning.kasmina.graft import (
    auto_slots,
    insert_slots,
    possible_slots,
    regraft,
)
from esper_lightning.kasmina.moment import Moment
from esper_lightning.kasmina.optimizers import slot_groups_in_new_optimizers
from esper_lightning.kasmina.parameter_groups import SlotGroups, add_slot_groups
from esper_lightning.kasmina.rules import GateRules, LifecycleRules
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.kasmina.view import system_state

__all__ = [
    "Branch",
    "BuildBranch",
    "FlopCount",
    "FlopMeter",
    "GateRules",
    "LifecycleRules",
    "Moment",
    "SeedBed",
    "SeedSlot",
    "SlotGroups",
    "add_slot_groups",
    "auto_slots",
    "feature_map",
    "insert_slots",
    "possible_slots",
    "probing",
    "regraft",
    "slot_groups_in_new_optimizers",
    "system_state",
]
