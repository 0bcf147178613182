"""Write picks and segmentations into a local copick project, under a user and session of their own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from custom_transforms.files.names import check_name, tomogram_base_name, tomogram_stem
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.zarr_write import write_labels_zarr
from scripts.particles import copick_json
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.options import context_of
from scripts.sources.copick_project import CopickProject, open_project

__all__ = ["check_segmentation", "check_target", "run_of", "write_picks", "write_segmentation"]

SEGMENTATION_FOLDERS = {"instance": "InstanceSegmentations", "binary": "Segmentations"}
# copick's own rule, as names are parts of file names; and signs that shells and configs take for more than a name
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\s_$@%]')


def write_picks(
    particles: ParticleList,
    config: str | Path | CopickProject,
    object_name: str = "*",
    user: str = "detection",
    session: str = "1",
    voxel_spacing: float | None = None,
    overwrite: bool = False,
    run: str | None = None,
) -> list[Path]:
    """Write particles as picks, a file per run and object, into the project's overlay.

    Parameters
    ----------
    particles : ParticleList
        Their tomograms are the runs. An empty list writes nothing, unless ``run`` is given.
    config : path or CopickProject
    object_name : str
        Object of the project that all of them are; ``*`` takes each particle's class.
    user, session : str
        Whose picks these are.
    voxel_spacing : float, optional
        Å of the tomogram they were found in, noted in the file.
    overwrite : bool
        Replace picks of the same object, user and session.
    run : str, optional
        The run that all particles are of, with a named object; no particle then makes a file of no picks.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        If a run, object, user or session cannot be, or such picks are there and ``overwrite`` is False. Nothing is
        written then.
    """
    project = config if isinstance(config, CopickProject) else open_project(config)
    names = np.asarray(particles.class_name) if object_name == "*" else np.full(len(particles), object_name)
    spelled = sorted(set(map(str, particles.tomogram)))
    known = {tomogram: run or run_of(project, tomogram) for tomogram in spelled}
    runs = np.array([known[str(tomogram)] for tomogram in particles.tomogram], dtype=str)
    wanted = set(zip(runs.tolist(), map(str, names), strict=True)) | ({(run, object_name)} if run else set())
    jobs = {}
    for one, name in sorted(wanted):
        jobs[check_target(project, one, name, user, session, overwrite)] = (one, name, (runs == one) & (names == name))
    for path, (one, name, rows) in jobs.items():
        chosen = particles.select(rows)
        picks = ParticleList(chosen.centers_xyz_angstrom, one, name, chosen.score, chosen.rotation)
        words = {"user": user, "session": session, "object": name, "run": one}
        copick_json.write(picks, path, context_of(voxel_size=voxel_spacing, dataset=words))
    return list(jobs)


def write_segmentation(
    labels: np.ndarray,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    config: str | Path | CopickProject,
    run: str,
    object_name: str,
    user: str = "detection",
    session: str = "1",
    kind: str = "instance",
    overwrite: bool = False,
) -> Path:
    """Write a label volume as a segmentation of one object into the project's overlay.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), integer
        1..n particles; ignored voxels (-1) become background, which is all copick knows.
    voxel_size_zyx : float or sequence of 3 floats
        Å; must be the same on the three axes.
    run, object_name, user, session : str
    kind : {"instance", "binary"}
        Instances as they are, or 1 wherever there is one. copick before 1.30 lists binary ones only.

    Returns
    -------
    Path
        The OME-Zarr.

    Raises
    ------
    ValueError
        As `write_picks`; also for voxels that are not cubes.
    """
    path = check_segmentation(config, run, object_name, user, session, voxel_size_zyx, overwrite, kind)
    size = float(as_voxel_size_zyx(voxel_size_zyx)[0])
    particle = np.asarray(labels) > 0
    values = particle.astype(np.uint8) if kind == "binary" else np.where(particle, labels, 0)
    write_labels_zarr(path, values, size, name=object_name)
    return path


def run_of(config: str | Path | CopickProject, tomogram: str) -> str:
    """The run a tomogram belongs to, by its name as it is or as all programs share it; the name itself if none."""
    project = config if isinstance(config, CopickProject) else open_project(config)
    runs = set(project.runs())
    names = (tomogram, tomogram_stem(tomogram), tomogram_base_name(tomogram))
    return next((name for name in names if name in runs), tomogram)


def check_target(
    config: str | Path | CopickProject, tomogram: str, object_name: str, user: str, session: str, overwrite: bool
) -> Path:
    """The file that picks of a tomogram go to.

    Raises
    ------
    ValueError
        If its run, the object, user or session cannot be, or the file is there and ``overwrite`` is False.
    """
    project = config if isinstance(config, CopickProject) else open_project(config)
    run = run_of(project, tomogram)
    _check_words(project, run, object_name, user, session)
    path = _run_folder(project, run) / "Picks" / f"{user}_{session}_{object_name}.json"
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: these picks are there already. Choose another session, or --overwrite.")
    return path


def check_segmentation(
    config: str | Path | CopickProject,
    tomogram: str,
    object_name: str,
    user: str,
    session: str,
    voxel_size_zyx: float | tuple[float, float, float] | np.ndarray,
    overwrite: bool,
    kind: str = "instance",
) -> Path:
    """The folder that a segmentation of a tomogram goes to.

    Raises
    ------
    ValueError
        As `check_target`; also for voxels that are not cubes.
    """
    project = config if isinstance(config, CopickProject) else open_project(config)
    run = run_of(project, tomogram)
    _check_words(project, run, object_name, user, session)
    if kind not in SEGMENTATION_FOLDERS:
        raise ValueError(f"kind: expected {' or '.join(SEGMENTATION_FOLDERS)}, got {kind!r}.")
    size = as_voxel_size_zyx(voxel_size_zyx)
    if np.ptp(size) > 1e-3:
        raise ValueError(f"copick: expected cubic voxels, got {size.tolist()} Å (Z, Y, X). Resample the tomogram.")
    name = f"{size[0]:.3f}_{user}_{session}_{object_name}.zarr"
    path = _run_folder(project, run) / SEGMENTATION_FOLDERS[kind] / name
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: this segmentation is there already. Choose another session, or --overwrite.")
    return path


def _run_folder(project: CopickProject, run: str) -> Path:
    return project.overlay / "ExperimentRuns" / run


def _check_words(project: CopickProject, run: str, object_name: str, user: str, session: str) -> None:
    if object_name not in project.radii:
        known = ", ".join(project.radii) or "none"
        raise ValueError(f"{project.config}: no object {object_name!r}; it has {known}. Name one, or add it there.")
    if run not in (known_runs := project.runs()):
        listed = ", ".join(known_runs[:10]) or "none"
        if not run:
            raise ValueError(
                f"{project.config}: the particles name no tomogram, which says what run they are of. Give --tomogram "
                f"RUN; the project has {listed}."
            )
        raise ValueError(f"{project.config}: no run {run!r}; it has {listed}. The particles' tomograms must be runs.")
    for what, name in (("user", user), ("session", session)):
        if not name or _ILLEGAL.search(name):
            raise ValueError(f"copick {what}: expected a name without spaces, _ and other signs, got {name!r}.")
    for what, name in (("object", object_name), ("user", user), ("session", session), ("run", run)):
        check_name(name, f"copick {what}")
