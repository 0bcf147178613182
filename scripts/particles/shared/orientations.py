"""Euler angles of each program, to and from active rotations of (x, y, z) vectors, template to tomogram.

Capital letters are scipy's intrinsic axes. Each pair is proven in the tests with an asymmetric template.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

__all__ = [
    "deepfinder_angles",
    "relion_angles",
    "rotation_from_deepfinder",
    "rotation_from_relion",
    "rotation_from_tom",
    "rotation_from_dynamo",
    "tom_angles",
    "dynamo_angles",
]


def rotation_from_relion(rot_tilt_psi: np.ndarray) -> Rotation:
    """Rotations from `rlnAngleRot/Tilt/Psi`, degrees, shape (n, 3).

    RELION's angles (ZYZ) turn the particle onto the reference; ours is the inverse.

    Examples
    --------
    >>> rotation_from_relion(np.array([[0.0, 0.0, 90.0]])).apply([1.0, 0.0, 0.0]).round(6) + 0.0
    array([[ 0., -1.,  0.]])
    """
    return Rotation.from_euler("ZYZ", np.asarray(rot_tilt_psi, dtype=float).reshape(-1, 3), degrees=True).inv()


def relion_angles(rotation: Rotation) -> np.ndarray:
    """`rlnAngleRot/Tilt/Psi` in degrees, shape (n, 3); tilt in 0..180."""
    return _euler(rotation.inv(), "ZYZ")


def rotation_from_deepfinder(phi_psi_the: np.ndarray) -> Rotation:
    """Rotations from DeepFinder's ``phi psi the``, degrees, shape (n, 3).

    DeepFinder samples the template at M v, with M = YZY(-phi, -the, -psi) in the component order
    (array axis 1, axis 0, axis 2), that is (y, z, x): in (x, y, z) this is ZXZ(-phi, -the, -psi), and the
    particle is the template turned by its inverse.
    """
    angles = np.asarray(phi_psi_the, dtype=float).reshape(-1, 3)
    return Rotation.from_euler("ZXZ", -angles[:, [0, 2, 1]], degrees=True).inv()


def deepfinder_angles(rotation: Rotation) -> np.ndarray:
    """DeepFinder's ``phi psi the`` in degrees, shape (n, 3); the in 0..180."""
    psi_the_phi = _euler(rotation, "ZXZ")
    return psi_the_phi[:, [2, 0, 1]]


def rotation_from_tom(phi_psi_theta: np.ndarray) -> Rotation:
    """Rotations from TOM / AV3's ``phi psi theta``, degrees, shape (n, 3): phi about z, theta about x, psi about z."""
    angles = np.asarray(phi_psi_theta, dtype=float).reshape(-1, 3)
    return Rotation.from_euler("zxz", angles[:, [0, 2, 1]], degrees=True)


def tom_angles(rotation: Rotation) -> np.ndarray:
    """TOM / AV3's ``phi psi theta`` in degrees, shape (n, 3); theta in 0..180."""
    return _euler(rotation, "zxz")[:, [0, 2, 1]]


def rotation_from_dynamo(tdrot_tilt_narot: np.ndarray) -> Rotation:
    """Rotations from Dynamo's ``tdrot tilt narot`` (columns 7-9), degrees, shape (n, 3).

    Dynamo's angles describe the turn of the particle onto the template; ours is the inverse.
    """
    return Rotation.from_euler("zxz", np.asarray(tdrot_tilt_narot, dtype=float).reshape(-1, 3), degrees=True).inv()


def dynamo_angles(rotation: Rotation) -> np.ndarray:
    """Dynamo's ``tdrot tilt narot`` in degrees, shape (n, 3); tilt in 0..180."""
    return _euler(rotation.inv(), "zxz")


def _euler(rotation: Rotation, sequence: str) -> np.ndarray:
    """Euler angles; at a pole, where two angles are one, scipy's choice is exact and its warning says nothing new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock", category=UserWarning)
        angles = rotation.as_euler(sequence, degrees=True)
    return np.asarray(angles, dtype=float).reshape(-1, 3)
