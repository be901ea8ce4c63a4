"""Hydra configuration: one group per replaceable part. The entry is ``train.yaml``.

The Python files here are all that knows Hydra, beside ``train.py``: they turn a composed
configuration into objects, print it and keep it.
"""
