"""Tomograms with known particles: scene, specimen, microscope, reconstruction."""
