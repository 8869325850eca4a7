"""Definitions of the numbers of a period: incidents, downtime, cost and labor."""

from app.incidents.definitions.model import EVERY_INCIDENT, NO_RATE, PLANNED, WITH_IMPACT, WITH_IMPACT_AND_RATE, metric

PERIODS = (
    metric(
        "incidents",
        "Incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to)",
        counted="every incident that matches the filters, of any severity",
        left_out="merged incidents: they count as the incident they were merged into",
        cannot_show="how many things went wrong: the grouping keys and windows of the rules affect it too",
    ),
    metric(
        "incidents_per_day",
        "Incidents per day",
        "per day",
        "rate, with an interval",
        "incidents / days of [from, to) that have passed. The 95 % interval is the exact Poisson interval of incidents "
        "/ dispersion, scaled; with a dispersion above 1 it is at least Student's t interval of the logarithm",
        counted="every incident that matches the filters, of any severity",
        left_out="merged incidents: they count as the incident they were merged into",
        cannot_show="how storms vary, if there were fewer than about five: then the interval is too narrow",
    ),
    metric(
        "dispersion",
        "Dispersion of counts",
        "ratio",
        "variance / mean",
        "the variance of the counts of days over their mean, or of weeks if there are six, whichever is larger, and at "
        "least 1, which is that of independent events; for less than six days the sum of the squared sizes of the "
        "storms (see compare_clusters) / events. Events came as if in groups of this size",
        counted="incidents by detected_at, or deployments by finished_at, of each day or week that has passed",
        left_out="the part of a period that has not passed yet",
        cannot_show="why: storms, busy weeks, weekends and a growing number of incidents all raise it",
    ),
    metric(
        "open",
        "Open incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to) and that are not resolved now, acknowledged or not",
        counted=EVERY_INCIDENT,
        left_out="incidents detected before or after the period, open or not; merged incidents",
        cannot_show="whether users are still affected: an alert may keep firing, or its resolve may have been lost",
    ),
    metric(
        "incidents_with_impact",
        "Incidents with impact",
        "incidents",
        "count",
        "incidents whose impact(t) is above 0 at some time in [from, to)",
        counted=WITH_IMPACT,
        left_out="severities with an impact of 0; merged incidents; monitoring failures",
        cannot_show="how many began in the period; see `incidents` for that",
    ),
    metric(
        "downtime",
        "Downtime",
        "seconds",
        "sum over services of a union of intervals",
        "per service the time in [from, to) at which impact(t) of at least one incident is above 0, whenever it was "
        "detected, less planned maintenance; summed over services",
        counted=WITH_IMPACT,
        left_out=PLANNED,
        cannot_show="how many users were affected: here a service is either up or down, at any severity. Nor impact "
        "between alerts, unless a person states it; time to recover includes these gaps",
        version=2,
    ),
    metric(
        "planned",
        "Planned downtime",
        "seconds",
        "union of intervals",
        "downtime within planned maintenance; it is not part of downtime",
        counted=WITH_IMPACT,
        left_out="severities with an impact of 0; monitoring failures",
        cannot_show="whether the maintenance caused the failures",
    ),
    metric(
        "cost",
        "Cost",
        "currency",
        "sum, exact",
        "per service the integral of rate(t) x impact(t) over [from, to), less planned maintenance; where incidents "
        "overlap, the greatest impact counts once and is split among them by impact; summed over the selected "
        "incidents, per currency",
        counted=WITH_IMPACT_AND_RATE,
        left_out=NO_RATE,
        cannot_show="the actual loss: it is a configured hourly rate times hours. Consider the low and high amounts "
        "too",
        version=2,
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
        left_out="incidents that no one acknowledged before they ended, which are counted, because unknown is not 0; "
        "merged incidents",
        cannot_show="the hours actually worked, which are not recorded. Overlapping incidents count twice, as if "
        "different people worked on them, and work after the recovery, such as the review, is not included",
    ),
)
