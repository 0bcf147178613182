"""The name of a tilt series behind the file names that programs give its tomograms."""

from scripts.particles.context import tomogram_base_name as tomogram_id

__all__ = ["tomogram_id"]
