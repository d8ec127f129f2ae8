"""``/admin/api/questions``: labelled questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Response

from api.dependencies import ServicesDep
from api.endpoints.admin.queries import query_of
from api.endpoints.admin.resources import (
    Body,
    IfMatch,
    Json,
    Version,
    described_by,
    etag_of,
    merged,
    no_content,
    not_found,
    one,
    page,
    require_known,
    same_id,
)
from api.json_response import json_response
from api.openapi import answers, asks
from api.schemas.admin import QuestionBody, QuestionsBody
from api.schemas.admin_answers import PageOf, QuestionsAdded, QuestionTold
from api.schemas.admin_queries import QuestionsQuery
from api.services import Services
from domain.skills import LabelledQuestion
from evaluation.labelled import parse_labelled, row_of
from experts_registry.manifest import parse

if TYPE_CHECKING:
    from experts_registry.questions import Require

router = APIRouter(prefix="/questions")

_SOURCE = "api"
"""Where a question comes from that was written here."""


@router.get("", openapi_extra=asks(QuestionsQuery), responses=answers(PageOf[QuestionTold]))
async def list_questions(services: ServicesDep, asked: Annotated[QuestionsQuery, Depends(query_of(QuestionsQuery))]) -> Response:
    """The questions with known answers that experts are measured on and queries are compared with."""
    stored = await services.question_store.list()
    if asked.skill is not None:
        require_known([asked.skill], {label for question in stored for label in question.labels}, kind="skill", param="skill")
    kept = [
        question
        for question in stored
        if (asked.skill is None or asked.skill in question.labels) and (asked.category is None or question.category == asked.category)
    ]
    return page(kept, lambda question: question.id, row_of, asked)


@router.post("", openapi_extra=described_by(QuestionsBody), responses=answers(QuestionsAdded))
async def add_questions(services: ServicesDep, body: Body) -> Response:
    """Store questions, all or none; one with a known id is replaced. Answers their ids and how many were new or different."""
    given = parse(QuestionsBody, body)
    questions = parsed_questions(given.questions)
    num_changed = await services.question_store.add(questions, source=given.source)
    await services.directory.refresh()
    return json_response({"num_changed": num_changed, "ids": [question.id for question in questions]})


@router.get("/{question_id:path}", responses=answers(QuestionTold))
async def get_question(services: ServicesDep, question_id: str) -> Response:
    return _one(await _stored(services, question_id))


@router.put("/{question_id:path}", openapi_extra=described_by(QuestionBody), responses=answers(QuestionTold, 200, 201))
async def put_question(services: ServicesDep, question_id: str, body: Body, version: Version) -> Response:
    """Replace a question, or add it when there is none."""
    (question,) = parsed_questions([same_id(body, question_id)])
    is_new = await services.question_store.put(question, source=_SOURCE, require=_is_at(version, question_id))
    await services.directory.refresh()
    return _one(question, status=201 if is_new else 200)


@router.patch("/{question_id:path}", openapi_extra=described_by(QuestionBody, partial=True), responses=answers(QuestionTold))
async def patch_question(services: ServicesDep, question_id: str, body: Body, version: Version) -> Response:
    """Change some fields of a question (JSON merge patch)."""
    require = _is_at(version, question_id)

    def change(current: LabelledQuestion) -> LabelledQuestion:
        require(current)
        (question,) = parsed_questions([same_id(merged(row_of(current), body), question_id)])
        return question

    changed = await services.question_store.edit(question_id, change, source=_SOURCE)
    await services.directory.refresh()
    return _one(changed)


@router.delete("/{question_id:path}", status_code=204)
async def delete_question(services: ServicesDep, question_id: str, version: Version) -> Response:
    """Remove a question. What was measured with it stays."""
    await services.question_store.remove(question_id, require=_is_at(version, question_id))
    await services.directory.refresh()
    return no_content()


async def _stored(services: Services, question_id: str) -> LabelledQuestion:
    stored = {question.id: question for question in await services.question_store.list()}
    if question_id not in stored:
        raise not_found("labelled question", question_id, stored)
    return stored[question_id]


def _is_at(version: IfMatch, question_id: str) -> Require:
    def check(current: LabelledQuestion | None) -> None:
        what = f"labelled question {question_id!r}"
        if current is None:
            version.require_existing(what)
        else:
            version.check(etag_of(row_of(current)), what)

    return check


def _one(question: LabelledQuestion, *, status: int = 200) -> Response:
    row = row_of(question)
    return one(row, etag_of(row), status=status)


def parsed_questions(rows: list[Json] | list[dict[str, Any]]) -> list[LabelledQuestion]:
    """Rows by the rules of the JSONL. Errors count from 1, as lines do."""
    lines = "\n".join(orjson.dumps(row).decode() for row in rows)
    return [question for question, _ in parse_labelled(lines, source="questions")]
