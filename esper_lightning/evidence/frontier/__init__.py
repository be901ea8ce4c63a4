"""The frontier benchmark: does growth pay, on matched runs of several tasks?

``python -m esper_lightning.evidence frontier`` runs tasks, arms and seeds as separate processes of
``train.py``, writes a row as each run finishes, and makes tables and figures of the rows.
"""
