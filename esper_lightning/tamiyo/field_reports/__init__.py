"""Field reports: what each adaptation led to, told when its observation window is over."""

from esper_lightning.tamiyo.field_reports.reports import FieldReports

__all__ = ["FieldReports"]
