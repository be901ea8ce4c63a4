"""Risk: how dangerous it is to adapt the network now, and what is done about it."""

from esper_lightning.tamiyo.risk.engine import Fallback, RiskEngine
from esper_lightning.tamiyo.risk.mode import ConservativeMode
from esper_lightning.tamiyo.risk.rules import RiskRules

__all__ = ["ConservativeMode", "Fallback", "RiskEngine", "RiskRules"]
