"""Damaged volumes and copick projects: every reader ends in an error of ours, or in a volume it can vouch for."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from custom_transforms.io import VOLUME_SUFFIXES, read_tomogram
from scripts.sources.copick_project import find_tomograms, open_project, read_picks
from tests.volumes.volume_files import phantom, save

ENDINGS = (".mrc", ".rec", ".map", ".mrc.gz", ".mrc.bz2", ".tif", ".nii", ".nii.gz", ".em")
quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A whole file of each ending, written by another library."""
    import emfile

    folder, volume = tmp_path_factory.mktemp("volumes"), phantom()
    whole = save(folder / "a.mrc", volume).read_bytes()
    tifffile.imwrite(folder / "a.tif", volume)
    nibabel.save(nibabel.Nifti1Image(volume.T, np.diag([10, 10, 10, 1])), folder / "a.nii")
    emfile.write(folder / "a.em", volume)
    nii = (folder / "a.nii").read_bytes()
    return {
        ".mrc": whole, ".rec": whole, ".map": whole, ".mrc.gz": gzip.compress(whole), ".mrc.bz2": bz2.compress(whole),
        ".tif": (folder / "a.tif").read_bytes(), ".nii": nii, ".nii.gz": gzip.compress(nii),
        ".em": (folder / "a.em").read_bytes(),
    }  # fmt: skip


def read_or_refuse(folder: Path, ending: str, content: bytes, must_refuse: bool = False) -> None:
    path = folder / f"a{ending}"
    path.write_bytes(content)
    try:
        volume, meta = read_tomogram(path, voxel_size=10.0)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError), f"{type(error).__name__}: {error}"
        assert str(error).startswith(f"{path}: ") and len(str(error)) > len(str(path)) + 20
    else:
        assert not must_refuse, f"{ending}: {len(content)} bytes were read as a volume"
        assert volume.ndim == 3 and np.isfinite(volume).all() and meta["voxel_size_zyx"].tolist() == [10, 10, 10]


def test_every_ending_of_the_reader_is_here():
    here = {"." + part for ending in ENDINGS for part in ending.split(".")[1:]}
    assert {one for suffix in VOLUME_SUFFIXES for one in [suffix]} <= here | {".tiff", ".zarr"} | set(ENDINGS) | {
        f"{one}{two}" for one in (".mrc", ".rec", ".map") for two in (".gz", ".bz2")
    }


@pytest.mark.parametrize("ending", ENDINGS)
@quick
@given(content=st.binary(max_size=1500))
@example(content=b"")
@example(content=b"\x00" * 2048)
@example(content=b"\xff" * 2048)
@example(content=b"\x1f\x8b\x08\x00")
def test_random_bytes_are_refused(ending, tmp_path, content):
    read_or_refuse(tmp_path, ending, content, must_refuse=True)


@pytest.mark.parametrize("ending", ENDINGS)
@quick
@given(part=st.floats(0, 0.995))
def test_a_truncated_volume_is_refused(ending, tmp_path, samples, part):
    whole = samples[ending]
    end = len(whole) * (0.9 if ending == ".tif" else 1.0)  # the last bytes of a TIFF are no voxels
    read_or_refuse(tmp_path, ending, whole[: int(end * part)], must_refuse=True)


@pytest.mark.parametrize("ending", ENDINGS)
@quick
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 4))
def test_a_damaged_header_is_refused_or_read_as_a_finite_volume(ending, tmp_path, samples, seed, changes):
    content, rng = bytearray(samples[ending]), random.Random(seed)
    for _ in range(changes):
        content[rng.randrange(min(len(content), 400))] = rng.randrange(256)
    read_or_refuse(tmp_path, ending, bytes(content))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copick")
    with tarfile.open(Path(__file__).parents[1] / "golden" / "copick" / "project.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    config = json.loads((folder / "project.json").read_text())
    config.update(static_root=f"local://{folder}/static", overlay_root=f"{folder}/overlay")
    (folder / "project.json").write_text(json.dumps(config))
    return folder / "project.json"


def refuse_or_not(path: Path, content: bytes, read) -> None:
    """Put something else into a file of the project, read, and put the file back."""
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        read()
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError), f"{type(error).__name__}: {error}"
        assert len(str(error)) > 20
    finally:
        path.write_bytes(whole)


@quick
@given(content=st.one_of(st.binary(max_size=80), st.sampled_from([b"", b"[]", b"{}", b"null", b'{"config_type": 3}'])))
def test_a_damaged_copick_config_is_refused(project, content):
    refuse_or_not(project, content, lambda: pytest.fail(f"opened {open_project(project)}"))


@quick
@given(part=st.floats(0, 0.99), seed=st.integers(0, 2**32))
def test_damaged_copick_picks_are_refused_or_read(project, part, seed):
    path = next(project.parent.rglob("*_1_ribosome.json"))
    whole, rng = path.read_bytes(), random.Random(seed)
    read = lambda: read_picks(project, "ribosome")  # noqa: E731
    refuse_or_not(path, whole[: int(len(whole) * part)], read)
    damaged = bytearray(whole)
    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    refuse_or_not(path, bytes(damaged), read)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"null", b"[]", b"{}", b'{"multiscales": []}', b'{"multiscales": [{"datasets": 3}]}']
)
def test_a_damaged_zarr_of_a_copick_project_is_refused_or_read(project, content):
    pytest.importorskip("zarr")
    tomogram = find_tomograms(f"copick:{project}")[0]
    for name in (".zattrs", "0/.zarray", "zarr.json", "0/zarr.json"):
        path = Path(tomogram.path) / name
        if path.is_file():
            refuse_or_not(path, content, lambda: read_tomogram(tomogram.path))
