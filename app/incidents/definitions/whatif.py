"""Definitions of the numbers of what-if scenarios."""

from app.incidents.definitions.model import HARMING, HARMING_WITH_RATE, NO_RATE, PLANNED, metric

_NO_FORECAST = "future savings: it recomputes the past under the assumptions listed beside it"

WHAT_IF = (
    metric(
        "whatif",
        "Hypothetical cost",
        "currency",
        "sum, exact",
        "the cost of [from, to) with every interval [impact_started_at, else detected_at; resolved_at) changed to the "
        "length time_to_recover'(lasted + change of time_to_detect + change of time_to_acknowledge), never below 0, "
        "and the contribution of the selected incidents multiplied by the change of their number",
        counted=HARMING_WITH_RATE,
        left_out=f"{NO_RATE}; incidents that ended before the period, even if the change would extend them into it",
        cannot_tell=_NO_FORECAST,
    ),
    metric(
        "whatif_difference",
        "Difference of cost",
        "currency",
        "difference, exact",
        "whatif - cost, so savings are negative",
        counted=HARMING_WITH_RATE,
        left_out=NO_RATE,
        cannot_tell=_NO_FORECAST,
    ),
    metric(
        "whatif_downtime",
        "Hypothetical downtime",
        "seconds",
        "sum over services of a union of intervals",
        "downtime with the intervals changed as for whatif, and the contribution of the selected incidents multiplied "
        "by the change of their number",
        counted=HARMING,
        left_out=PLANNED,
        cannot_tell="future downtime",
    ),
    metric(
        "applied",
        "Incidents that a change applies to",
        "incidents",
        "count",
        "of the incidents with impact in [from, to), those that have the time being changed: a stated impact start, an "
        "acknowledgement, an end",
        counted=HARMING,
        left_out="incidents without that time, and open ones, unless the number of incidents is what changes",
        cannot_tell="anything by itself; if it is small, the change has little effect",
    ),
)
