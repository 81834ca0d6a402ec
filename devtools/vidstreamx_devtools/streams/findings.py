"""What a check finds: an aspect in which a stream is not what its source asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    what: str
    expected: str
    got: str


class Findings(list):
    """Differences, collected: a check goes on after the first."""

    def expect(self, holds: bool, what: str, expected: object, got: object) -> bool:
        if not holds:
            self.append(Difference(what, str(expected), str(got)))
        return bool(holds)

    def equal(self, what: str, expected: object, got: object) -> bool:
        return self.expect(expected == got, what, expected, got)

    def near(self, what: str, expected: float, got: float, tolerance: float) -> bool:
        """NaN is near nothing."""
        return self.expect(
            abs(expected - got) <= tolerance, what, f"{expected:.3f} ± {tolerance:.3f}", f"{got:.3f}"
        )
