"""VisualAtom: orbits that wave (Takashima et al., CVPR 2023).

A class is one atom: how many orbits of how many vertices, two frequencies, an ellipse, and how
far apart its orbits are. Its instances differ in noise, gray levels and place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import UsageError
from .contour import Contour, ContourGenerator, Draws
from .contract import ClassRecord, Cost, Scalar, Values, option, spread


@dataclass(frozen=True, kw_only=True)
class VisualAtom(ContourGenerator):
    """VisualAtom with the parameters of the authors' published sets."""

    kind: ClassVar[str] = "visualatom"
    gain: ClassVar[float] = 1.0
    background: ClassVar[int] = 0
    centre_at_start: ClassVar[bool] = True

    vertices_min: int = option(200, "fewest vertices", low=3, high=20_000)
    vertices_max: int = option(1000, "most vertices", low=3, high=20_000)
    orbits_min: int = option(1, "fewest orbits", low=1, high=10_000)
    orbits_max: int = option(200, "most orbits", low=1, high=10_000)
    frequency1_min: int = option(0, "lowest frequency of the first wave", low=0, high=10_000)
    frequency1_max: int = option(20, "highest frequency of the first wave", low=0, high=10_000)
    frequency2_min: int = option(0, "lowest frequency of the second wave", low=0, high=10_000)
    frequency2_max: int = option(20, "highest frequency of the second wave", low=0, high=10_000)
    amplitude1: float = option(0.5, "height of the first wave in px", low=-100, high=100)
    amplitude2: float = option(0.5, "height of the second wave in px", low=-100, high=100)
    radius_min: int = option(10, "smallest radius of the first ellipse in px", low=0, high=10_000)
    radius_span: int = option(50, "largest minus smallest radius", low=0, high=10_000)
    offset: int = option(512, "how far the centre may be off, in half px", low=0, high=20_000)

    def check(self) -> None:
        """Refuse empty ranges, and waves whose frequencies cannot differ."""
        super().check()
        for name in ("vertices", "orbits", "frequency1", "frequency2"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise UsageError(f"{self.kind}: {name}_min is {low}, more than {name}_max {high}")
        first = range(self.frequency1_min, self.frequency1_max + 1)
        second = self.frequency2_min
        if second == self.frequency2_max and second > 0 and second in first:
            raise UsageError(
                f"{self.kind}: frequency2 is always {second}, which frequency1 may be too, but "
                "the two must differ; widen the range of frequency2"
            )

    @property
    def grays(self) -> int:
        """256: any gray level."""
        return 256

    def draw_class(self, draws: Draws) -> tuple[Values, Values]:
        """Draw a class and its first instance, in the authors' order."""
        values: Values = {
            "vertices": draws.randint(self.vertices_min, self.vertices_max),
            "orbits": draws.randint(self.orbits_min, self.orbits_max),
            "noise": draws.uniform(self.noise_min, self.noise_min + self.noise_span),
            "drift": draws.uniform(0.0, self.drift),
            "radius": draws.randint(self.radius_min, self.radius_min + self.radius_span),
            "frequency1": (first := draws.randint(self.frequency1_min, self.frequency1_max)),
        }
        second = draws.randint(self.frequency2_min, self.frequency2_max)
        while second == first != 0:
            second = draws.randint(self.frequency2_min, self.frequency2_max)
        values["frequency2"] = second
        values["oval_x"] = draws.uniform(1, self.oval)
        values["oval_y"] = draws.uniform(1, self.oval)
        return values, self.draw_instance(draws)

    def draw_instance(self, draws: Draws) -> Values:
        """Draw a place."""
        y = (self.side + draws.randint(-self.offset, self.offset)) / 2
        return {"x": (self.side + draws.randint(-self.offset, self.offset)) / 2, "y": y}

    def carried(self, numbers: list[float]) -> Values:
        """Return an instance's place."""
        x, y = numbers
        return {"x": x, "y": y}

    def contour(self, class_values: Values, values: Values) -> Contour:
        """Return what an image is drawn from."""
        one = class_values
        return Contour(
            one["vertices"], one["orbits"], one["noise"], one["drift"], one["radius"],
            one["oval_x"], one["oval_y"], values["x"], values["y"],
            ((self.amplitude1, one["frequency1"]), (self.amplitude2, one["frequency2"])),
        )  # fmt: skip

    def caption(self, record: ClassRecord) -> str:
        """Return what the pictures of a class show."""
        one = record.parameters
        orbits = "one orbit" if one["orbits"] == 1 else f"{one['orbits']} orbits"
        return (
            f"a visual atom of {orbits} with {one['vertices']} vertices, "
            f"waves of frequency {one['frequency1']} and {one['frequency2']}"
        )

    def file_name(self, record: ClassRecord, instance: int) -> str:
        """Return the name the authors' script gives an image."""
        vertices = record.parameters["vertices"]
        return f"{record.class_id:05d}/vertex_{vertices:04d}_instance_{instance:04d}.png"

    def sweeps(self) -> dict[str, list[Scalar]]:
        """Vary orbits, vertices and frequencies over their ranges."""
        names = ("orbits", "frequency1", "frequency2", "vertices")
        ranges = {one: (getattr(self, f"{one}_min"), getattr(self, f"{one}_max")) for one in names}
        return {one: [*spread(*limits)] for one, limits in ranges.items()}

    def cost(self) -> Cost:
        """Return a rough estimate; it grows with the number of lines and with their length."""
        lines = (self.vertices_min + self.vertices_max) * (self.orbits_min + self.orbits_max) / 4
        share = min(1.0, lines / 60_000)
        pixels = self.size**2 / 512**2
        draw = lines * (4e-8 if self.mode == "exact" else 2.5e-8)
        return Cost(500 + 65_000 * share * pixels**0.87, draw + 5e-4 * pixels)
