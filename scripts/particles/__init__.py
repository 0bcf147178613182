"""Particle lists: one file a format, and the registry of them."""
