"""What a period would have cost with faster response or fewer incidents."""

from app.incidents.definitions.model import HARMING, HARMING_WITH_RATE, NO_RATE, PLANNED, metric

WHAT_IF = (
    metric(
        "whatif",
        "Cost, had it been otherwise",
        "currency",
        "sum, exact",
        "the cost of [from, to) with every interval [impact_started_at, else detected_at; resolved_at) made as long as "
        "time_to_recover'(lasted + change of time_to_detect + change of time_to_acknowledge), never below 0, and what "
        "the incidents in question add to it times the change of their number",
        counted=HARMING_WITH_RATE,
        left_out=f"{NO_RATE}; what had ended before the period, however much longer it would have been",
        cannot_tell="what will be saved: it moves what has been, by the assumptions that stand beside it",
    ),
    metric(
        "whatif_difference",
        "Difference of cost",
        "currency",
        "difference, exact",
        "whatif - cost, so that what is saved is negative",
        counted=HARMING_WITH_RATE,
        left_out=NO_RATE,
        cannot_tell="what will be saved: it moves what has been, by the assumptions that stand beside it",
    ),
    metric(
        "whatif_downtime",
        "Downtime, had it been otherwise",
        "seconds",
        "sum over services of a union of intervals",
        "downtime with the intervals as whatif moves them, and what the incidents in question add to it times the "
        "change of their number",
        counted=HARMING,
        left_out=PLANNED,
        cannot_tell="how long it will be",
    ),
    metric(
        "applied",
        "Incidents that a change applies to",
        "incidents",
        "count",
        "of the incidents that harm in [from, to), those that have the part that is changed: a stated impact start, an "
        "acknowledgement, an end",
        counted=HARMING,
        left_out="those without the stated time, and open ones, unless it is their number that changes",
        cannot_tell="anything by itself; where few have the part, the change shows little",
    ),
)
