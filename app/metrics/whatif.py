"""What a period would have cost, had its incidents been noticed, acknowledged or recovered from earlier or later.

Pure: no clock, no I/O, no settings. The stored intervals are moved and priced anew, as exactly as the others: amounts
are fractions, changes are decimals as they were written. Nobody knows what would have been; `ASSUMPTIONS` says what is
supposed here.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from app.errors import Invalid
from app.incidents import measures
from app.incidents.downtime import (
    NOTHING,
    Amount,
    Cost,
    Harm,
    Shown,
    Span,
    clipped,
    costs,
    downtime,
    rounded,
    total,
)
from app.incidents.maintenance import Planned, unplanned
from app.incidents.measures import Facts
from app.incidents.money import Rate

ASSUMPTIONS = (
    """time_to_detect: impact begins when it began; what follows detection, the recovery too, moves by as much as \
detection does. Applies to incidents with a stated impact start that were detected before they were over.""",
    """time_to_acknowledge: work begins with it, so the recovery moves by as much. Applies to incidents that were \
acknowledged before they were over.""",
    "time_to_recover: the recovery moves, after the two above. Applies to all incidents that are over.",
    """incidents: multiplies what the incidents in question add to cost and downtime, as if those of every kind and \
length became rarer alike.""",
    """severity: changes incidents of that severity only; cost and downtime are of all, for where incidents overlap, \
the others stay.""",
    """Open incidents last as long as they have, and what was over before the period stays out of it; rates, impact \
and planned maintenance stay; what would end after the period is cut at its end.""",
)
_LONGEST = timedelta(days=366_000)  # a thousand years: changes of changes must not leave the calendar


class UnreadableChange(Invalid):
    title = "Unreadable change"


@dataclass(frozen=True, slots=True)
class Change:
    """Of a duration or a number: times `factor`, and for durations plus `more`; never below 0."""

    factor: Fraction = Fraction(1)
    more: timedelta = timedelta()

    def of(self, lasted: timedelta) -> timedelta:
        microseconds = lasted // _MICROSECOND * self.factor
        return max(timedelta(), min(_LONGEST, timedelta(microseconds=int(microseconds)) + self.more))


_MICROSECOND = timedelta(microseconds=1)
_CHANGE = re.compile(r" ?([+-]?)([0-9]{1,7}(?:\.[0-9]{1,6})?)(%|s|m|h)", re.ASCII)  # a plus may arrive as a blank
_UNITS = {"s": 1, "m": 60, "h": 3600}


def change(text: str, *, absolute: bool = True) -> Change:
    """From `-20%`, or `-5m`, `+30s`, `-0.5h` where `absolute` ones make sense. Raises UnreadableChange."""
    found = _CHANGE.fullmatch(text)
    if found is None or (found[3] != "%" and not absolute):
        message = f"a change reads like -20% {'or -5m (s, m, h)' if absolute else 'or +10%'}"
        raise UnreadableChange(message)
    by = Fraction(Decimal(f"{found[1]}{found[2]}"))
    if found[3] == "%":
        if not -100 <= by <= 1000:
            message = "a change lies between -100% and +1000%"
            raise UnreadableChange(message)
        return Change(factor=1 + by / 100)
    seconds = by * _UNITS[found[3]]
    if abs(seconds) > 366 * 86_400:
        message = "a change is at most a year"
        raise UnreadableChange(message)
    return Change(more=timedelta(microseconds=int(seconds * 10**6)))


@dataclass(frozen=True, slots=True)
class Changes:
    """To the incidents of `severity`, or to all."""

    time_to_detect: Change | None = None
    time_to_acknowledge: Change | None = None
    time_to_recover: Change | None = None
    incidents: Change | None = None
    severity: int | None = None

    def concern(self, facts: Facts) -> bool:
        return self.severity is None or measures.severity(facts) == self.severity


@dataclass(frozen=True, slots=True)
class Outcome:
    """As it was and as it would have been: the same currencies in both, none where there is no rate."""

    before: Cost
    after: Cost
    downtime_before: timedelta
    downtime_after: timedelta

    @property
    def difference(self) -> Cost:
        return {currency: _less(amount, self.before[currency]) for currency, amount in self.after.items()}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """`applied`: to how many of the `incidents` that harm in the period a change applies, by its name."""

    incidents: int
    applied: Mapping[str, int]
    whole: Outcome
    services: Mapping[str, Outcome]


def moved(facts: Facts, harm: Harm, changes: Changes) -> Harm:
    """The same harm, over earlier or later."""
    if not changes.concern(facts):
        return harm
    lasted = harm.span.ends - harm.span.begins
    would_last = lasted  # the two parts are never longer together, so that it does not fall below 0
    for measure, known in _PARTS.items():
        asked: Change | None = getattr(changes, measure)
        part = known(facts)
        if asked is not None and part is not None:
            would_last += asked.of(part) - part
    if changes.time_to_recover is not None and facts.ended_at is not None:
        would_last = changes.time_to_recover.of(would_last)
    return harm if would_last == lasted else replace(harm, span=Span(harm.span.begins, harm.span.begins + would_last))


def what_if(
    known: Sequence[tuple[Facts, Harm]], changes: Changes, rates: Iterable[Rate], planned: Planned, within: Span
) -> WhatIf:
    """`known` is what harms in the period, of whatever severity; `planned` reaches as far as the moved harms do."""
    dated, often = list(rates), changes.incidents or Change()
    was = _priced([harm for _, harm in known], dated, planned, within)
    would_be = _priced([_moved_within(*each, changes, within) for each in known], dated, planned, within)
    # Their number changes what they add to the others.
    others = _priced([harm for facts, harm in known if not changes.concern(facts)], dated, planned, within)
    services = {}
    for service, (before, down) in sorted(was.items()):
        after, would_be_down = would_be[service]
        stays, down_anyway = others.get(service, ({}, timedelta()))
        if before or after or down:
            currencies = sorted(before.keys() | after.keys())
            services[service] = Outcome(
                {currency: before.get(currency, NOTHING) for currency in currencies},
                {
                    currency: _more(after.get(currency, NOTHING), stays.get(currency, NOTHING), often.factor)
                    for currency in currencies
                },
                down,
                down_anyway + often.of(would_be_down - down_anyway),
            )
    harming = [facts for facts, harm in known if harm.impact > 0 and _harms(harm, within) and changes.concern(facts)]
    return WhatIf(len(harming), _applied(harming, changes), _sum(services.values()), services)


def reach(known: Iterable[tuple[Facts, Harm]], changes: Changes, within: Span) -> Span:
    """The part of the period in which anything harms, as it was or would have been."""
    spans = [
        clipped(harm.span, within)
        for each in known
        for harm in (each[1], _moved_within(*each, changes, within))
        if _harms(harm, within)
    ]
    return Span(
        min((span.begins for span in spans), default=within.begins),
        max((span.ends for span in spans), default=within.begins),
    )


def _moved_within(facts: Facts, harm: Harm, changes: Changes, within: Span) -> Harm:
    return moved(facts, harm, changes) if _harms(harm, within) else harm


def _priced(
    harms: Iterable[Harm], rates: Iterable[Rate], planned: Planned, within: Span
) -> dict[str, tuple[Cost, timedelta]]:
    left = unplanned(harms, planned)
    spans: dict[str, list[Span]] = defaultdict(list)
    for each in left:
        spans[each.service] += [each.span] if each.impact > 0 else []
    priced = costs(left, rates, within, shares=False).services
    return {service: (priced.get(service, {}), downtime(spans[service], within)) for service in spans}


def _applied(harming: Sequence[Facts], changes: Changes) -> dict[str, int]:
    over = [facts for facts in harming if facts.ended_at is not None]
    counts = {measure: sum(known(facts) is not None for facts in over) for measure, known in _PARTS.items()}
    counts |= {"time_to_recover": len(over), "incidents": len(harming)}
    return {name: count for name, count in counts.items() if getattr(changes, name) is not None}


def _sum(outcomes: Iterable[Outcome]) -> Outcome:
    each = list(outcomes)
    return Outcome(
        total(one.before for one in each),
        total(one.after for one in each),
        sum((one.downtime_before for one in each), timedelta()),
        sum((one.downtime_after for one in each), timedelta()),
    )


def _time_to_detect(facts: Facts) -> timedelta | None:
    """Where an earlier detection would have changed anything."""
    return _between(facts.impact_started_at, measures.detected_at(facts), facts.ended_at)


def _time_to_acknowledge(facts: Facts) -> timedelta | None:
    return _between(measures.detected_at(facts), facts.acknowledged_at, facts.ended_at)


_PARTS: Mapping[str, Callable[[Facts], timedelta | None]] = {
    "time_to_detect": _time_to_detect,
    "time_to_acknowledge": _time_to_acknowledge,
}


def _between(begins: datetime | None, ends: datetime | None, over: datetime | None) -> timedelta | None:
    """None where one of them is not known, or they contradict each other."""
    if begins is None or ends is None or over is None or not begins <= ends <= over:
        return None
    return ends - begins


def _harms(harm: Harm, within: Span) -> bool:
    span = clipped(harm.span, within)
    return span.begins < span.ends


def _more(amount: Amount, stays: Amount, factor: Fraction) -> Amount:
    """`stays`, and `factor` times what the amount is above it."""
    return Amount(*(least + (each - least) * factor for each, least in zip(amount, stays, strict=True)))


def _less(amount: Amount, by: Amount) -> Amount:
    return Amount(amount.low - by.low, amount.expected - by.expected, amount.high - by.high)


def shown(cost: Cost) -> dict[str, Shown]:
    """As downtime.shown, of amounts that may be negative."""
    return {currency: Shown(*map(_rounded, amount)) for currency, amount in sorted(cost.items())}


def _rounded(amount: Fraction) -> Decimal:
    size = rounded(abs(amount))
    return size.copy_negate() if amount < 0 and size else size
