"""LangChain's ``ChatOpenAI`` on the served zoo."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.conformance.conftest import KEY

pytestmark = pytest.mark.timeout(300)

QUESTION = "Write MCMXCIV in Arabic numerals."


Make = Callable[..., ChatOpenAI]


class Verdict(BaseModel):
    """What kind of numeral it is."""

    sure: bool
    kind: Literal["roman", "arabic"]


@tool
def report(answer: int) -> str:
    """Report an answer."""
    return f"reported {answer}"


@pytest.fixture
async def make(base_url: str) -> AsyncIterator[Make]:
    """Makes clients. Their connections are closed afterwards: LangChain's own live as long as the process."""
    with httpx.Client(timeout=60) as http:
        async with httpx.AsyncClient(timeout=60) as ahttp:

            def made(name: str = "auto", **more: Any) -> ChatOpenAI:
                given: Any = {"base_url": base_url, "api_key": SecretStr(KEY), "http_client": http, "http_async_client": ahttp}
                return ChatOpenAI(model=name, max_retries=0, **given, **more)

            yield made


@pytest.fixture
def chat(make: Make) -> ChatOpenAI:
    return make()


def test_invoke(chat: ChatOpenAI) -> None:
    answer = chat.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])

    assert answer.content == "1994"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0


async def test_ainvoke_and_batch(chat: ChatOpenAI) -> None:
    answers = await chat.abatch([QUESTION, "What is 417 + 268?"])

    assert [answer.content for answer in answers] == ["1994", "685"]


def test_stream(make: Make) -> None:
    """In pieces, whose usage comes at the end."""
    pieces = list(make(stream_usage=True).stream(QUESTION))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece  # type: ignore[assignment]  # LangChain's way to put a message together

    assert len(pieces) > 2
    assert whole.content == "1994"
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0


async def test_astream(chat: ChatOpenAI) -> None:
    assert "".join([str(piece.content) async for piece in chat.astream(QUESTION)]) == "1994"


@pytest.mark.parametrize("choice", ["any", "report"])
def test_bind_tools(make: Make, choice: str) -> None:
    """The call comes parsed, whole and streamed, and its result can be sent back."""
    chat = make("numerals")
    bound = chat.bind_tools([report], tool_choice=choice)
    asked = HumanMessage(QUESTION)
    answer = bound.invoke([asked])
    (call,) = answer.tool_calls
    whole = None
    for piece in bound.stream([asked]):
        whole = piece if whole is None else whole + piece  # type: ignore[assignment]
    told = ToolMessage(report.invoke(call["args"]), tool_call_id=str(call["id"]))

    assert call["name"] == "report"
    assert isinstance(call["args"]["answer"], int)
    assert isinstance(whole, AIMessage)
    assert [found["name"] for found in whole.tool_calls] == ["report"]
    assert isinstance(chat.invoke([asked, answer, told]).content, str)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("name", ["auto", "numerals"])
def test_structured_output(make: Make, name: str, method: Any) -> None:
    made = make(name).with_structured_output(Verdict, method=method, strict=True).invoke(QUESTION)

    assert isinstance(made, Verdict)


def test_embeddings(base_url: str) -> None:
    """With the texts as they are: token ids would be those of another tokenizer."""
    given: Any = {"base_url": base_url, "api_key": SecretStr(KEY), "check_embedding_ctx_length": False}
    with httpx.Client(timeout=60) as http:
        vector = OpenAIEmbeddings(model="all-MiniLM-L6-v2", http_client=http, **given).embed_query("seven plus five")

    assert len(vector) == 384


def test_errors(make: Make) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'numerals'"):
        make("numeral").invoke(QUESTION)
