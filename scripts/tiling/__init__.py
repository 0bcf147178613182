"""Tiles: how a volume is covered by them."""
