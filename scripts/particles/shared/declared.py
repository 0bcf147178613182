"""What a list says of the tomogram it was made on, brought together with what is known of the tomogram in use.

A pixel size, binning or size in the file, in the tomograms.star, in the tomogram and among the options must agree:
where only one of them speaks it supplies the others, and where two differ it is an error with both numbers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.units import voxel_size_text
from scripts.particles.shared.context import ParticleListWarning, TomogramContext

__all__ = ["Says", "settle", "usable_pixel", "voxel_size_in"]

SAME = 0.02  # relative; pixel sizes that are nearer are rounded forms of one
WHOLE = 0.005  # a binning nearer to a whole number is that number: headers round the voxel size


@dataclass(frozen=True)
class Says:
    """What a list says by itself.

    Parameters
    ----------
    pixel : float, optional
        Å per pixel that it counts in (or that it was made on, if it counts in Å).
    word : str
        The column or field that says so.
    size_zyx : tuple of 3 int, optional
        Voxels of the tomogram it was made on.
    tomograms : tuple of str
        Base names of the tomograms it names.
    of_tilt_series : bool
        Whether ``pixel`` is the tilt series' own, as a tomograms.star says it, too.
    counts : str, optional
        What this list counts in, where it is not what its format does (see `settle`).
    """

    pixel: float | None = None
    word: str = ""
    size_zyx: tuple[int, int, int] | None = None
    tomograms: tuple[str, ...] = ()
    of_tilt_series: bool = False
    counts: str | None = None


def usable_pixel(value: object) -> float | None:
    """Å of a header; None for what programs write when they do not know it: 0, exactly 1, nothing.

    Examples
    --------
    >>> usable_pixel(2.5), usable_pixel(1.0), usable_pixel("nan"), usable_pixel(None)
    (2.5, None, None, None)
    """
    try:
        pixel = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return pixel if np.isfinite(pixel) and pixel > 0 and pixel != 1.0 else None


def voxel_size_in(table: pd.DataFrame, angstrom: tuple[str, ...], voxels: tuple[str, ...]) -> float | None:
    """Å per voxel of a table that gives each position in both; None if it does not, or not with one ratio."""
    if not {*angstrom, *voxels} <= set(table.columns):
        return None
    lengths, indices = (
        np.stack([pd.to_numeric(table[column], errors="coerce").to_numpy(float) for column in columns])
        for columns in (angstrom, voxels)
    )
    far = np.isfinite(lengths) & (np.abs(indices) > 10)  # rounding says little near the corner
    ratios = lengths[far] / indices[far]
    if not ratios.size or ratios.min() <= 0 or np.ptp(ratios) > 0.01 * ratios.min():
        return None
    return round(float(np.median(ratios)), 4)


def settle(says: Says, counts: str, context: TomogramContext, format_name: str, path: Path) -> TomogramContext:
    """The context with everything that list, tomograms.star, tomogram and options agree on.

    Parameters
    ----------
    says : Says
    counts : {"unbinned", "voxels", "angstrom"}
        What the list counts in: pixels of the tilt series, voxels of the tomogram it was made on, Å.
    context : TomogramContext
    format_name, path
        Of the list, for messages.
    """
    what = f"{path}: {format_name}"
    counts = says.counts or counts
    if counts == "unbinned":
        return _settle_unbinned(says, context, what)
    if says.pixel is None and says.size_zyx is None:
        return context
    if context.voxel_size_zyx is None and says.pixel is not None:
        context = replace(context, voxel_size_zyx=np.array(says.pixel))
    return replace(context, list_binning=_list_binning(says, counts, context, what))


def _settle_unbinned(says: Says, context: TomogramContext, what: str) -> TomogramContext:
    records = [context.relion_tomogram(name, what) for name in says.tomograms]
    star_pixel = _only([one.pixel for one in records], what, "rlnTomoTiltSeriesPixelSize")
    star_binning = _only([one.binning for one in records], what, "rlnTomoTomogramBinning")
    pixel, word = says.pixel, says.word
    if star_pixel is not None and (pixel is None or says.of_tilt_series):
        if pixel is not None and not _same(pixel, star_pixel):
            raise ValueError(
                f"{what}: {word} is {pixel:g} Å, but the tomograms.star says {star_pixel:g} Å. Give the tomograms.star "
                "that belongs to the list, or none."
            )
        pixel, word = (star_pixel, "rlnTomoTiltSeriesPixelSize of tomograms.star") if pixel is None else (pixel, word)
    if says.pixel is not None and not says.of_tilt_series:
        star_binning = None  # the list counts in pixels of its own
    if context.voxel_size_zyx is None:
        binning = context.binning or star_binning
        voxel_size = np.array(pixel * binning) if pixel and binning else None
        return replace(context, binning=binning, voxel_size_zyx=voxel_size)
    if pixel is not None:
        binning = _binning_of_pixel(pixel, word, context, what)
        _check_star_binning(star_binning, binning, context, what)
    elif context.binning is not None or star_binning is not None:
        binning = context.binning if context.binning is not None else float(star_binning or 1)
        _check_star_binning(star_binning, binning, replace(context, binning=None), what)
    else:
        binning = _binning_of_sizes(says, context, what)
    _check_sizes(says, binning, context, what)
    return replace(context, binning=binning)


def _binning_of_pixel(pixel: float, word: str, context: TomogramContext, what: str) -> float:
    """Voxel size over pixel size, or the given binning if it is the same."""
    voxel = np.asarray(context.voxel_size_zyx)
    ratio = float(voxel[2]) / pixel  # programs that know one pixel size mean that of x
    if context.binning is not None:
        if not _same(ratio, context.binning):
            raise ValueError(
                f"{what}: {word} is {pixel:g} Å, but voxel size / binning is {voxel_size_text(voxel)} / "
                f"{context.binning:g} = {voxel_size_text(voxel / context.binning)}. Give --binning {ratio:.4g}, or the "
                f"voxel size {pixel * context.binning:g} Å if the tomogram's header is wrong."
            )
        return context.binning
    if ratio < 1 - SAME:
        raise ValueError(
            f"{what}: {word} is {pixel:g} Å, larger than the tomogram's voxel of {voxel_size_text(voxel)}. Give "
            f"--binning {ratio:.4g} if the list was made on a coarser tomogram, or the right voxel size."
        )
    return _whole(ratio)


def _binning_of_sizes(says: Says, context: TomogramContext, what: str) -> float:
    """From unbinned size over size if there is one and they are in one ratio, else 1; both are said."""
    ratio = _size_ratio(says, context, what)
    if ratio is not None:
        binning = _whole(ratio, 0.04)
        warnings.warn(
            f"{what}: binning {binning:g} is taken from the unbinned size over the tomogram's size; give --binning if "
            "it is another.",
            ParticleListWarning,
            stacklevel=2,
        )
        return binning
    told = voxel_size_text(np.asarray(context.voxel_size_zyx))
    warnings.warn(
        f"{what.rpartition(': ')[2]}: assumed unbinned pixels of {told}; give --binning N if the tomogram is binned.",
        ParticleListWarning,
        stacklevel=2,
    )
    return 1.0


def _check_star_binning(star: float | None, binning: float, context: TomogramContext, what: str) -> None:
    if star is not None and context.binning is None and not _same(star, binning):
        raise ValueError(
            f"{what}: rlnTomoTomogramBinning of tomograms.star is {star:g}, but the voxel size and --binning "
            f"make it {binning:.4g}. Give the tomogram that RELION reconstructed, or --binning {binning:.4g}."
        )


def _check_sizes(says: Says, binning: float, context: TomogramContext, what: str) -> None:
    """Refuse an unbinned size that is a multiple of size x binning; trimmed and padded tomograms are none."""
    ratio = _size_ratio(says, context, what)
    if ratio is not None and not 0.75 < ratio / binning < 1.34:
        raise ValueError(
            f"{what}: the unbinned size is {ratio:.3g} times the tomogram's, but the binning is {binning:g}. "
            "Give the tomogram, the size or the binning that belongs to the list."
        )


def _size_ratio(says: Says, context: TomogramContext, what: str) -> float | None:
    """Unbinned size over size, if there is one and it is the same along every axis."""
    if context.size_zyx is None:
        return None
    listed = {context.relion_tomogram(name, what).size_zyx for name in says.tomograms} - {None}
    unbinned = listed.pop() if len(listed) == 1 else (context.unbinned_size_zyx if not listed else None)
    return None if unbinned is None else _ratio_of(unbinned, context.size_zyx)


def _ratio_of(size: tuple[int, ...], other: tuple[int, ...]) -> float | None:
    """One size over another; None if the axes differ by more than the voxel or two that programs round and pad."""
    ratio = sum(size) / sum(other)
    apart = np.abs(np.array(size) - ratio * np.array(other))
    return ratio if (apart <= np.maximum(1.5 * max(ratio, 1), 0.02 * np.array(size))).all() else None


def _list_binning(says: Says, counts: str, context: TomogramContext, what: str) -> float:
    """Voxel of the tomogram in use over voxel of the one that the list was made on."""
    ratios = []
    if says.pixel is not None:
        ratios.append(float(np.asarray(context.voxel_size_zyx)[2]) / says.pixel)
    elif says.size_zyx is not None and context.size_zyx is not None:
        ratio = _ratio_of(says.size_zyx, context.size_zyx)
        if ratio is None:
            return _decided(None, context, f"{what}: it was made on a volume of {says.size_zyx} voxels (Z, Y, X)", what)
        ratios.append(ratio)
    if not ratios or _same(ratios[0], 1.0):
        return 1.0
    if says.pixel is not None:
        told = f"{what}: {says.word} is {says.pixel:g} Å"
    else:
        told = f"{what}: it was made on a volume of {says.size_zyx} voxels (Z, Y, X)"
    factor = _whole(ratios[0], SAME) if ratios[0] >= 1 else 1 / _whole(1 / ratios[0], SAME)
    is_whole = float(max(factor, 1 / factor)).is_integer()
    if counts == "angstrom":
        return 1.0 if is_whole else _decided(ratios[0], context, told, what)
    if is_whole and context.binning in (None, factor):
        warnings.warn(
            f"{told}; its voxels are taken as those of the same tomogram at another binning ({factor:g}).",
            ParticleListWarning,
            stacklevel=2,
        )
        return factor
    return _decided(ratios[0], context, told, what)


def _decided(ratio: float | None, context: TomogramContext, told: str, what: str) -> float:
    """The binning that was given, where it explains the difference or says that there is none; else an error."""
    given = context.binning
    if given is not None and (_same(given, 1.0) or (ratio is not None and _same(given, ratio))):
        return given
    size = "" if context.voxel_size_zyx is None else f" of {voxel_size_text(np.asarray(context.voxel_size_zyx))}"
    shape = "" if context.size_zyx is None else f" with {context.size_zyx} voxels"
    other = "" if ratio is None else f", --binning {ratio:.4g} if the list was made on another"
    raise ValueError(
        f"{told}, but this tomogram is one{size}{shape}. Give the tomogram or the voxel size that belongs to the "
        f"list{other}, or --binning 1 to take its numbers as they are."
    )


def _only(values: list[float | None], what: str, word: str) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if not _same(min(known), max(known)):
        raise ValueError(
            f"{what}: {word} of its tomograms goes from {min(known):g} to {max(known):g} in tomograms.star. Use one "
            "list for each kind of tomogram."
        )
    return known[0]


def _same(one: float, other: float) -> bool:
    return abs(one / other - 1) <= SAME


def _whole(value: float, within: float = WHOLE) -> float:
    return float(round(value)) if value >= 0.5 and abs(value / round(value) - 1) <= within else value
