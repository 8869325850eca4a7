"""The numbers of a period: incidents, downtime, cost and labor."""

from app.incidents.definitions.model import EVERY_INCIDENT, HARMING, HARMING_WITH_RATE, NO_RATE, PLANNED, metric

PERIODS = (
    metric(
        "incidents",
        "Incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to)",
        counted="every incident of the filters, whatever its severity",
        left_out="merged incidents: they are one with the one they went into",
        cannot_tell="how many things went wrong: it follows from the rules' keys and windows as well",
    ),
    metric(
        "open",
        "Open incidents",
        "incidents",
        "count",
        "incidents whose detected_at lies in [from, to) and that are not resolved now, acknowledged or not",
        counted=EVERY_INCIDENT,
        left_out="those detected before or after it, open or not; merged incidents",
        cannot_tell="whether anybody is still harmed: alerts may stay on, or have been lost by their sender",
    ),
    metric(
        "harming",
        "Incidents that harm",
        "incidents",
        "count",
        "incidents with an impact above 0 whose [impact_started_at, else detected_at; resolved_at, else now) has a "
        "part in [from, to)",
        counted=HARMING,
        left_out="severities whose impact is 0; merged incidents; trouble of the monitoring",
        cannot_tell="how many began in the period: for that there is `incidents`",
    ),
    metric(
        "downtime",
        "Downtime",
        "seconds",
        "sum over services of a union of intervals",
        "per service the union of [impact_started_at, else detected_at; resolved_at, else now) of incidents with an "
        "impact above 0, cut to [from, to), whenever they were detected, less planned maintenance; summed over "
        "services",
        counted=HARMING,
        left_out=PLANNED,
        cannot_tell="how many users were harmed: a service is down or not here, whatever the severity",
    ),
    metric(
        "planned",
        "Planned downtime",
        "seconds",
        "union of intervals",
        "downtime that fell into planned maintenance; it is not in downtime",
        counted=HARMING,
        left_out="severities whose impact is 0; trouble of the monitoring",
        cannot_tell="whether what failed then failed because of the maintenance",
    ),
    metric(
        "cost",
        "Cost",
        "currency",
        "sum, exact",
        "per service the integral of rate(t) x impact(t) over [from, to), less planned maintenance; where incidents "
        "overlap the greatest impact counts once, shared among them by impact; summed over the incidents in question, "
        "per currency",
        counted=HARMING_WITH_RATE,
        left_out=NO_RATE,
        cannot_tell="what was really lost: it is an hour's price that somebody stated, times hours. Look at low and "
        "high too",
    ),
    metric(
        "labor",
        "Labor",
        "currency",
        "sum, exact",
        "the sum over incidents of responders of the severity x pay per hour x the hours in [from, to) from "
        "acknowledged_at (detected_at, if that is later) to (resolved_at, else now); never part of cost",
        counted="incidents that a person acknowledged while they ran and that ran on in the period, those in "
        "maintenance and trouble of the monitoring too: they are work as well",
        left_out="incidents that nobody acknowledged while they ran, which are counted: unknown is not 0; merged "
        "incidents",
        cannot_tell="what was really worked: nobody wrote down hours. Incidents that overlap count twice, as if "
        "different people worked on them, and it ends with the recovery, before the review",
    ),
)
