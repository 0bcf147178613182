"""Particle lists that are no such lists: every reader ends in an error of ours, or in particles with finite places."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, read_particles, write_particles

OPTIONS = {"voxel_size": 13.48, "size_zyx": (11, 20, 29), "binning": 2.0, "name": "TS_01"}
READABLE = [name for name, one in FORMATS.items() if one.read]
SAMPLES = {
    "cbox": b"data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n_CoordinateX\n_CoordinateY\n"
    b"_CoordinateZ\n_Width\n_Height\n_Depth\n_Confidence\n1.0 2.0 3.0 10 10 10 0.5\n4.0 5.0 6.0 10 10 10 0.25\n",
    "shrec": b"1bxn 1 2 3 0 0 0\n3qm1 4 5 6 10 20 30\n",
}
quick = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# A column, key or header of each format that it cannot do without, and what stands there instead.
WRONG = {
    "csv": (b"z_", b"q_"), "original": (b"PositionZ", b"PositionQ"),
    "deepfinder": (b' z="', b' q="'), "relion5": (b"rlnCenteredCoordinateZAngst", b"rlnCenteredCoordinateQAngst"),
    "relion4": (b"rlnCoordinateZ", b"rlnCoordinateQ"), "relion3": (b"rlnCoordinateZ", b"rlnCoordinateQ"),
    "warp": (b"rlnCoordinateZ", b"rlnCoordinateQ"), "stopgap": (b"orig_z", b"orig_q"), "dynamo": (b" 0 0 0 ", b" "),
    "em": (b"\x14\x00\x00\x00", b"\x13\x00\x00\x00"), "copick": (b'"z"', b'"q"'), "czi": (b'"z"', b'"q"'),
    "imod": (b"OBJT", b"OBJX"), "eman2": (b'"boxes_3d"', b'"boxes_2d"'), "coords": (b" ", b""),
    "cbox": (b"_CoordinateZ", b"_CoordinateQ"), "shrec": (b" ", b"_"),
}  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("name", READABLE),
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A whole file of each format."""
    folder = tmp_path_factory.mktemp("samples")
    known = ParticleList(
        np.array([[10.0, 20.5, 30.25], [111.0, 99.0, 40.0], [200.0, 150.0, 60.0]]),
        tomogram="TS_01",
        class_name="ribosome",
        score=[0.5, 0.25, 0.75],
        rotation=Rotation.random(3, random_state=1),
    )
    found = dict(SAMPLES)
    for name, one in FORMATS.items():
        if one.write is not None and name not in found:
            path = folder / f"{name}{one.suffixes[0]}"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    write_particles(known, path, name, **OPTIONS)
            except ImportError:
                continue
            found[name] = path.read_bytes()
    return found


def read_or_refuse(folder: Path, name: str, content: bytes, with_format: bool = True) -> None:
    """Reading gives finite particles, or an error of ours that tells more than a word; nothing else."""
    path = folder / f"list{FORMATS[name].suffixes[0]}"
    path.write_bytes(content)
    try:
        found = read_particles(path, name if with_format else None, **OPTIONS)
    except ImportError:
        pytest.skip(f"the library of {name} is not installed")
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError), f"{type(error).__name__}: {error}"
        assert len(str(error)) > 20, f"a message that tells nothing: {error}"
    else:
        assert np.isfinite(found.centers_xyz_angstrom).all()


@quick
@given(content=st.binary(max_size=600))
@example(content=b"")
@example(content=b"\x00" * 1024)
@example(content=b"\xff\xfe\x00")
@example(content=b"\n\n\n")
def test_random_bytes_are_refused(name, tmp_path, content):
    read_or_refuse(tmp_path, name, content)


@quick
@given(content=st.text(alphabet='_ 0123456789.,;\t\n-eE{}[]":<>/=#xyz', max_size=400))
@example(content="1 2\n3 4 5\n")
@example(content="nan nan nan\n")
@example(content="1e400 0 0\n")
@example(content="[]")
@example(content="{}")
@example(content="null")
@example(content='{"points": [1]}')
@example(content="data_\n\nloop_\n_rlnCoordinateX\n1 2\n")
@example(content="x,y,z\n")
@example(content="x,x,y,z\n1,2,3,4\n")
def test_random_text_is_refused(name, tmp_path, content):
    read_or_refuse(tmp_path, name, content.encode())


@quick
@given(part=st.floats(0, 1))
def test_a_truncated_file_is_refused_or_gives_its_whole_rows(name, tmp_path, samples, part):
    if name not in samples:
        pytest.skip(f"the library of {name} is not installed")
    whole = samples[name]
    read_or_refuse(tmp_path, name, whole[: int(len(whole) * part)])


@quick
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 6))
def test_a_file_with_damaged_bytes_is_refused_or_gives_finite_particles(name, tmp_path, samples, seed, changes):
    if name not in samples:
        pytest.skip(f"the library of {name} is not installed")
    content, rng = bytearray(samples[name]), random.Random(seed)
    for _ in range(changes):
        place = rng.randrange(len(content))
        if rng.random() < 0.5:
            content[place] = rng.randrange(256)
        else:
            content[place : place + rng.randrange(1, 12)] = rng.choice(
                [b"", b"nan", b"\n", b" ", b"-", b"\x00", b"1e999"]
            )
    read_or_refuse(tmp_path, name, bytes(content))


def test_a_file_without_a_column_it_needs_is_refused(name, tmp_path, samples):
    assert set(WRONG) == set(READABLE)
    if name not in samples:
        pytest.skip(f"the library of {name} is not installed")
    path = tmp_path / f"list{FORMATS[name].suffixes[0]}"
    path.write_bytes(samples[name].replace(*WRONG[name]))
    assert path.read_bytes() != samples[name]
    with pytest.raises(ValueError, match=f"^{path}: .{{20,}}"):
        read_particles(path, name, **OPTIONS)


def test_every_format_has_a_sample_to_damage(name, samples):
    assert name in samples or name == "imod"  # imodmodel is optional


def test_the_file_of_every_other_format_is_refused_or_gives_finite_particles(name, tmp_path, samples):
    for other, content in samples.items():
        if other != name:
            read_or_refuse(tmp_path, name, content)
            read_or_refuse(tmp_path, name, content, with_format=False)


def test_missing_files_and_folders_are_told(name, tmp_path):
    path = tmp_path / f"none{FORMATS[name].suffixes[0]}"
    for one in (path, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such particle list"):
            read_particles(one, name, **OPTIONS)
