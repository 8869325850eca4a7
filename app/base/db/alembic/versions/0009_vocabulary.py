"""Environments, recoveries that sources and rules may choose, and default rules as rows.

Incidents and alerts from before have no environment, which is shown as unknown. Default rules are added unless a rule
has their name; from then on they can be changed and deleted like any other.

Revision 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_LABELS = (
    "{environment,env,deployment.environment.name,deployment.environment,"
    "deployment_environment_name,deployment_environment,stage}"
)
_OPTIONAL = "recoveries <@ ARRAY['missing_series', 'no_data']"

# In RE2's syntax. Names as in `job` and in the Kubernetes service of an exporter, with prefixes (a release, a path) and
# suffixes. A Prometheus job of node-exporter is often just `node`, and one of an operator's Probe `probe/…`.
_KUBERNETES = r"(?i)(.*[-_./])?(kube[-_]state[-_]metrics|kubelet|cadvisor|kubernetes-nodes)([-_./].*)?"
_HOST = r"(?i)(.*[-_./])?(node|windows|process|smartctl|ipmi)[-_]?exporter([-_./].*)?"
_HOST_JOB = rf"(?i)nodes?|{_HOST.removeprefix('(?i)')}"
_PROBE = (
    r"(?i)(.*[-_./])?(blackbox|prober|smokeping|snmp[-_]?exporter|ping[-_]?exporter|ssl[-_]?exporter)([-_./].*)?"
    r"|(.*[-_./])?probes?"
)
_PROBE_JOB = rf"{_PROBE}|probe/.*"


def _seen_through(job: str, service: str) -> list[str]:
    """The job or the service names an exporter, and no other service is named."""
    return [f'job=~"{job}" or service=~"{service}"', f'service="" or service=~"{service}"']


# Name, position, matchers, labels that give the service, and whether alerts open incidents.
_RULES: tuple[tuple[str, int, list[str], list[str], bool], ...] = (
    # The alerts of deploy/prometheus; the heartbeat among them is matched before.
    ("aftermath-alerts", 1, ['alertname=~"Aftermath.+"'], [], False),
    # An aid for Alertmanager's inhibition in kube-prometheus-stack, not a problem.
    ("info-inhibitor", 1, ['alertname="InfoInhibitor"'], [], False),
    ("probes", 1000, _seen_through(_PROBE_JOB, _PROBE), ["target", "instance", "namespace", "alertname"], True),
    (
        "hosts",
        1001,
        _seen_through(_HOST_JOB, _HOST),
        ["nodename", "node", "instance", "namespace", "alertname"],
        True,
    ),
    # Of a node as a whole: its `namespace` and `pod`, if any, are those of the exporter.
    (
        "kubernetes-nodes",
        1002,
        [
            f'alertname=~"Kube(let|Node).*" or job=~"{_KUBERNETES}" or service=~"{_KUBERNETES}"',
            f'service="" or service=~"{_KUBERNETES}"',
            'node!=""',
            'pod="" or pod=~".*kube-state-metrics.*"',
            'persistentvolumeclaim=""',
            'exported_namespace=""',
        ],
        ["node", "instance", "alertname"],
        True,
    ),
    # Aggregated alerts of kube-prometheus-stack have neither `job` nor `service`, but their names begin alike.
    (
        "kubernetes-workloads",
        1003,
        [
            f'alertname=~"Kube.+|CPUThrottlingHigh" or job=~"{_KUBERNETES}" or service=~"{_KUBERNETES}"',
            f'service="" or service=~"{_KUBERNETES}"',
            f'job="" or job=~"{_KUBERNETES}" or service=~"{_KUBERNETES}"',
            f'namespace!="" or exported_namespace!="" or job=~"{_KUBERNETES}" or service=~"{_KUBERNETES}"',
        ],
        [
            "persistentvolume",
            "exported_namespace",
            "namespace",
            "deployment",
            "statefulset",
            "daemonset",
            "container_label_com_docker_compose_service",
            "name",
            "node",
            "instance",
            "alertname",
        ],
        True,
    ),
)


def upgrade() -> None:
    op.add_column(
        "rule",
        sa.Column("environment_labels", postgresql.ARRAY(sa.Text()), server_default=_LABELS, nullable=False),
    )
    op.add_column("rule", sa.Column("environment", sa.Text()))
    op.add_column("rule", sa.Column("opens_incidents", sa.Boolean(), server_default="true", nullable=False))
    for table in ("rule", "source"):
        op.add_column(table, sa.Column("recoveries", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
        op.create_check_constraint(f"{table}_recoveries_are_optional_ones", table, _OPTIONAL)
    for table in ("alert", "incident", "objective"):
        op.add_column(table, sa.Column("environment", sa.Text()))
    # Beside `settled_measure`, to which the version before adds by a primary key without the environment.
    op.create_table(
        "settled_in_environment",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("measure", "service", "environment")),
        *(sa.Column(name, sa.SmallInteger(), nullable=False) for name in ("severity", "bucket")),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint(
            "measure", "service", "environment", "severity", "bucket", name=op.f("settled_in_environment_pkey")
        ),
    )
    # Processes keep this setting of sources in memory, together with the rules.
    for event, condition in (
        ("INSERT", "NEW.recoveries <> '{}'"),
        ("UPDATE", "NEW.recoveries <> OLD.recoveries"),
    ):
        op.execute(
            f"""
            CREATE TRIGGER source_recoveries_{event.lower()} AFTER {event} ON source
               FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION bump_rule_version()
            """
        )
    rule = sa.table(
        "rule",
        *(sa.column(name) for name in ("name", "position", "window_seconds", "max_span_seconds", "opens_incidents")),
        *(
            sa.column(name, postgresql.ARRAY(sa.Text()))
            for name in ("matchers", "key_labels", "ignored_labels", "service_labels", "severity_labels")
        ),
        sa.column("severities", postgresql.JSONB()),
        sa.column("created_at"),
        sa.column("updated_at"),
    )
    general = ["service", "app", "app_kubernetes_io_name", "job", "rulename", "alertname"]
    for name, position, matchers, service_labels, opens in _RULES:
        op.execute(
            postgresql.insert(rule)
            .values(
                name=name,
                position=position,
                matchers=matchers,
                key_labels=["service", "environment"],
                window_seconds=300,
                max_span_seconds=86_400,
                ignored_labels=[],
                service_labels=service_labels or general,
                severity_labels=["severity", "priority", "level"],
                severities={},
                opens_incidents=opens,
                created_at=sa.func.now(),
                updated_at=sa.func.now(),
            )
            .on_conflict_do_nothing()
        )


def downgrade() -> None:
    """Rules that open no incidents would open some in the version before."""
    op.execute("DELETE FROM rule WHERE NOT opens_incidents")
    op.execute(
        """
        INSERT INTO settled_measure (measure, service, severity, bucket, count, seconds)
        SELECT measure, service, severity, bucket, sum(count), sum(seconds)
          FROM settled_in_environment
         GROUP BY measure, service, severity, bucket
            ON CONFLICT (measure, service, severity, bucket)
            DO UPDATE SET count = settled_measure.count + excluded.count,
                          seconds = settled_measure.seconds + excluded.seconds
        """
    )
    op.drop_table("settled_in_environment")
    for event in ("insert", "update"):
        op.execute(f"DROP TRIGGER source_recoveries_{event} ON source")
    for table in ("alert", "incident", "objective"):
        op.drop_column(table, "environment")
    for table in ("rule", "source"):
        op.drop_column(table, "recoveries")
    for name in ("environment_labels", "environment", "opens_incidents"):
        op.drop_column("rule", name)
