"""The parts of ``configs/inference.json``, built once: plan, load, networks, instances, files of one tomogram."""

from __future__ import annotations

import difflib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

from custom_transforms.files.json_object import read_object
from custom_transforms.files.whole_files import check_folder
from custom_transforms.instances import AssignInstancesd
from custom_transforms.io import LoadTomogramd
from custom_transforms.measuring.particle_filter import ParticleFilter
from custom_transforms.measuring.taught import read_taught
from custom_transforms.units import FIRST_LENGTHS, ParticleSizes, first_lengths, following
from custom_transforms.volumes.mrc_read import MRC_SUFFIXES
from custom_transforms.volumes.rescale import model_shape
from scripts.console import heard_warnings
from scripts.detection.checks import check_mask
from scripts.detection.plan import Plan, check_disk, make_plan
from scripts.detection.streaming import check_streams, computed, detect_streamed
from scripts.inferer import TomogramInferer
from scripts.networks import UNSAID, check_device
from scripts.outputs import SaveDetectiond
from scripts.records.trust import trusted_root
from scripts.records.weights import file_digest, read_record
from scripts.settings import SETTINGS as KINDS
from scripts.settings import check_classes, check_setting, is_code
from scripts.sources.tomogram import Tomogram
from scripts.tiling.tiles import tile_of

__all__ = ["Detector"]

Source = str | Path | Mapping[str, Any] | Tomogram

PARTS = ("preprocessing", "inferer", "postprocessing", "network", "network_def")  # that settings are put into


class Detector:
    """The parts of ``configs/inference.json``, built once and used for one tomogram after another.

    Parameters
    ----------
    overrides : mapping
        Ids of ``inference.json`` to replace, as ``--id value`` does for ``monai.bundle run``.
    config : sequence of paths
        Config files laid over ``inference.json``, in order, before the overrides.
    memory : float, optional
        Largest memory to use, GiB; by default what is free.
    stream : bool, optional
        Whether volumes go through files instead of memory; by default where memory does not suffice.
    scratch_dir : path, optional
        Where streamed volumes are kept meanwhile; by default where the results go.
    bundle : path, optional
        Another bundle, zip or folder, whose config, thresholds and weights are used instead of this one's.
    trust : bool
        Whether that bundle's config, which is code, may run from now on (`trusted_root`).

    Raises
    ------
    FileNotFoundError, ValueError
        If an override names no id of the config, the device is not there, or the bundle is none or not trusted.

    Notes
    -----
    ``inference.json`` holds the settings that belong to the bundle's own weights. Other weights bring theirs in the
    record beside them (their voxel size, their thresholds), which lie below everything that was asked for.
    """

    def __init__(
        self,
        overrides: Mapping[str, Any] | None = None,
        config: Sequence[str | Path] = (),
        memory: float | None = None,
        stream: bool | None = None,
        scratch_dir: str | Path | None = None,
        bundle: str | Path | None = None,
        trust: bool = False,
    ) -> None:
        self.root = trusted_root(bundle, trust)
        self.parser = ConfigParser()
        self.parser.read_config([str(self.root / "configs" / "inference.json")])
        if "sizes" not in self.parser:
            self._set(first_lengths(self.parser.get()))
        asked: dict[str, Any] = {"bundle_root": str(self.root)}
        sources = dict.fromkeys(KINDS, str(self.root / "configs" / "inference.json"))
        for path in config:
            overlay = self._known(read_object(path, "a config file (JSON)"), str(path))
            asked.update(overlay)
            sources.update(dict.fromkeys(overlay, str(path)))
        options = self._known(overrides or {}, "options")
        asked.update(self._as_data(options))
        self._set(asked)
        self._check(sources | dict.fromkeys(options, ""))
        self._use_moved(asked)
        belonging = self._belonging(asked) | self._taught(asked)
        self._set(belonging)
        self._check(dict.fromkeys(belonging, str(self._weights().with_suffix(".json"))))
        content = self.parser.get()
        check_classes({name: self.parser.get_parsed_content(name) for name in KINDS if name in content})
        self.classes: list[str] = list(self.parser.get_parsed_content("classes") or []) if "classes" in content else []
        if (tile := self.parser.get_parsed_content("tile")) is not None:
            self.parser["tile"] = tile_of(tile)
        self.sizes = self._sizes()
        check_device(self.parser.get_parsed_content("device"))
        self.preprocessing = self.parser.get_parsed_content("preprocessing")
        self.postprocessing = self.parser.get_parsed_content("postprocessing")
        self.inferer = self.parser.get_parsed_content("inferer")
        if not isinstance(self.inferer, TomogramInferer):
            raise ValueError(
                f"inferer: expected a TomogramInferer, whose tiles and memory can be planned, got "
                f"{type(self.inferer).__name__}. Leave it out; `monai.bundle run` takes any inferer."
            )
        self.asked = self.inferer.roi_size, self.inferer.batch
        saves = self._steps(SaveDetectiond)
        self.save = saves[0] if saves else self.parser.get_parsed_content("write")
        edits = {key: value for key, value in asked.items() if key.replace("::", "#").split("#")[0] in PARTS}
        self.save.edits = json.loads(json.dumps(edits, default=str))
        self.network = self.parser.get_parsed_content("network").eval()
        self.memory, self.stream, self.scratch_dir = memory, stream, scratch_dir
        # what runs the networks on a streamed tomogram, where that is not this process; and labels its blocks, of which
        # so many share this machine's memory
        self.network_elsewhere: Callable[[Tomogram], Any] | None = None
        self.blocks_at_once = 1

    def _known(self, values: Mapping[str, Any], source: str) -> dict[str, Any]:
        """The values without comments; an id that the config lacks is an error."""
        values = {key: value for key, value in values.items() if not key.startswith("_")}
        for key in values:
            if key.split("::")[0].split("#")[0] not in self.parser.get():
                close = difflib.get_close_matches(key, self.parser.get(), 1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ValueError(f"{source}: {key!r} is not an id of configs/inference.json.{hint} Nothing was done.")
        return values

    def _as_data(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Hide text of options that MONAI would run, resolve or rewrite behind a name: a value is no code."""
        self.parser.globals["_options"] = options
        hidden = [name for name, value in options.items() if name in KINDS and is_code(value)]
        return {**options, **{name: f"$_options[{name!r}]" for name in hidden}}

    def _check(self, sources: Mapping[str, str]) -> None:
        """Refuse settings that cannot be, before the networks are built; ``sources`` says where each came from."""
        for name in (name for name in KINDS if name in sources and name in self.parser.get()):
            check_setting(name, self.parser.get_parsed_content(name), sources[name])

    def _set(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self.parser[key] = value

    def _sizes(self) -> ParticleSizes:
        """The lengths, of which those of detection become settings in numbers, as the record has them."""
        lengths = {name: self.parser.get_parsed_content(name) for name in ParticleSizes.SETTINGS}
        diameter = self.parser.get_parsed_content("particle_diameter")
        sizes = ParticleSizes.from_diameter(diameter, **lengths)
        if not any(isinstance(value, Mapping) for value in (diameter, *lengths.values())):
            self._set(lengths | {name: getattr(sizes, name) for name in FIRST_LENGTHS})
        return sizes

    def _belonging(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that other weights bring along, bar those that were asked for."""
        weights = self._weights()
        follow: dict[str, Any] = {}
        if weights.is_file() and weights.resolve() != (self.root / "models" / "model.pt").resolve():
            follow = dict(UNSAID)
            recorded = following(read_record(weights).detection_settings())
            follow |= self._known(recorded, str(weights.with_suffix(".json")))
        return {key: value for key, value in follow.items() if key not in asked}

    def _use_moved(self, asked: Mapping[str, Any]) -> None:
        """Take the networks that `teach` moved to its examples, unless others were asked for."""
        teach = self.parser.get_parsed_content("teach") if "teach" in self.parser else None
        if teach is None or "weights" in asked or (name := read_taught(teach).networks) is None:
            return
        file = Path(teach).expanduser().with_name(name)
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: expected the networks that teach moved, beside {teach}, found none. Copy them there, too."
            )
        self.parser.globals["_moved"] = str(file)  # a path is no code
        self._set({"weights": "$_moved"})

    def _taught(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that examples were taught with, bar those that were asked for."""
        file = self.parser.get_parsed_content("teach") if "teach" in self.parser else None
        if file is None:
            return {}
        taught = read_taught(file)
        if taught.weights_sha256 not in (None, file_digest(self._weights())):
            warnings.warn(
                f"{file}: taught on what other weights found. Give those, or teach anew.", UserWarning, stacklevel=3
            )
        for name, value in taught.settings.items():  # before the config takes them, where text would be code
            check_setting(name, value, str(file))
        return {key: value for key, value in taught.settings.items() if key not in asked}

    def _weights(self) -> Path:
        return Path(self.parser.get_parsed_content("weights")).expanduser()

    def _steps(self, kind: type) -> list[Any]:
        """The steps of pre- and postprocessing that are of a class, or of one made of it."""
        chains = (self.preprocessing, self.postprocessing)
        return [step for chain in chains for step in getattr(chain, "transforms", (chain,)) if isinstance(step, kind)]

    def resolve(self, source: Source) -> Tomogram:
        """A file or an item of a datalist, with the voxel size of the config where it does not say its own."""
        if isinstance(source, Tomogram):
            return source
        return Tomogram.resolve(source, *[step.voxel_size for step in self._steps(LoadTomogramd)[:1]])

    def plan(self, source: Source) -> Plan | None:
        """Decide how to detect a tomogram, and set tile and batch for it; None for a file whose header is not MRC.

        ``source`` is a path, an item of a datalist with its own voxel size or contrast, or a resolved tomogram.

        Raises
        ------
        ValueError
            If memory or disk do not suffice, or the file or a step of the config cannot be streamed and should be.
        """
        tomogram, inferer = self.resolve(source), self.inferer
        inferer.roi_size, inferer.batch = self.asked  # the plan of the tomogram before must not stay
        if tomogram.shape_zyx is None:
            self._check_limits(tomogram.path)
            return None
        seen, reach = tomogram.shape_zyx, 0
        if tomogram.voxel_size_zyx is not None:
            radius = max((step.sizes.radius_max for step in self._steps(AssignInstancesd)), default=0.0)
            reach = int(np.ceil(radius / tomogram.voxel_size_zyx.min()))
            if not inferer.keep_voxel_size:
                seen = model_shape(tomogram.shape_zyx, tomogram.voxel_size_zyx, inferer.voxel_size_model)
        plan = make_plan(
            tomogram.shape_zyx,
            self.network,
            seen_zyx=seen,
            tile=inferer.roi_size,
            overlap=inferer.overlap,
            largest_side=inferer.largest_side,
            device=self.parser.get_parsed_content("device"),
            memory=self.memory,
            stream=self.stream,
            reach=reach,
            classes=max(1, len(self.classes)),
            at_once=self.blocks_at_once,
        )
        if plan.path == "streamed":
            check_streams(self.preprocessing, inferer, self.postprocessing)
        check_disk(plan, self.save.folder(tomogram.path), self.scratch_dir)
        inferer.roi_size, inferer.batch = plan.tile, max(plan.batch, inferer.batch)
        return plan

    def _check_limits(self, path: str | Path) -> None:
        """Refuse to stream a file of another format than MRC; warn that no memory limit holds for it."""
        if str(path).lower().endswith(MRC_SUFFIXES):
            return  # a broken header, which the reader explains
        if self.stream:
            raise ValueError(
                f"{path}: expected an MRC file, the one format that can be streamed (--stream), got another. "
                "Convert it to MRC, or leave --stream out."
            )
        if self.memory is not None:
            warnings.warn(
                f"{path}: --memory {self.memory:g} is not kept: a file that is not MRC is read whole. "
                "Convert it to MRC if memory is short.",
                UserWarning,
                stacklevel=3,
            )

    def _check_files(self, tomogram: Tomogram, streamed: bool) -> None:
        """Refuse, before any work, what would be found wrong only after it: masks, and places for the results."""
        masks = [step.mask_file(tomogram.path) for step in self._steps(ParticleFilter)]
        for path in [self.inferer.region, *masks]:
            if path is not None:
                check_mask(path, tomogram.shape_zyx)
        self.save.check(tomogram.path, None if streamed else tomogram.voxel_size_zyx)
        self.save.check_output([tomogram.item])
        if streamed and self.scratch_dir is not None:
            check_folder(self.scratch_dir, "--scratch_dir")

    def predict(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Load one tomogram and run the networks: adds ``pred`` (1 + classes, Z, Y, X) to the item, and ``timings``."""
        start = time.perf_counter()
        data = self.preprocessing(dict(item))
        loaded = time.perf_counter()
        with torch.no_grad():
            data["pred"] = self.inferer(data["image"][None], self.network)[0]
        data["image"].meta["warnings"] = data["pred"].meta.get("warnings", "")
        timings = {"load": loaded - start, "networks": time.perf_counter() - loaded}
        return {
            **data,
            "computed": computed("memory", self.inferer),
            "timings": {stage: round(seconds, 2) for stage, seconds in timings.items()},
        }

    def split(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Turn ``pred`` into ``probability`` and ``center_map``: the first step of post-processing, by itself."""
        return self.postprocessing.transforms[0](data)

    def __call__(self, source: Source, plan: Plan | None = None) -> dict[str, Any]:
        """Detect one tomogram and write its files; returns all data of the chain, or without volumes if streamed.

        Parameters
        ----------
        source : path, mapping or Tomogram
            A file; an item of a datalist: ``image``, and its own ``voxel_size`` (Å) and ``contrast`` if it has them.
        plan : Plan, optional
            As `plan` gives it; None detects in memory.

        Returns
        -------
        dict
            ``warnings`` lists what transforms and readers warned of, as the record has it.
        """
        tomogram, streamed = self.resolve(source), plan is not None and plan.path == "streamed"
        self._check_files(tomogram, streamed)
        with heard_warnings() as heard:
            tomogram = replace(tomogram, item={**tomogram.item, "warnings": heard})
            if plan is None or not streamed:
                data = self.postprocessing(self.predict(tomogram.item))
            else:
                scratch_dir = self.scratch_dir or self.save.folder(tomogram.path)
                chain = self.preprocessing, self.inferer, self.postprocessing
                network = self.network_elsewhere(tomogram) if self.network_elsewhere else self.network
                data = detect_streamed(tomogram, plan, network, *chain, scratch_dir)
        return {**data, "warnings": heard}
