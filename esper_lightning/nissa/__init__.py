"""Nissa: seeing a run. Journal, tables and figures, all made from Leyline records alone."""
