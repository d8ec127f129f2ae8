"""The form of a resource of the admin API: shown, sent on, and shown again with what was wrong beside each field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Response

from api.rest import Json, Refused
from api.ui.forms import Problems, problems_of
from api.ui.model_forms import Field, body_of, given, shown
from api.ui.visit import Visit

Choices = Callable[[Visit], Mapping[str, Sequence[str]]]
_OPEN = 2
"""Groups that are open at first."""


@dataclass(frozen=True, slots=True)
class ResourceForm:
    """What the form of one kind of resource looks like."""

    fields: Mapping[str, Field]
    groups: Mapping[str, Sequence[str]]
    """Titles, each with the names of its fields; one that ends with a dot is all fields below it. The last takes what none names."""
    labels: Mapping[str, str] = field(default_factory=dict)
    choices: Choices = lambda _: {}
    """What fields with text may be, by name, where that is known."""

    def page(
        self,
        visit: Visit,
        values: Mapping[str, Any],
        *,
        title: str,
        lead: str,
        action: str,
        crumbs: Sequence[tuple[str, str]],
        submit: str,
        problems: Problems | None = None,
        version: str | None = None,
        status: int = 200,
    ) -> Response:
        """The form with *values*. *version*: of what is changed; None where something new is made."""
        wrong = problems or Problems()
        return visit.page(
            "resource_form.html",
            status=status,
            title=title,
            lead=lead,
            action=action,
            crumbs=crumbs,
            submit=submit,
            groups=self._grouped(wrong),
            labels=self.labels,
            choices=self.choices(visit),
            values=values,
            problems=wrong,
            version=version,
            is_known=version is not None,
        )

    def shown(self, view: Mapping[str, Any]) -> Json:
        """The values of *view*, a body of the API."""
        return shown(self.fields, view)

    def given(self, visit: Visit) -> Json:
        """The values as they were filled in."""
        return given(self.fields, visit.form)

    async def send(self, visit: Visit, method: str, path: str, *, version: str | None = None) -> Sent:
        """What the visit's form says, sent to the API."""
        body, problems = body_of(self.fields, visit.form)
        if problems:
            return Sent(None, problems, 400)
        try:
            return Sent(await visit.rest.send(method, path, body, version=version), problems, 200)
        except Refused as refused:
            return Sent(None, problems_of(refused.message, refused.param, self.fields), refused.status)

    def _grouped(self, problems: Problems) -> list[dict[str, Any]]:
        named: dict[str, list[Field]] = {title: [] for title in self.groups}
        for name, one in self.fields.items():
            named[self._group_of(name)].append(one)
        orders = {title: {name: place for place, name in enumerate(names)} for title, names in self.groups.items()}
        return [
            {
                "title": title,
                "fields": sorted(found, key=lambda one, order=orders[title]: order.get(one.name, len(order))),  # type: ignore[misc]
                "is_open": number < _OPEN or any(problems.of(one.name) for one in found),
            }
            for number, (title, found) in enumerate(named.items())
        ]

    def _group_of(self, name: str) -> str:
        for title, names in self.groups.items():
            if any(name == one or (one.endswith(".") and name.startswith(one)) for one in names):
                return title
        return list(self.groups)[-1]


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a form."""

    made: Json | None
    """As the API answered; None when it refused."""
    problems: Problems
    status: int
