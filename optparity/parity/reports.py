"""What a comparison found."""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Difference:
    """The first place where two implementations part."""

    step: int  # 1 is the first step
    leaf: str  # path of the leaf, "params['w']" or "sum['w']"
    index: tuple[int, ...]
    got: str  # bits in hex
    expected: str
    ulp: int

    def __str__(self) -> str:
        return f"step {self.step}, {self.leaf}[{', '.join(map(str, self.index))}]: {self.got} != {self.expected} ({self.ulp} ulp)"


@dataclass
class Report:
    """A trial of one implementation against a reference.

    Attributes:
        got, expected: the names of the implementation and of the reference.
        compared: "params", then the state fields that both have; parameters alone where no field's meaning is shared.
        steps: how many steps were compared.
        elements: how many elements were compared at each step.
        differing: for each step, how many elements' bits differ.
        ulp: for each step, the largest distance in ulp.
        first_difference: where they part, or None.
    """

    got: str
    expected: str
    compared: tuple[str, ...] = ("params",)
    elements: int = 0
    differing: list[int] = field(default_factory=list)
    ulp: list[int] = field(default_factory=list)
    first_difference: Difference | None = None

    @property
    def steps(self) -> int:
        return len(self.differing)

    @property
    def identical(self) -> bool:
        return self.first_difference is None

    @property
    def max_ulp(self) -> int:
        return max(self.ulp, default=0)

    @property
    def share(self) -> float:
        """The share of elements that differ after the last step."""
        return self.differing[-1] / self.elements if self.elements and self.differing else 0.0

    def to_json(self) -> str:
        """Everything above as one JSON object."""
        return json.dumps({**asdict(self), "steps": self.steps, "identical": self.identical, "max_ulp": self.max_ulp})

    def __str__(self) -> str:
        what = f"{self.got} and {self.expected}, {self.steps} steps of {self.elements} elements ({', '.join(self.compared)})"
        if self.identical:
            return f"{what}: identical"
        return f"{what}: {sum(self.differing)} elements differ, by up to {self.max_ulp} ulp; first at {self.first_difference}"
