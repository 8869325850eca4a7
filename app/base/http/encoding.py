"""Compressed responses: whether a client takes them."""

from fastapi import Request


def accepts_gzip(request: Request) -> bool:
    accepted = request.headers.get("accept-encoding", "")
    return any(
        name.strip() == "gzip" and parameters.replace(" ", "") not in {"q=0", "q=0.0"}
        for name, _, parameters in (one.partition(";") for one in accepted.split(","))
    )
