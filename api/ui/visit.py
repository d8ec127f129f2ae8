"""One request to a page: who is there, what they sent, and how the answer goes out.

Every page is a route of ``page_router()``: it asks for the login, checks each form's token, turns errors into pages, and sets the
headers that forbid scripts, styles and requests from anywhere but here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api.admission import CALLER
from api.auth import SAFE_METHODS, Caller
from api.body import IN_THREAD_BYTES
from api.dependencies import services_of
from api.errors import tell_log, to_wire
from api.rest import Refused, Rest, api_client
from api.services import Services
from api.ui.forms import Form, parse_form
from api.ui.session import Session, Sessions
from api.ui.templating import template
from api.upload_middleware import refuse_other_sites
from domain.errors import ConsiliumError, Forbidden
from domain.keys import Role

log = logging.getLogger(__name__)

COOKIE = "consilium_session"
TOKEN_FIELD, TOKEN_HEADER = "csrf_token", "x-csrf-token"
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class LoginNeeded(Exception):
    """Nobody is logged in, or no longer."""


@dataclass(slots=True)
class Visit:
    """A page's view of its request."""

    request: Request
    services: Services
    sessions: Sessions
    caller: Caller
    session: Session
    rest: Rest
    form: Form = field(default_factory=Form)

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    def may(self, role: str) -> bool:
        """Whether who is there has that role, or more."""
        return self.caller.role is not None and self.caller.role.includes(Role(role))

    def require(self, role: Role) -> None:
        """Raise ``Forbidden`` unless who is there has *role*."""
        if not self.may(role):
            raise Forbidden(f"this needs the role {role.value}; you are logged in with {self.caller.id!r}")

    def asked(self, name: str) -> str | None:
        """A parameter of the address; None when it is empty or not there."""
        return self.query.get(name, "").strip() or None

    def page(self, name: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """The template *name* as an answer."""
        return HTMLResponse(
            template(name).render(visit=self, may=self.may, csrf_token=self.sessions.csrf_token(self.session), **context),
            status_code=status,
        )

    def go(self, path: str, **query: str) -> RedirectResponse:
        """Send the browser on, after a form was dealt with."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, status_code=303)


class PageRoute(APIRoute):
    """A route whose errors are pages, and whose answers carry the security headers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                response = await handle(request)
            except LoginNeeded:
                response = to_login(request)
            except Refused as refused:
                response = error_page(request, refused.status, refused.message)
            except ConsiliumError as error:
                wire = to_wire(error)  # what the API tells, and no more: pages are no place for paths and addresses either
                tell_log(request, wire.status, error)
                response = error_page(request, wire.status, wire.body["error"]["message"])
            except HTTPException as error:
                response = error_page(request, error.status_code, str(error.detail))
            except Exception:  # a fault of ours: the person gets a page, the log the details
                log.exception("%s %s failed, request %s", request.method, request.url.path, request.state.request_id)
                response = error_page(request, 500, f"A fault of the service. The log has the details, under {request.state.request_id}.")
            return secured(response)

        return handled


def secured(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def page_router(**more: Any) -> APIRouter:
    """For the routes of one page."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, **more)


def sessions_of(services: Services) -> Sessions:
    return Sessions(services.auth.page_secret)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What pages need of the process: the client that they ask the API with."""
    async with api_client(app) as client:
        app.state.pages_client = client
        yield


async def visit(request: Request) -> Visit:
    """Who is there. Raises ``LoginNeeded``, and ``Forbidden`` for a form that is not one of ours."""
    services = services_of(request)
    sessions = sessions_of(services)
    session = sessions.read(request.cookies.get(COOKIE))
    caller = services.auth.still(session.key_id, session.proof) if session is not None and session.key_id else None
    if session is None or caller is None:
        raise LoginNeeded
    form = Form()
    if request.method not in SAFE_METHODS:
        form = await checked_form(request, sessions, session)
    services.readiness.require("database")
    request.scope[CALLER] = caller
    client: httpx.AsyncClient = request.app.state.pages_client
    return Visit(request, services, sessions, caller, session, Rest(client, services.auth, caller, request.state.request_id), form)


async def checked_form(request: Request, sessions: Sessions, session: Session) -> Form:
    """The form of *request*, when it comes from a page of this session. Raises ``Forbidden``."""
    refuse_other_sites(request.headers, "do this")
    token, form = request.headers.get(TOKEN_HEADER), Form()
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        body = await request.body()
        form = parse_form(body) if len(body) < IN_THREAD_BYTES else await asyncio.to_thread(parse_form, body)
        token = token or form.text(TOKEN_FIELD)
    if not sessions.holds(session, token):
        raise Forbidden("this form is not from a page of your session: reload the page and send it again")
    return form


VisitDep = Annotated[Visit, Depends(visit)]


def to_login(request: Request) -> Response:
    """Where to log in; afterwards the page that was asked for. Parts of pages are told to reload the whole."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "") if request.method in SAFE_METHODS else "/admin"
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"hx-redirect": "/admin/login"})
    return RedirectResponse(f"/admin/login?next={quote(wanted, safe='')}", status_code=303)


def error_page(request: Request, status: int, message: str) -> Response:
    """What went wrong, as a page; as a fragment where a part of a page was asked for."""
    name = "fragments/failed.html" if request.headers.get("hx-request") else "failed.html"
    text = template(name).render(status=status, message=message, visit=None, path=request.url.path)
    return HTMLResponse(text, status_code=status)
