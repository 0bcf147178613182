"""A detection in napari, and scripts for other viewers."""
