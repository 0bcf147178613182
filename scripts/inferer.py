"""Inferers: a network over one patch or over a whole tomogram, in the fastest arithmetic the device has."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer
from tqdm.auto import tqdm

from custom_transforms.normalize import normalize_tomogram
from custom_transforms.units import voxel_size_text
from custom_transforms.volumes.checks import add_warning
from custom_transforms.volumes.lazy import read_region_mask
from custom_transforms.volumes.rescale import model_shape, needs_rescaling, rescale_volume, rescaled_slabs
from scripts.networks import reduced_precision
from scripts.tiling.choice import LARGEST_SIDE, OVERLAP, choose_tile
from scripts.tiling.heap import blocks_from_heap, heap_kept
from scripts.tiling.openvino_network import RUNTIMES, OpenVinoNetwork, choose_runtime
from scripts.tiling.tiles import BlendedSlab, TileGrid, blends_on, to_host
from scripts.tiling.windows import holds_something, tile_row

__all__ = ["FLIPS", "PatchInferer", "TomogramInferer"]

# test-time flips by their number: which axes (1 is Z, 2 is Y, 3 is X of (C, Z, Y, X)); all keep the missing wedge
FLIPS: dict[int, list[tuple[int, ...]]] = {1: [()], 2: [(), (3,)], 4: [(), (3,), (2,), (2, 3)]}
FLIPS[8] = FLIPS[4] + [(1, *axes) for axes in FLIPS[4]]

Index = tuple[int, int, int]  # of a tile

YIELDED_PLANES = 8


class PatchInferer(SimpleInferer):
    """Run the network once over a batch of patches; the output is always float32.

    Parameters
    ----------
    amp : bool
        Reduced precision where the device has it, see `reduced_precision`. On CUDA leave it to the trainer's own
        ``amp``, which scales the gradients too: this class then only widens the output.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        # without its metadata a training step takes 2/3 of the time
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        with reduced_precision(plain.device, self.amp and plain.device.type == "cpu"):
            return network(plain, *args, **kwargs).float()


class TomogramInferer(Inferer):
    """Run a network over a whole tomogram, tile by tile, and blend the tiles; for tomograms of any shape and size.

    A side shorter than the tile is extended by reflection, again and again if needed, and the result cut back,
    so that a thin tomogram works and its border looks like tomogram. Results come slab by slab in a fixed order
    (`predict_slabs`), so that a volume in memory and one on disk give the same, bit by bit.

    MONAI's ``SlidingWindowInferer`` gives a result only as a whole, with a third volume for the weights, sees every
    tile, lets tiles overlap by a fraction alone, and stops when memory is short.

    Parameters
    ----------
    roi_size : sequence of 3 ints, optional
        Tile, voxels (Z, Y, X); by default `choose_tile` takes one for each tomogram.
    overlap : float
        Voxels by which a tile covers the next one at least, or below 1 a fraction of the tile.
    sw_batch_size : int
        Tiles the network sees at once. Halved, with a warning, if a GPU runs out of memory.
    mode : {"ramp", "gaussian", "constant"}
        Weights of the blending, see `TileGrid`.
    sw_device : device, optional
        Where the network is; the input's device by default.
    device : device, optional
        Where the result is; the input's device by default.
    progress : bool
        Show a progress bar.
    amp : bool
        Reduced precision where the device has it; the blended result is float32 in any case.
    tta : {1, 2, 4, 8}
        Average the outputs over this many flips of each tile (`FLIPS`): logits as logits, values as values.
    background : sequence of float, optional
        Output, one per channel (the last for all that follow), where there is nothing to see. Given, constant tiles
        (padding) and tiles outside the region are skipped.
    region : path, optional
        Volume of the tomogram's shape; only where it is above 0 is anything found. Needs ``background``.
    map_dtype : {"float32", "float16"}
        Round the result to this type (it still comes as float32), to be the same as one that was stored in it.
    voxel_size_model : float or sequence of 3 floats, optional
        Å. A tomogram whose voxels (``voxel_size_zyx`` of its metadata) differ by more than 5 % is rescaled for the
        networks, and the result brought back.
    keep_voxel_size : bool
        Never rescale.
    runtime : {"auto", "torch", "openvino"}
        What runs the network, see `choose_runtime`.
    classes : sequence of str, optional
        The network gives a map for each, after the first channel.
    largest_side : int
        Voxels; the longest side of a tile that `choose_tile` takes.

    Attributes
    ----------
    tile : tuple of 3 ints or None
        The tile of the last tomogram.
    ran : {"torch", "openvino"}
        What ran the network on it.
    """

    def __init__(
        self, roi_size: Sequence[int] | None = None, overlap: float = OVERLAP, sw_batch_size: int = 1,
        mode: str = "ramp", sw_device: torch.device | str | None = None, device: torch.device | str | None = None,
        progress: bool = False, amp: bool = True, tta: int = 1, background: Sequence[float] | None = None,
        region: str | Path | None = None, map_dtype: str = "float32",
        voxel_size_model: float | Sequence[float] | None = None, keep_voxel_size: bool = False,
        runtime: str = "torch", classes: Sequence[str] | None = None, largest_side: int = LARGEST_SIDE,
    ) -> None:  # fmt: skip
        super().__init__()
        if tta not in FLIPS:
            raise ValueError(f"tta: expected one of {', '.join(map(str, FLIPS))} (test-time flips), got {tta!r}.")
        if map_dtype not in ("float32", "float16"):
            raise ValueError(f"map_dtype: expected float32 or float16, got {map_dtype!r}.")
        if region is not None and background is None:
            raise ValueError("region: expected a background (one value per channel of the network), got none.")
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}.")
        self.runtime, self.ran = runtime, "torch"
        self.tile: tuple[int, ...] | None = None
        self._chosen: tuple[Any, Any] | None = None
        self.roi_size = None if roi_size is None else tuple(int(side) for side in roi_size)
        self.largest_side = int(largest_side)
        self.overlap, self.batch, self.mode, self.amp, self.tta = overlap, int(sw_batch_size), mode, amp, tta
        self.sw_device, self.device, self.progress = sw_device, device, progress
        self.channels = 1 + len(classes or [""])
        self.background: torch.Tensor | None = None
        if background is not None:
            values = [float(value) for value in background]
            self.background = torch.tensor(values + values[-1:] * (self.channels - len(values)))
        self.region, self.map_dtype = region, getattr(torch, map_dtype)
        self.voxel_size_model, self.keep_voxel_size = voxel_size_model, keep_voxel_size

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Take (B, 1, Z, Y, X) float32; return the network's channels on the same voxels, float32."""
        if inputs.ndim != 5 or inputs.shape[1] != 1:
            raise ValueError(f"expected tomograms (B, 1, Z, Y, X), got {tuple(inputs.shape)}. Give one channel.")
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        region = read_region_mask(self.region, inputs.shape[2:]) if self.region is not None else None
        meta = dict(inputs.meta) if isinstance(inputs, MetaTensor) else {}
        seen = self.seen_shape(inputs.shape[2:], meta)
        results = [self._predict_volume(volume, network, region, seen) for volume in plain[:, 0]]
        result = results[0][None] if len(results) == 1 else torch.stack(results)
        return MetaTensor(result, meta=meta) if isinstance(inputs, MetaTensor) else result

    def seen_shape(self, shape_zyx: Sequence[int], meta: dict[str, Any]) -> tuple[int, int, int]:
        """The shape in which the networks see a tomogram; ``meta`` takes a warning if its voxel size differs."""
        z, y, x = (int(side) for side in shape_zyx)
        if self.voxel_size_model is None or "voxel_size_zyx" not in meta:
            return z, y, x
        own = np.asarray(meta["voxel_size_zyx"], dtype=float).reshape(-1)[:3]  # a loader may have batched it
        if not needs_rescaling(own, self.voxel_size_model):
            return z, y, x
        known = voxel_size_text(self.voxel_size_model)  # type: ignore[arg-type]
        told = f"voxels of {voxel_size_text(own)}, the networks know {known}"
        if self.keep_voxel_size:
            seen, text = (z, y, x), f"{told}: nothing was rescaled (keep_voxel_size), and particles may be missed."
        else:
            seen = model_shape((z, y, x), own, self.voxel_size_model)
            text = (
                f"{told}: the networks saw the tomogram rescaled to {' x '.join(map(str, seen))} voxels; results are "
                "in its own. --keep_voxel_size switches this off."
            )
        if np.ndim(meta["voxel_size_zyx"]) == 1:
            add_warning(meta, text)
        else:  # of a batch, whose entries are not ours to change
            warnings.warn(text, UserWarning, stacklevel=2)
        return seen

    def _predict_volume(
        self, volume: torch.Tensor, network: Callable, region: np.ndarray | None, seen: tuple[int, int, int]
    ) -> torch.Tensor:
        """The maps (C, Z, Y, X) of one volume (Z, Y, X), on its own voxels."""
        own = tuple(volume.shape)
        if own != seen:
            rescaled = normalize_tomogram(rescale_volume(volume.cpu(), seen).numpy(), "bright")
            volume = torch.from_numpy(rescaled).to(volume.device)
        whole = torch.empty(0)
        for first, last, maps in self.predict_slabs(volume, network, region):
            if first == 0:
                whole = torch.empty((len(maps), *seen), device=self.device or volume.device)
            whole[:, first:last] = maps
        if own == seen:
            return whole
        result = torch.empty((len(whole), *own), device=whole.device)
        for target, source in zip(result, whole, strict=True):
            for first, last, planes in rescaled_slabs(source.cpu(), own, "map"):
                target[first:last] = planes
        for first in range(0, own[0], YIELDED_PLANES):
            last = min(first + YIELDED_PLANES, own[0])
            result[:, first:last] = self.finish(result[:, first:last], first, last, region)
        return result

    def predict_slabs(
        self, volume: Any, network: Callable[..., torch.Tensor], region: Any = None
    ) -> Generator[tuple[int, int, torch.Tensor], None, None]:
        """Predict a tomogram from its first planes to its last.

        Parameters
        ----------
        volume : tensor or array-like, shape (Z, Y, X), float32
            Read a row of tiles at a time, by ``volume[z, y]``, and a plane of a tile by ``volume[i, y, x]``, where z, y
            and x are slices and i is a number.
        network : callable
            (B, 1, Z, Y, X) to (B, C, Z, Y, X), the same voxels; or with a method ``outputs`` of what `predict_tiles`
            gives elsewhere.
        region : array-like, (Z, Y, X) of bool, optional
            Tiles outside are skipped. If it has the shape of ``volume``, the maps outside are background.

        Yields
        ------
        first, last : int
            Planes along Z; slabs come in order, without gaps.
        maps : tensor, shape (C, last - first, Y, X), float32
            Valid until the next one is asked for.
        """
        shape = tuple(volume.shape)
        own = volume.device if isinstance(volume, torch.Tensor) else "cpu"
        sw_device = torch.device(self.sw_device or own)
        device = torch.device(self.device or own)
        padded, grid = self._grid(shape, sw_device)
        before = [(long - side) // 2 for long, side in zip(padded, shape, strict=True)]
        if self.background is not None:
            for index in np.ndindex(*grid.wanted.shape):
                grid.wanted[index] = holds_something(volume, region, grid, index, before)
        elsewhere: Any = getattr(network, "outputs", None)
        if elsewhere is None:
            network = self._in_runtime(volume, network, grid, sw_device)
        yx = (slice(None), slice(None), *(slice(b, b + side) for b, side in zip(before[1:], shape[1:], strict=True)))
        ahead = device.type == "cpu" and blends_on(sw_device, padded, grid.tile, self.channels)
        with heap_kept(), ExitStack() as stack:
            bar = stack.enter_context(tqdm(total=int(grid.wanted.sum()), unit="tile", disable=not self.progress))
            # where the slab has no room on the GPU, a thread of the CPU adds the last tiles during the next ones
            pool = stack.enter_context(ThreadPoolExecutor(1)) if sw_device.type == "cuda" and not ahead else None
            slab = BlendedSlab(grid, sw_device if ahead else device, pool)
            if isinstance(network, OpenVinoNetwork):
                stack.callback(network.release)
            waiting: Iterator[tuple[int, int, torch.Tensor]] = iter(())
            if elsewhere is not None:
                wanted = [index for k in range(len(grid.starts[0])) for index in grid.layer(k)]
                elsewhere = stack.enter_context(closing(elsewhere(volume, grid.tile, self.batch, wanted)))
            for k, z in enumerate(grid.starts[0]):
                tiles = grid.layer(k)
                outputs = self._outputs(volume, network, grid, tiles, sw_device) if elsewhere is None else elsewhere
                for index, output in islice(outputs, len(tiles)):
                    slab.add(index, output.to(sw_device) * grid.weights(index))
                    bar.update()
                for index in grid.layer(k, wanted=False):
                    slab.clear(index, grid.uncovered(index), self.background)
                last = grid.starts[0][k + 1] if k + 1 < len(grid.starts[0]) else padded[0]
                maps = slab.finished(last - z)[yx]
                first, end = z, last
                if padded[0] > shape[0]:
                    maps, first, end = maps[:, before[0] : before[0] + shape[0]], 0, shape[0]
                inside = region if region is not None and tuple(region.shape) == shape else None
                if ahead:  # the GPU goes on with the next layer while this one is handed over
                    depth = grid.starts[0][1] if len(grid.starts[0]) > 1 else end - first
                    arriving = self._arriving(maps, first, end, depth, inside)
                    slab.move(last - z)
                    yield from waiting
                    waiting = chain.from_iterable(arriving)
                else:
                    yield from self._planes(maps, None, first, end, inside)
                    slab.move(last - z)
            yield from waiting

    def _arriving(
        self, maps: torch.Tensor, first: int, end: int, depth: int, region: Any
    ) -> list[Iterator[tuple[int, int, torch.Tensor]]]:
        """Begin to copy planes to the CPU.

        In parts as deep as the layers before the last, which is deeper: memory for the copies is dear, and used again.
        """
        return [
            self._planes(
                *to_host(maps[:, a - first : a - first + depth], self.map_dtype), a, min(a + depth, end), region
            )
            for a in range(first, end, depth)
        ]

    def predict_tiles(
        self, volume: Any, network: Callable[..., torch.Tensor], tiles: Sequence[Index]
    ) -> Iterator[tuple[Index, torch.Tensor]]:
        """What the network gives for tiles of one layer, before they are blended: index and (C, Z, Y, X), float32.

        ``volume`` and ``network`` are as in `predict_slabs`; an index is a tile's place among those along Z, Y, X.
        """
        sw_device = torch.device(self.sw_device or "cpu")
        _, grid = self._grid(tuple(volume.shape), sw_device)
        grid.wanted[...] = False
        grid.wanted[tuple(np.transpose(tiles))] = True
        network = self._in_runtime(volume, network, grid, sw_device)
        with heap_kept():
            yield from self._outputs(volume, network, grid, tiles, sw_device)

    def _grid(self, shape: tuple[int, ...], sw_device: torch.device) -> tuple[tuple[int, ...], TileGrid]:
        """The shape that tiles cover, not smaller than one, and the tiles."""
        chosen = self.roi_size or choose_tile(shape, self.overlap, largest_side=self.largest_side)
        self.tile = tuple(chosen)
        padded = tuple(max(side, tile) for side, tile in zip(shape, chosen, strict=True))
        return padded, TileGrid(padded, chosen, self.overlap, self.mode, sw_device)

    def _planes(
        self, maps: torch.Tensor, arrived: torch.cuda.Event | None, first: int, last: int, region: Any
    ) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Hand over maps (C, last - first, Y, X), once they have arrived, a few planes at a time."""
        if arrived is not None:
            arrived.synchronize()
        for a in range(first, last, YIELDED_PLANES):
            b = min(a + YIELDED_PLANES, last)
            yield a, b, self.finish(maps[:, a - first : b - first], a, b, region)

    def _in_runtime(self, volume: Any, network: Callable, grid: TileGrid, sw_device: torch.device) -> Callable:
        """The network, or what runs it faster; converted once, until its weights change."""
        self.ran = "torch"
        wanted = np.argwhere(grid.wanted)
        if self.runtime == "torch" or len(wanted) == 0:
            return network
        state = [(id(one), one._version) for one in getattr(network, "state_dict", dict)().values()]
        if self._chosen is None or self._chosen[0] != (network, state):
            z, y, x = grid.start(wanted[0].tolist())
            first = tile_row(volume, grid, z, y)[..., x : x + grid.tile[2]]
            self._chosen = ((network, state), choose_runtime(self.runtime, network, first, sw_device))
        chosen = self._chosen[1]
        self.ran = "openvino" if isinstance(chosen, OpenVinoNetwork) else "torch"
        return chosen

    def _outputs(
        self, volume: Any, network: Callable, grid: TileGrid, tiles: Sequence[Index], sw_device: torch.device
    ) -> Iterator[tuple[Index, torch.Tensor]]:
        """The network's outputs (C, Z, Y, X) of tiles of one layer, where the network is."""
        width = grid.tile[2]
        strips: dict[int, torch.Tensor] = {}  # the last row of tiles: (1, 1, Z, Y, X), as long as the volume in X

        def window(index: Index) -> torch.Tensor:
            z, y, x = grid.start(index)
            if y not in strips:
                strips.clear()
                strip = tile_row(volume, grid, z, y)
                if sw_device.type == "cuda" and strip.device.type == "cpu":
                    pinned = torch.empty(strip.shape, dtype=strip.dtype, pin_memory=True).copy_(strip)
                    strip = pinned.to(sw_device, non_blocking=True)
                strips[y] = strip
            return strips[y][0, ..., x : x + width]

        while tiles:
            now, tiles = tiles[: self.batch], tiles[self.batch :]
            outputs = self._forward(network, torch.stack([window(index) for index in now]), sw_device)
            yield from zip(now, outputs, strict=True)

    def _forward(self, network: Callable, tiles: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Outputs (B, C, Z, Y, X) of a batch, float32, averaged over the flips; in parts if memory is short."""
        try:
            batch = tiles.to(device)
            total: torch.Tensor | None = None
            for axes in FLIPS[self.tta]:
                flipped = [axis + 1 for axis in axes]
                with torch.no_grad(), reduced_precision(device, self.amp), blocks_from_heap():
                    output = network(batch.flip(flipped) if flipped else batch)
                output = output.float().flip(flipped) if flipped else output.float()
                total = output if total is None else total + output
            return (total if self.tta == 1 else total / self.tta).contiguous()  # type: ignore[union-attr, operator]
        except torch.OutOfMemoryError as error:
            if len(tiles) == 1:
                raise ValueError(
                    f"{device}: out of memory for one tile of {' x '.join(map(str, tiles.shape[2:]))} voxels. "
                    "Give smaller tiles, for example --tile 64, or --device cpu."
                ) from error
            self.batch = half = len(tiles) // 2
        logging.getLogger(__name__).warning("%s: out of memory; going on with %d tiles at once", device, half)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return torch.cat([self._forward(network, part, device) for part in tiles.split(half)])

    def finish(self, maps: torch.Tensor, first: int, last: int, region: Any) -> torch.Tensor:
        """Background outside the region, rounded to the type of the maps."""
        if region is not None:
            outside = ~torch.as_tensor(np.asarray(region[first:last]), device=maps.device)
            maps = torch.where(outside, self.background[:, None, None, None].to(maps.device), maps)  # type: ignore[index]
        return maps.to(self.map_dtype).float()
