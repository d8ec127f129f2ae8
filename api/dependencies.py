"""What endpoints ask FastAPI for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.services import Services


def get_services(request: Request) -> Services:
    """The process's parts, whether they are ready or not."""
    services: Services = request.app.state.services
    return services


def require_key(request: Request) -> None:
    """The data plane's door: raises ``Unauthenticated``."""
    get_services(request).auth.require_data(request.headers.get("authorization"))


def require_admin(request: Request) -> None:
    """The admin plane's door: raises ``Unauthenticated``; then the database has to be there (``NotReady``)."""
    services = get_services(request)
    services.auth.require_admin(request.headers.get("authorization"))
    services.readiness.require("database")


def get_ready_services(request: Request) -> Services:
    """The process's parts, everything loaded. Raises ``NotReady`` that says what is missing."""
    services = get_services(request)
    services.readiness.require()
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
ReadyServices = Annotated[Services, Depends(get_ready_services)]
