"""Definitions of the numbers about deployments and of the DORA metrics."""

from app.incidents.definitions.model import DEPLOYED, EVERY_INCIDENT, NO_RECOVERY, SUMMARY_FROM, metric

_FINISHED = "deployments of the selected service and environment that finished in [from, to)"
_NOT_FINISHED = (
    "canceled and unfinished deployments; those that deployed what was running already; unknown outcomes; changes "
    "that are not deployments; non-production environments, unless requested"
)
_CAUSED = "incidents caused by a deployment with at least min_confidence; `basis` shows how that is known"
_FEW_OF_DORA = f"statistics if there are fewer than {SUMMARY_FROM} values; `values` lists them instead"
_WIDENED = (
    "by the root of the design effect, which is the variance with clusters over that without, and at least 1. Clusters "
    "are storms of what began together (see compare_clusters), and from 56 days on calendar weeks too"
)
_WILSON = "Wilson's 95 % interval for as many as they are worth, n / design effect (see lead_time_for_changes)"
_FALSE_ALARMS = "sev5 (false alarms); merged incidents; monitoring failures"

DORA = (
    metric(
        "deployment_frequency",
        "Deployment frequency",
        "per day",
        "rate, with an interval",
        "deployments that succeeded and finished in [from, to), per day; 95 % interval with the dispersion of "
        "their numbers per day or week, as of incidents_per_day",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_show="how much was delivered. The interval assumes deployments at random times, if in groups, which "
        "planned deployments are not",
        clock=DEPLOYED,
        version=2,
    ),
    metric(
        "lead_time_for_changes",
        "Lead time for changes",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "finished_at - commit time, for each commit of a deployment that succeeded in [from, to), counted once per "
        "service, with the first such deployment; a commit later than its deployment is left out and counted; median "
        f"with the 95 % interval from its order statistics, whose distances from the middle are widened: {_WIDENED}",
        counted="commits with a time in deployments that succeeded in [from, to)",
        left_out=f"deployments without commit times, counted as without_commit_times; {_FEW_OF_DORA}",
        cannot_show="how long the work took before the commit; a rebase makes old work look new",
        clock=DEPLOYED,
        version=3,
    ),
    metric(
        "without_commit_times",
        "Deployments without commit times",
        "deployments",
        "count",
        "deployments that succeeded in [from, to) and were reported without any commit time",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_show="their lead times, which are in none of the numbers",
        clock=DEPLOYED,
    ),
    metric(
        "deployments",
        "Deployments",
        "deployments",
        "count",
        "finished deployments, with the outcome succeeded or failed",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_show="how large they were",
        clock=DEPLOYED,
    ),
    metric(
        "change_failures",
        "Failed deployments",
        "deployments",
        "count",
        "distinct finished deployments that needed immediate intervention: marked as such (needed_intervention), "
        "rolled back by another, or the cause of an incident that is neither sev5 (false alarm) nor a monitoring "
        "failure, by a link of at least min_confidence (default medium). A pipeline outcome `failed` alone affects no "
        "users and does not count",
        counted=_FINISHED,
        left_out=f"links of low confidence, unless requested; {_NOT_FINISHED}",
        cannot_show="more than its links: a link to the last deployment before an incident is a guess, see `basis`",
        clock=DEPLOYED,
        version=2,
    ),
    metric(
        "change_failures_per_day",
        "Failed deployments per day",
        "per day",
        "rate, with an interval",
        "change_failures / days of [from, to); 95 % interval as of incidents_per_day",
        counted=_FINISHED,
        left_out=f"links of low confidence, unless requested; {_NOT_FINISHED}",
        cannot_show="whether deployments became worse: it rises with their number. See change_fail_rate",
        clock=DEPLOYED,
    ),
    metric(
        "change_fail_rate",
        "Change fail rate",
        "ratio",
        "ratio, with an interval",
        f"change_failures / deployments, so never above 1; {_WILSON}",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_show="whether changes are bad or just well monitored: failures that are not linked do not count. Recent "
        "deployments may still fail",
        clock=DEPLOYED,
        version=3,
    ),
    metric(
        "change_fail_rate_of_all_links",
        "Change fail rate, with all links",
        "ratio",
        "ratio, with an interval",
        "like change_fail_rate, with links of any confidence: also the last deployment in the 24 hours before an "
        f"incident; {_WILSON}",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_show="which of its failures are coincidences. The true rate is likely between change_fail_rate and this",
        clock=DEPLOYED,
        version=2,
    ),
    metric(
        "unchanged",
        "Deployments that changed nothing",
        "deployments",
        "count",
        "deployments of the same sha and version that were running already in the service and environment, such as "
        "repeated syncs",
        counted=_FINISHED,
        left_out="canceled and unfinished deployments; non-production environments, unless requested",
        cannot_show="whether their configuration changed: that is a change, not a deployment",
        clock=DEPLOYED,
    ),
    metric(
        "unknown_outcomes",
        "Deployments with an unknown outcome",
        "deployments",
        "count",
        "deployments that ended with a word that is not known; they are in none of the other numbers",
        counted=_FINISHED,
        left_out="those that deployed what was running already; non-production environments, unless requested",
        cannot_show="whether they succeeded",
        clock=DEPLOYED,
    ),
    metric(
        "failed_deployment_recovery_time",
        "Failed deployment recovery time",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of the incidents caused by the failed deployments of [from, to), by a link of at least "
        "min_confidence, whenever they were detected; interval of the median as of lead_time_for_changes",
        counted=_CAUSED,
        left_out=f"{NO_RECOVERY}; {_FALSE_ALARMS}; failed deployments without an incident; pending incidents; "
        f"{_FEW_OF_DORA}",
        cannot_show="how long slow recoveries take: open incidents are counted as pending and are in none of these "
        "quantiles",
        version=4,
    ),
    metric(
        "dora_time_to_recover",
        "Time to recover, all incidents",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of all incidents detected in [from, to), whatever caused them; interval of the median as of "
        "lead_time_for_changes",
        counted=EVERY_INCIDENT,
        left_out=f"{NO_RECOVERY}; {_FALSE_ALARMS}; pending incidents; {_FEW_OF_DORA}",
        cannot_show="how good deployments are: it is shown for comparison with failed_deployment_recovery_time",
        version=3,
    ),
    metric(
        "rework_rate",
        "Deployment rework rate",
        "ratio",
        "ratio, with an interval",
        "finished deployments that are `unplanned` and name the incident they respond to (made_for) / deployments; "
        f"{_WILSON}",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_show="rework that is not marked as unplanned",
        clock=DEPLOYED,
        version=2,
    ),
    metric(
        "unplanned_without_incident",
        "Unplanned deployments without an incident",
        "deployments",
        "count",
        "finished deployments that are `unplanned` and name no incident; they are not in rework_rate",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_show="why they were made",
        clock=DEPLOYED,
    ),
    metric(
        "unlinked",
        "Incidents without a known cause",
        "ratio",
        "ratio, with an interval",
        "incidents detected in [from, to) with neither a linked deployment nor a statement that no deployment "
        f"caused them / incidents detected; {_WILSON}",
        counted=EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_show="the causes. The larger it is, the less the change fail rate means",
        version=2,
    ),
    metric(
        "bases",
        "Linked incidents, by basis",
        "incidents",
        "count",
        "incidents detected in [from, to) with a linked cause, by the basis of the link: stated by a person, a label "
        "that names the deployment, a version in the labels that was deployed in the week before, or the last "
        "deployment in the 24 hours before",
        counted=EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_show="whether the links are right: last_deployment is a guess by time alone",
    ),
    metric(
        "confidences",
        "Linked incidents, by confidence",
        "incidents",
        "count",
        "incidents detected in [from, to) with a known cause, by how certain it is: high, medium or low; their sum is "
        "that of bases",
        counted=EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_show="how many links are right; a confidence is not a probability",
    ),
    metric(
        "dora_cost",
        "Cost of downtime by DORA's formula",
        "currency",
        "product, exact",
        "deployments x change_fail_rate x mean failed_deployment_recovery_time in hours x hourly cost of an outage "
        "as of `to`",
        counted="one service with a rate",
        left_out="incidents not caused by a deployment; failed deployments without an incident count with the mean",
        cannot_show="the actual cost: it is a cross-check that treats every failure as a full outage and assumes "
        "that none overlap. See `cost` for the actual cost",
        clock=DEPLOYED,
    ),
)
