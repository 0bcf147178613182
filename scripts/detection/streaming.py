"""Detect a tomogram that does not fit into memory: read by slabs, maps and labels on disk, labelled block by block.

The result is that of the path in memory: the same tiles and weights, the same rounding of the maps, the same rule for
every voxel. What is on the way lies in a temporary Zarr folder, which is removed in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from tqdm.auto import tqdm

from custom_transforms.files.names import tomogram_name
from custom_transforms.filters import FlagGoldd
from custom_transforms.labelling.blockwise import BlockedLabels, detect_instances_blockwise
from custom_transforms.labelling.in_memory import check_finite
from custom_transforms.measuring.particle_filter import ParticleFilter
from custom_transforms.normalize import NormalizedVolume, warn_if_inverted
from custom_transforms.volumes.checks import add_warning
from custom_transforms.volumes.lazy import (
    PlaneCache,
    ProbabilityVolume,
    RegionVolume,
    StoredVolume,
    map_volume,
    open_tomogram,
)
from custom_transforms.volumes.mrc_write import instance_dtype, new_header, write_volume
from custom_transforms.volumes.rescale import rescaled_slabs
from custom_transforms.volumes.zarr_read import import_zarr
from scripts.detection.plan import Plan
from scripts.detection.scratch import scratch_folder
from scripts.inferer import TomogramInferer
from scripts.outputs import INSTANCES, SaveDetectiond

__all__ = ["SETTINGS", "computed", "detect_streamed"]

# the ids of configs/inference.json that decide the instances; see `detect_instances`
SETTINGS = (
    "particle_diameter", "mask_threshold", "center_threshold", "method", "require_seed", "neighbor_number",
    "min_distance", "min_size", "radius_max", "neighbor_distance",
)  # fmt: skip
CHUNKS = (32, 128, 256)


class Scratch:
    """Volumes of one shape in a temporary Zarr folder.

    Parameters
    ----------
    folder : Path
    shape : tuple of 3 ints
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape

    def __call__(self, name: str, dtype: Any) -> Any:
        """Make a volume of zeros."""
        zarr = import_zarr()
        chunks = tuple(min(chunk, side) for chunk, side in zip(CHUNKS, self.shape, strict=True))
        # labels shrink a hundredfold, maps by a third; lz4 costs next to nothing
        packed = zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
        return zarr.create_array(
            store=str(self.folder / name), shape=self.shape, chunks=chunks, dtype=np.dtype(dtype).name,
            compressors=packed, fill_value=0,
        )  # fmt: skip


def detect_streamed(
    item: Mapping[str, Any],
    plan: Plan,
    network: Callable[[torch.Tensor], torch.Tensor],
    inferer: TomogramInferer,
    save: SaveDetectiond,
    *,
    reading: Mapping[str, Any],
    contrast: str,
    settings: Mapping[str, Any],
    filters: Sequence[FlagGoldd | ParticleFilter] = (),
    scratch_dir: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Detect one tomogram with a few slabs of it in memory, and write its files.

    Parameters
    ----------
    item : mapping
        ``image`` is an uncompressed MRC file; its own voxel size and contrast, if there, go into the record.
    plan : Plan
        ``block`` is the side of the blocks in which instances are labelled.
    network, inferer, save
        As the config makes them.
    reading : mapping
        voxel_size, fill_nonfinite, signed: as in `read_tomogram`.
    contrast : {"dark", "bright"}
    settings : mapping
        Values of `SETTINGS`.
    filters : sequence of FlagGoldd and ParticleFilter
        Laid over the table in this order; none may need a volume of its own.
    scratch_dir : path, optional
        Where the temporary folder is made; by default where the results go.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        image (metadata only), particles (table), output_files, timings.

    Raises
    ------
    ValueError, FileNotFoundError
        As the path in memory, and for files that cannot be read by parts.
    """
    start, path = time.perf_counter(), item["image"]
    volume, meta = open_tomogram(path, **reading)
    image = NormalizedVolume(volume, contrast, meta)
    warn_if_inverted(image, contrast, meta)
    if save.copick is not None:
        text = (
            f"{path}: streamed, so the copick project gets its picks alone, no instance segmentation (an older one "
            "there is left as it is); the labels are in the MRC file"
        )
        add_warning(meta, text)
    own = volume.shape
    seen = inferer.seen_shape(own, meta)
    region = RegionVolume(inferer.region, own) if inferer.region is not None else None
    timings = {"load": time.perf_counter() - start}
    with scratch_folder(scratch_dir or save.folder(path), tomogram_name(path)) as temporary:
        logits, centers = _predict(temporary, image, network, inferer, region, own, seen)
        timings["networks"] = time.perf_counter() - start - timings["load"]
        labels, table = detect_instances_blockwise(
            ProbabilityVolume(logits), centers, np.asarray(meta["voxel_size_zyx"]), **settings, block=plan.block,
            scratch=Scratch(temporary, own),
            progress=lambda blocks: tqdm(blocks, unit="block", disable=not progress),
        )  # fmt: skip
        table, labels = _filter(filters, table, labels, image, meta)
        timings["instances"] = time.perf_counter() - start - timings["load"] - timings["networks"]
        data = {
            **item,
            "image": MetaTensor(torch.zeros(0), meta=meta),
            "particles": table,
            "computed": computed("streamed", inferer),
            "timings": {stage: round(seconds, 2) for stage, seconds in timings.items()},
        }
        return _save(save, data, labels, volume, centers)


def computed(path: str, inferer: TomogramInferer) -> dict[str, Any]:
    """How a tomogram was computed, for its record: tile and batch may be smaller than asked for, as memory allowed."""
    return {"path": path, "tile": list(inferer.tile or ()), "batch": inferer.batch, "runtime": inferer.ran}


def _predict(
    folder: Path, image: NormalizedVolume, network: Callable, inferer: TomogramInferer, region: Any,
    own: tuple[int, ...], seen: tuple[int, ...],
) -> tuple[Any, Any]:  # fmt: skip
    """Run the networks; gives mask logit and center map on disk, float16, on the tomogram's own voxels."""
    if own == seen:
        return _store(Scratch(folder, own), inferer, inferer.predict_slabs(image, network, region))
    rescaled = Scratch(folder, seen)("rescaled", np.float32)
    _store_planes(rescaled, ((a, b, planes.numpy()) for a, b, planes in rescaled_slabs(PlaneCache(image), seen)))
    model_image = NormalizedVolume(PlaneCache(rescaled), "bright")
    maps = _store(Scratch(folder, seen), inferer, inferer.predict_slabs(model_image, network, region), "seen_")
    back = zip(*(rescaled_slabs(PlaneCache(one), own, "map") for one in maps), strict=True)
    finished = (
        (a, b, inferer.finish(torch.stack([logit, center]), a, b, region))
        for (a, b, logit), (_, _, center) in back
    )  # fmt: skip
    return _store(Scratch(folder, own), inferer, finished)


def _store(
    scratch: Scratch, inferer: TomogramInferer, slabs: Iterable[tuple[int, int, torch.Tensor]], prefix: str = ""
) -> tuple[Any, Any]:
    """Write slabs (2, planes, Y, X), in order and without gaps, to two volumes; a center map ends clipped to 0..1."""
    dtype = np.dtype(str(inferer.map_dtype).removeprefix("torch."))
    arrays = [scratch(f"{prefix}{name}", dtype) for name in ("logits", "centers")]
    depth = arrays[0].chunks[0]
    waiting = np.empty((2, depth, *scratch.shape[1:]), dtype=dtype)
    for first, last, maps in slabs:
        check_finite(maps, first)
        values = maps.to(inferer.map_dtype).cpu().numpy()
        if not prefix:
            values[1] = values[1].clip(0, 1)
        for z in range(first, last):
            waiting[:, z % depth] = values[:, z - first]
            if (z + 1) % depth == 0 or z + 1 == scratch.shape[0]:
                begin = z - z % depth
                for array, planes in zip(arrays, waiting, strict=True):
                    array[begin : z + 1] = planes[: z + 1 - begin]
    return arrays[0], arrays[1]


def _store_planes(array: Any, slabs: Iterable[tuple[int, int, np.ndarray]]) -> None:
    for first, last, planes in slabs:  # slabs divide the chunks, so a chunk is rewritten a few times at most
        array[first:last] = planes


def _filter(
    steps: Sequence[FlagGoldd | ParticleFilter], table: pd.DataFrame, labels: BlockedLabels, image: Any, meta: dict
) -> tuple[pd.DataFrame, BlockedLabels]:
    """Lay the filters over the table, one after another; labels follow."""
    for step in steps:
        if isinstance(step, FlagGoldd):
            table = step.flagged(table, image, PlaneCache(labels), meta["voxel_size_zyx"])
            continue
        marked = step.marked(table, PlaneCache(labels), meta)
        if not marked["dropped_by"].equals(table["dropped_by"]):
            marked, labels = labels.filtered(marked, neighbor_distance=step.neighbor_distance)
        table = marked
    return table, labels


def _save(
    save: SaveDetectiond, data: dict[str, Any], labels: BlockedLabels, tomogram: Any, center_map: Any
) -> dict[str, Any]:
    """Write what `SaveDetectiond` writes, the label volume slab by slab."""
    meta = data["image"].meta
    path = meta["filename_or_obj"]
    instances = save.begin(path) / INSTANCES.format(name=tomogram_name(path))
    stored = instance_dtype(labels.highest)
    nstart = meta.get("header", {}).get("nstart_xyz", (0, 0, 0))
    origin = meta.get("origin_xyz", (0, 0, 0))
    header = new_header(labels.shape, stored, np.asarray(meta["voxel_size_zyx"]), origin, nstart)
    write_volume(instances, PlaneCache(labels), stored, header)
    files = save.finish(data, map_volume(instances)[0], tomogram, StoredVolume(center_map))
    return {**data, "output_files": files}
