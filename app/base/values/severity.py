"""The five severities: names for people, numbers (1 is the worst) to compare and store."""

from typing import Literal

SeverityName = Literal["sev1", "sev2", "sev3", "sev4", "sev5"]
SEVERITIES: tuple[SeverityName, ...] = ("sev1", "sev2", "sev3", "sev4", "sev5")


def severity_name(number: int) -> SeverityName:
    return SEVERITIES[number - 1]


def severity_number(name: SeverityName) -> int:
    return SEVERITIES.index(name) + 1
