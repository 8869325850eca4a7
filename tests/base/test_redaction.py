"""Secrets are removed from text, and other text stays as it is."""

from time import process_time

import pytest

from app.base.text.redaction import MARK, redact

SECRETS = [
    "aft_0123abcd_" + "A" * 43,
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "ghp_" + "a1" * 18,
    "github_pat_" + "a1_" * 10,
    "glpat-" + "a1-b" * 6,
    "xoxb-" + "1234567890-abcdef",
    "AIza" + "B" * 35,
    "ya29." + "c" * 30,
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    "eyJ0eXAi-eyJhbGci_OiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEow",
    "https://hooks.slack.com/services/T0/B0/" + "x" * 24,
]
VALUES = [
    ("password=hunter2", "hunter2"),
    ('DB_PASSWORD: "hunter 2"', "hunter 2"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG"),
    ('{"api_key": "k1"}', '"k1"'),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("curl -H 'authorization: Bearer abc'", "abc"),
    ("with Bearer abcdefgh.1234", "abcdefgh.1234"),
    ("postgresql://user:pw@db.example.org/x", "user:pw"),
    ("vault login --token s.abcdef", "s.abcdef"),
    ("pg_dump --db-password 'hunter 2' shop", "hunter 2"),
    ("curl -u ada:hunter2 https://example.org", "hunter2"),
    ("curl --user ada:hunter2 https://example.org", "hunter2"),
    ("mysql -uroot -phunter2 shop", "hunter2"),
    ("sshpass -p hunter2 ssh db-1", "hunter2"),
    (r'curl -d "{\"password\": \"hunter 2\"}" https://example.org', "hunter 2"),
    (r'curl -d "{\"password\":\"hunter\\\"2\", \"a\": 1}" https://example.org', "2"),
    (r"curl -d '{\'authorization\': \'Bearer abc\'}' https://example.org", "abc"),
    ("postgres://u:pa/ss@db/shop", "ss"),
    ("postgres://u:p@ss@db/shop", "ss"),
    ("redis://:12/34@cache:6379/0", "34"),
    ('password="my secret\nhunter2"', "hunter2"),
    (r'password="hunter\"2"', "2"),
    ('DB_PASSWORD="hunter 2', "2"),
    ("token: 'hunter 2\n", "2"),
    ("session-eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl"),
    ("a.eyJhbGciOiJI.eyJzdWIiOiIx.", "eyJhbGciOiJI.eyJzdWIiOiIx."),
]


@pytest.mark.parametrize(("words", "secret"), [*((f"see {one} here", one) for one in SECRETS), *VALUES])
def test_secrets_are_removed(words: str, secret: str) -> None:
    found = redact(words)
    assert secret not in found.text
    assert MARK in found.text
    assert found.secrets == 1
    assert redact(found.text).text == found.text, "nothing is left to remove"


COMMANDS = [
    "kill -9 4711",
    "docker run -u 1000:1000 -p 8080:80 web",
    "ps -u www",
    "vault token lookup",
    "mysql -u root -p shop",
]


@pytest.mark.parametrize(
    "words",
    [
        "Rolled back to 1.41",
        "the token bucket is full",
        "see https://example.org/a@b",
        "see https://example.org:8080/a@b",
        "eyJ is no token",
        "eyJhbGciOiJI.eyJ.c2lnbmF0dXJl",
        "eyJhbGciOiJI-eyJzdWIiOiIx",
        "secret!",
        *COMMANDS,
    ],
)
def test_other_text_stays(words: str) -> None:
    assert redact(words) == (words, 0)


@pytest.mark.parametrize(
    "part",
    [
        "password",
        "a.",
        "://",
        "--token ",
        "-u a:",
        "mysql -p",
        "-----BEGIN A-----",
        "eyJaaaaa.",
        "authorization: ",
        "xox",
        "a://a:",
        'password="',
        "password='a",
        'password=\\"',
        'token=\\\\\\"a',
    ],
)
def test_redaction_takes_time_in_proportion(part: str) -> None:
    words = part * (10_000 // len(part))
    began = process_time()
    redact(words)
    assert process_time() - began < 2
