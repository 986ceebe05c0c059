"""Frozen records that every part of Umbel shares; standard library and numpy only."""
