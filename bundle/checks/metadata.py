"""Checks of configs/metadata.json: version, changelog, and the form the zoo's schema asks for."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from .common import Case

__all__ = ["check_format", "check_version", "format_errors"]

TEXT, NUMBER = (str,), (int, float)
# what the zoo's schema of 2024-07-25 requires, and the types of what it knows
REQUIRED = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(REQUIRED, TEXT),
    **dict.fromkeys(("data_source", "data_type", "image_classes", "label_classes", "pred_classes"), TEXT),
    "intended_use": TEXT,
    "references": (list,),
    **dict.fromkeys(("changelog", "required_packages_version", "eval_metrics", "supported_apps"), (dict,)),
    "network_data_format": (dict,),
}
TENSOR: dict[str, tuple[type, ...]] = {
    "type": TEXT,
    "format": TEXT,
    "num_channels": (int,),
    "spatial_shape": (list,),
    "dtype": TEXT,
    "value_range": (list,),
    "is_patch_data": (bool,),
    "channel_def": (dict,),
}
TENSOR_REQUIRED = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
ITEMS: dict[str, tuple[type, ...]] = {"spatial_shape": (str, int), "value_range": NUMBER, "references": TEXT}


def check_version(case: Case) -> str:
    """The version is in the changelog."""
    metadata = case.metadata
    for key in ("version", "changelog"):
        if key not in metadata:
            raise ValueError(f"configs/metadata.json has no {key}")
    version = metadata["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(version)):
        raise ValueError(f"expected a version like 1.2.3, got {version!r}")
    if version not in metadata["changelog"]:
        raise ValueError(f"version {version} is not in the changelog ({', '.join(metadata['changelog'])})")
    return f"{version}: {metadata['changelog'][version]}"


def check_format(case: Case) -> str:
    """Keys and types as the zoo's schema has them; by the official schema too, where it was given."""
    errors = format_errors(case.metadata)
    if errors:
        raise ValueError("; ".join(errors))
    if case.schema is None:
        return "by the rules of the zoo's schema 2024-07-25"
    if importlib.util.find_spec("jsonschema") is None:
        raise ValueError("a schema was given, which needs jsonschema: python -m pip install jsonschema")
    from monai.bundle import verify_metadata

    verify_metadata(meta_file=case.path("configs/metadata.json"), filepath=str(case.schema))
    return f"by {case.schema.name}"


def format_errors(metadata: Mapping[str, Any]) -> list[str]:
    """Say what of a metadata dict breaks the schema; an empty list if nothing does.

    Stricter in one point: 2.0 is no whole number, because MONAI makes tensors of these numbers.

    Examples
    --------
    >>> format_errors({"schema": 1})[:2]
    ['version is missing', 'monai_version is missing']
    """
    errors = [f"{key} is missing" for key in REQUIRED if key not in metadata]
    errors += _type_errors(metadata, TYPES, "")
    for key, value in metadata.items():
        if not re.fullmatch(r"[_a-zA-Z0-9]+_data_format", key):
            continue
        if isinstance(value, dict):
            errors += _network_errors(key, value)
        elif key not in TYPES:
            errors.append(f"{key}: expected an object, got {_kind(value)}")
    return errors


def _network_errors(name: str, network: Mapping[str, Any]) -> list[str]:
    errors = [f"{name}.{side} is missing" for side in ("inputs", "outputs") if side not in network]
    for side in ("inputs", "outputs", "post_processed_outputs"):
        tensors = network.get(side, {})
        if not isinstance(tensors, dict):
            errors.append(f"{name}.{side}: expected an object, got {_kind(tensors)}")
            continue
        for key, tensor in tensors.items():
            where = f"{name}.{side}.{key}."
            if isinstance(tensor, dict):
                errors += [f"{where}{one} is missing" for one in TENSOR_REQUIRED if one not in tensor]
                errors += _type_errors(tensor, TENSOR, where)
            elif not isinstance(tensor, (str, int, float)):
                errors.append(f"{where[:-1]}: expected a tensor, a number or text, got {_kind(tensor)}")
    return errors


def _type_errors(values: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], where: str) -> list[str]:
    errors = []
    for key, kinds in types.items():
        if key not in values:
            continue
        if not _is(values[key], kinds):
            errors.append(f"{where}{key}: expected {_name(kinds)}, got {_kind(values[key])}")
        elif key in ITEMS:
            wrong = [one for one in values[key] if not _is(one, ITEMS[key])]
            errors += [f"{where}{key}: expected items of {_name(ITEMS[key])}, got {_kind(one)}" for one in wrong[:1]]
    return errors


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    """Like isinstance, but true and false are no numbers."""
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _name(kinds: tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return " or ".join(names.get(kind, "an object") for kind in kinds)


def _kind(value: Any) -> str:
    return _name((type(value),)) if value is not None else "null"
