"""export: a particle list from one program's format to another's."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.units import voxel_size_text
from custom_transforms.volumes.zarr_read import is_zarr
from scripts.cluster.spread import in_order
from scripts.cluster.workers import each
from scripts.console import tell
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import find_format, guess_format, losses, settled_context, write_particles
from scripts.particles.shared.context import ParticleListWarning, TomogramContext, tomogram_base_name
from scripts.particles.shared.format import Format
from scripts.particles.shared.options import context_of
from scripts.particles.shared.plausible import check_positions
from scripts.records.detection import read_detection
from scripts.sources.copick_project import is_copick, split_picks_uri
from scripts.sources.copick_write import write_picks
from scripts.sources.detections import find_detections
from scripts.sources.named import listed, named_paths
from scripts.sources.particle_lists import read_particles

__all__ = ["export"]


def export(
    source: str,
    target: str,
    from_format: str | None = None,
    to_format: str | None = None,
    scale: float | None = None,
    shift: tuple[float, float, float] | None = None,
    binning: float | None = None,
    tomogram: str | None = None,
    voxel_size: float | None = None,
    size: tuple[int, int, int] | None = None,
    unbinned_size: tuple[int, int, int] | None = None,
    tomograms_star: str | None = None,
    center_rule: str = "size/2",
    axis_order: str | None = None,
    only_class: str | None = None,
    only_tomogram: str | None = None,
    split_by_class: bool = False,
    overwrite: bool = False,
    cluster: str | None = None,
) -> None:
    """Convert a particle list between the formats of cryo-ET programs.

    Formats: csv, original, deepfinder, relion5, relion4, warp, relion3, dynamo, em, copick, czi, stopgap, imod, eman2,
    coords; read only: cbox, shrec. Source and target may also be picks of a copick project:
    copick:CONFIG.json/OBJECT:USER/SESSION.

    Parameters
    ----------
    source : str
        Particle list to read, or the output folder of detect: one list of all its tomograms.
    target : str
        Particle list to write.
    from_format : str
        Format of the source; guessed from its content and name.
    to_format : str
        Format of the target; guessed from its name.
    scale : float
        Multiply all positions, for a source that counts in other voxels than --voxel_size says.
    shift : tuple of 3 float
        Å to add to x, y and z, after the scale.
    binning : float
        Voxel of the tomogram over pixel of the list, for formats that count in pixels of the tilt series: relion5,
        relion4, warp, relion3, dynamo, em, stopgap, eman2. By default what the list or the tomograms.star says; else 1,
        with a warning.
    tomogram : str
        The tomogram: a file, which gives name, size and voxel size, or a name. Of a copick project,
        copick:CONFIG.json/TYPE@SPACING with --only_tomogram RUN.
    voxel_size : float
        Å per voxel of the tomogram.
    size : tuple of 3 int
        Voxels Z,Y,X of the tomogram.
    unbinned_size : tuple of 3 int
        Unbinned pixels Z,Y,X, where they are not size x binning.
    tomograms_star : str
        RELION's tomograms.star, for the unbinned sizes.
    center_rule : str
        Where RELION 5 counts from: size/2, or size/2-1 (as its own Python tools export).
    axis_order : str
        Order of the three numbers where a format leaves it open: zyx, zxy, xyz.
    only_class : str
        Only the particles of this class.
    only_tomogram : str
        Only the particles of this tomogram.
    split_by_class : bool
        Write a list for each class, picks_ribosome.star beside picks_proteasome.star for picks.star. Into a copick
        project every class goes under the object of its name, with * as the object.
    overwrite : bool
        Replace the target.
    cluster : str
        Read detections by workers, as with detect: local, tcp://host:8786, or a JSON file.

    Examples
    --------
    python -m scripts export detections all_particles.star --to_format relion5
    python -m scripts export TS_01_particles.csv picks.tbl --tomogram TS_01.mrc
    python -m scripts export picks.xml picks.star --to_format relion5 --tomogram TS_01_bin4.mrc --binning 4
    """
    writer = _writer_of(target, to_format, overwrite or split_by_class)
    context = context_of(
        **_tomogram_options(tomogram, voxel_size, size, only_tomogram),
        binning=binning,
        unbinned_size_zyx=unbinned_size,
        tomograms_star=tomograms_star,
        center_rule=center_rule,
        axis_order=axis_order,
    )
    path = Path(source) if is_copick(source) else _one_source(source)
    if path.is_dir():
        known = {"from_format": from_format, "tomogram": tomogram, "voxel_size": voxel_size, "size": size}
        if surplus := [f"--{name}" for name, value in known.items() if value is not None]:
            raise ValueError(f"{source}: detections say this themselves; leave {', '.join(surplus)} out.")
        particles, context = _detections(source, context, cluster)
    else:
        context = context if is_copick(source) else settled_context(path, from_format, context)
        particles = read_particles(path, from_format, context)
        _check_plausible(particles, source, context)
    total = len(particles)
    particles = _chosen(_moved(particles, scale, shift), only_class, only_tomogram)
    chosen = _by_class(particles, target) if split_by_class and not is_copick(target) else {target: particles}
    for name in chosen if split_by_class else ():
        _writer_of(name, to_format, overwrite)
    for name, own in chosen.items():
        if is_copick(name):
            lost = _write_picks(own, name, context, overwrite)
        else:
            lost = write_particles(own, Path(os.path.expanduser(name)), writer.name, context)
        of = "" if len(own) == total else f" of {total}"
        text = f"{name}: {len(own)}{of} particles, {writer.description}"
        tell(text, written=[name], format=writer.name, particles=len(own), read=total, lost=lost)


def _by_class(particles: ParticleList, target: str) -> dict[str, ParticleList]:
    """The particles of each class, by the file they go to; those without a class as unnamed."""
    path = Path(target)
    chosen: dict[str, ParticleList] = {}
    for name in sorted(set(map(str, particles.class_name))):
        word = re.sub(r"[^\w.+-]", "_", name) or "unnamed"
        file = path.with_name(f"{path.stem}_{word}{path.suffix}")
        if str(file) in chosen:
            raise ValueError(f"{file}: two classes would go there. Rename one, or write them apart with --only_class.")
        chosen[str(file)] = particles.select(np.asarray(particles.class_name) == name)
    return chosen


def _writer_of(target: str, to_format: str | None, overwrite: bool) -> Format:
    """The format of the target; ValueError if it cannot be, or a file is there that is not to be replaced."""
    path = Path(os.path.expanduser(target))
    if path.exists() and not overwrite:
        raise ValueError(f"{target}: exists already. Give another name, or --overwrite to replace it.")
    if is_copick(target):
        if to_format not in (None, "copick"):
            raise ValueError(f"{target}: is a copick project, but --to_format {to_format} was given. Leave it out.")
        if "*" in split_picks_uri(target)[2:]:
            raise ValueError(
                f"{target}: expected copick:CONFIG.json/OBJECT:USER/SESSION, with the user and the session."
            )
        return find_format("copick")
    writer = find_format(to_format) if to_format else guess_format(path, for_writing=True)
    for beside in map(path.with_suffix, writer.beside):  # a list of its own, whose names would change
        if beside.exists() and not overwrite:
            raise ValueError(
                f"{beside}: exists already, and {writer.name} writes it beside the list. Give another name, or "
                "--overwrite to replace both."
            )
    return writer


def _one_source(source: str) -> Path:
    """The list that a user names, or the first of folders of detections."""
    paths = named_paths(source, "a particle list, or what detect wrote")
    if len(paths) > 1 and not all(path.is_dir() for path in paths):
        raise ValueError(f"{source}: expected one particle list, got {len(paths)}: {listed(map(str, paths), 5)}.")
    return paths[0]


def _detections(source: str, context: TomogramContext, cluster: str | None) -> tuple[ParticleList, TomogramContext]:
    """The particles of every finished detection that a user names, and what is known of the tomograms."""
    lists: list[ParticleList] = []
    sizes: dict[str, tuple[int, int, int]] = {}
    voxel_sizes: dict[tuple[float, ...], str] = {}
    runs = find_detections(source)
    for run, found in zip(runs, in_order(each(partial(_finished, context=context), runs, cluster)), strict=True):
        if found is None:
            continue
        particles, size, voxel_size_zyx = found
        name = tomogram_base_name(run.name)
        if name in sizes:
            raise ValueError(f"{run.parent}: another tomogram is called {name}, too. Export the two apart.")
        sizes[name] = size
        voxel_sizes.setdefault(tuple(np.round(voxel_size_zyx, 4)), run.name)
        lists.append(particles)
    if not lists:
        raise ValueError(f"{source}: expected a particle list, or what detect wrote; no finished detection is in it.")
    if len(voxel_sizes) > 1:
        sizes_text = ", ".join(f"{name} {voxel_size_text(np.array(size))}" for size, name in voxel_sizes.items())
        raise ValueError(f"{source}: expected tomograms of one voxel size, got {sizes_text}. Export them apart.")
    return ParticleList.concat(lists), replace(context, voxel_size_zyx=np.array(next(iter(voxel_sizes))), sizes=sizes)


def _finished(
    run: Path, second: bool, *, context: TomogramContext
) -> tuple[ParticleList, tuple[int, int, int], np.ndarray] | None:
    """The particles of a detection, size and voxel size of its tomogram; None if it was begun, and not finished."""
    record = run.with_name(f"{run.name}.json")
    if not record.is_file():
        return None
    known = read_detection(record).tomogram
    nz, ny, nx = known.shape_zyx
    voxel_size_zyx = np.array(known.voxel_size_zyx_angstrom)
    own = replace(context, name=run.name, size_zyx=(nz, ny, nx), voxel_size_zyx=voxel_size_zyx)
    table = run.with_name(f"{run.name}_particles.csv")
    return read_particles(table, "csv", own).with_tomogram(run.name), (nz, ny, nx), voxel_size_zyx


def _check_plausible(particles: ParticleList, source: str, context: TomogramContext) -> None:
    """Compare positions with the tomogram, where the list is of one tomogram, or of this one among others."""
    bases = np.array([tomogram_base_name(str(name)) for name in particles.tomogram])
    known = tomogram_base_name(context.name)
    if len(set(bases)) > 1:
        particles = particles.select((bases == known) | (bases == ""))
    check_positions(particles, source, context.voxel_size_zyx, context.size_zyx, context.binning)


def _write_picks(particles: ParticleList, uri: str, context: TomogramContext, overwrite: bool) -> list[str]:
    config, object_name, user, session = split_picks_uri(uri)
    if len(particles) == 0:
        raise ValueError(f"{uri}: the list is empty, and picks without a particle have no run. Nothing was written.")
    size = context.voxel_size_zyx
    write_picks(particles, config, object_name, user, session, None if size is None else float(size[2]), overwrite)
    lost = losses(particles, find_format("copick"))
    for sentence in lost:
        warnings.warn(sentence, ParticleListWarning, stacklevel=2)
    return lost


def _tomogram_options(
    tomogram: str | None, voxel_size: float | None, size: Any, only_tomogram: str | None
) -> dict[str, Any]:
    if tomogram is None or not _is_of_files(tomogram):
        return {"name": tomogram, "voxel_size": voxel_size, "size_zyx": size}
    # these take seconds to import, and most conversions need no tomogram
    from custom_transforms.volumes.read import read_tomogram
    from scripts.sources.tomograms import find_tomograms

    found = {tomogram_base_name(item["image"]): item for item in find_tomograms(tomogram, tomogram_base_name)}
    run = next(iter(found)) if len(found) == 1 else tomogram_base_name(only_tomogram or "")
    if run not in found:
        raise ValueError(f"{tomogram}: expected one run, with --only_tomogram; it has {', '.join(found)}.")
    item = found[run]
    volume, metadata = read_tomogram(item["image"], voxel_size=voxel_size or item.get("voxel_size"))
    return {"name": run, "voxel_size": metadata["voxel_size_zyx"], "size_zyx": size or volume.shape}


def _is_of_files(tomogram: str) -> bool:
    """Tell whether a tomogram is more than its name: a file, which is there or has an ending, a pattern, a project."""
    path = Path(os.path.expanduser(tomogram))
    return is_copick(tomogram) or is_zarr(path) or path.is_file() or bool(path.suffix or set("*?[") & set(tomogram))


def _moved(particles: ParticleList, scale: float | None, shift: Any) -> ParticleList:
    if scale is None and shift is None:
        return particles
    offset = np.zeros(3) if shift is None else np.asarray(shift, dtype=float).reshape(-1)
    factor = 1.0 if scale is None else float(scale)
    if offset.shape != (3,) or not np.isfinite(offset).all():
        raise ValueError(f"--shift: expected three numbers x,y,z in Å, got {shift!r}.")
    if not np.isfinite(factor) or factor <= 0:
        raise ValueError(f"--scale: expected a number above 0, got {scale!r}.")
    return particles.with_centers(particles.centers_xyz_angstrom * factor + offset)


def _chosen(particles: ParticleList, only_class: str | None, only_tomogram: str | None) -> ParticleList:
    keep = np.ones(len(particles), dtype=bool)
    for option, wanted, names in (
        ("--only_class", only_class, particles.class_name),
        ("--only_tomogram", only_tomogram, particles.tomogram),
    ):
        if wanted is None:
            continue
        if wanted not in set(map(str, names)):
            known = ", ".join(sorted(set(map(str, names)))[:10]) or "none"
            raise ValueError(f"{option} {wanted}: the list has none of it; it has {known}.")
        keep &= np.asarray(names) == wanted
    return particles.select(keep)
