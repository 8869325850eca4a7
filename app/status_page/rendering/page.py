"""The public pages as HTML: no script, no session, no link inside. Pure.

They work on a phone, in print and without color: each status has a shape and a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.base.text import public_words as wording
from app.status_page.component import Component, Status, summary, worst
from app.status_page.content import Content, Months, Report, Site, days_of, state
from app.status_page.public_incident import PublicIncident, PublicKind, PublicStage, Update, ended, stage, status_of
from app.status_page.uptime import Day, availability

PAST_DAYS = 14
FULL_BAR = timedelta(hours=4)  # downtime of a day that fills its bar
STRIP, SMALLEST = 34, 9  # pixels
MISSING_FROM = timedelta(minutes=5)  # shorter gaps are not mentioned; today is measured once a minute

STYLE = files("app.status_page.rendering").joinpath("templates/status.css").read_bytes()
STYLE_ADDRESS = f"/status/style.css?v={sha256(STYLE).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of the strip: `x` in percent. `height` is 0 if nothing happened; it is not `known` if no one watched."""

    x: float
    height: int
    status: Status
    known: bool


@dataclass(frozen=True, slots=True)
class DayLine:
    """A day with something to say, in words."""

    day: str
    words: str


@dataclass(frozen=True, slots=True)
class Part:
    """A component as the page shows it. `share` is None if nothing of its days is known."""

    name: str
    description: str
    status: Status
    bars: Sequence[Bar]
    share: str | None
    lines: Sequence[DayLine]
    measured: bool


@dataclass(frozen=True, slots=True)
class ShownIncident:
    """A public incident as the pages show it. `now` is None if they show an earlier time."""

    incident: PublicIncident
    stage: PublicStage
    over_at: datetime | None
    components: Mapping[str, Status]
    now: datetime | None

    @property
    def is_maintenance(self) -> bool:
        return self.incident.kind is PublicKind.MAINTENANCE

    @property
    def words(self) -> str:
        """Its stage; that of maintenance says what it is."""
        if not self.is_maintenance:
            return self.stage.words
        is_running = self.stage is PublicStage.IN_PROGRESS
        return "Maintenance in progress" if is_running else f"{self.stage.words} maintenance"

    @property
    def status(self) -> Status:
        """The worst one of its components, for its shape and color. Never operational before it is over."""
        if self.over_at:
            return Status.OPERATIONAL
        if self.is_maintenance:
            return Status.UNDER_MAINTENANCE
        return max(worst(self.components.values()), Status.DEGRADED_PERFORMANCE, key=lambda status: status.rank)

    @property
    def lasts(self) -> str | None:
        """How long a problem has lasted so far."""
        if self.now is None or self.over_at or self.is_maintenance:
            return None
        return wording.lasting(self.now - self.incident.begins_at)

    def ago(self, update: Update) -> str | None:
        """How old the newest update is, so that customers see whether people work on it."""
        is_newest = update is self.incident.updates[-1] and update.stage is not PublicStage.SCHEDULED
        if self.now is None or self.over_at or not is_newest:
            return None
        return wording.lasting(self.now - update.at)

    @property
    def lasted(self) -> str | None:
        return wording.lasting(self.over_at - self.incident.begins_at) if self.over_at else None

    @classmethod
    def of(cls, incident: PublicIncident, now: datetime, as_of: datetime | None) -> "ShownIncident":
        known = stage(incident, now), ended(incident, now), status_of(incident, now)
        return cls(incident, *known, None if as_of else now)


def overview(site: Site, content: Content, now: datetime, *, as_of: datetime | None = None) -> str:
    """`as_of`: the content is that of an earlier time, because the database is away."""
    found = state(content, now)
    days, statuses = days_of(content, now), list(found.statuses.values())
    words = summary(statuses, problems=bool(found.problems))
    recent = [each for each in found.past if (ended(each, now) or now) > now - timedelta(days=PAST_DAYS)]
    return _render(
        "overview.html",
        site,
        as_of,
        title=f"{words} · {site.name}",
        status=worst(statuses),
        words=words,
        has_problem=bool(found.problems),
        problems=_shown(found.problems, now, as_of),
        running=_shown(found.maintenance, now, as_of),
        coming=_shown(found.coming, now, as_of),
        recent=_shown(recent, now, as_of),
        past_days=PAST_DAYS,
        has_reports=bool(content.shown_reports()),
        sections=[
            (name, [_part(each, found.statuses[each.name], days[each.name]) for each in those])
            for name, those in content.sections().items()
        ],
        month=f"{now.astimezone(UTC):%Y-%m}",
    )


def incident(
    site: Site, each: PublicIncident, now: datetime, about: Sequence[Report] = (), *, as_of: datetime | None = None
) -> str:
    """`about`: the reports about it."""
    title = f"{each.title} · {site.name}"
    return _render("one.html", site, as_of, title=title, shown=ShownIncident.of(each, now, as_of), reports=about)


def reports(site: Site, shown: Sequence[Report], *, as_of: datetime | None = None) -> str:
    """The list of reports, newest first."""
    return _render("reports.html", site, as_of, title=f"Reports · {site.name}", reports=shown)


def history(site: Site, months: Months, month: str, now: datetime, *, as_of: datetime | None = None) -> str:
    """The public incidents that began in a month such as `2026-11`."""
    earlier, later = [name for name in months if name < month], [name for name in months if name > month]
    return _render(
        "history.html",
        site,
        as_of,
        title=f"{_name_of(month)} · {site.name}",
        heading=_name_of(month),
        found=_shown(months.get(month, ()), now, as_of),
        earlier=max(earlier, default=None),
        later=min(later, default=None),
    )


def _name_of(month: str) -> str:
    return f"{datetime.strptime(month, '%Y-%m').replace(tzinfo=UTC):%B %Y}"


def not_read_yet(site: Site) -> str:
    """Before the first reading: the process has just started, or the database has been away since."""
    return _render("not_read.html", site, None, title=site.name)


def not_found(site: Site) -> str:
    return _render("not_found.html", site, None, title=site.name)


def gone(site: Site) -> str:
    """Instead of a report that was withdrawn."""
    return _render("gone.html", site, None, title=site.name)


def _shown(incidents: Sequence[PublicIncident], now: datetime, as_of: datetime | None) -> list[ShownIncident]:
    return [ShownIncident.of(each, now, as_of) for each in incidents]


def _part(component: Component, status: Status, days: Sequence[Day]) -> Part:
    known = availability(days)
    return Part(
        component.name,
        component.description,
        status,
        _bars(days),
        None if known is None else wording.percent(known),
        _lines(days, component),
        component.uptime == "measured",
    )


def _bars(days: Sequence[Day]) -> list[Bar]:
    width = 100 / len(days) if days else 0
    return [
        Bar(round(place * width, 3), _height(day), worst(day.down), bool(day.watched)) for place, day in enumerate(days)
    ]


def _height(day: Day) -> int:
    if not day.down:
        return 0
    share = min(Fraction(1), day.lost / int(FULL_BAR.total_seconds()))
    return max(SMALLEST, round(share * STRIP))


def _lines(days: Sequence[Day], component: Component) -> list[DayLine]:
    """Days on which something happened, newest first. Each gap of days that no one watched is one line; days before
    `since` are none.
    """
    found: list[DayLine] = []
    for is_gap, those in groupby(reversed(days), key=lambda day: not day.watched and day.day >= component.since):
        if is_gap:
            last, *_, first = [each.day for each in those] * 2
            named = wording.on(last) if first == last else f"{wording.on(first)} to {wording.on(last)}"
            found.append(DayLine(named, "not monitored"))
        else:
            found += [DayLine(wording.on(day.day), words) for day in those if (words := _words(day, component))]
    return found


def _words(day: Day, component: Component) -> str:
    """What happened on a day of which something is known, and how much of it is not; empty if nothing."""
    if not day.watched:
        return ""
    words = [
        f"{'down' if component.uptime == 'measured' else status.words.lower()} for {wording.lasting(lasted)}"
        for status, lasted in sorted(day.down.items(), key=lambda item: -item[0].rank)
    ]
    missing = day.elapsed - day.watched
    if missing >= MISSING_FROM:
        words.append(f"not monitored, or in maintenance, for {wording.lasting(missing)}")
    return ", ".join(words)


_templates = Environment(
    loader=PackageLoader("app.status_page.rendering"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(
    at=wording.at, clock=wording.clock, month=_name_of, style=STYLE_ADDRESS, strip=STRIP, Status=Status
)


def _render(template: str, site: Site, as_of: datetime | None, **values: Any) -> str:
    return _templates.get_template(template).render(site=site, as_of=as_of, **values)
