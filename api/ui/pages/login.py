"""Log in with a key, and out again."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api.auth import ADMIN
from api.dependencies import services_of
from api.ui.forms import Problems
from api.ui.session import LOGIN_S, SESSION_S, Session, Sessions
from api.ui.templating import template
from api.ui.visit import COOKIE, VisitDep, checked_form, page_router, sessions_of
from domain.errors import Forbidden, Unauthenticated
from domain.keys import Role

router = page_router()


@router.get("/login")
async def login_form(request: Request) -> Response:
    """The form; who is logged in already is led on, and stays so."""
    target, services = _next(request.query_params.get("next", "")), services_of(request)
    session = sessions_of(services).read(request.cookies.get(COOKIE))
    if session is not None and session.key_id and services.auth.still(session.key_id, session.proof) is not None:
        return RedirectResponse(target, status_code=303)
    return _form(request, target, Problems())


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Begin a session for the key of the form. One page of wrong words for every key that does not open the admin plane."""
    services = services_of(request)
    sessions = sessions_of(services)
    opened = sessions.read(request.cookies.get(COOKIE))
    if opened is None:
        return _form(
            request, "/admin", Problems(by_field={"key": "This form was open too long, or cookies are off: try again"}), status=400
        )
    form = await checked_form(request, sessions, opened)
    target, key = _next(form.text("next")), form.text("key")
    try:
        caller = services.auth.require_admin(f"Bearer {key}", Role.VIEWER)
    except (Unauthenticated, Forbidden) as error:
        told = error.message if key else "a key is needed"
        return _form(request, target, Problems(by_field={"key": _in_words(told)}), status=401)
    session = sessions.begin(caller.id, "" if caller.id == ADMIN else services.auth.proof_of(key))
    response = RedirectResponse(target, status_code=303)
    _set(request, response, sessions, session, SESSION_S)
    return response


@router.post("/logout")
async def log_out(visit: VisitDep) -> Response:
    response = RedirectResponse("/admin/login", status_code=303)
    response.delete_cookie(COOKIE, path="/admin", secure=_is_secure(visit.request), httponly=True, samesite="strict")
    return response


def _form(request: Request, target: str, problems: Problems, *, status: int = 200) -> Response:
    """The form has a session of its own, without a key: its token keeps another site from logging anybody in."""
    sessions = sessions_of(services_of(request))
    session = sessions.begin("", "", lasts_s=LOGIN_S)
    context = {"visit": None, "csrf_token": sessions.csrf_token(session), "next": target, "problems": problems}
    response = HTMLResponse(template("login.html").render(context), status_code=status)
    _set(request, response, sessions, session, LOGIN_S)
    return response


def _set(request: Request, response: Response, sessions: Sessions, session: Session, lasts_s: float) -> None:
    response.set_cookie(
        COOKIE, sessions.write(session), max_age=int(lasts_s), path="/admin", secure=_is_secure(request), httponly=True, samesite="strict"
    )


def _is_secure(request: Request) -> bool:
    """Browsers keep a cookie that is ``Secure`` only when it came by TLS: on loopback there is none."""
    return not services_of(request).settings.is_loopback or request.url.scheme == "https"


def _next(target: str) -> str:
    """Where to go after the login: a page of ours, never another site."""
    is_ours = target == "/admin" or target.startswith(("/admin/", "/admin?"))
    return target if is_ours and "\\" not in target and not target.startswith("/admin/log") else "/admin"


def _in_words(message: str) -> str:
    return "This is not a key that may come in here" if "is not the admin key" in message else message[:1].upper() + message[1:]
