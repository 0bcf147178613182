"""Volumes in files: MRC, OME-Zarr, TIFF, NIfTI, EM; read whole or by slabs, checked, rescaled, written."""
