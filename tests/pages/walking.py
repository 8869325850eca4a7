"""Every route of the pages, and the forms in their HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from fastapi.routing import iter_route_contexts
from pydantic import BaseModel

from app.pages import ROUTERS


@dataclass(frozen=True, slots=True)
class Route:
    """`query` has the parameters of the address that its signature declares."""

    method: str
    path: str
    query: Sequence[str]

    def matches(self, address: str) -> bool:
        ours, theirs = self.path.split("/"), address.partition("?")[0].partition("#")[0].split("/")
        return len(ours) == len(theirs) and all(
            one.startswith("{") or one == other for one, other in zip(ours, theirs, strict=True)
        )


def routes(method: str | None = None) -> list[Route]:
    """Of all pages, also those of routers within routers. HEAD is left out: it is GET."""
    found = []
    for router in ROUTERS:
        for each in iter_route_contexts(router.routes):
            assert each.path is not None
            query = [name for field in _fields(each.dependant) for name in _names(field)]
            found += [Route(one, each.path, query) for one in sorted(each.methods or ()) if one != "HEAD"]
    return [each for each in found if method in {None, each.method}]


def _fields(dependant: Any) -> Iterator[Any]:
    yield from dependant.query_params
    for each in dependant.dependencies:
        yield from _fields(each)


def _names(parameter: Any) -> list[str]:
    """A model stands for its fields."""
    kind = parameter.field_info.annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return names_in(kind)
    return [parameter.alias]


def names_in(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


@dataclass(slots=True)
class Form:
    """A form as a browser would submit it. `choices` are the names that it may also have: boxes that are off. `lists`
    are those of lists to choose from.
    """

    page: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    choices: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        return sorted({*self.fields, *self.choices})


def forms_of(page: str, html: str) -> list[Form]:
    """The forms with method `post`. One with another address at a button counts as another form."""
    reader = _Reader(page)
    reader.feed(html)
    reader.close()
    return reader.found


class _Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._page = page
        self._form: Form | None = None
        self._others: list[tuple[str, str | None, str]] = []  # buttons with an address of their own
        self._select: str | None = None
        self._text: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(self._page, given.get("action", "")) if given.get("method") == "post" else None
            self._others = []
        elif self._form is not None and tag in {"input", "button", "select", "textarea", "option"}:
            self._field(self._form, tag, given)

    def _field(self, form: Form, tag: str, given: dict[str, str]) -> None:
        name, value, kind = given.get("name", ""), given.get("value", ""), given.get("type", "")
        if tag == "input" and kind in {"checkbox", "radio"}:
            form.choices.add(name)
            if "checked" in given:
                form.fields[name] = given.get("value", "on")
            elif kind == "radio":
                form.fields.setdefault(name, value)
        elif tag == "input":
            form.fields[name] = value
        elif tag == "button":
            self._button(form, name, value, given)
        elif tag == "select":
            self._select = name
            form.lists.add(name)
        elif tag == "textarea":
            self._text, form.fields[name] = name, ""
        elif self._select and ("selected" in given or self._select not in form.fields):
            form.fields[self._select] = value

    def _button(self, form: Form, name: str, value: str, given: dict[str, str]) -> None:
        if "formaction" in given:
            self._others.append((given["formaction"], name or None, value))
        elif name:
            form.fields.setdefault(name, value)

    def handle_data(self, data: str) -> None:
        if self._text is not None and self._form is not None:
            self._form.fields[self._text] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._text is not None and self._form is not None:
            self._form.fields[self._text] = self._form.fields[self._text].removeprefix("\n")
            self._text = None
        elif tag == "select":
            self._select = None
        elif tag == "form" and self._form is not None:
            self.found.append(self._form)
            for address, name, value in self._others:
                more = {name: value} if name else {}
                self.found.append(replace(self._form, action=address, fields=self._form.fields | more))
            self._form = None
