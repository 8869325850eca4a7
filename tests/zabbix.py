"""Zabbix's stock webhook scripts, run by Zabbix's own engine (`zabbix_js`) as its server runs them: without a server.

Both come from Debian's `zabbix-server-pgsql`. What macros become was recorded from a running Zabbix server.
"""

import gzip
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from tests.processes import program

DATA = Path("/usr/share/zabbix-server-pgsql/data.sql.gz")

# A problem of a server without an address, as Zabbix 6.0.14 expands the macros; absent ones arrive literally.
PROBLEM: Mapping[str, str] = MappingProxyType(
    {
        "ALERT.MESSAGE": "Problem started at 18:21:03 on 2026.11.28\r\nProblem name: Queue is long on db one\r\n",
        "ALERT.SENDTO": "team-a",
        "ALERT.SUBJECT": "Problem: Queue is long on db one",
        "EVENT.ACK.STATUS": "No",
        "EVENT.DATE": "2026.11.28",
        "EVENT.DURATION": "2s",
        "EVENT.ID": "24",
        "EVENT.NSEVERITY": "4",
        "EVENT.OPDATA": "42",
        "EVENT.SEVERITY": "High",
        "EVENT.SOURCE": "0",
        "EVENT.TAGS": "service:checkout, team:blue",
        "EVENT.TAGSJSON": '[{"tag":"team","value":"blue"},{"tag":"service","value":"checkout"}]',
        "EVENT.TIME": "18:21:03",
        "EVENT.UPDATE.STATUS": "0",
        "EVENT.VALUE": "1",
        "HOST.IP": "*UNKNOWN*",
        "HOST.NAME": "db one",
        "TRIGGER.DESCRIPTION": "",
        "TRIGGER.ID": "23133",
    }
)
ACKNOWLEDGED: Mapping[str, str] = MappingProxyType(
    {
        **PROBLEM,
        "ALERT.MESSAGE": "Zabbix Administrator (Admin) acknowledged problem at 2026.11.28 18:22:24.\r\nI am looking",
        "ALERT.SUBJECT": "Updated problem in 3s: Queue is long on db one",
        "EVENT.ACK.STATUS": "Yes",
        "EVENT.UPDATE.ACTION": "acknowledged and commented",
        "EVENT.UPDATE.DATE": "2026.11.28",
        "EVENT.UPDATE.STATUS": "1",
        "EVENT.UPDATE.TIME": "18:22:24",
        "USER.FULLNAME": "Zabbix Administrator (Admin)",
    }
)
UNACKNOWLEDGED: Mapping[str, str] = MappingProxyType(
    {**ACKNOWLEDGED, "EVENT.ACK.STATUS": "No", "EVENT.UPDATE.ACTION": "unacknowledged"}
)
RECOVERY: Mapping[str, str] = MappingProxyType(
    {
        **PROBLEM,
        "ALERT.MESSAGE": "Problem has been resolved at 18:21:29 on 2026.11.28\r\nProblem duration: 26s\r\n",
        "ALERT.SUBJECT": "Resolved in 26s: Queue is long on db one",
        "EVENT.DURATION": "26s",
        "EVENT.RECOVERY.DATE": "2026.11.28",
        "EVENT.RECOVERY.ID": "25",
        "EVENT.RECOVERY.TIME": "18:21:29",
        "EVENT.RECOVERY.VALUE": "0",
        "EVENT.VALUE": "0",
    }
)


@dataclass(frozen=True, slots=True)
class Script:
    """The webhook of a media type. The values of its parameters contain macros (`{EVENT.ID}`)."""

    text: str
    parameters: Mapping[str, str]

    def run(
        self, directory: Path, macros: Mapping[str, str], *, hosts: Mapping[str, str] | None = None, **changed: str
    ) -> str:
        """Runs it in `zabbix_js`, and returns its result. `changed` replaces parameters; `hosts` replaces parts of the
        script, since some have the address of the service in their text. Raises ScriptFailed.
        """
        text = self.text
        for host, other in (hosts or {}).items():
            assert host in text, f"the script does not name {host}"
            text = text.replace(host, other)
        assert not changed.keys() - self.parameters.keys(), f"its parameters are {', '.join(self.parameters)}"
        values = {name: _expanded(value, macros) for name, value in self.parameters.items()} | changed
        (script := directory / "script.js").write_text(text, encoding="utf-8")
        (parameters := directory / "parameters.json").write_text(json.dumps(values), encoding="utf-8")
        done = subprocess.run(
            [program("zabbix_js"), "--script", script, "--input", parameters, "--timeout", "30"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise ScriptFailed(done.stdout + done.stderr)
        return done.stdout.strip()


class ScriptFailed(Exception):
    """The script threw an error: Zabbix would show the notification as failed, and try again."""


def _expanded(value: str, macros: Mapping[str, str]) -> str:
    return re.sub(r"{([A-Z.]+)}", lambda found: macros.get(found[1], found[0]), value)


def stock_script(media_type: str) -> Script:
    """As Zabbix ships it. Raises FileNotFoundError, which names the package to install."""
    if not DATA.exists():
        message = f"{DATA} does not exist: apt-get install zabbix-server-pgsql"
        raise FileNotFoundError(message)
    [row] = [row for row in _rows("media_type") if row["name"] == media_type]
    parameters = {
        parameter["name"]: parameter["value"]
        for parameter in _rows("media_type_param")
        if parameter["mediatypeid"] == row["mediatypeid"]
    }
    return Script(row["script"], parameters)


@cache
def _rows(table: str) -> list[dict[str, str]]:
    """The rows that Zabbix inserts into a new database."""
    sql = gzip.decompress(DATA.read_bytes()).decode()
    rows = []
    for found in re.finditer(rf"^INSERT INTO {table} \(([a-z_,]+)\) values \((({_TEXT},?)+)\);$", sql, re.MULTILINE):
        values = [_unquoted(value) for value in re.findall(_TEXT, found[2])]
        rows.append(dict(zip(found[1].split(","), values, strict=True)))
    assert rows, f"no rows of {table} in {DATA}"
    return rows


_TEXT = r"E?'(?:[^']|'')*'"


def _unquoted(literal: str) -> str:
    text = literal[literal.index("'") + 1 : -1].replace("''", "'")
    return re.sub(r"\\(.)", r"\1", text) if literal.startswith("E") else text
