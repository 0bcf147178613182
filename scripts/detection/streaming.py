"""Detect a tomogram that does not fit into memory: read by slabs, maps and labels on disk, labelled block by block.

The result is that of the path in memory: the same tiles and weights, the same rounding of the maps, the same rule for
every voxel. What is on the way lies in a temporary Zarr folder, which is removed in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from tqdm.auto import tqdm

from custom_transforms.labelling.blocks import Blocks
from custom_transforms.labelling.in_memory import check_finite
from custom_transforms.normalize import NormalizedVolume
from custom_transforms.volumes.lazy import PlaneCache, RegionVolume
from custom_transforms.volumes.rescale import rescaled_slabs
from custom_transforms.volumes.zarr_read import import_zarr
from scripts.detection.plan import Plan
from scripts.detection.scratch import scratch_folder
from scripts.inferer import TomogramInferer
from scripts.sources.tomogram import Tomogram

__all__ = ["check_streams", "computed", "detect_streamed"]

CHUNKS = (32, 128, 256)


class Scratch:
    """Volumes of one shape in a temporary Zarr folder.

    Parameters
    ----------
    folder : Path
    shape, chunks : tuple of 3 ints
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...] = CHUNKS) -> None:
        self.folder, self.shape, self.chunks = folder, shape, chunks

    def __call__(self, name: str, dtype: Any) -> Any:
        """Make a volume of zeros."""
        zarr = import_zarr()
        chunks = tuple(min(chunk, side) for chunk, side in zip(self.chunks, self.shape, strict=True))
        # labels shrink a hundredfold, maps by a third; lz4 costs next to nothing
        packed = zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
        return zarr.create_array(
            store=str(self.folder / name), shape=self.shape, chunks=chunks, dtype=np.dtype(dtype).name,
            compressors=packed, fill_value=0,
        )  # fmt: skip


def check_streams(preprocessing: Any, inferer: Any, postprocessing: Any) -> None:
    """Refuse, before any work, what has no form for a tomogram larger than memory; see `Streams`.

    Raises
    ------
    ValueError
        Names the part of the config and its steps.
    ImportError
        If zarr is missing.
    """
    try:
        import_zarr()
    except ImportError as error:
        raise ImportError("a tomogram larger than memory needs the package zarr: pip install 'zarr>=3.1'.") from error
    parts = {
        "preprocessing": _whole(preprocessing, "file", "normalized"),
        "inferer": [] if type(inferer) is TomogramInferer else [type(inferer).__name__],
        "postprocessing": _whole(postprocessing, "predicted", "saved"),
    }
    for part, steps in parts.items():
        if steps:
            raise ValueError(
                f"{part}: this tomogram is larger than memory, and {', '.join(steps)} needs all of it. "
                "Leave it out, or use a machine with more memory."
            )


def _whole(chain: Any, state: str, end: str) -> list[str]:
    """Names of the steps that need the whole volume; the others lead the tomogram from its ``state`` to the ``end``."""
    if type(chain) is not Compose or not chain.transforms:
        return [f"{type(chain).__name__} (without steps)" if type(chain) is Compose else type(chain).__name__]
    whole = []
    for step in chain.transforms:
        name, streams = type(step).__name__, vars(type(step)).get("streams")
        if streams is None:
            whole.append(name)
            state = ""  # whatever it gives, the step after it is not at fault
            continue
        if state not in ("", streams.takes):
            whole.append(f"{name} (in this place)")
        differing = [key for key, value in streams.only.items() if getattr(step, key) != value]
        whole += [f"{name} (its {key} is {getattr(step, key)})" for key in differing]
        state = streams.gives
    return whole if whole or state == end else [f"{name} (as the last step)"]


def detect_streamed(
    tomogram: Tomogram,
    plan: Plan,
    network: Callable[[torch.Tensor], torch.Tensor],
    preprocessing: Compose,
    inferer: TomogramInferer,
    postprocessing: Compose,
    scratch_dir: str | Path,
) -> dict[str, Any]:
    """Detect one tomogram with a few slabs of it in memory, and write its files.

    Parameters
    ----------
    tomogram : Tomogram
        An uncompressed MRC file; its own voxel size and contrast come before those of the transforms.
    plan : Plan
        ``block`` is the side of the blocks in which instances are labelled.
    network, preprocessing, inferer, postprocessing
        As the config makes them; a network with a method ``map_blocks`` has the blocks labelled elsewhere, too.
    scratch_dir : path
        Where the temporary folder is made.

    Returns
    -------
    dict
        What the chain gives, without the volumes that were in the temporary folder.

    Raises
    ------
    ValueError, FileNotFoundError
        As the path in memory, for files that cannot be read by parts, and as `check_streams`.
    """
    check_streams(preprocessing, inferer, postprocessing)
    start = time.perf_counter()
    data = dict(tomogram.item)
    for step in preprocessing.transforms:
        data = step.streamed(data)
    image = data["image"]
    seen = inferer.seen_shape(image.shape, image.meta)
    region = RegionVolume(inferer.region, image.shape) if inferer.region is not None else None
    loaded = time.perf_counter()
    with scratch_folder(scratch_dir, tomogram.name) as folder:
        data["pred"] = _predict(folder, image, network, inferer, region, image.shape, seen)
        predicted = time.perf_counter()
        inferer.ran = getattr(network, "ran", inferer.ran)
        data["computed"] = computed("streamed", inferer)
        side, chunks = block_sides(plan.block)
        data["blocks"] = Blocks(
            image.shape, side, lambda blocks: tqdm(blocks, unit="block", disable=not inferer.progress),
            Scratch(folder.absolute(), image.shape, chunks),
            partial(network.map_blocks, folder) if hasattr(network, "map_blocks") else map,
        )  # fmt: skip
        for step in postprocessing.transforms:
            seconds = {"load": loaded - start, "networks": predicted - loaded}
            seconds["instances"] = time.perf_counter() - predicted
            data["timings"] = {stage: round(value, 2) for stage, value in seconds.items()}
            data = getattr(step, "streamed", step)(data)
    on_disk = ("probability", "center_map", "foreground", "instances", "blocks")
    return {key: value for key, value in data.items() if key not in on_disk}


def block_sides(block: int) -> tuple[Any, Any]:
    """Sides of blocks of at most so many voxels, and of their chunks: blocks may be written at once, and share none."""
    parts = [-(-block // chunk) for chunk in CHUNKS]
    return tuple(block // part * part for part in parts), tuple(block // part for part in parts)


def computed(path: str, inferer: TomogramInferer) -> dict[str, Any]:
    """How a tomogram was computed, for its record: tile and batch may be smaller than asked for, as memory allowed."""
    return {"path": path, "tile": list(inferer.tile or ()), "batch": inferer.batch, "runtime": inferer.ran}


def _predict(
    folder: Path, image: NormalizedVolume, network: Callable, inferer: TomogramInferer, region: Any,
    own: tuple[int, ...], seen: tuple[int, ...],
) -> list[Any]:  # fmt: skip
    """Run the networks; gives mask logit and center maps on disk, float16, on the tomogram's own voxels."""
    if own == seen:  # closing: the bar of the networks ends before the line of an error
        with closing(inferer.predict_slabs(image, network, region)) as slabs:
            return _store(Scratch(folder, own), inferer, slabs)
    rescaled = Scratch(folder, seen)("rescaled", np.float32)
    _store_planes(rescaled, ((a, b, planes.numpy()) for a, b, planes in rescaled_slabs(PlaneCache(image), seen)))
    model_image = NormalizedVolume(PlaneCache(rescaled), "bright")
    with closing(inferer.predict_slabs(model_image, network, region)) as slabs:
        maps = _store(Scratch(folder, seen), inferer, slabs, "seen_")
    back = zip(*(rescaled_slabs(PlaneCache(one), own, "map") for one in maps), strict=True)
    finished = (
        (first, last, inferer.finish(torch.stack([planes for _, _, planes in slab]), first, last, region))
        for slab in back
        for first, last, _ in slab[:1]
    )
    return _store(Scratch(folder, own), inferer, finished)


def _store(
    scratch: Scratch, inferer: TomogramInferer, slabs: Iterable[tuple[int, int, torch.Tensor]], prefix: str = ""
) -> list[Any]:
    """Write slabs (C, planes, Y, X), in order and without gaps, to C volumes; center maps end clipped to 0..1.

    Of several center maps the highest is put before them, as one more volume, unless they have a prefix.
    """
    dtype = np.dtype(str(inferer.map_dtype).removeprefix("torch."))
    arrays: list[Any] = []
    waiting: np.ndarray = np.empty(0)
    for first, last, maps in slabs:
        check_finite(maps, first)
        values = maps.to(inferer.map_dtype).cpu().numpy()
        if not prefix:
            values[1:] = values[1:].clip(0, 1)
            if len(values) > 2:
                values = np.concatenate([values[:1], values[1:].max(axis=0, keepdims=True), values[1:]])
        if not arrays:
            names = ["logits", "centers", *(f"class_{number}" for number in range(len(values) - 2))]
            arrays = [scratch(f"{prefix}{name}", dtype) for name in names]
            depth = arrays[0].chunks[0]
            waiting = np.empty((len(values), depth, *scratch.shape[1:]), dtype=dtype)
        for z in range(first, last):
            waiting[:, z % depth] = values[:, z - first]
            if (z + 1) % depth == 0 or z + 1 == scratch.shape[0]:
                begin = z - z % depth
                for array, planes in zip(arrays, waiting, strict=True):
                    array[begin : z + 1] = planes[: z + 1 - begin]
    return arrays


def _store_planes(array: Any, slabs: Iterable[tuple[int, int, np.ndarray]]) -> None:
    for first, last, planes in slabs:  # slabs divide the chunks, so a chunk is rewritten a few times at most
        array[first:last] = planes
