"""The differences that checks find between a stream and what its source requires."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    aspect: str
    expected: str
    got: str


class Findings(list[Difference]):
    """A list of differences. Each method adds one if a value is wrong, and returns whether it is right."""

    def expect(self, holds: object, aspect: str, expected: object, got: object) -> bool:
        if not holds:
            self.append(Difference(aspect, str(expected), str(got)))
        return bool(holds)

    def equal(self, aspect: str, expected: object, got: object) -> bool:
        return self.expect(expected == got, aspect, expected, got)

    def near(self, aspect: str, expected: float, got: float, tolerance: float) -> bool:
        """Adds a difference unless `got` is within the tolerance. NaN is not near any value."""
        is_near = abs(expected - got) <= tolerance
        return self.expect(is_near, aspect, f"{expected:.3f} ± {tolerance:.3f}", f"{got:.3f}")
