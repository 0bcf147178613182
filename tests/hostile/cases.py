"""Bad inputs, more than a thousand, the same for a seed: damaged, absurd and malicious files, options and settings."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import random
import shutil
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import nibabel
import numpy as np
import tifffile
import torch
from monai.bundle import ConfigParser

from custom_transforms.io import read_tomogram
from scripts.command_line.parser import VERBS, main
from scripts.detection.detector import Detector
from scripts.networks import load_weights
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, read_particles, write_particles
from scripts.records.bundle_zip import extract
from scripts.records.weights import read_record
from scripts.settings import SETTINGS, is_code
from scripts.sources.copick_project import find_tomograms as find_copick
from scripts.sources.copick_project import read_picks
from scripts.sources.datalists import read_datalist
from tests.conftest import ROOT, SMALL_NETWORK
from tests.volumes.volume_files import phantom, save

__all__ = ["MALICIOUS", "Case", "cases"]

NETWORKS = {
    "_target_": "scripts.networks.MaskAndCenterNet", "mask_network": SMALL_NETWORK, "center_network": SMALL_NETWORK,
}  # fmt: skip
COMMAND = "__import__('os').system('touch bad')"
WEIRD: list[Any] = [
    None, True, -1, 0, 2**31, 2**70, 1e300, -1e-300, float("nan"), float("inf"), "", "abc", "..", f"${COMMAND}",
    "@weights", "%x", "\x00", "é" * 300, [], [1, 2], [[[]]], {}, {"a": 1}, [None] * 3, "[" * 50,
]  # fmt: skip
LIST_OPTIONS = {"voxel_size": 13.48, "size_zyx": (11, 20, 29), "binning": 2.0, "name": "TS_01"}


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    group, name : str
    run : callable
        Takes an empty folder; raises, or tells whether the answer is right. A number is the exit code of a command.
    refuse : bool
        Whether anything but an error is wrong.
    """

    group: str
    name: str
    run: Callable[[Path], Any]
    refuse: bool = False


@lru_cache(maxsize=2)
def cases(seed: int = 0) -> list[Case]:
    """All cases, always in the same order."""
    groups = (_volumes, _zarrs, _lists, _settings, _commands, _configs, _weights, _zips, _projects, _datalists)
    return [case for group in groups for case in group(random.Random(seed))]


# damage


def _damaged(whole: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """The same file cut, with flipped bits, with absurd numbers near its beginning, and something else."""
    for part in (0, 0.02, 0.3, 0.6, 0.9, 0.98):
        yield f"cut at {part:.0%}", whole[: int(len(whole) * part)]
    for _ in range(14):
        content, at = bytearray(whole), rng.randrange(len(whole))
        content[at] ^= 1 << rng.randrange(8)
        yield f"bit of byte {at}", bytes(content)
    for value in (0, -1, 2**31 - 1, 2**30, 0x7FC00000, -(2**31)):
        content, at = bytearray(whole), 4 * rng.randrange(min(len(whole), 256) // 4)
        content[at : at + 4] = struct.pack("<i", value)
        yield f"{value} at {at}", bytes(content)
    yield "zeros", bytes(3000)
    yield "random bytes", rng.randbytes(3000)
    yield "its beginning and random bytes", whole[:64] + rng.randbytes(3000)
    yield "a web page", b"<html><body>404 not found</body></html>\n" * 50


def _other_json(content: Any, rng: random.Random) -> Any:
    """The same JSON with a random part replaced, removed or nested."""
    content = json.loads(json.dumps(content))
    node, parents = content, []
    while isinstance(node, (dict, list)) and node and (not parents or rng.random() < 0.7):
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        parents.append((node, key))
        node = node[key]
    if not parents:
        return rng.choice(WEIRD)
    parent, key = parents[-1]
    if rng.random() < 0.2:
        del parent[key]
    else:
        parent[key] = rng.choice(WEIRD)
    return content


TEXTS = [
    "",
    "null",
    "[]",
    "3",
    '"a"',
    "{",
    "{}",
    "[" * 100_000,
    '{"a":' * 100_000,
    "\x00\xff",
    "NaN",
    "1" * 5000,
    '{"training": 3}',
]


# volumes


@cache
def _volume_files() -> dict[str, bytes]:
    import emfile

    folder, volume = Path(mkdtemp()), phantom()
    mrc = save(folder / "a.mrc", volume).read_bytes()
    nibabel.save(nibabel.Nifti1Image(volume.T, np.diag([10, 10, 10, 1])), folder / "a.nii")
    tifffile.imwrite(folder / "a.tif", volume)
    tifffile.imwrite(folder / "b.tif", volume, compression="zlib")
    emfile.write(folder / "a.em", volume)
    files = {one.name: one.read_bytes() for one in folder.iterdir()}
    shutil.rmtree(folder)
    return {
        "a.mrc": mrc, "a.mrc.gz": gzip.compress(mrc), "a.mrc.bz2": bz2.compress(mrc), "a.tif": files["a.tif"],
        "deflate.tif": files["b.tif"], "a.nii": files["a.nii"], "a.nii.gz": gzip.compress(files["a.nii"]),
        "a.em": files["a.em"],
    }  # fmt: skip


CHECKED = ("a.mrc.gz", "a.mrc.bz2", "a.nii.gz")  # formats with a checksum over all of the data


def _read(path: Path, same: bool) -> bool:
    volume, meta = read_tomogram(path, voxel_size=10.0)
    if same:
        return np.array_equal(volume, phantom())
    return volume.ndim == 3 and bool(np.isfinite(volume).all()) and meta["voxel_size_zyx"].tolist() == [10.0] * 3


def _volumes(rng: random.Random) -> Iterator[Case]:
    for name, whole in _volume_files().items():
        for what, content in _damaged(whole, rng):

            def run(folder: Path, name: str = name, content: bytes = content) -> bool:
                (folder / name).write_bytes(content)
                return _read(folder / name, name in CHECKED)

            cut = what.startswith("cut") and not (name.endswith(".tif") and what == "cut at 98%")
            other = what in ("zeros", "random bytes", "a web page")
            yield Case("volumes", f"{name}: {what}", run, refuse=cut or other)
    for number in range(40):
        whole = _volume_files()[("a.tif", "deflate.tif")[number % 2]]

        def directory(folder: Path, whole: bytes = whole, number: int = number) -> bool:
            start, length = struct.unpack("<I", whole[4:8])[0], 6 + 12 * 12
            noise = random.Random(number).randbytes(length)
            kept = random.Random(number).randrange(0, length) if number % 4 else 0
            content = whole[: start + kept] + noise[kept:] + whole[start + length :]
            (folder / "a.tif").write_bytes(content)
            return _read(folder / "a.tif", same=False)

        yield Case("volumes", f"a.tif: a directory of random bytes ({number})", directory)
    mrc = _volume_files()["a.mrc"]
    for name, head in (("a.mrc.gz", mrc), ("b.mrc.gz", b""), ("a.nii.gz", _volume_files()["a.nii"])):

        def bomb(folder: Path, name: str = name, head: bytes = head) -> bool:
            (folder / name).write_bytes(gzip.compress(head) + gzip.compress(bytes(2**24), 1) * 170)
            return _read(folder / name, same=False)

        yield Case("volumes", f"{name}: 2.8 GB of zeros", bomb, refuse=True)
    for field, at in (("nx", 0), ("nz", 8), ("nsymbt", 92)):
        for ending in ("", ".gz", ".bz2"):

            def huge(folder: Path, at: int = at, ending: str = ending) -> bool:
                content = mrc[:at] + struct.pack("<i", 2**31 - 1 if at == 92 else 99_999) + mrc[at + 4 :]
                packed = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[ending](content)
                (folder / f"a.mrc{ending}").write_bytes(packed)
                return _read(folder / f"a.mrc{ending}", same=False)

            yield Case("volumes", f"a.mrc{ending}: a huge {field}", huge, refuse=True)


def _zarrs(rng: random.Random) -> Iterator[Case]:
    from custom_transforms.volumes.zarr_write import write_labels_zarr

    def labels() -> np.ndarray:
        return (np.abs(phantom()) > 40).astype(np.int32)

    def case(what: str, damage: Callable[[Path], None], refuse: bool = False) -> Case:
        def run(folder: Path) -> bool:
            write_labels_zarr(folder / "a.zarr", labels(), 10.0)
            damage(folder / "a.zarr")
            volume, _ = read_tomogram(folder / "a.zarr", check="labels")
            return volume.ndim == 3

        return Case("zarr", f"a.zarr: {what}", run, refuse)

    for name in (".zattrs", "0/.zarray", ".zgroup"):
        for text in TEXTS:
            yield case(f"{name} is {text[:9]!r}", lambda p, n=name, t=text: (p / n).write_text(t))
        for seed in (rng.random() for _ in range(20)):

            def change(path: Path, name: str = name, seed: float = seed) -> None:
                content = json.loads((path / name).read_text())
                (path / name).write_text(json.dumps(_other_json(content, random.Random(seed))))

            yield case(f"{name} changed ({seed:.4f})", change)
    for part in (0, 0.5, 0.95):
        yield case(f"chunk cut at {part:.0%}", lambda p, a=part: _cut(p / "0/0/0/0", a), refuse=True)
    yield case("no chunk", lambda p: (p / "0/0/0/0").unlink())

    def enormous(path: Path) -> None:
        content = json.loads((path / "0/.zarray").read_text())
        (path / "0/.zarray").write_text(json.dumps({**content, "shape": [10**6] * 3}))

    yield case("10^18 voxels", enormous, refuse=True)


def _cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


# particle lists


LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else b"ha") for n in range(12))
MALICIOUS = (  # by the ending of the format's files
    (".xml", "a billion laughs", b"<!DOCTYPE o [" + LAUGHS + b"]><objlist><object x='&l11;' y='1' z='1'/></objlist>"),
    (".xml", "a file of the machine", b'<!DOCTYPE o [<!ENTITY e SYSTEM "file:///etc/passwd">]><objlist>&e;</objlist>'),
    (".xml", "100,000 levels", b"<a>" * 100_000),
    (".xml", "an attribute of 10 MB", b"<objlist><object x='" + b"1" * 10_000_000 + b"'/></objlist>"),
    (".star", "20,000 loops", b"data_\nloop_\n" * 20_000),
    (".star", "20,000 columns", b"data_\nloop_\n" + b"".join(b"_rln%d #%d\n" % (n, n) for n in range(20_000)) + b"1\n"),
    (".star", "a text without end", b"data_\nloop_\n_rlnCoordinateX\n;\n" + b"1\n" * 30_000),
    (".csv", "a quote without end", b'x_angstrom,y_angstrom,z_angstrom\n"1,2,3\n' + b"1,2,3\n" * 30_000),
    (".csv", "20,000 columns", b",".join(b"c%d" % n for n in range(20_000)) + b"\n" + b"1," * 20_000),
    (".csv", "a command as a cell", b"x_angstrom,y_angstrom,z_angstrom\n=cmd|' /C calc'!A0,2,3\n"),
    (".json", "100,000 levels", b"[" * 100_000),
    (".json", "a number of 5,000 digits", b'{"points": [{"location": {"x": ' + b"1" * 5000 + b"}}]}"),
    (".ndjson", "a number of 5,000 digits", b'{"type": "point", "location": {"x": ' + b"1" * 5000 + b"}}"),
)


@cache
def _list_files() -> dict[str, bytes]:
    folder, found = Path(mkdtemp()), {}
    known = ParticleList(
        np.array([[10.0, 20.5, 30.25], [111.0, 99.0, 40.0], [200.0, 150.0, 60.0]]),
        tomogram="TS_01", class_name="ribosome", score=[0.5, 0.25, 0.75],
    )  # fmt: skip
    for name, one in FORMATS.items():
        if one.write is not None and one.read is not None:
            path = folder / f"{name}{one.suffixes[0]}"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what a format does not keep
                    write_particles(known, path, name, **LIST_OPTIONS)
            except ImportError:
                continue
            found[name] = path.read_bytes()
    shutil.rmtree(folder)
    return found


def _lists(rng: random.Random) -> Iterator[Case]:
    for name, whole in _list_files().items():
        variants = list(_damaged(whole, rng))
        for value in (b"nan", b"1e300", b"2147483648", b"x", b"-5"):
            numbers = [at for at in range(len(whole)) if whole[at : at + 1].isdigit()]
            at = rng.choice(numbers)
            variants.append((f"{value.decode()} at {at}", whole[:at] + value + whole[at + 1 :]))
        variants.append(("2^31 points", whole.replace(struct.pack(">i", 3), struct.pack(">i", 2**31 - 1))))
        variants.append(("a line of 10 MB", b""))
        variants += [(what, content) for suffix, what, content in MALICIOUS if FORMATS[name].suffixes[0] == suffix]
        for what, content in variants:

            def run(folder: Path, name: str = name, content: bytes = content, whole: bytes = whole) -> bool:
                path = folder / f"list{FORMATS[name].suffixes[0]}"
                path.write_bytes(content or whole + b"1 " * 5_000_000)
                found = read_particles(path, name, **LIST_OPTIONS)
                return bool(np.isfinite(found.centers_xyz_angstrom).all())

            yield Case("lists", f"{name}: {what}", run)


# settings, command lines, configs


def _settings(rng: random.Random) -> Iterator[Case]:
    for name, kind in SETTINGS.items():
        for value in rng.sample(WEIRD, 7):

            def run(folder: Path, name: str = name, value: Any = value) -> bool:
                Detector({**_tiny(folder), name: value})
                return True

            yield Case(
                "settings",
                f"{name} = {str(value)[:20]!r}",
                run,
                refuse=not (kind.null and value is None or _takes(kind, value)),
            )


def _takes(kind: Any, value: Any) -> bool:
    try:
        return bool(kind.takes(value))
    except Exception:
        return False


def _tiny(folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    network = ConfigParser({"n": NETWORKS}).get_parsed_content("n")
    torch.save(network.state_dict(), folder / "model.pt")
    return {
        "network_def": NETWORKS, "weights": str(folder / "model.pt"), "device": "cpu", "progress": False,
        "tile": [32, 32, 32], "output_dir": str(folder / "out"),
    }  # fmt: skip


def _commands(rng: random.Random) -> Iterator[Case]:
    words = [
        [], ["none.mrc"], ["none.mrc", "none.csv"], ["."], ["--nothing", "1"], ["none.mrc", "--device", "tpu"],
        ["--seed", "x"], ["none.mrc", "--output_dir"], ["--voxel_size", "-3", "none.mrc"], ["copick:none.json"],
        ["\x01"], ["a" * 5000], ["none.zarr/0"], ["--", "none"], ["none.mrc", "--config", "none.json"],
    ]  # fmt: skip
    for verb in [*VERBS, "nothing", "-", "detekt"]:
        for arguments in words:

            def run(folder: Path, verb: str = verb, arguments: list[str] = arguments) -> int:
                return main([verb, *arguments])

            if verb not in ("demo", "demo_real") or any(one.startswith("--nothing") for one in arguments):
                yield Case("commands", " ".join([verb, *arguments])[:60], run)


def _configs(rng: random.Random) -> Iterator[Case]:
    known = dict.fromkeys(SETTINGS, 1.0) | {"network_def": NETWORKS}
    data = [value for value in WEIRD if not is_code(value)]  # a config's expressions are code, and run
    contents = [*TEXTS, *(json.dumps({rng.choice(list(known)): rng.choice(data)}) for _ in range(40))]
    contents += [json.dumps({"postprocessing#transforms#0": value}) for value in data[:12]]
    for content in contents:

        def run(folder: Path, content: str = content) -> bool:
            (folder / "c.json").write_text(content)
            Detector(_tiny(folder), [str(folder / "c.json")])
            return True

        yield Case("configs", content[:50], run)


# weights and bundles


class _Evil:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch bad",)


@cache
def _weights_file() -> bytes:
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save(_network().state_dict(), stream)
    return stream.getvalue()


def _network() -> torch.nn.Module:
    return ConfigParser({"n": SMALL_NETWORK}).get_parsed_content("n")


def _weights(rng: random.Random) -> Iterator[Case]:
    def saved(value: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(value, stream)
        return stream.getvalue()

    state = _network().state_dict()
    variants = [*_damaged(_weights_file(), rng), *_damaged(_weights_file(), rng)]
    variants += [(f"holds {str(value)[:20]!r}", saved(value)) for value in WEIRD]
    variants += [("runs a command", pickle.dumps(_Evil())), ("runs a command, in a zip", saved(_Evil()))]
    variants += [
        ("nan", saved({name: torch.full_like(value, torch.nan, dtype=torch.float32) for name, value in state.items()}))
    ]
    variants += [("half of it", saved(dict(list(state.items())[::2])))]
    for what, content in variants:

        def run(folder: Path, content: bytes = content) -> bool:
            (folder / "model.pt").write_bytes(content)
            network = load_weights(_network(), folder / "model.pt")
            torch.manual_seed(0)
            return all(
                torch.equal(a, b)
                for a, b in zip(_network().state_dict().values(), network.state_dict().values(), strict=True)
            )

        yield Case("weights", f"model.pt: {what}", run)
    record = {"training": {"voxel_size": 8.0, "dataset": {"name": "balls"}}, "detection": {"min_distance": 30.0}}
    contents = [*TEXTS, *(json.dumps(_other_json(record, rng)) for _ in range(25))]
    for content in contents:

        def read(folder: Path, content: str = content) -> bool:
            (folder / "model.pt").write_bytes(_weights_file())
            (folder / "model.json").write_text(content)
            read_record(folder / "model.pt").detection_settings()
            return True

        yield Case("weights", f"model.json: {content[:50]}", read)


def _zips(rng: random.Random) -> Iterator[Case]:
    def packed(*names: str, link: bool = False, data: bytes = b"x") -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
            for name in names:
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (stat.S_IFLNK if link else stat.S_IFREG | 0o644) << 16
                file.writestr(info, data)
        return stream.getvalue()

    whole = packed("b/configs/inference.json", "b/models/model.pt", "b/scripts/a.py", data=b"0123456789" * 300)
    variants = [(what, content, False) for what, content in _damaged(whole, rng)]
    for name in ("../x", "/x", "b/../../x", "b\\..\\x", "C:/x", "b/QQx", "b/" + "x" * 300, "..", "", "b/."):
        variants.append((f"the name {name[:20]!r}", packed("b/a", name).replace(b"QQx", b"\x00Qx"), True))
    variants.append(("a link", packed("b/a", "b/b", link=True, data=b"/etc/passwd"), True))
    variants.append(("a name twice", packed("b/a", "b/A"), True))
    variants.append(("a file that is a folder", packed("b/a", "b/a/c"), True))
    variants.append(("two tops", packed("b/a", "c/a"), True))
    variants.append(("no file", packed(), True))
    variants.append(("3,000 names", packed(*(f"b/{number}" for number in range(3_000))), False))
    for what, content, refuse in variants:

        def run(folder: Path, content: bytes = content) -> bool:
            (folder / "b.zip").write_bytes(content)
            inside = folder / "inside"
            try:
                extract(folder / "b.zip", inside)
            finally:
                outside = {path.name for path in folder.iterdir()} - {"b.zip", "inside"}
                if outside:
                    raise AssertionError(f"written outside: {outside}")
            return True

        yield Case("zips", f"b.zip: {what}", run, refuse)


# projects and datalists


def _projects(rng: random.Random) -> Iterator[Case]:
    def case(what: str, damage: Callable[[Path], None]) -> Case:
        def run(folder: Path) -> bool:
            with tarfile.open(ROOT / "tests" / "golden" / "copick" / "project.tar.xz") as archive:
                archive.extractall(folder, filter="data")
            config = folder / "project.json"
            content = json.loads(config.read_text())
            content.update(static_root=f"local://{folder}/static", overlay_root=f"{folder}/overlay")
            config.write_text(json.dumps(content))
            damage(folder)
            found = find_copick(f"copick:{config}")
            picks = read_picks(config, "ribosome")
            return bool(found) and bool(np.isfinite(picks.centers_xyz_angstrom).all())

        return Case("projects", f"project.json: {what}", run)

    def picks_file(folder: Path) -> Path:
        return next(folder.rglob("*_1_ribosome.json"))

    for text in TEXTS:
        yield case(f"config is {text[:9]!r}", lambda f, t=text: (f / "project.json").write_text(t))
        yield case(f"picks are {text[:9]!r}", lambda f, t=text: picks_file(f).write_text(t))
    for seed in (rng.random() for _ in range(30)):

        def change(folder: Path, seed: float = seed, picks: bool = False) -> None:
            path = picks_file(folder) if picks else folder / "project.json"
            path.write_text(json.dumps(_other_json(json.loads(path.read_text()), random.Random(seed))))

        yield case(f"config changed ({seed:.4f})", change)
        yield case(f"picks changed ({seed:.4f})", lambda f, c=change: c(f, picks=True))


def _datalists(rng: random.Random) -> Iterator[Case]:
    good = {
        "training": [{"image": "a.mrc", "label": "a.mrc", "voxel_size": 10.0}],
        "validation": [],
        "test": ["./a.mrc"],
    }
    contents = [*TEXTS, *(json.dumps(_other_json(good, rng)) for _ in range(60))]
    for content in contents:

        def run(folder: Path, content: str = content) -> bool:
            (folder / "a.mrc").write_bytes(b"x")
            (folder / "dataset.json").write_text(content)
            return all(Path(item["image"]).exists() for item in read_datalist(folder / "dataset.json").every_item())

        yield Case("datalists", f"dataset.json: {content[:50]}", run)
