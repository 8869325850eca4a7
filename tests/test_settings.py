"""Settings from the environment: errors are reported in one sentence each, without secrets."""

import os
from decimal import Decimal

import pytest

from app.settings import WrongSettings, read_settings


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AFTERMATH_")]:
        monkeypatch.delenv(name)


def problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(f"AFTERMATH_{name}", value)
    with pytest.raises(WrongSettings) as wrong:
        read_settings()
    return wrong.value.problems


IMPACT = """; example: AFTERMATH_IMPACT='{"sev1": 1, "sev2": 0.5}'"""
LABOR = """; example: AFTERMATH_LABOR='{"currency": "EUR", "low": 60, "expected": 80, "high": 120}'"""


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "eighty", "AFTERMATH_PORT must be an integer, not 'eighty'; example: AFTERMATH_PORT=8080"),
        ("PORT", "", "AFTERMATH_PORT must be an integer, but is empty; example: AFTERMATH_PORT=8080"),
        ("PORT", "70000", "AFTERMATH_PORT must be at most 65535, not '70000'; example: AFTERMATH_PORT=8080"),
        ("WORKERS", "0", "AFTERMATH_WORKERS must be at least 1, not '0'; example: AFTERMATH_WORKERS=1"),
        (
            "LOG_LEVEL",
            "warn",
            (
                "AFTERMATH_LOG_LEVEL must be 'debug', 'info', 'warning' or 'error', not 'warn'; "
                "example: AFTERMATH_LOG_LEVEL=info"
            ),
        ),
        (
            "QUEUE_SECONDS",
            "inf",
            "AFTERMATH_QUEUE_SECONDS must be a finite number, not 'inf'; example: AFTERMATH_QUEUE_SECONDS=10",
        ),
        (
            "DATABASE_URL",
            "mysql://root:hunter2@db/x",
            (
                "AFTERMATH_DATABASE_URL must be the URL of a PostgreSQL database; "
                "example: AFTERMATH_DATABASE_URL=postgresql://user:password@db.example.com:5432/aftermath"
            ),
        ),
        (
            "ADMIN_TOKEN",
            "hunter2",
            (
                "AFTERMATH_ADMIN_TOKEN must have at least 16 characters; "
                "example: AFTERMATH_ADMIN_TOKEN=$(openssl rand -hex 24)"
            ),
        ),
        ("IMPACT", "sev1=1", f"AFTERMATH_IMPACT must be JSON, not 'sev1=1'{IMPACT}"),
        ("IMPACT", "1", f"AFTERMATH_IMPACT must be a JSON object, not '1'{IMPACT}"),
        ("IMPACT", '{"sev1": 2}', f"In AFTERMATH_IMPACT, sev1 must be at most 1, not '2'{IMPACT}"),
        ("LABOR", '{"low": 1, "high": 2}', f"In AFTERMATH_LABOR, currency is missing; expected is missing{LABOR}"),
        (
            "LABOR",
            '{"currency": "EUR", "low": 3, "expected": 2, "high": 1}',
            f"AFTERMATH_LABOR must have low <= expected <= high{LABOR}",
        ),
        (
            "OUTBOUND_ALLOW",
            "10.0.0.1/8",
            (
                "AFTERMATH_OUTBOUND_ALLOW must list host names, IP addresses and networks such as 10.0.0.0/8, "
                "not '10.0.0.1/8'; "
                "example: AFTERMATH_OUTBOUND_ALLOW=alertmanager.monitoring.svc,10.0.0.0/8,127.0.0.1"
            ),
        ),
        (
            "OUTBOUND_PROXY",
            "socks5://user:hunter2@proxy",
            (
                "AFTERMATH_OUTBOUND_PROXY must be the http:// or https:// URL of a proxy; "
                "example: AFTERMATH_OUTBOUND_PROXY=http://proxy.example.com:3128"
            ),
        ),
        ("PRT", "80", "AFTERMATH_PRT is not a setting; did you mean AFTERMATH_PORT?"),
        ("DB_URL", "secret", "AFTERMATH_DB_URL is not a setting; did you mean AFTERMATH_DATABASE_URL?"),
        ("XYZZY", "1", "AFTERMATH_XYZZY is not a setting: unset it (README.md lists all settings)"),
        (
            "PORT",
            "tcp://10.0.0.1:8080",
            (
                "AFTERMATH_PORT must be an integer, not 'tcp://10.0.0.1:8080': Kubernetes sets it for a Service "
                "named aftermath; set enableServiceLinks: false in the pod"
            ),
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str) -> None:
    assert problems(monkeypatch, **{name: value}) == [sentence]


def test_several_wrong_settings_are_a_sentence_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(monkeypatch, PORT="x", WORKERS="x", PRT="1", IMPACT="x")
    assert [sentence.split()[0] for sentence in found] == [
        f"AFTERMATH_{name}" for name in ("PRT", "PORT", "WORKERS", "IMPACT")
    ]


def test_a_long_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    [sentence] = problems(monkeypatch, PORT="9" * 5000)
    assert len(sentence) < 200


def test_the_variables_that_kubernetes_sets_for_a_service_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AFTERMATH_SERVICE_HOST": "10.0.0.1",
        "AFTERMATH_SERVICE_PORT_HTTP": "8080",
        "AFTERMATH_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "AFTERMATH_PORT_8080_TCP_ADDR": "10.0.0.1",
        "AFTERMATH_DB_PORT": "tcp://10.0.0.2:5432",
    }.items():
        monkeypatch.setenv(name, value)
    assert read_settings().port == 8080


def test_a_severity_that_impact_leaves_out_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERMATH_IMPACT", '{"sev2": 0.7}')
    assert read_settings().impact == {
        "sev1": Decimal(1),
        "sev2": Decimal("0.7"),
        "sev3": Decimal("0.1"),
        "sev4": Decimal(0),
        "sev5": Decimal(0),
    }
