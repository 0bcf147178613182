"""prepare: labels against shapes painted by plain loops, conventions against their words, splits, and bad input."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from custom_transforms.io import write_mrc
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import read_particles, write_particles
from scripts.preparation.dataset import Item, draw_slices, split_names
from scripts.preparation.inputs import TomogramInput
from scripts.preparation.labels import Prepared
from scripts.preparation.lists import match_particles
from scripts.preparation.painting import find_duplicates, ignore_shells, merge_duplicates, paint_instances
from scripts.preparation.prepare import prepare
from scripts.preparation.recenter import doubtful_moves, recenter
from scripts.preparation.resample import resample_grid
from scripts.preparation.shapes import Sphere, template_from_array

SIZE = (24, 40, 56)
VOXEL = np.full(3, 10.0)

pytestmark = pytest.mark.filterwarnings("ignore::scripts.particles.shared.context.ParticleListWarning")


def asymmetric_mask(n=20):
    """A body with three arms of different length, so that no rotation and no flip leaves it the same."""
    mask = np.zeros((n, n, n), np.float32)
    h = n // 2
    mask[h - 2 : h + 3, h - 2 : h + 3, h - 2 : h + 3] = 1
    mask[h : h + 8, h - 1 : h + 2, h - 1 : h + 2] = 1
    mask[h - 1 : h + 2, h : h + 6, h - 1 : h + 1] = 1
    mask[h : h + 2, h - 1 : h + 1, h - 7 : h] = 1
    return mask


def random_particles(count, seed=0, rotations=True, margin=0):
    rng = np.random.default_rng(seed)
    low, high = np.full(3, margin), np.array(SIZE) - 1 - margin
    centers = rng.uniform(low, high, (count, 3))[:, ::-1] * 10
    rotation = Rotation.random(count, random_state=seed) if rotations and count else None
    return ParticleList(centers, class_name=[("a", "b")[i % 2] for i in range(count)], rotation=rotation)


def labels_of(particles, shapes, size=SIZE):
    return paint_instances(particles, shapes, size, VOXEL).labels


def plain_deepfinder(mask, center_zyx, phi, psi, the, shape):
    """The convention in its own words: output voxel v takes the template at M v, vectors (axis 1, axis 0, axis 2)."""
    matrix = Rotation.from_euler("YZY", [-phi, -the, -psi], degrees=True).as_matrix()
    half = mask.shape[0] // 2
    found = np.zeros(shape, bool)
    for z, y, x in np.ndindex(*shape):
        v = np.array([y - center_zyx[1], z - center_zyx[0], x - center_zyx[2]], float)
        y_t, z_t, x_t = np.round(matrix @ v).astype(int) + half
        if min(z_t, y_t, x_t) >= 0 and max(z_t, y_t, x_t) < mask.shape[0]:
            found[z, y, x] = mask[z_t, y_t, x_t] > 0.5
    return found


@pytest.mark.parametrize("angles", [(90, 0, 0), (0, 0, 90), (90, 0, 90), (0, 90, 90), (30, -50, 110)])
def test_deepfinder_angles_turn_an_asymmetric_template_as_the_convention_says(angles, tmp_path):
    phi, psi, the = angles
    text = f'<objlist><object x="12" y="11" z="10" class_label="1" phi="{phi}" psi="{psi}" the="{the}"/></objlist>'
    (tmp_path / "a.xml").write_text(text)
    particles = read_particles(tmp_path / "a.xml", voxel_size=10.0)
    mask = asymmetric_mask()
    found = labels_of(particles, {"1": template_from_array(mask, 10.0)}, (22, 23, 25)) > 0
    expected = plain_deepfinder(mask, (10, 11, 12), phi, psi, the, (22, 23, 25))
    if all(angle % 90 == 0 for angle in angles):
        np.testing.assert_array_equal(found, expected)
    else:  # the plain loop takes the nearest voxel, ours interpolates: only the surface may differ
        overlap = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert overlap > 0.9
        np.testing.assert_allclose(np.argwhere(found).mean(0), np.argwhere(expected).mean(0), atol=0.2)


def test_relion_angles_turn_an_asymmetric_template_as_its_euler_matrix_says(tmp_path):
    """tilt 90: RELION's matrix takes the template's z to -x of the tomogram, x to z, and leaves y."""
    text = "data_\n\nloop_\n_rlnTomoName #1\n" + "".join(
        f"_rln{name} #{i}\n"
        for i, name in enumerate(["CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt", "AnglePsi"], 2)
    )
    (tmp_path / "a.star").write_text(text + "t 12 11 10 0 90 0\n")
    particles = read_particles(tmp_path / "a.star", voxel_size=10.0)
    mask = asymmetric_mask()
    found = labels_of(particles, {"*": template_from_array(mask, 10.0)}, (22, 23, 25)) > 0
    expected = np.zeros((22, 23, 25), bool)
    for z, y, x in np.argwhere(mask > 0.5) - 10:
        expected[10 + x, 11 + y, 12 - z] = True
    np.testing.assert_array_equal(found, expected)


def test_labels_are_where_the_transformed_mask_is():
    mask = asymmetric_mask()
    particles = random_particles(6, seed=3, margin=11)
    painted = paint_instances(particles.select([0]), {"*": template_from_array(mask, 10.0)}, SIZE, VOXEL)
    points = (np.argwhere(mask > 0.5) - 10)[:, ::-1]
    expected = particles.rotation[0].apply(points).mean(0) + particles.centers_xyz_angstrom[0] / 10
    found = np.argwhere(painted.labels == 1).mean(0)[::-1]
    assert np.abs(found - expected).max() < 0.15
    assert painted.labels.max() == 1 and abs(int(painted.mask_voxels[0]) - mask.sum()) < 0.08 * mask.sum()


def test_a_template_of_another_voxel_size_keeps_its_size_in_angstrom():
    fine = np.kron(asymmetric_mask(), np.ones((2, 2, 2), np.float32))
    one = ParticleList(np.array([[200.0, 200.0, 120.0]]), rotation=Rotation.identity(1))
    found = labels_of(one, {"*": template_from_array(fine, 5.0, target_voxel_size_zyx=VOXEL)}) > 0
    assert abs(found.sum() - asymmetric_mask().sum()) < 0.1 * found.sum()


def test_a_sphere_is_the_voxels_within_its_radius():
    center = np.array([12.3, 20.6, 30.1])
    found = labels_of(ParticleList(center[None, ::-1] * 10), {"*": Sphere(63.0)}) > 0
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1)
    np.testing.assert_array_equal(found, np.linalg.norm(grid - center, axis=-1) * 10 <= 63.0)


def test_a_contested_voxel_goes_to_the_nearer_center_in_units_of_its_radius():
    centers = np.array([[200.0, 200.0, 120.0], [300.0, 200.0, 120.0]])
    particles = ParticleList(centers, class_name=["a", "b"])
    labels = labels_of(particles, {"a": Sphere(80.0), "b": Sphere(40.0)})
    for z, y, x in np.argwhere(labels):
        distance = np.linalg.norm(np.array([x, y, z]) * 10 - centers, axis=1) / [80.0, 40.0]
        assert distance[labels[z, y, x] - 1] <= distance.min() + 1e-9


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 12))
def test_labels_do_not_depend_on_the_lists_order(seed, count):
    particles = random_particles(count, seed)
    shapes = {"a": template_from_array(asymmetric_mask(), 10.0), "b": Sphere(70.0)}
    shuffled = particles.select(np.random.default_rng(seed).permutation(count))
    np.testing.assert_array_equal(labels_of(particles, shapes), labels_of(shuffled, shapes))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9)))
def test_shifting_all_particles_by_whole_voxels_shifts_the_labels(seed, shift):
    particles = random_particles(5, seed)
    shapes = {"*": template_from_array(asymmetric_mask(), 10.0)}
    size = tuple(n + 60 for n in SIZE)
    middle = particles.with_centers(particles.centers_xyz_angstrom + 300.0)
    moved = middle.with_centers(middle.centers_xyz_angstrom + 10.0 * np.array(shift))
    expected = np.roll(labels_of(middle, shapes, size), shift[::-1], (0, 1, 2))
    np.testing.assert_array_equal(labels_of(moved, shapes, size), expected)


def test_star_csv_and_xml_of_the_same_particles_give_the_same_labels(tmp_path):
    particles = random_particles(8, seed=5).with_tomogram("TS_01")
    shapes = {"*": template_from_array(asymmetric_mask(), 10.0)}
    options = {"voxel_size": 10.0, "size_zyx": SIZE, "name": "TS_01"}
    volumes = []
    for name, form in (("a.star", "relion5"), ("b.star", "warp"), ("a.csv", None), ("a.xml", None)):
        write_particles(particles, tmp_path / name, form, **options)
        volumes.append(labels_of(read_particles(tmp_path / name, **options), shapes))
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume, volumes[0])


def test_particles_outside_or_cut_are_known_and_what_shows_of_an_outside_one_is_ignored():
    centers = np.array([[200.0, 200.0, 120.0], [10.0, 200.0, 120.0], [-30.0, 100.0, 120.0], [9000.0, 0.0, 0.0]])
    painted = paint_instances(ParticleList(centers), {"*": Sphere(60.0)}, SIZE, VOXEL)
    by_x = {float(c[0]): i for i, c in enumerate(painted.particles.centers_xyz_angstrom)}
    assert painted.clipped[by_x[10.0]] and not painted.clipped[by_x[200.0]]
    assert painted.outside[by_x[-30.0]] and painted.outside[by_x[9000.0]]
    assert painted.labels[12, 10, 0] == -1 and sorted(set(painted.label)) == [0, 1, 2]


def test_duplicates_are_pairs_within_a_third_of_the_radius_and_the_better_score_stays():
    centers = np.array([[100.0, 100, 100], [118.0, 100, 100], [125.0, 100, 100], [300.0, 100, 100]])
    particles = ParticleList(centers, score=[0.2, 0.9, 0.5, 0.1])
    pairs = find_duplicates(particles, np.full(4, 60.0))
    assert pairs.tolist() == [[0, 1], [1, 2]]
    assert merge_duplicates(particles, pairs).tolist() == [False, True, False, True]


def test_the_ignored_shell_is_the_background_within_its_thickness():
    labels = labels_of(random_particles(3, seed=2, rotations=False), {"*": Sphere(50.0)})
    shelled = labels.copy()
    ignore_shells(shelled, 25.0, VOXEL)
    inside = np.argwhere(labels > 0)
    for z, y, x in np.argwhere(labels == 0)[::37]:
        near = np.sqrt(((inside - [z, y, x]) ** 2).sum(1).min()) * 10 <= 25.0
        assert shelled[z, y, x] == (-1 if near else 0)
    np.testing.assert_array_equal(shelled[labels > 0], labels[labels > 0])


def test_recentering_moves_points_back_onto_the_density():
    rng = np.random.default_rng(0)
    size = (60, 90, 110)
    grid = np.stack(np.meshgrid([14, 30, 46], [14, 32, 50, 68], [14, 34, 54, 74, 94], indexing="ij"), -1)
    true = (grid.reshape(-1, 3)[:, ::-1] + rng.uniform(-0.5, 0.5, (60, 3))) * 10
    rotation = Rotation.random(60, random_state=1)
    shape = template_from_array(asymmetric_mask(), 10.0)
    painted = paint_instances(ParticleList(true, rotation=rotation), {"*": shape}, size, VOXEL)
    volume = (rng.normal(0, 1, size) - 1.5 * (painted.labels > 0)).astype(np.float32)
    wrong = rng.normal(0, 15, true.shape)
    wrong -= wrong.mean(0)
    before = volume.copy()
    moved, moves = recenter(
        ParticleList(true + wrong, rotation=rotation), volume, VOXEL, np.full(60, shape.radius_angstrom), 60.0
    )
    assert np.linalg.norm(wrong, axis=1).mean() > 20 and np.linalg.norm(moves, axis=1).max() <= 60.0 + 1e-6
    assert np.linalg.norm(moved.centers_xyz_angstrom - true, axis=1).mean() < 8.0
    np.testing.assert_array_equal(volume, before)


def test_doubtful_recentering_warns_and_says_so_in_the_record(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32)
    write_mrc(tmp_path / "TS_1.mrc", noise, 10.0)

    def far(particles, *_):
        return particles, np.full((len(particles), 3), 22.0)

    monkeypatch.setattr("scripts.preparation.labels.recenter", far)
    rows = [f"{x},{y},15" for x in (12, 20, 28, 36) for y in (12, 20, 28)]
    (tmp_path / "picks.csv").write_text("\n".join(["x,y,z", *rows]) + "\n")
    options = {"particles": str(tmp_path / "picks.csv"), "radius": 30.0, "recenter": 40.0, "quiet": True}
    with pytest.warns(
        UserWarning, match="TS_1: --recenter: 12 of 12 particles moved the full 40 Å, the mean is 38.1 Å"
    ) as caught:
        prepare(str(tmp_path / "TS_1.mrc"), output_dir=str(tmp_path / "out"), **options)
    made = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert str(caught[0].message) in made["notes"] and "doubt" not in made["tomograms"]["TS_1"]


@pytest.mark.parametrize(
    ("lengths", "doubtful"),
    [
        ([], False),
        ([10.0] * 10, False),
        ([1.0] * 18 + [38.0], False),  # one in 19
        ([1.0] * 9 + [38.0], True),  # one in ten
        ([19.0] * 10, False),
        ([21.0] * 10, True),
    ],
)
def test_moves_are_doubtful_where_many_are_long(lengths, doubtful):
    moves = np.array([[0.0, length, 0.0] for length in lengths]).reshape(-1, 3)
    assert bool(doubtful_moves(moves, 40.0)) == doubtful


@pytest.mark.parametrize("voxel_size", [None, 20.0])
def test_particles_move_to_the_detections_of_their_tomogram(tmp_path, voxel_size):
    """One to one and within reach: of two particles near one detection the nearer moves, as far as it may."""
    for name in ("TS_1", "TS_2"):
        write_mrc(tmp_path / f"{name}.mrc", np.random.default_rng(0).normal(size=(20, 30, 40)).astype(np.float32), 10.0)
    rows = ["tomogram,x,y,z"] + [f"{name},{x},12,8" for name in ("TS_1", "TS_2") for x in (6, 11, 30)]
    (tmp_path / "picks.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "TS_1_found.csv").write_text("x,y,z\n8,12,8\n30,12,11.5\n")
    (tmp_path / "TS_2_found.csv").write_text("x,y,z\n30,13,8\n")
    prepare(
        *(str(tmp_path / f"{name}.mrc") for name in ("TS_1", "TS_2")), particles=str(tmp_path / "picks.csv"),
        radius=30.0, recenter=30.0, recenter_on=str(tmp_path / "{name}_found.csv"), voxel_size=voxel_size,
        validation_fraction=0, output_dir=str(tmp_path / "out"), quiet=True,
    )  # fmt: skip
    shift = (10.0 - (voxel_size or 10.0)) / 2  # of the first voxel's middle
    columns = [f"reference_{axis}_angstrom" for axis in "xyz"]
    for name, expected in (
        ("TS_1", [[8, 12, 8], [11, 12, 8], [30, 12, 8]]),
        ("TS_2", [[6, 12, 8], [11, 12, 8], [30, 13, 8]]),
    ):
        table = pd.read_csv(tmp_path / "out" / f"{name}_particles.csv").sort_values(columns)
        np.testing.assert_allclose(table[columns], np.array(expected) * 10.0 + shift, atol=1e-3)
    moved = json.loads((tmp_path / "out" / "prepare.json").read_text())["tomograms"]["TS_1"]["recentered"]
    assert moved["max_angstrom"] == 20.0


def test_another_voxel_size_is_binning_where_it_is_whole():
    volume = np.random.default_rng(0).random((13, 20, 28)).astype(np.float32)
    grid = resample_grid(volume.shape, np.full(3, 5.0), 10.0)
    expected = volume[:12].reshape(6, 2, 10, 2, 14, 2).mean((1, 3, 5))
    np.testing.assert_allclose(grid.resample(volume), expected, atol=1e-6)
    np.testing.assert_allclose(grid.move_centers(np.array([[2.5, 2.5, 2.5]])), 0.0, atol=1e-12)
    assert resample_grid(volume.shape, np.full(3, 5.0), 5.02).is_same


def test_tomograms_are_matched_by_name_and_numbers_only_in_order():
    def tomograms(*names):
        return [TomogramInput(name, None) for name in names]

    particles = ParticleList(np.zeros((3, 3)), tomogram=["rec_TS_2.mrc", "TS_1.tomostar", "TS_2"])
    rows, notes = match_particles(particles, tomograms("TS_1", "TS_2"))
    assert rows["TS_1"].tolist() == [1] and rows["TS_2"].tolist() == [0, 2] and notes == []
    rows, notes = match_particles(ParticleList(np.zeros((2, 3)), tomogram=["0", "1"]), tomograms("a", "b"))
    assert rows["b"].tolist() == [1] and "in the order of the command line" in notes[0]
    with pytest.raises(ValueError, match="no tomogram of the list is among those given"):
        match_particles(particles, tomograms("other", "another"))
    with pytest.raises(ValueError, match="does not say which tomogram a particle is in, and 2 are given. Add a column"):
        match_particles(ParticleList(np.zeros((2, 3))), tomograms("a", "b"))
    with pytest.raises(ValueError, match="The list has particles without a tomogram, 'c'; given are 'a', 'b'"):
        match_particles(ParticleList(np.zeros((2, 3)), tomogram=["", "c"]), tomograms("a", "b"))


@pytest.mark.parametrize(
    ("columns", "factor", "unit"),
    [
        ("x,y,z", 1, "x, y, z in voxels"),
        ("X_Angstrom,Y_Angstrom,Z_Angstrom", 10, "x_angstrom, y_angstrom, z_angstrom in Å"),
    ],
)
def test_prepare_says_in_which_unit_it_read_a_table(tmp_path, columns, factor, unit):
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(20, 30, 40)).astype(np.float32), 10.0)
    (tmp_path / "picks.csv").write_text(f"{columns}\n{12 * factor},{11 * factor},{9 * factor}\n")
    prepare(
        str(tmp_path / "a.mrc"), particles=str(tmp_path / "picks.csv"), radius=30.0, output_dir=str(tmp_path / "out"),
        quiet=True,
    )  # fmt: skip
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["notes"] == [
        f"the list's positions are its columns {unit}"
    ]
    assert pd.read_csv(tmp_path / "out" / "a_particles.csv")["x_vox"].tolist() == [12.0]


def test_the_split_is_by_tomogram():
    assert split_names(list("abcde"), None, None, 0.2, 0.2) == dict(
        zip("abcde", ["training"] * 3 + ["validation", "test"], strict=True)
    )
    assert split_names(["a", "b"], "a", None, 0.2, 0.0) == {"a": "validation", "b": "training"}
    with pytest.raises(ValueError, match="--validation names 'x'"):
        split_names(["a", "b"], "x", None, 0.2, 0.0)


@pytest.fixture
def dataset(tmp_path):
    """Three tomograms with their particle list, two classes, oriented."""
    rng = np.random.default_rng(0)
    lists = []
    for index in range(3):
        particles = random_particles(6, seed=index + 10, margin=4).with_tomogram(f"TS_{index}")
        lists.append(particles)
        labels = labels_of(particles, {"*": Sphere(60.0)})
        write_mrc(tmp_path / f"TS_{index}.mrc", rng.normal(0, 1, SIZE).astype(np.float32) - 2 * (labels > 0), 10.0)
    write_particles(ParticleList.concat(lists), tmp_path / "picks.csv", voxel_size=10.0)
    return tmp_path


def read_mrc(path):
    with mrcfile.open(path) as mrc:
        return np.array(mrc.data), float(mrc.voxel_size.x)


def tomograms_of(folder, count=3):
    return [str(folder / f"TS_{index}.mrc") for index in range(count)]


def test_the_pictures_have_row_0_at_the_top(tmp_path):
    labels = np.zeros((20, 40, 40), np.int16)
    labels[8:12, 3:9, 28:34] = 1
    item = Item("a", None, Prepared(labels, pd.DataFrame()), VOXEL, np.zeros(3), "dark", {})
    draw_slices(tmp_path / "a.png", item, None)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), int)
    left = pixels[:, : pixels.shape[1] // 3]
    y, x = np.argwhere(left[..., 0] - left[..., 2] > 150).mean(axis=0) / left.shape[:2]
    assert y < 0.45 and x > 0.55


def test_prepare_writes_a_data_set_that_training_reads(dataset, capsys):
    from scripts.datalist import load_datalist

    out = dataset / "out"
    prepare(*tomograms_of(dataset), particles=str(dataset / "picks.csv"), radius=60.0, output_dir=str(out))
    assert len(load_datalist(out, "training")) == 2 and len(load_datalist(out, "validation")) == 1
    labels, size = read_mrc(out / "TS_0_labels.mrc")
    assert labels.dtype == np.int16 and size == 10.0 and labels.shape == SIZE
    expected = labels_of(random_particles(6, seed=10, margin=4), {"*": Sphere(60.0)})
    np.testing.assert_array_equal(labels, expected)
    table = pd.read_csv(out / "TS_0_particles.csv")
    assert table["label"].tolist() == list(range(1, 7)) and set(table["class"]) == {"a", "b"}
    np.testing.assert_array_equal(table["volume_vox"], np.bincount(labels.ravel())[1:])
    classes, _ = read_mrc(out / "TS_0_classes.mrc")
    lookup = np.array([0, *({"a": 1, "b": 2}[name] for name in table["class"])])
    np.testing.assert_array_equal(classes, lookup[labels])
    summary = json.loads((out / "prepare.json").read_text())
    assert summary["tomograms"]["TS_0"]["by_class"]["a"]["count"] == 3
    assert (out / "TS_0.png").stat().st_size > 10_000 and "TS_0 (training): 6 particles" in capsys.readouterr().out
    assert not list(out.glob(".prepare*"))


def test_prepare_at_the_models_voxel_size_keeps_positions(dataset):
    out = dataset / "out"
    options = {"particles": str(dataset / "picks.csv"), "radius": 60.0, "quiet": True}
    prepare(*tomograms_of(dataset), output_dir=str(out), voxel_size=20.0, **options)
    labels, size = read_mrc(out / "TS_1_labels.mrc")
    image, _ = read_mrc(out / "TS_1.mrc")
    assert size == 20.0 and labels.shape == image.shape == (12, 20, 28)
    table = pd.read_csv(out / "TS_1_particles.csv")
    whole = [row for row in table.itertuples() if not row.touches_border and row.contested_vox == 0]
    assert whole
    for row in whole:
        center = np.argwhere(labels == row.label).mean(0)
        assert np.abs(center - [row.z_vox, row.y_vox, row.x_vox]).max() < 0.5
    assert image[labels > 0].mean() < image[labels == 0].mean() - 1


def test_one_tomogram_is_split_by_region_and_each_particle_is_in_one_part(dataset):
    out = dataset / "out"
    options = {"particles": str(dataset / "picks.csv"), "radius": 60.0, "validation_fraction": 0.5, "quiet": True}
    prepare(str(dataset / "TS_2.mrc"), output_dir=str(out), **options)
    entries = json.loads((out / "dataset.json").read_text())
    assert len(entries["training"]) == len(entries["validation"]) == 1
    parts = [read_mrc(out / entries[key][0]["label"])[0] for key in ("training", "validation")]
    whole = labels_of(random_particles(6, seed=12, margin=4), {"*": Sphere(60.0)})
    joined = np.concatenate(parts, axis=2)
    assert joined.shape == whole.shape and sum(part.max() for part in parts) == 6
    np.testing.assert_array_equal(joined != 0, whole > 0)
    cut = parts[0].shape[2]
    for label in range(1, 7):
        sides = [
            part[(whole == label)[:, :, s]] for part, s in zip(parts, (slice(0, cut), slice(cut, None)), strict=True)
        ]
        owners = [side.size > 0 and side.max() > 0 for side in sides]
        assert sum(owners) == 1
    images = [read_mrc(out / entries[key][0]["image"])[0] for key in ("training", "validation")]
    np.testing.assert_array_equal(np.concatenate(images, axis=2), read_mrc(dataset / "TS_2.mrc")[0])


def test_outside_the_region_all_is_ignored_but_particles_with_their_center_inside(dataset):
    out = dataset / "out"
    options = {"particles": str(dataset / "picks.csv"), "radius": 60.0, "quiet": True}
    prepare(*tomograms_of(dataset, 2), output_dir=str(out), region=":,0:20,:", **options)
    labels, _ = read_mrc(out / "TS_0_labels.mrc")
    table = pd.read_csv(out / "TS_0_particles.csv", keep_default_na=False)
    table = table[table["dropped_by"] != "hidden"]
    inside = table["y_vox"] < 19.5
    assert (labels[:, 20:] != 0).all() and (labels[:, :20] == 0).any()
    assert ((table["label"] > 0) == inside).all() and set(table.loc[~inside, "dropped_by"]) == {"outside_region"}


def test_existing_label_volumes_pass_through(dataset):
    given = np.zeros(SIZE, np.int16)
    given[3:8, 3:8, 3:8], given[10:14, 20:25, 30:37], given[0] = 70, 5, -1
    for index in range(2):
        write_mrc(dataset / f"TS_{index}_given.mrc", given, 10.0)
    prepare(
        *tomograms_of(dataset, 2), labels=str(dataset / "{name}_given.mrc"), output_dir=str(dataset / "out"), quiet=True
    )
    labels, _ = read_mrc(dataset / "out" / "TS_0_labels.mrc")
    np.testing.assert_array_equal(labels, np.select([given == 70, given == 5, given == -1], [2, 1, -1], 0))
    table = pd.read_csv(dataset / "out" / "TS_0_particles.csv")
    assert table[["z_vox", "y_vox", "x_vox"]].to_numpy()[1].tolist() == [5.0, 5.0, 5.0]


def test_labels_can_be_made_without_tomograms_from_a_list_of_the_format_that_is_named(dataset):
    out = dataset / "out"
    (dataset / "picks.csv").rename(dataset / "picks.unknown")
    options = {"radius": 60.0, "shape": SIZE, "voxel_size": 10.0, "output_dir": str(out), "quiet": True}
    prepare(particles=str(dataset / "picks.unknown"), from_format="csv", **options)
    entries = json.loads((out / "dataset.json").read_text())
    assert [entry["label"] for entry in entries["labels"]] == [f"TS_{i}_labels.mrc" for i in range(3)]


def test_a_training_set_without_particles_is_made_only_if_it_is_asked_for(dataset):
    (dataset / "none.xml").write_text("<objlist></objlist>")
    out = dataset / "out"
    options = {"particles": str(dataset / "none.xml"), "radius": 60.0, "output_dir": str(out), "quiet": True}
    with pytest.raises(ValueError, match="no particle is in the training part of TS_0, TS_1.*--allow_empty"):
        prepare(*tomograms_of(dataset, 2), **options)
    assert not list(out.glob("*"))
    with pytest.warns(UserWarning, match="the particle list is empty"):
        prepare(*tomograms_of(dataset, 2), **options, allow_empty=True)
    assert not read_mrc(out / "TS_0_labels.mrc")[0].any()


def shapes_file(folder, content):
    (folder / "shapes.json").write_text(json.dumps(content))
    return str(folder / "shapes.json")


def test_bad_input_is_a_clear_error_and_leaves_nothing(dataset):
    out = dataset / "out"

    def fails(message, error=ValueError, tomograms=None, **options):
        options = {"particles": str(dataset / "picks.csv"), "output_dir": str(out), "quiet": True, **options}
        with pytest.raises(error, match=message):
            prepare(*(tomograms or tomograms_of(dataset)), **options)
        assert not out.exists() or not list(out.iterdir())

    fails("exactly one of --shapes FILE.json, --radius 120 or --template")
    fails("class 'b' of the list has no shape", shapes=shapes_file(dataset, {"a": 60}))
    fails("needs one of radius", shapes=shapes_file(dataset, {"a": {"size": 60}}))
    fails("no such file", FileNotFoundError, shapes=shapes_file(dataset, {"a": "gone.mrc"}))
    fails("gone.mrc: expected tomograms .* found nothing there", FileNotFoundError, tomograms=["gone.mrc"], radius=60.0)
    fails("would fill the tomogram", radius=900.0)
    fails("holds no voxel", radius=60.0, region="20:20,:,:")
    (dataset / "text.csv").write_text("x,y,z,angle_rot,angle_tilt,angle_psi\n1,2,3,a,b,c\n")
    fails("column angle_rot, row 1: expected a number", particles=str(dataset / "text.csv"), radius=60.0)
    write_mrc(dataset / "template.mrc", asymmetric_mask(), 1.0)
    fails("--template_voxel_size", template=str(dataset / "template.mrc"))
    write_particles(random_particles(2, rotations=False).with_tomogram("TS_0"), dataset / "plain.csv", voxel_size=10.0)
    template = {"template": str(dataset / "template.mrc"), "template_voxel_size": 10.0}
    fails("Give a list with angles, or --radius", particles=str(dataset / "plain.csv"), **template)
    write_mrc(dataset / "TS_9.mrc", np.random.default_rng(0).normal(size=SIZE).astype(np.float32), 1.0)
    fails("--tomogram_voxel_size", tomograms=[str(dataset / "TS_9.mrc")], radius=60.0)


def test_a_folder_or_a_pattern_stands_for_its_tomograms_and_lists(dataset):
    (dataset / "lists").mkdir()
    for name in ("TS_0", "TS_1", "TS_2"):
        write_particles(random_particles(6, margin=4), dataset / "lists" / f"{name}_particles.csv", voxel_size=10.0)
    for index, (tomograms, lists) in enumerate(((dataset, "lists"), (dataset / "TS_?.mrc", "picks.csv"))):
        out = dataset / f"out_{index}"
        prepare(str(tomograms), particles=str(dataset / lists), radius=60.0, output_dir=str(out), quiet=True)
        assert (out / "TS_0_labels.mrc").is_file() and (out / "TS_2_labels.mrc").is_file()


def test_an_earlier_data_set_is_kept_unless_overwritten(dataset):
    options = {
        "particles": str(dataset / "picks.csv"),
        "output_dir": str(dataset / "out"),
        "radius": 60.0,
        "quiet": True,
    }
    prepare(*tomograms_of(dataset), **options)
    with pytest.raises(ValueError, match="--overwrite"):
        prepare(*tomograms_of(dataset), **options)
    prepare(*tomograms_of(dataset), overwrite=True, **options)


@pytest.mark.slow
def test_particles_that_would_fill_a_small_tomogram_many_times_over_are_refused(dataset):
    path = dataset / "many.csv"
    numbers = np.random.default_rng(0).uniform(0, 200, (100_000, 3)).round(1)
    pd.DataFrame(numbers, columns=["x_angstrom", "y_angstrom", "z_angstrom"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="100,000 particles of the list would fill"):
        prepare(
            str(dataset / "TS_0.mrc"), particles=str(path), radius=60.0, output_dir=str(dataset / "out"), quiet=True
        )
