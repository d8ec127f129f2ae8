"""What endpoints ask FastAPI for. Coroutines throughout: FastAPI would send plain functions to a thread, four a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.admission import CALLER
from api.auth import needed_role
from api.services import Services


def services_of(request: Request) -> Services:
    """The process's parts, for code that is no endpoint."""
    services: Services = request.app.state.services
    return services


async def get_services(request: Request) -> Services:
    """The process's parts, whether they are ready or not."""
    return services_of(request)


async def require_key(request: Request) -> None:
    """The data plane's door: raises ``Unauthenticated``."""
    request.scope[CALLER] = services_of(request).auth.require_data(request.headers.get("authorization"))


async def require_admin(request: Request) -> None:
    """The admin plane's door: raises ``Unauthenticated`` or ``Forbidden``; then the database has to be there (``NotReady``)."""
    services = services_of(request)
    needed = needed_role(request.method, request.url.path)
    request.scope[CALLER] = services.auth.require_admin(request.headers.get("authorization"), needed)
    services.readiness.require("database")


async def get_ready_services(request: Request) -> Services:
    """The process's parts, everything loaded. Raises ``NotReady`` that says what is missing."""
    services = services_of(request)
    services.readiness.require()
    return services


async def get_stored_services(request: Request) -> Services:
    """The process's parts, the database there. Raises ``NotReady`` otherwise."""
    services = services_of(request)
    services.readiness.require("database")
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
ReadyServices = Annotated[Services, Depends(get_ready_services)]
StoredServices = Annotated[Services, Depends(get_stored_services)]
"""For what reads and writes the database alone."""
