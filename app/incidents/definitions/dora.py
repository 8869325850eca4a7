"""Definitions of the numbers about deployments and of the DORA metrics."""

from app.incidents.definitions.model import DEPLOYED, EVERY_INCIDENT, NO_RECOVERY, SUMMARY_FROM, metric

_FINISHED = "deployments of the selected service and environment that finished in [from, to)"
_NOT_FINISHED = "canceled and unfinished deployments; non-production environments, unless requested"
_CAUSED = "incidents known or likely to be caused by a deployment; `basis` shows how that is known"
_FEW_OF_DORA = f"statistics if there are fewer than {SUMMARY_FROM} values; `values` lists them instead"
_FALSE_ALARMS = "sev5 (false alarms); merged incidents; monitoring failures"

DORA = (
    metric(
        "deployment_frequency",
        "Deployment frequency",
        "per day",
        "rate, with an interval",
        "deployments that succeeded and finished in [from, to), per day; exact Poisson interval of 95 %",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_tell="how much was delivered. The interval assumes deployments at random times, which planned "
        "deployments are not",
        clock=DEPLOYED,
    ),
    metric(
        "lead_time_for_changes",
        "Lead time for changes",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "finished_at - commit time, for each commit of a deployment that succeeded in [from, to), counted once per "
        "service, with the first such deployment; a commit later than its deployment is left out and counted; median "
        "with the 95 % interval from its order statistics",
        counted="commits with a time in deployments that succeeded in [from, to)",
        left_out=f"deployments without commit times, counted as without_commit_times; {_FEW_OF_DORA}",
        cannot_tell="how long the work took before the commit; a rebase makes old work look new. Commits of one "
        "deployment share its end, so the interval is narrower than it should be",
        clock=DEPLOYED,
        version=2,
    ),
    metric(
        "without_commit_times",
        "Deployments without commit times",
        "deployments",
        "count",
        "deployments that succeeded in [from, to) and were reported without any commit time",
        counted=_FINISHED,
        left_out=f"failed deployments; {_NOT_FINISHED}",
        cannot_tell="their lead times, which are in none of the numbers",
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
        cannot_tell="how large they were",
        clock=DEPLOYED,
    ),
    metric(
        "change_failures",
        "Failed deployments",
        "deployments",
        "count",
        "distinct finished deployments that needed immediate intervention: marked as such (needed_intervention), or "
        "the cause of an incident that is neither sev5 (false alarm) nor a monitoring failure. A pipeline outcome "
        "`failed` alone affects no users and does not count",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="more than its links: a link to the last deployment before an incident is a guess, see `basis`",
        clock=DEPLOYED,
    ),
    metric(
        "change_fail_rate",
        "Change fail rate",
        "ratio",
        "ratio, with an interval",
        "change_failures / deployments, so never above 1; Wilson interval of 95 %",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="whether changes are bad or just well monitored: failures that are not linked do not count. Recent "
        "deployments may still fail",
        clock=DEPLOYED,
    ),
    metric(
        "failed_deployment_recovery_time",
        "Failed deployment recovery time",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of the incidents caused by the failed deployments of [from, to), whenever they were detected",
        counted=_CAUSED,
        left_out=f"{NO_RECOVERY}; {_FALSE_ALARMS}; failed deployments without an incident; pending incidents; "
        f"{_FEW_OF_DORA}",
        cannot_tell="how long slow recoveries take: open incidents are counted as pending and are in none of these "
        "quantiles",
        version=2,
    ),
    metric(
        "dora_time_to_recover",
        "Time to recover, all incidents",
        "seconds",
        "50 and 90 % quantile and mean, with an interval of the median",
        "time_to_recover of all incidents detected in [from, to), whatever caused them",
        counted=EVERY_INCIDENT,
        left_out=f"{NO_RECOVERY}; {_FALSE_ALARMS}; pending incidents; {_FEW_OF_DORA}",
        cannot_tell="how good deployments are: it is shown for comparison with failed_deployment_recovery_time",
        version=2,
    ),
    metric(
        "rework_rate",
        "Deployment rework rate",
        "ratio",
        "ratio, with an interval",
        "finished deployments that are `unplanned` and name the incident they respond to (made_for) / deployments; "
        "Wilson interval of 95 %",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="rework that is not marked as unplanned",
        clock=DEPLOYED,
    ),
    metric(
        "unplanned_without_incident",
        "Unplanned deployments without an incident",
        "deployments",
        "count",
        "finished deployments that are `unplanned` and name no incident; they are not in rework_rate",
        counted=_FINISHED,
        left_out=_NOT_FINISHED,
        cannot_tell="why they were made",
        clock=DEPLOYED,
    ),
    metric(
        "unlinked",
        "Incidents without a known cause",
        "ratio",
        "ratio, with an interval",
        "incidents detected in [from, to) with neither a linked deployment nor a statement that no deployment "
        "caused them / incidents detected; Wilson interval of 95 %",
        counted=EVERY_INCIDENT,
        left_out=_FALSE_ALARMS,
        cannot_tell="the causes. The larger it is, the less the change fail rate means",
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
        cannot_tell="whether the links are right: last_deployment is a guess by time alone",
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
        cannot_tell="the actual cost: it is a cross-check that treats every failure as a full outage and assumes "
        "that none overlap. See `cost` for the actual cost",
        clock=DEPLOYED,
    ),
)
