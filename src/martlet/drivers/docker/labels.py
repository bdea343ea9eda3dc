"""The labels by which the containers of a platform and of its lanes are found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from martlet.drivers.remains import group_name

PLATFORM, LANE, CELL = "martlet.platform", "martlet.lane", "martlet.cell"


@dataclass(frozen=True, slots=True)
class Labels:
    """Those of one lane; no two platforms of this machine share a run directory."""

    platform: str
    lane: str

    @classmethod
    def of(cls, run: Path, lane: int) -> Labels:
        """Returns those of a lane of the platform with this run directory."""
        return cls(group_name(run, ""), str(lane))

    def name(self, cell: str) -> str:
        """Returns the name of a cell's container."""
        return f"{self.platform}{self.lane}-{cell}"

    @property
    def of_platform(self) -> dict[str, str]:
        """What every container of the platform has."""
        return {PLATFORM: self.platform}

    @property
    def of_lane(self) -> dict[str, str]:
        """What every container of the lane has."""
        return {**self.of_platform, LANE: self.lane}

    def of_cell(self, cell: str) -> dict[str, str]:
        """What the container of a cell has."""
        return {**self.of_lane, CELL: cell}
