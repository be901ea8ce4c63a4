"""Evidence: what growth is worth, on runs that are matched by data, seed and schedule.

``python -m esper_lightning.evidence`` runs the frontier benchmark: tasks, arms and seeds as
processes of ``train.py``, whose ``summary.json`` and ``events.jsonl`` it reads. With ``overhead``,
``incubation``, ``planting`` or ``memory`` behind it, it measures what dormant slots, seeds in
isolation and a growth event cost, and what planting and culling leave behind. Nothing imports this
package.
"""
