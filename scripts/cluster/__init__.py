"""Spreading: the tomograms of a batch over the workers of a machine or a cluster."""
