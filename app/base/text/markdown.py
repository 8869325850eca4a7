"""Texts from people in Markdown. Pure."""

import re


def escaped(text: str) -> str:
    """The text on one line, shown as it was written: it cannot add headings, links or HTML."""
    line = " ".join(text.split())
    line = _SPECIAL.sub(r"\\\g<0>", line.replace("&", "&amp;").replace("<", "&lt;"))
    return _AT_THE_START.sub(r"\1\\\2", line)


_SPECIAL = re.compile(r"[\\`*_\[\]|~!]")
# What would begin a list, a quotation, a heading or a rule.
_AT_THE_START = re.compile(r"^(\d{1,9}(?=[.)])|(?=[#>+=-]))(.)")
