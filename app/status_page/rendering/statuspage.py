"""The JSON of the page, in the shape of Statuspage's status API, version 2, so that its clients work unchanged.

Pure. Ids are derived from what they name, so that they are the same in every process and after every restart.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from app.status_page.component import INDICATORS, Component, Status, summary, worst
from app.status_page.content import Content, Site, State, state
from app.status_page.public_incident import PublicIncident, PublicKind, PublicStage, Update, ended, stage, worst_of

LISTED_AT_MOST = 50  # in incidents.json, as in Statuspage

Json = dict[str, Any]


def documents(site: Site, content: Content, now: datetime, *, as_of: datetime | None) -> Mapping[str, Json]:
    """By the name of the file. `as_of`: the content is that of an earlier time, because the database is away."""
    found = _Documents(site, content, state(content, now), now)
    head = {"page": found.page(as_of)}
    problems = [found.incident(each) for each in found.state.problems]
    running = [found.incident(each) for each in found.state.maintenance]
    coming = [found.incident(each) for each in found.state.coming]
    every = [found.incident(each) for each in content.incidents if each.kind is PublicKind.INCIDENT][:LISTED_AT_MOST]
    maintenance = [found.incident(each) for each in content.incidents if each.kind is PublicKind.MAINTENANCE]
    components = found.components()
    return {
        "summary": {
            **head,
            "components": components,
            "incidents": problems,
            "scheduled_maintenances": running + coming,
            "status": found.status(),
        },
        "status": {**head, "status": found.status()},
        "components": {**head, "components": components},
        "incidents": {**head, "incidents": every},
        "incidents/unresolved": {**head, "incidents": problems},
        "scheduled-maintenances": {**head, "scheduled_maintenances": maintenance[:LISTED_AT_MOST]},
        "scheduled-maintenances/active": {**head, "scheduled_maintenances": running},
        "scheduled-maintenances/upcoming": {**head, "scheduled_maintenances": coming},
    }


def id_of(*names: str) -> str:
    return uuid5(NAMESPACE_URL, "/".join(names)).hex[:12]


class _Documents:
    """The parts of the documents of one page at one time."""

    def __init__(self, site: Site, content: Content, found: State, now: datetime) -> None:
        self.site, self.content, self.state, self.now = site, content, found, now
        self.page_id = id_of(site.identity)
        self._known = {each.name: each for each in content.components}

    def page(self, as_of: datetime | None) -> Json:
        page = {
            "id": self.page_id,
            "name": self.site.name,
            "url": self.site.address("/status"),
            "time_zone": "Etc/UTC",
            "updated_at": _time(self.content.updated_at or self.now),
        }
        return page if as_of is None else {**page, "as_of": _time(as_of)}

    def status(self) -> Json:
        now = list(self.state.statuses.values())
        return {
            "indicator": INDICATORS[worst(now)],
            "description": summary(now, problems=bool(self.state.problems)),
        }

    def components(self) -> list[Json]:
        found = []
        for section, those in self.content.sections().items():
            group = None if section is None else id_of(self.page_id, "section", section)
            if section is not None:
                found.append(self._group(section, those))
            found += [self.component(each, group) for each in those]
        return found

    def component(self, each: Component, group: str | None = None) -> Json:
        if group is None and each.section is not None:
            group = id_of(self.page_id, "section", each.section)
        return self._component(
            self._component_id(each.name),
            each.name,
            self.state.statuses[each.name],
            created_at=each.created_at,
            updated_at=each.updated_at,
            position=each.position,
            description=each.description or None,
            start_date=each.since.isoformat(),
            group_id=group,
        )

    def _group(self, section: str, those: Sequence[Component]) -> Json:
        group = self._component(
            id_of(self.page_id, "section", section),
            section,
            worst(self.state.statuses[each.name] for each in those),
            created_at=min(each.created_at for each in those),
            updated_at=max(each.updated_at for each in those),
            position=min(each.position for each in those),
        )
        return {**group, "group": True, "components": [self._component_id(each.name) for each in those]}

    def _component(
        self,
        id_: str,
        name: str,
        status: Status,
        *,
        created_at: datetime,
        updated_at: datetime,
        position: int,
        description: str | None = None,
        start_date: str | None = None,
        group_id: str | None = None,
    ) -> Json:
        return {
            "id": id_,
            "name": name,
            "status": status,
            "created_at": _time(created_at),
            "updated_at": _time(updated_at),
            "position": position,
            "description": description,
            "showcase": False,
            "start_date": start_date,
            "group_id": group_id,
            "page_id": self.page_id,
            "group": False,
            "only_show_if_degraded": False,
        }

    def _component_id(self, name: str) -> str:
        return id_of(self.page_id, "component", name)

    def incident(self, each: PublicIncident) -> Json:
        over_at = ended(each, self.now)
        monitoring = [update.at for update in each.updates if update.stage is PublicStage.MONITORING]
        found: Json = {
            "id": each.id.hex,
            "name": each.title,
            "status": stage(each, self.now),
            "created_at": _time(each.created_at),
            "updated_at": _time(each.updated_at),
            "monitoring_at": _time(monitoring[0]) if monitoring else None,
            "resolved_at": None if over_at is None else _time(over_at),
            "impact": self._impact(each),
            "shortlink": self.site.address(f"/status/incidents/{each.id}"),
            "started_at": _time(each.begins_at),
            "page_id": self.page_id,
            "incident_updates": self._updates(each),
            "components": [self.component(self._known[name]) for name in each.components if name in self._known],
        }
        if each.scheduled_to is not None:
            found |= {"scheduled_for": _time(each.begins_at), "scheduled_until": _time(each.scheduled_to)}
        return found

    def _impact(self, each: PublicIncident) -> str:
        return "maintenance" if each.kind is PublicKind.MAINTENANCE else INDICATORS[worst_of(each, self.now)]

    def _updates(self, each: PublicIncident) -> list[Json]:
        """Newest first, with what each changed."""
        found, before = [], dict[str, Status]()
        for update in each.updates:
            found.append(self._update(each, update, before))
            before |= update.components
        return found[::-1]

    def _update(self, each: PublicIncident, update: Update, before: Mapping[str, Status]) -> Json:
        affected = [
            {
                "code": self._component_id(name),
                "name": name,
                "old_status": before.get(name, Status.OPERATIONAL),
                "new_status": status,
            }
            for name, status in update.components.items()
        ]
        return {
            "id": update.id.hex,
            "status": update.stage,
            "body": update.body,
            "incident_id": each.id.hex,
            "created_at": _time(update.recorded_at),
            "updated_at": _time(update.corrected_at or update.recorded_at),
            "display_at": _time(update.at),
            "affected_components": affected or None,
            "deliver_notifications": False,
            "custom_tweet": None,
            "tweet_id": None,
        }


def _time(at: datetime) -> str:
    """With milliseconds, as Statuspage writes it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
