"""RCDB, the radial contour database (Kataoka et al., CVPR 2022).

A class is how many polygons of how many vertices, and how far apart and how rough they are.
Its instances differ in noise, gray levels, place, radius and ellipse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ...errors import UsageError
from .contour import Contour, ContourGenerator, Draws
from .contract import ClassRecord, Cost, Scalar, Values, option, spread

_UNLIKELY = 1e-4


@dataclass(frozen=True, kw_only=True)
class RCDB(ContourGenerator):
    """RCDB with the parameters of the authors' published sets."""

    kind: ClassVar[str] = "rcdb"
    gain: ClassVar[float] = 2.0
    background: ClassVar[int] = 255
    centre_at_start: ClassVar[bool] = False

    vertices_mean: float = option(100.0, "mean of the number of vertices", low=1, high=20_000)
    vertices_min: int = option(3, "fewest vertices", low=3, high=20_000)
    vertices_max: int = option(200, "most vertices", low=3, high=20_000)
    orbits_min: int = option(1, "fewest polygons", low=1, high=10_000)
    orbits_max: int = option(200, "most polygons", low=1, high=10_000)
    radius_min: int = option(0, "smallest radius of the first ellipse in px", low=0, high=10_000)
    radius_span: int = option(100, "largest minus smallest radius", low=0, high=10_000)
    offset: int = option(400, "how far the centre may be off, in half px", low=0, high=20_000)

    def check(self) -> None:
        """Refuse empty ranges, and numbers of vertices that are hardly ever drawn."""
        super().check()
        for name in ("vertices", "orbits"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise UsageError(f"{self.kind}: {name}_min is {low}, more than {name}_max {high}")
        mean = self.vertices_mean
        likely = math.exp(-self.vertices_min / mean) - math.exp(-(self.vertices_max + 1) / mean)
        if likely < _UNLIKELY:  # numbers are drawn until one is in the range, as the authors do
            raise UsageError(
                f"{self.kind}: {self.vertices_min} to {self.vertices_max} vertices is next to "
                f"impossible with a mean of {mean:g}; widen the range, or move the mean"
            )

    @property
    def grays(self) -> int:
        """Gray levels 0 to half the canvas, as in the authors' code; over 255 is white."""
        return self.side // 2 + 1

    def draw_class(self, draws: Draws) -> tuple[Values, Values]:
        """Draw a class and its first instance, in the authors' order."""
        vertices = 0
        while not self.vertices_min <= vertices <= self.vertices_max:
            vertices = int(draws.expovariate(1 / self.vertices_mean))
        values: Values = {
            "vertices": vertices,
            "orbits": draws.randint(self.orbits_min, self.orbits_max),
            "noise": draws.uniform(self.noise_min, self.noise_min + self.noise_span),
            "drift": draws.uniform(0.0, self.drift),
        }
        radius = self._radius(draws)
        ovals = draws.uniform(1, self.oval), draws.uniform(1, self.oval)
        return values, self._instance(draws, radius, *ovals)

    def draw_instance(self, draws: Draws) -> Values:
        """Draw an ellipse and a place."""
        ovals = draws.uniform(1, self.oval), draws.uniform(1, self.oval)
        return self._instance(draws, self._radius(draws), *ovals)

    def _radius(self, draws: Draws) -> int:
        return draws.randint(self.radius_min, self.radius_min + self.radius_span)

    def _instance(self, draws: Draws, radius: int, oval_x: float, oval_y: float) -> Values:
        y = (self.side + draws.randint(-self.offset, self.offset)) / 2
        x = (self.side + draws.randint(-self.offset, self.offset)) / 2
        return {"radius": radius, "oval_x": oval_x, "oval_y": oval_y, "x": x, "y": y}

    def carried(self, numbers: list[float]) -> Values:
        """Return an instance's ellipse and place."""
        radius, oval_x, oval_y, x, y = numbers
        return {"radius": int(radius), "oval_x": oval_x, "oval_y": oval_y, "x": x, "y": y}

    def contour(self, class_values: Values, values: Values) -> Contour:
        """Return what an image is drawn from."""
        one = class_values
        return Contour(
            one["vertices"], one["orbits"], one["noise"], one["drift"], values["radius"],
            values["oval_x"], values["oval_y"], values["x"], values["y"],
        )  # fmt: skip

    def caption(self, record: ClassRecord) -> str:
        """Return what the pictures of a class show."""
        one = record.parameters
        polygons = "one polygon" if one["orbits"] == 1 else f"{one['orbits']} nested polygons"
        return f"a radial contour of {polygons} with {one['vertices']} vertices"

    def file_name(self, record: ClassRecord, instance: int) -> str:
        """Return the name the authors' script gives an image."""
        return f"image/{record.class_id:05d}/{record.class_id:05d}_{instance:04d}.png"

    def class_files(self, record: ClassRecord) -> dict[str, bytes]:
        """Return the authors' list of a class's parameters; the last five are instance 0's."""
        one, first = record.parameters, self.first_values(record)
        rows = {
            "Vertex": one["vertices"], "Perlin_noise": one["noise"], "line_width": one["drift"],
            "Center_rad": first["radius"], "Line_num": one["orbits"],
            "Oval_rate_x": first["oval_x"], "Oval_rate_y": first["oval_y"],
            "start_pos_h": first["y"], "start_pos_w": first["x"],
        }  # fmt: skip
        text = "".join(f"{name},{value}\r\n" for name, value in rows.items())
        return {f"param/{record.class_id:05d}.csv": text.encode()}

    def sweeps(self) -> dict[str, list[Scalar]]:
        """Vary polygons, vertices and the distance of polygons over their ranges."""
        low, high = self.noise_min, self.noise_min + self.noise_span
        return {
            "orbits": [*spread(self.orbits_min, self.orbits_max)],
            "vertices": [*spread(self.vertices_min, self.vertices_max)],
            "noise": [round(low + (high - low) * n / 6, 3) for n in range(7)],
        }

    def cost(self) -> Cost:
        """Return a rough estimate; it grows with the number of lines and with their length."""
        vertices = min(self.vertices_mean, (self.vertices_min + self.vertices_max) / 2)
        lines = vertices * (self.orbits_min + self.orbits_max) / 2
        share = min(1.0, lines / 7_000)
        pixels = self.size**2 / 512**2
        draw = lines * (8e-8 if self.mode == "exact" else 7e-8)
        return Cost(500 + 38_000 * share * pixels**0.7, draw + 4e-4 * pixels)
