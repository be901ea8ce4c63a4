"""Hydra configuration: one group per replaceable part. The entry is ``train.yaml``."""
