"""Hot reload: a new policy takes over between epochs, if it proves itself, and goes if it does not.

Design: docs/design/detailed_design/03-tamiyo.md
"""

from esper_lightning.tamiyo.reload.bus import BusPolicies
from esper_lightning.tamiyo.reload.checking import PolicyRefused
from esper_lightning.tamiyo.reload.learned import learned_policy
from esper_lightning.tamiyo.reload.library import from_library, publish_policy
from esper_lightning.tamiyo.reload.reloading import Reloading
from esper_lightning.tamiyo.reload.source import Source

__all__ = [
    "BusPolicies",
    "PolicyRefused",
    "Reloading",
    "Source",
    "from_library",
    "learned_policy",
    "publish_policy",
]
