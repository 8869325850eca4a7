"""The words that monitoring and CI systems use for severities, environments and outcomes of deployments.

Pure. Every sender, rule and deployment uses these tables. A word that is not in them gives None, never a guess; what
applies instead is up to the caller, who must make it visible.
"""

from collections.abc import Iterable, Mapping

from app.base.values.facts import Outcome

# — severities —

# Labels that state a severity, in the order in which they are tried.
SEVERITY_LABELS = ("severity", "priority", "level")
DEFAULT_SEVERITY = 3  # for alerts that state no severity, or only unknown words


def severity_of(word: str) -> int | None:
    """1 (worst) to 5, None for an unknown word.

    Case and separators do not matter: `SEV-1` is `sev1`. A bare number is unknown, because products count in opposite
    directions: 1 is nearly the worst in syslog and nearly harmless in Zabbix.
    """
    return _SEVERITIES.get(normalized(word))


# — environments —

# Labels that state an environment, in the order in which they are tried. With underscores: as Prometheus stores
# OpenTelemetry's attributes.
ENVIRONMENT_LABELS = (
    "environment",
    "env",
    "deployment.environment.name",
    "deployment.environment",
    "deployment_environment_name",
    "deployment_environment",
    "stage",
)
PRODUCTION = "production"
UNKNOWN_ENVIRONMENT = "unknown"  # how an environment that is not known is shown where null is impossible
LONGEST_ENVIRONMENT = 100  # characters


def environment_of(word: str) -> str | None:
    """The usual name of an environment: `prod` is `production`. None if the word does not name one (`unknown`, blank).

    Environments are an open set: other words are kept, in lower case.
    """
    stated = word.strip().casefold()[:LONGEST_ENVIRONMENT].strip()
    plain = normalized(stated)
    return None if plain in _NO_ENVIRONMENT else _ENVIRONMENTS.get(plain, stated)


def environment_in(labels: Mapping[str, str], names: Iterable[str] = ENVIRONMENT_LABELS) -> str | None:
    """The environment in the first of the labels that names one."""
    return next((found for name in names if (found := environment_of(labels.get(name, ""))) is not None), None)


# — outcomes —


def outcome_of(word: str) -> Outcome | None:
    """The outcome of a deployment; None for an unknown word.

    What ran to its end with remarks (Jenkins' `UNSTABLE`, Azure's `partiallySucceeded`) has succeeded: the new version
    is running. Whether it harmed anyone is shown by incidents.
    """
    return _OUTCOMES.get(normalized(word))


# — the tables —


def normalized(word: str) -> str:
    """In lower case and without separators, for comparison."""
    return word.casefold().translate(_WITHOUT_SEPARATORS)


_WITHOUT_SEPARATORS = {ord(separator): None for separator in " \t\r\n-_.:/"}


def _by_word(words_of: Mapping[str, str]) -> dict[str, str]:
    return {normalized(word): name for name, words in words_of.items() for word in words.split()}


# By the product that uses them; the words of several are listed where they appear first.
_SEVERITY_WORDS: tuple[tuple[int, str], ...] = (
    # Prometheus rules, and priorities
    (1, "critical page p0 p1 sev0 sev1 s0 s1 severity0 severity1 priority0 priority1"),
    (2, "error p2 sev2 s2 severity2 priority2"),
    (3, "warning ticket p3 sev3 s3 severity3 priority3"),
    (4, "p4 sev4 s4 severity4 priority4"),
    (5, "info none p5 sev5 s5 severity5 priority5"),
    # syslog (RFC 5424), with the spellings of its implementations
    (1, "emergency emerg panic alert crit"),
    (2, "err"),
    (3, "warn"),
    (5, "notice informational information debug"),
    # PagerDuty's and Opsgenie's urgencies and priorities, ServiceNow ("1 - Critical")
    (1, "highest 1critical"),
    (2, "high urgent 2high"),
    (3, "medium moderate 3moderate"),
    (4, "low 4low"),
    (5, "lowest planning 5planning"),
    # Zabbix; not classified is its default, not an unknown word
    (1, "disaster"),
    (3, "average not-classified"),
    # Nagios, Icinga, uptime checks
    (1, "down"),
    (3, "unreachable degraded"),
    (5, "ok up"),
    # Kapacitor, Splunk, Datadog, Alerta, Netdata, Google Cloud (No severity)
    (1, "fatal severe"),
    (2, "major"),
    (3, "no-severity indeterminate"),
    (4, "minor"),
    (5, "normal success clear cleared trace verbose"),
    # issue trackers
    (1, "blocker catastrophic outage showstopper"),
    (2, "serious"),
    (5, "trivial"),
)
_SEVERITIES = {normalized(word): severity for severity, words in _SEVERITY_WORDS for word in words.split()}

_ENVIRONMENTS = _by_word(
    {
        PRODUCTION: "production prod prd live",
        "staging": "staging stg stage stag",
        "preproduction": "preproduction pre-production preprod pre-prod ppe ppd",
        "acceptance": "acceptance acc uat user-acceptance user-acceptance-testing",
        "qa": "qa quality-assurance",
        "test": "test tst testing",
        "integration": "integration int",
        "development": "development dev devel develop",
        "sandbox": "sandbox sbx",
    }
)
_NO_ENVIRONMENT = frozenset({"", "unknown", "none", "null", "nil", "na", "undefined", "unspecified", "default"})

# Jenkins, GitHub, GitLab, Azure DevOps, CircleCI, Buildkite, Travis CI, Bitbucket, TeamCity, Drone, Argo, Tekton, Flux,
# Helm, Spinnaker, Octopus, Harness, AWS CodePipeline and CodeDeploy, Google Cloud Build, Vercel and Netlify.
_OUTCOMES = {
    normalized(word): outcome
    for outcome, words in {
        Outcome.PENDING: "pending queued waiting created scheduled blocked requested preparing waiting_for_resource "
        "waiting_for_approval on_hold action_required manual not_started enqueued buffered new initialized submitted "
        "needs_approval pending_install pending_upgrade pending_rollback",
        Outcome.IN_PROGRESS: "in_progress inprogress running started progressing terminating executing working "
        "building deploying processing active ongoing baking canceling cancelling stopping paused suspended",
        Outcome.SUCCEEDED: "succeeded success successful successfully passed pass completed complete done finished "
        "deployed ok fixed ready live healthy unstable neutral green synced partially_succeeded succeeded_with_issues "
        "success_with_info reconciliation_succeeded ignore_failed",
        Outcome.FAILED: "failed failure fail error errored broken failing still_failing timed_out timedout timeout "
        "time_out startup_failure infrastructure_fail fault internal_error terminal failed_continue build_failed "
        "update_failed degraded red crashed unhealthy reconciliation_failed unsuccessful",
        Outcome.CANCELED: "canceled cancelled cancel aborted abort skipped stale stopped not_built not_run superseded "
        "abandoned declined rejected expired killed omitted redirect terminated interrupted discarded",
    }.items()
    for word in words.split()
}
