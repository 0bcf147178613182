"""Bodies, placement, membranes and scene files."""

import json

import mrcfile
import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from scripts.simulate.content import fill
from scripts.simulate.density import MapBody, model_density, read_map
from scripts.simulate.membranes import draw_membranes, rotation_to
from scripts.simulate.phantoms import Lobes, Ring, Shells, draw_phantom
from scripts.simulate.placement import Stage, render
from scripts.simulate.scene import load_scene, validate_scene
from scripts.simulate.write import particle_table

BASE = {"name": "tiny", "shape": [24, 40, 48], "voxel_size": 10, "particles": []}


def scene_of(**changes):
    return load_scene({**BASE, **changes})


def ball(radius):
    return Shells(radius, [], lumen=1.0)


@pytest.mark.parametrize("fraction", [(0.0, 0.0, 0.0), (0.31, -0.44, 0.12), (-0.5, 0.5, 0.25)])
def test_label_and_density_lie_within_a_tenth_of_a_voxel_of_the_reference_point(fraction):
    patch = render(ball(67.0), Rotation.identity(), np.array(fraction), 10.0)
    np.testing.assert_allclose(center_of_mass(patch.support), patch.middle, atol=0.1)
    np.testing.assert_allclose(center_of_mass(patch.density), patch.middle, atol=0.02)
    assert patch.size == pytest.approx(4 / 3 * np.pi * 6.7**3, rel=0.03)


def test_a_rotation_takes_the_body_frame_to_the_volume_frame_on_xyz_vectors():
    body = Lobes(np.array([[0.0, 0, 0], [0, 0, 60]]), np.array([20.0, 20.0]), np.array([0.1, 1.0]), blend=1.0)
    rotation = Rotation.from_euler("zyx", [25, -50, 110], degrees=True)
    patch = render(body, rotation, np.zeros(3), 5.0)
    heavy = np.array(center_of_mass(np.where(patch.density > 0.5, patch.density, 0)))
    expected_xyz = rotation.apply([0, 0, 60]) / 5.0
    np.testing.assert_allclose(heavy - patch.middle, expected_xyz[::-1], atol=0.1)


def test_a_virus_like_particle_is_labelled_whole_and_its_shell_is_dense():
    entry = scene_of(particles=[{"kind": "vlp", "name": "v", "radius": 200, "incomplete_fraction": 1}])["particles"][0]
    body = draw_phantom(entry, np.random.default_rng(0), np.random.default_rng(0))
    patch = render(body, Rotation.identity(), np.zeros(3), 10.0)
    middle = tuple(np.round(patch.middle).astype(int))
    assert patch.support[middle] and patch.density[middle] < 0.1
    assert patch.size == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.03)
    assert patch.density[patch.support].max() > 0.9


def test_a_ring_keeps_its_hole_and_a_density_label_only_what_is_dense():
    ring = render(Ring(60, 40, 40), Rotation.identity(), np.zeros(3), 10.0)
    assert not ring.support[tuple(np.round(ring.middle).astype(int))]
    shell = Shells(100, [(10, 20, 1.0)])
    whole, dense = (render(shell, Rotation.identity(), np.zeros(3), 10.0, label) for label in ("filled", "density"))
    assert dense.size < 0.6 * whole.size


def test_particles_never_overlap_and_none_is_lost_from_the_table():
    particles = [
        {"kind": "ball", "name": "big", "radius": [50, 60]},
        {"kind": "ring", "name": "ring", "radius": 35, "thickness": 25, "height": 30},
    ]
    scene = scene_of(particles=particles, placement={"occupancy": 0.12, "touching_fraction": 0.5})
    stage, drawn = fill(scene, np.random.default_rng(0))
    assert sorted(np.unique(stage.labels)) == list(range(len(stage.placed) + 1))
    table = particle_table(stage.labels, stage.placed, 10.0)
    whole = table[(table["class"] == "big") & ~table["touches_border"]]
    assert len(whole) > 1
    assert (whole["volume_vox"] > 0.94 * 4 / 3 * np.pi * 5**3).all()  # nobody has written over it
    assert drawn["occupancy"] == pytest.approx(0.12, abs=0.02)
    assert sum(drawn["placed"].values()) >= len(stage.placed)


def test_a_gap_keeps_particles_apart_and_zero_lets_them_touch():
    def nearest(gap):
        entry = {"kind": "ball", "name": "b", "radius": 40, "count": 60}
        stage, _ = fill(scene_of(particles=[entry], placement={"gap_angstrom": gap}), np.random.default_rng(1))
        references = np.array([p.reference_zyx_vox for p in stage.placed])
        distance = np.linalg.norm(references[:, None] - references[None], axis=-1)
        return distance[~np.eye(len(distance), dtype=bool)].min()

    assert nearest(0) < 9
    assert nearest(30) > 10


def test_what_finds_no_place_is_reported_and_ends_soon():
    entry = {"kind": "ball", "name": "b", "radius": 60, "count": 300}
    stage, drawn = fill(scene_of(particles=[entry]), np.random.default_rng(0))
    assert drawn["placed"]["b"] + drawn["no_place"]["b"] == 300
    assert drawn["no_place"]["b"] > 200


def test_the_border_can_be_respected():
    entry = {"kind": "ball", "name": "b", "radius": 50, "count": 20}
    stage, _ = fill(scene_of(particles=[entry], placement={"border": "inside"}), np.random.default_rng(0))
    volumes = np.bincount(stage.labels.ravel())[1:]
    assert len(volumes) > 3
    np.testing.assert_allclose(volumes, 4 / 3 * np.pi * 5**3, rtol=0.06)  # nothing is cut


def test_contact_search_ends_with_touching_supports():
    stage, patch = Stage((24, 40, 48), (0, 24)), render(ball(50), Rotation.identity(), np.zeros(3), 10.0)
    rng = np.random.default_rng(0)
    from scripts.simulate.placement import Placed

    first = np.array([12, 20, 24]) - np.round(patch.middle).astype(int)
    stage.put(patch, first, 1)
    stage.placed.append(Placed("b", 1, 1, first + patch.middle, Rotation.identity()))
    start = stage.find_contact(patch, rng, attempts=20)
    assert start is not None
    assert 9 <= np.linalg.norm(start - first) < 12.5


def test_a_class_has_one_form_and_another_name_another():
    entries = [{"kind": "complex", "name": name, "diameter": 120} for name in ("a", "b")]
    first, other = scene_of(particles=entries)["particles"]
    from scripts.simulate.bodies import draw_body

    scene = scene_of(particles=entries)
    one, again, different = (
        draw_body(entry, scene, np.random.default_rng(seed)) for entry, seed in ((first, 1), (first, 2), (other, 1))
    )
    np.testing.assert_array_equal(one.middles, again.middles)
    assert not np.allclose(one.middles, different.middles)


def test_a_map_is_drawn_at_its_reference_point_with_its_hollow_filled():
    grid = np.indices((31, 33, 36)) - np.array([15, 16, 18]).reshape(3, 1, 1, 1)
    distance = np.sqrt((grid**2).sum(0))
    density = np.clip(11 - distance, 0, 1) * np.clip(distance - 6, 0, 1)
    body = MapBody(density, voxel_size=10.0, target_voxel_size=20.0)
    patch = render(body, Rotation.random(rng=np.random.default_rng(0)), np.array([0.2, -0.3, 0.4]), 20.0)
    np.testing.assert_allclose(center_of_mass(patch.support), patch.middle, atol=0.1)
    np.testing.assert_allclose(center_of_mass(patch.density), patch.middle, atol=0.1)
    assert patch.support[tuple(np.round(patch.middle).astype(int))]
    assert patch.size == pytest.approx(4 / 3 * np.pi * 5.25**3, rel=0.15)


def test_of_a_map_with_two_copies_one_can_be_kept():
    density = np.zeros((15, 17, 40), np.float32)
    density[4:11, 4:12, 3:15] = density[4:11, 4:12, 20:33] = 2  # the second is larger, by a plane
    both, one = MapBody(density, 10.0), MapBody(density, 10.0, smallest_part=1)
    assert one.filled.sum() == 7 * 8 * 13 < both.filled.sum()
    assert np.argwhere(one.filled)[:, 2].min() > np.argwhere(both.filled)[:, 2].min() + 12


def test_maps_are_found_beside_the_scene_or_in_the_maps_folder(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    volume = np.zeros((13, 13, 13), np.float32)
    volume[4:9, 4:9, 3:10] = 2
    with mrcfile.new(folder / "box.mrc") as mrc:
        mrc.set_data(volume)
        mrc.voxel_size = 10
    entry = {"kind": "map", "name": "box", "path": "box.mrc", "count": 3}
    path = tmp_path / "scene_boxes.json"
    path.write_text(json.dumps({**BASE, "particles": [entry]}))
    stage, _ = fill(load_scene(path, folder), np.random.default_rng(0))
    assert len(stage.placed) == 3
    with pytest.raises(FileNotFoundError, match="Paths are relative to the scene file; give another folder with"):
        fill(load_scene(path), np.random.default_rng(0))


def test_bad_maps_say_what_is_wrong(tmp_path):
    with mrcfile.new(tmp_path / "nosize.mrc") as mrc:
        mrc.set_data(np.ones((4, 5, 6), np.float32))
    with pytest.raises(ValueError, match="Set 'map_voxel_size' in the scene"):
        read_map(str(tmp_path / "nosize.mrc"))
    (tmp_path / "text.mrc").write_text("no map")
    with pytest.raises(ValueError, match="expected an MRC density map"):
        read_map(str(tmp_path / "text.mrc"))
    with pytest.raises(ValueError, match="map threshold: expected one below the map's highest density 1, got 5"):
        MapBody(np.ones((4, 4, 4)), 10.0, threshold=5)


def test_an_atomic_model_becomes_a_density_about_its_centroid(tmp_path):
    pytest.importorskip("gemmi")
    lines = [
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C"
        for i, (x, y, z) in enumerate([(100, 0, 0), (130, 0, 0), (100, 0, 40), (130, 0, 40)], start=1)
    ]
    path = tmp_path / "four.pdb"
    path.write_text("\n".join([*lines, "END", ""]))
    density = model_density(str(path), 5.0, 10.0)
    np.testing.assert_allclose(center_of_mass(density), density.shape[0] // 2, atol=1e-3)
    assert density.sum() == pytest.approx(24, rel=1e-3)
    spread = [
        np.sqrt(((np.arange(len(density)) - len(density) // 2) ** 2 * density.sum(o)).sum() / 24) for o in _OTHERS
    ]
    assert spread[0] == pytest.approx(4, abs=0.2) and spread[2] == pytest.approx(3, abs=0.2) and spread[1] < 1
    path.write_text("nothing here")
    with pytest.raises(ValueError, match="expected"):
        model_density(str(path), 5.0, 10.0)


_OTHERS = ((1, 2), (0, 2), (0, 1))


def test_complexes_in_membranes_point_along_the_normal_and_meet_nothing():
    entry = {"kind": "two_lobed", "name": "m", "radius": 30, "distance": 50, "site": "membrane", "offset": 20}
    changes = {"membranes": {"sheets": 3, "spacing": 120, "particles_per_um2": 3000, "bend": 30, "sides": "one"}}
    scene = scene_of(shape=[32, 48, 56], particles=[entry], **changes)
    rng = np.random.default_rng(0)
    stage, drawn = fill(scene, rng)
    assert drawn["membranes"]["placed"]["m"] == len(stage.placed) > 5
    sheets = draw_membranes(scene["shape"], stage.slab, scene["membranes"], 10.0, _after_slab(scene))
    for particle in stage.placed:
        up = particle.rotation.apply([0, 0, 1])[::-1]
        foot = particle.reference_zyx_vox - 2 * up  # 20 Å back along the normal
        offset = np.linalg.norm(sheets.middles_zyx - foot, axis=1)
        nearest = int(offset.argmin())
        assert offset[nearest] < 1
        assert sheets.normals_zyx[nearest] @ up > 0.95


def _after_slab(scene):
    """The generator as `fill` has it when it draws the membranes."""
    from scripts.simulate.content import _empty_stage

    rng = np.random.default_rng(0)
    _empty_stage(scene, rng)
    return rng


def test_rotation_to_takes_z_to_the_direction():
    for direction in np.random.default_rng(0).normal(size=(10, 3)):
        turned = rotation_to(direction, 1.2).apply([0, 0, 1])
        np.testing.assert_allclose(turned, direction / np.linalg.norm(direction), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snr": 1}, r"unknown key 'snr'. Did you mean imaging.snr\? Known here: name, shape"),
        ({"imaging": {"snrr": 1}}, "unknown key 'imaging.snrr'. Known here: tilt_max"),
        ({"imaging": {"snr": -1}}, "imaging.snr: expected a number from 1e-06 to 1e[+]09, got -1"),
        ({"imaging": {"snr": [3, 1]}}, "expected .low, high. with low <= high, got .3, 1.. Swap them"),
        ({"imaging": {"ctf": "flip"}}, "imaging.ctf: expected one of none, flipped, modulated; got 'flip'"),
        ({"shape": [1, 2]}, "shape: expected three whole numbers .Z, Y, X., got .1, 2."),
        ({"voxel_size": "10"}, "voxel_size: expected a number, got '10'"),
        ({"particles": [{"kind": "cube", "name": "c"}]}, r"particles\[0\].kind: expected one of vlp, vesicle"),
        (
            {"particles": [{"kind": "ball", "name": "c"}]},
            r"particles\[0\].radius: this key is missing, and has no default",
        ),
        (
            {"particles": [{"kind": "ball", "name": "c", "radius": 1}] * 2},
            "a different name for every entry, got 'c' twice",
        ),
        (
            {"placement": {"occupancy": 0.2}, "particles": []},
            "placement.occupancy: expected particles without a 'count'",
        ),
    ],
)
def test_a_bad_scene_says_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        fill(load_scene({**BASE, **change}), np.random.default_rng(0))


def test_a_scene_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Shipped are .*cytosol, .*vlp"):
        load_scene(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="broken.json: expected JSON, but line 1 is not"):
        load_scene(tmp_path / "broken.json")


@pytest.mark.parametrize("name", ["vlp", "cytosol", "membranes"])
def test_shipped_scenes_are_valid(name):
    scene = load_scene(name)
    assert scene["name"] == name
    assert validate_scene({k: v for k, v in scene.items() if k != "folders"}) == {
        k: v for k, v in scene.items() if k != "folders"
    }
