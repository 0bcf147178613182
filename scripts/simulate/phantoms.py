"""Built-in particles: bodies given by formulas, so that they can be drawn at any position and orientation.

Every body is seen in its own frame: points (x, y, z) in Å from its reference point. ``density`` is 1 for dense
protein and 0 for solvent; ``inside`` is positive in the filled support, which is what gets labelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Body", "Lobes", "Ring", "Shells", "draw_phantom"]


class Body:
    """What placement and rendering need of a particle.

    Attributes
    ----------
    reach : float
        Å; nothing of the body lies farther from the reference point.
    """

    reach: float

    def density(self, points: np.ndarray, edge: float) -> np.ndarray:
        """Density at points of shape (..., 3) in Å; surfaces are ``edge`` Å soft. Returns shape (...)."""
        raise NotImplementedError

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Depth in Å below the surface of the filled support (negative outside) at points (..., 3)."""
        raise NotImplementedError

    def draw(self, points: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
        """``density`` and ``inside`` together, for bodies that compute them from the same distances."""
        return self.density(points, edge), self.inside(points)


@dataclass
class Shells(Body):
    """Concentric layers around a lumen: virus-like particles, vesicles, solid balls.

    The surface is an ellipsoid with low bumps; each layer follows it at its own depth.
    """

    radius: float
    layers: list[tuple[float, float, float]]  # depth of the middle below the surface, thickness, density
    lumen: float = 0.0  # density inside the innermost layer
    axes: tuple[float, float, float] = (1.0, 1.0, 1.0)  # relative half axes
    bumps: list[tuple[float, np.ndarray]] = field(default_factory=list)  # height (fraction), unit vector
    gap: tuple[np.ndarray, float] | None = None  # the layers below the first are missing around this direction
    lattice: tuple[float, float] = (0.0, 80.0)  # strength and period (Å) of a modulation of the layers
    core: tuple[np.ndarray, float, float] | None = None  # middle, radius and density of a body in the lumen
    solid_label: bool = True  # False: only the layers count as support (a vesicle others may sit in)

    def __post_init__(self) -> None:
        self.reach = self.radius * max(self.axes) * (1 + sum(abs(height) for height, _ in self.bumps)) + 1.0

    def _depth(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth below the surface (Å) and unit directions."""
        scaled = points / np.asarray(self.axes)
        distance = np.sqrt((scaled**2).sum(-1))
        direction = scaled / np.maximum(distance, 1e-6)[..., None]
        surface = np.ones(distance.shape)
        for height, axis in self.bumps:
            surface = surface + height * (2 * (direction @ axis) ** 2 - 1)
        return self.radius * surface - distance, direction

    def inside(self, points: np.ndarray) -> np.ndarray:
        depth, _ = self._depth(points)
        if self.solid_label:
            return depth
        innermost = max(middle + thickness / 2 for middle, thickness, _ in self.layers)
        return np.minimum(depth, innermost - depth)

    def density(self, points: np.ndarray, edge: float) -> np.ndarray:
        depth, direction = self._depth(points)
        total = np.zeros(depth.shape)
        gate = np.ones(depth.shape)
        if self.gap is not None:
            axis, cosine = self.gap
            gate = _soft_step((cosine - direction @ axis) * self.radius, edge)
        strength, period = self.lattice
        texture = 1 + strength * np.cos(2 * np.pi * points / period).prod(-1) if strength else 1.0
        for number, (middle, thickness, value) in enumerate(self.layers):
            layer = _soft_step(thickness / 2 - np.abs(depth - middle), edge)
            total += value * layer * texture * (gate if number else 1.0)
        innermost = max(middle + thickness / 2 for middle, thickness, _ in self.layers) if self.layers else 0.0
        total += self.lumen * _soft_step(depth - innermost, edge)
        if self.core is not None:
            middle_xyz, radius, value = self.core
            distance = np.sqrt(((points - middle_xyz) ** 2).sum(-1))
            total += value * _soft_step(radius - distance, edge) * _soft_step(depth - innermost, edge)
        return total


@dataclass
class Ring(Body):
    """A torus (or a short tube, when ``height`` exceeds its thickness) about its z axis."""

    radius: float
    thickness: float
    height: float

    def __post_init__(self) -> None:
        self.reach = float(np.hypot(self.radius + self.thickness / 2, self.height / 2)) + 1.0

    def inside(self, points: np.ndarray) -> np.ndarray:
        across = np.abs(np.hypot(points[..., 0], points[..., 1]) - self.radius) / (self.thickness / 2)
        along = np.abs(points[..., 2]) / (self.height / 2)
        return (1 - (across**4 + along**4) ** 0.25) * min(self.thickness, self.height) / 2

    def density(self, points: np.ndarray, edge: float) -> np.ndarray:
        return _soft_step(self.inside(points), edge)


@dataclass
class Lobes(Body):
    """Balls melted together: two-lobed bodies, blobs, and the irregular complexes of crowded cells."""

    middles: np.ndarray  # (k, 3) Å
    radii: np.ndarray  # (k,) Å
    values: np.ndarray  # (k,) density of each lobe
    holes: tuple[np.ndarray, np.ndarray] | None = None  # middles (k, 3) and radii (k,) of cavities
    blend: float = 15.0  # Å over which lobes melt into each other

    def __post_init__(self) -> None:
        self.reach = float((np.linalg.norm(self.middles, axis=1) + self.radii).max()) + self.blend / 2

    def _depths(self, points: np.ndarray) -> np.ndarray:
        """Depth below the surface of each lobe, shape (k, ...)."""
        return self.radii.reshape((-1,) + (1,) * (points.ndim - 1)) - _distances(points, self.middles)

    def inside(self, points: np.ndarray) -> np.ndarray:
        return _smooth_maximum(self._depths(points), self.blend)

    def density(self, points: np.ndarray, edge: float) -> np.ndarray:
        return self.draw(points, edge)[0]

    def draw(self, points: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
        depths = self._depths(points)
        depth = _smooth_maximum(depths, self.blend)
        solid = _soft_step(depth, edge)
        if np.ptp(self.values) > 0:
            weights = np.exp(np.clip(depths / max(self.blend, 1.0), -20, 20))
            solid *= np.tensordot(self.values, weights, 1) / weights.sum(0)
        else:
            solid *= self.values[0]
        if self.holes is not None:
            middles, radii = self.holes
            for distance, radius in zip(_distances(points, middles), radii, strict=True):
                solid *= 1 - _soft_step(radius - distance, edge)
        return solid, depth


def _distances(points: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Distance of points (..., 3) from each of k middles, shape (k, ...); by one matrix product."""
    square = (points**2).sum(-1) + ((middles**2).sum(1).reshape((-1,) + (1,) * (points.ndim - 1)))
    square -= 2 * np.moveaxis(points @ middles.T, -1, 0)
    return np.sqrt(np.maximum(square, 0))


def draw_phantom(entry: dict, rng: np.random.Generator, shape_rng: np.random.Generator) -> Body:
    """Draw one body of a scene's entry.

    Parameters
    ----------
    entry : dict
        A validated entry of ``particles`` or ``clutter``; ``(low, high)`` values are drawn here.
    rng : numpy Generator
        Draws what differs between particles of one class.
    shape_rng : numpy Generator
        Draws what a class has in common (the form of a "complex"); pass one in the same state every time.
    """
    return _DRAWERS[entry["kind"]](entry, rng, shape_rng)


def _draw_vlp(entry: dict, rng: np.random.Generator, _: np.random.Generator) -> Shells:
    """Membrane, then a thicker protein layer under it that may have a gap; a lumen with or without a core."""
    radius = uniform(entry["radius"], rng)
    membrane, layer = uniform(entry["membrane_thickness"], rng), uniform(entry["layer_thickness"], rng)
    depth = membrane + uniform(entry["layer_spacing"], rng) + layer / 2
    layers = [
        (membrane / 2, membrane, uniform(entry["membrane_density"], rng)),
        (depth, layer, uniform(entry["layer_density"], rng)),
    ]
    gap = None
    if rng.random() < entry["incomplete_fraction"]:
        gap = (unit_vector(rng), rng.uniform(0.2, 0.9))
    core = None
    if rng.random() < entry["core_fraction"]:
        size = radius * rng.uniform(0.2, 0.45)
        core = (unit_vector(rng) * rng.uniform(0, radius * 0.4), size, rng.uniform(0.3, 1.0))
    body = _irregular(entry, radius, layers, rng)
    body.lumen, body.gap, body.core = uniform(entry["lumen_density"], rng), gap, core
    body.lattice = (uniform(entry["lattice_strength"], rng), rng.uniform(60, 140))
    return body


def _draw_vesicle(entry: dict, rng: np.random.Generator, _: np.random.Generator) -> Shells:
    """Two leaflets of a lipid bilayer around a lumen."""
    thickness = uniform(entry["membrane_thickness"], rng)
    leaflet, value = 0.32 * thickness, uniform(entry["density"], rng)
    layers = [(leaflet / 2, leaflet, value), (thickness - leaflet / 2, leaflet, value)]
    body = _irregular(entry, uniform(entry["radius"], rng), layers, rng)
    body.lumen, body.solid_label = uniform(entry["lumen_density"], rng), entry["filled"]
    return body


def _draw_ball(entry: dict, rng: np.random.Generator, _: np.random.Generator) -> Shells:
    """A solid ball."""
    body = _irregular(entry, uniform(entry["radius"], rng), [], rng)
    body.lumen = uniform(entry["density"], rng)
    return body


def _irregular(entry: dict, radius: float, layers: list, rng: np.random.Generator) -> Shells:
    flattening, bumps = uniform(entry["ellipticity"], rng), uniform(entry["bumps"], rng)
    axes = 1 + flattening * rng.uniform(-1, 1, 3)
    heights = [(bumps * rng.uniform(-1, 1), unit_vector(rng)) for _ in range(3 if bumps > 0 else 0)]
    return Shells(radius, layers, axes=tuple(axes), bumps=heights)


def _draw_ring(entry: dict, rng: np.random.Generator, _: np.random.Generator) -> Ring:
    return Ring(uniform(entry["radius"], rng), uniform(entry["thickness"], rng), uniform(entry["height"], rng))


def _draw_two_lobed(entry: dict, rng: np.random.Generator, _: np.random.Generator) -> Lobes:
    radius, ratio = uniform(entry["radius"], rng), uniform(entry["ratio"], rng)
    distance = uniform(entry["distance"], rng)
    middles = np.array([[0, 0, -distance / 2], [0, 0, distance / 2]])
    return Lobes(middles, np.array([radius, radius * ratio]), np.ones(2))


def _draw_complex(entry: dict, rng: np.random.Generator, shape_rng: np.random.Generator) -> Lobes:
    """An irregular complex: lobes of protein grown onto each other, the same form for every particle."""
    diameter, count = uniform(entry["diameter"], shape_rng), entry["lobes"]
    middles, radii = [np.zeros(3)], [0.5]
    while len(middles) < count:
        parent = int(shape_rng.integers(len(middles)))
        radius = shape_rng.uniform(0.25, 0.5)
        middles.append(middles[parent] + unit_vector(shape_rng) * (radii[parent] + radius) * 0.8)
        radii.append(radius)
    points, sizes = np.array(middles), np.array(radii)
    spread = 2 * (np.linalg.norm(points - points.mean(0), axis=1) + sizes).max()
    scale = diameter / spread
    points, sizes = (points - points.mean(0)) * scale, sizes * scale
    values = shape_rng.uniform(0.8, 1.2, count)
    cavity = shape_rng.random() < entry["cavity_fraction"]
    holes = (points[:1] + sizes[0] * 0.2, sizes[:1] * 0.5) if cavity else None
    del rng  # every particle of a complex has the same form
    return Lobes(points, sizes, values, holes, blend=0.08 * diameter)


_DRAWERS = {
    "vlp": _draw_vlp,
    "vesicle": _draw_vesicle,
    "ball": _draw_ball,
    "ring": _draw_ring,
    "two_lobed": _draw_two_lobed,
    "complex": _draw_complex,
}


def uniform(value_range: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw from a (low, high) range."""
    return float(rng.uniform(*value_range))


def unit_vector(rng: np.random.Generator) -> np.ndarray:
    """A random direction, shape (3,)."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _soft_step(depth: np.ndarray, edge: float) -> np.ndarray:
    """0 outside, 1 inside, linear over ``edge`` Å across the surface: the mean density of a voxel it cuts."""
    return np.clip(depth / edge + 0.5, 0, 1)


def _smooth_maximum(values: np.ndarray, blend: float) -> np.ndarray:
    """Maximum of several depths; where two are within ``blend`` Å the seam bulges, as melted drops do."""
    result = values[0]
    for value in values[1:]:
        overlap = np.maximum(blend - np.abs(result - value), 0) / max(blend, 1e-6)
        result = np.maximum(result, value) + overlap**2 * blend / 4
    return result
