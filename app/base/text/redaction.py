"""Removes secrets from text that people paste or type, such as chats and commands.

Pure: no clock, no I/O, no settings. Takes time in proportion to the length of the text.
"""

import re
from typing import NamedTuple

MARK = "[redacted]"


class Redacted(NamedTuple):
    text: str
    secrets: int  # how many were removed


def redact(text: str) -> Redacted:
    """The text with `[redacted]` in place of tokens, keys, passwords and credentials in addresses."""
    secrets = 0
    for pattern, replacement in _PATTERNS:
        text, found = pattern.subn(replacement, text)
        secrets += found
    return Redacted(text, secrets)


# Names that are followed by a secret, as a whole word or as the end of a longer name such as `DB_PASSWORD`.
_NAMES = "password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key"
# Quotes may be escaped: `curl -d "{\"password\": \"…\"}"`.
_QUOTE = r"""\\{0,3}["']?"""
# In quotes, also over several lines; if they are never closed, up to the end of the line.
_VALUE = "|".join(
    (
        *(
            value.replace("~", quote)
            for quote in "\"'"
            for value in (
                r"\\{1,3}~(?:\\{2,4}~|[^~\n])+~?",
                r"~(?:[^~\\]|\\[\s\S]){0,1000}~",
                r"~[^\n]+",
            )
        ),
        r"""[^\s,;"'&]+""",
    )
)

_NO_PORT = r"(?!https?://[^\s/:@]{1,255}:\d{2,5}[/?#])"

# Repetitions are bounded where they could start at every character.
_PATTERNS = tuple(
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        (r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", MARK, re.DOTALL),
        # A password may contain `/` and `@`; but the port of a web page is not a password.
        (
            rf"\b{_NO_PORT}([a-z][a-z0-9+.-]{{1,20}}://)(?:[^\s/:@]{{0,100}}:[^\s\"'<>]{{1,500}}|[^\s/@]+)@",
            rf"\1{MARK}@",
            re.IGNORECASE,
        ),
        (r"https://hooks\.slack\.com/[^\s<>|\"']+", MARK, re.IGNORECASE),
        (
            rf"\b((?:proxy-)?authorization{_QUOTE}\s{{0,5}}[:=]\s{{0,5}}){_QUOTE}(?:[a-z]{{1,20}}[ \t]+)?[^\s\"',;]+",
            rf"\1{MARK}",
            re.IGNORECASE,
        ),
        (r"\b(bearer[ \t]+)[A-Za-z0-9._~+/-]{8,}=*", rf"\1{MARK}", re.IGNORECASE),
        (r"\baft_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", MARK, 0),
        (r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}\b", MARK, 0),
        (r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}", MARK, 0),
        (r"\bgl[a-z]{2,6}-[A-Za-z0-9_.-]{20,}", MARK, 0),
        (r"\bxox[a-z]{1,2}-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}", MARK, 0),
        (r"\bAIza[0-9A-Za-z_-]{35}|\bya29\.[0-9A-Za-z_-]{20,}", MARK, 0),
        # Looks ahead first, so that a part without a dot behind it is read once, whatever is in it.
        (
            r"(?<![\w-])(?=[\w-]++\.[\w-]{5,}+\.)([\w-]*?)(?<!\w)eyJ[\w-]{5,}+\.[\w-]{5,}+\.[\w-]*",
            rf"\1{MARK}",
            re.ASCII,
        ),
        (
            rf"(?<![\w.-])([\w.-]{{0,40}}(?:{_NAMES}){_QUOTE}\s{{0,5}}[=:]\s{{0,5}})(?!\[redacted\])(?:{_VALUE})",
            rf"\1{MARK}",
            re.IGNORECASE,
        ),
        # In commands: an option with its value as the next word, a user with a password, and two tools' own options.
        (
            rf"(?<![\w-])(--[\w-]{{0,40}}(?:{_NAMES})[ \t]{{1,5}})(?!\[redacted\])(?:{_VALUE})",
            rf"\1{MARK}",
            re.IGNORECASE,
        ),
        (r"(?<!\S)((?:-u[ \t]{0,5}|--user[ \t=]{1,5})[^\s:]{1,100}:)(?!\[redacted\]|\d+(?!\S))\S+", rf"\1{MARK}", 0),
        (r"\b(mysql[a-z]{0,10}[ \t][^\n]{0,100}?(?<!\S)-p)(?!\[redacted\])\S+", rf"\1{MARK}", 0),
        (r"\b(sshpass[ \t]{1,5}-p[ \t]{0,5})(?!\[redacted\])\S+", rf"\1{MARK}", 0),
    )
)
