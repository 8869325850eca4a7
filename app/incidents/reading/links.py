"""Links to pages outside that the alerts of an incident name: runbooks, dashboards, and where each alert was defined.

Pure: no clock, no I/O, no settings.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

LINKS_OF_A_KIND = 5
ALERTS_WITH_LINKS = 50  # only the first alerts of an incident are searched
LINK_AT_MOST = 2000  # characters


class LinkKind(StrEnum):
    RUNBOOK = "runbook"
    DASHBOARD = "dashboard"
    ALERT = "alert"  # where the alert was defined, or its graph: the generator URL of Prometheus and Grafana


@dataclass(frozen=True, slots=True)
class Link:
    kind: LinkKind
    url: str


ANNOTATIONS: Mapping[str, LinkKind] = {
    "runbook_url": LinkKind.RUNBOOK,
    "runbook": LinkKind.RUNBOOK,
    "runbookUrl": LinkKind.RUNBOOK,
    "runbookURL": LinkKind.RUNBOOK,
    "dashboard_url": LinkKind.DASHBOARD,
    "dashboard": LinkKind.DASHBOARD,
    "dashboardUrl": LinkKind.DASHBOARD,
    "dashboardURL": LinkKind.DASHBOARD,
    "grafana_url": LinkKind.DASHBOARD,
    "panel_url": LinkKind.DASHBOARD,
    "panelURL": LinkKind.DASHBOARD,
}


def links_of(alerts: Iterable[tuple[str, Mapping[str, str]]]) -> list[Link]:
    """Runbooks first, then dashboards, then alerts, each once and at most LINKS_OF_A_KIND of a kind.

    Each alert has its own link and its annotations. Only addresses on the web count.
    """
    found: dict[LinkKind, dict[str, None]] = {kind: {} for kind in LinkKind}
    for own, annotations in alerts:
        named = [(kind, annotations.get(name, "")) for name, kind in ANNOTATIONS.items()]
        for kind, text in (*named, (LinkKind.ALERT, own)):
            url = web_address(text.strip())
            if url is not None:
                found[kind].setdefault(url)
    return [Link(kind, url) for kind, urls in found.items() for url in list(urls)[:LINKS_OF_A_KIND]]


def web_address(text: str) -> str | None:
    """The address, if the text is one that a browser may open: `http` or `https`, nothing else around it, and no
    invisible characters, which could make it look like another.
    """
    return text if len(text) <= LINK_AT_MOST and text.isprintable() and _ADDRESS.fullmatch(text) else None


_ADDRESS = re.compile(r"https?://[^\s\x00-\x20\"<>\\]+", re.ASCII | re.IGNORECASE)
