"""New labels and lists of finished detections, by what was taught, without the networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.claim import claimed
from custom_transforms.files.json_object import to_json
from custom_transforms.teach import KeepTaughtd
from custom_transforms.volumes.lazy import LabelVolume
from custom_transforms.volumes.mrc_write import write_instances
from scripts.console import user_message
from scripts.outputs import LISTS
from scripts.particles.detected import write_lists
from scripts.records import model
from scripts.records.detection import (
    DetectionRecord,
    command_line,
    file_state,
    read_detection,
    remove_detection,
)
from scripts.report.report import make_report
from scripts.teach.candidates import Candidates

__all__ = ["check_target", "write_picks"]


def check_target(candidates: Candidates, output_dir: Path) -> None:
    """Refuse, before any work, an output folder that holds a detection of this tomogram which nobody taught."""
    record = _record(candidates, output_dir)
    if record.is_file() and read_detection(record).inputs.settings.get("teach") is None:
        raise FileExistsError(f"{record}: a detection that was not taught is there. Choose another --output_dir.")


def write_picks(candidates: Candidates, file: Path, output_dir: Path, report: bool) -> tuple[Path, int]:
    """Write the particles of the taught classes as `detect --teach` does, into ``<output_dir>/<tomogram>/``.

    Returns
    -------
    record : Path
        Written last, so it says that all files are there.
    kept : int
    """
    run, name = candidates.run, candidates.name
    keep = KeepTaughtd(file=file, particle_diameter=float(candidates.settings["particle_diameter"]))
    labels = LabelVolume(run.instances, np.arange(int(run.particles["label"].max()) + 1, dtype=np.int32))
    table, left = keep.chosen(run.particles, labels, candidates.descriptors)
    record = _record(candidates, output_dir)
    files = {"instances": f"{name}_instances.mrc", **{key: text.format(name=name) for key, text in LISTS.items()}}
    with claimed(record.parent):
        remove_detection(record)
        place = candidates.meta
        write_instances(
            record.parent / files["instances"], np.asarray(left[:]), run.voxel_size_zyx,
            place["origin_xyz"], place["header"].get("nstart_xyz", (0, 0, 0)),
        )  # fmt: skip
        lists = {key: record.parent / files[key] for key in LISTS}
        write_lists(lists, name, table, run.shape_zyx, run.voxel_size_zyx)
        made = _taught_record(candidates, file, files, table)
        if report:
            try:
                page = make_report(record.parent / name, record=made)
                made = made.changed(files={**files, "report": page.name})
            except Exception as error:  # lists and labels are worth more than their page
                made = made.changed(warnings=[*made.warnings, f"no report was written: {user_message(error)}"])
        model.write(made, record)
    return record, int((table["label"] > 0).sum())


def _record(candidates: Candidates, output_dir: Path) -> Path:
    return output_dir / candidates.name / f"{candidates.name}.json"


def _taught_record(candidates: Candidates, file: Path, files: dict[str, str], table: pd.DataFrame) -> DetectionRecord:
    """The record of the detection, with what was taught as its setting."""
    content = candidates.run.record.content()
    inputs, dropped = content["inputs"], table.loc[table["label"] == 0, "dropped_by"].value_counts().to_dict()
    content["inputs"] = {**inputs, "settings": {**inputs["settings"], "teach": str(file)}, "teach": file_state(file)}
    content |= {
        "command": command_line(),
        "particles": {"kept": int((table["label"] > 0).sum()), "dropped": dropped},
        "files": dict(files),
        "evaluation": None,  # it is of other particles
    }
    return DetectionRecord(**to_json(content))
