"""Definitions of the numbers of a period: incidents, downtime, cost and labor."""

from app.incidents.definitions.model import EVERY_INCIDENT, HARMING, HARMING_WITH_RATE, NO_RATE, PLANNED, metric

PERIODS = (
    metric(
        "incidents",
        "Incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to)",
        counted="every incident that matches the filters, whatever its severity",
        left_out="merged incidents: they count as the incident they were merged into",
        cannot_tell="how many things went wrong: the grouping keys and windows of the rules affect it too",
    ),
    metric(
        "open",
        "Open incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to) and that are not resolved now, acknowledged or not",
        counted=EVERY_INCIDENT,
        left_out="incidents detected before or after the period, open or not; merged incidents",
        cannot_tell="whether users are still affected: an alert may keep firing, or its resolve may have been lost",
    ),
    metric(
        "harming",
        "Incidents with impact",
        "incidents",
        "count",
        "incidents with an impact above 0 whose [impact_started_at, else detected_at; resolved_at, else now) overlaps "
        "[from, to)",
        counted=HARMING,
        left_out="severities with an impact of 0; merged incidents; monitoring failures",
        cannot_tell="how many began in the period; see `incidents` for that",
    ),
    metric(
        "downtime",
        "Downtime",
        "seconds",
        "sum over services of a union of intervals",
        "per service the union of [impact_started_at, else detected_at; resolved_at, else now) of incidents with an "
        "impact above 0, clipped to [from, to), whenever they were detected, less planned maintenance; summed over "
        "services",
        counted=HARMING,
        left_out=PLANNED,
        cannot_tell="how many users were affected: here a service is either up or down, whatever the severity",
    ),
    metric(
        "planned",
        "Planned downtime",
        "seconds",
        "union of intervals",
        "downtime within planned maintenance; it is not part of downtime",
        counted=HARMING,
        left_out="severities with an impact of 0; monitoring failures",
        cannot_tell="whether the maintenance caused the failures",
    ),
    metric(
        "cost",
        "Cost",
        "currency",
        "sum, exact",
        "per service the integral of rate(t) x impact(t) over [from, to), less planned maintenance; where incidents "
        "overlap, the greatest impact counts once and is split among them by impact; summed over the selected "
        "incidents, per currency",
        counted=HARMING_WITH_RATE,
        left_out=NO_RATE,
        cannot_tell="the actual loss: it is a configured hourly rate times hours. Consider the low and high amounts "
        "too",
    ),
    metric(
        "labor",
        "Labor",
        "currency",
        "sum, exact",
        "the sum over incidents of responders for the severity x pay per hour x the hours in [from, to) from "
        "acknowledged_at (detected_at, if that is later) to (resolved_at, else now); never part of cost",
        counted="incidents that a person acknowledged before they ended and that ran in the period after that, "
        "including those in maintenance and monitoring failures, because they take work too",
        left_out="incidents that nobody acknowledged before they ended, which are counted, because unknown is not 0; "
        "merged incidents",
        cannot_tell="the hours actually worked, which are not recorded. Overlapping incidents count twice, as if "
        "different people worked on them, and work after the recovery, such as the review, is not included",
    ),
)
