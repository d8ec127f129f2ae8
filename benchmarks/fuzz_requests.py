"""Bad requests, generated: what ``benchmarks/fuzz.py`` sends. Pure, and the same for the same seed.

Each is the bytes of one HTTP/1.1 request, wrong on purpose in one or more ways: its body (types, nesting, numbers, encoding, JSON that
breaks off), its headers, its method or path, a form, or the framing itself. A right request is the start of most; what is done to it is
its *kind*. None can do harm: what changes or removes things names what is not there, or what the run made for it.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

MADE = "fuzz-target"
"""Id of the expert, the strategy and the key that a run makes, for requests that change things."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """One request."""

    kind: str
    """What was done to it."""
    method: str
    path: str
    payload: bytes
    """As it goes over the wire."""
    is_framed: bool = True
    """Whether it is one whole HTTP request. What is none may be answered by closing the connection."""

    @property
    def shown(self) -> str:
        """For people: enough to find it again."""
        return f"{self.kind}: {self.payload[:400]!r}{'…' if len(self.payload) > 400 else ''}"


@dataclass(frozen=True, slots=True)
class _Operation:
    method: str
    path: str
    body: Any = None
    """A right one. None: it takes none."""
    changes: bool = False
    """Whether a right body would change what is there: then it is always made wrong."""


_CHAT: Json = {
    "model": "numerals",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Write MMXX in digits."}]},
    ],
    "temperature": 0.0,
    "top_p": 1.0,
    "n": 1,
    "max_tokens": 8,
    "stop": ["\n\n"],
    "seed": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "user": "somebody",
    "stream": False,
    "stream_options": {"include_usage": True},
    "tools": [
        {"type": "function", "function": {"name": "report", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}
    ],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "metadata": {"a": "b"},
    "consilium": {"seed": 7, "max_calls": 2, "explain": True},
}
_ROUTED: Json = {
    **_CHAT,
    "model": "auto",
    "consilium": {"k": 1, "allow": ["numerals", "generalist"], "deny": ["text"], "boost": {"numerals": 0.5}, "explain": True},
}
_EXPERT: Json = {
    "id": MADE,
    "backend": "openai",
    "model": "m",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": "env:NO_KEY",
    "context_length": 512,
    "capabilities": ["tools"],
    "roles": ["candidate"],
    "skills": [],
    "labels": ["fuzz"],
    "price": {"prompt": 1.0, "completion": 2.0},
    "sampling": {"temperature": 0.0},
    "enabled": False,
}
_STRATEGY: Json = {
    "id": MADE,
    "router": "skills",
    "router_options": {"floor": 0.3},
    "pick": {"kind": "top_k", "k": 1, "threshold": 0.5},
    "adjustments": {"deny": ["text"], "boost": {"numerals": 0.1}, "price_weight": 0.0},
    "aggregator": "first",
    "max_calls": 4,
    "timeout_s": 10.0,
    "enabled": False,
}
_KEY: Json = {
    "id": MADE,
    "name": "fuzz",
    "labels": [],
    "experts": ["numerals"],
    "limits": {"requests_per_minute": 10},
    "expires_at": "2099-12-31",
}
_QUESTION: Json = {
    "question": "What is 1 + 1?",
    "answer": "2",
    "skills": ["addition"],
    "options": ["1", "2"],
    "grader": "exact",
    "history": [],
}
_BATCH: Json = {"input_file_id": "file-none", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"a": "b"}}
_OUTCOME: Json = {
    "expert_id": "no-such-expert",
    "question_id": "q",
    "skills": ["addition"],
    "correct": True,
    "answer": "2",
    "latency_ms": 1.0,
}

_OPERATIONS: Sequence[_Operation] = (
    *(
        _Operation("POST", path, body)
        for path, body in (("/v1/chat/completions", _CHAT), ("/v1/chat/completions", _ROUTED), ("/v1/route", _ROUTED))
        for _ in range(4)
    ),
    *[
        _Operation(
            "POST",
            "/v1/completions",
            {"model": "numerals", "prompt": "Write MMXX in digits.", "max_tokens": 8, "echo": True, "logprobs": 1},
        )
    ]
    * 3,
    *[_Operation("POST", "/v1/embeddings", {"model": "auto", "input": ["one", "two"], "encoding_format": "float", "dimensions": 384})] * 3,
    *[_Operation("POST", "/v1/batches", _BATCH)] * 3,
    *[_Operation("POST", "/v1/feedback", {"request_id": "none", "score": 0.5, "id": "mine"})] * 2,
    _Operation("GET", "/v1/models"),
    _Operation("GET", "/v1/models/numerals"),
    _Operation("GET", "/v1/files?limit=5&order=asc&purpose=batch&after=file-none"),
    _Operation("GET", "/v1/files/file-none"),
    _Operation("GET", "/v1/files/file-none/content"),
    _Operation("DELETE", "/v1/files/file-none"),
    _Operation("GET", "/v1/batches?limit=5&after=batch_none"),
    _Operation("GET", "/v1/batches/batch_none"),
    _Operation("POST", "/v1/batches/batch_none/cancel"),
    _Operation("GET", "/health"),
    _Operation("GET", "/ready"),
    _Operation("GET", "/metrics"),
    _Operation("GET", "/openapi.json"),
    *[_Operation("POST", "/admin/api/experts", _EXPERT, changes=True)] * 2,
    _Operation("PUT", f"/admin/api/experts/{MADE}", _EXPERT, changes=True),
    *[_Operation("PATCH", f"/admin/api/experts/{MADE}", _EXPERT, changes=True)] * 2,
    _Operation("GET", "/admin/api/experts?limit=3&backend=embedded&skill=addition&enabled=true&health=closed&cursor=YQ"),
    _Operation("GET", "/admin/api/experts/numerals"),
    _Operation("DELETE", "/admin/api/experts/no-such-expert"),
    _Operation("POST", "/admin/api/experts/no-such-expert/check"),
    _Operation(
        "POST", "/admin/api/experts/discover", {"base_url": "ftp://nowhere/v1", "api_key": "env:NO_KEY", "save": False}, changes=True
    ),
    *[_Operation("POST", "/admin/api/strategies", _STRATEGY, changes=True)] * 2,
    _Operation("PUT", f"/admin/api/strategies/{MADE}", _STRATEGY, changes=True),
    *[_Operation("PATCH", f"/admin/api/strategies/{MADE}", _STRATEGY, changes=True)] * 2,
    _Operation("GET", "/admin/api/strategies?limit=3&cursor=YQ"),
    _Operation("POST", "/admin/api/strategies/panel/calibrate", {"limit": 1, "target_cost": 0.5, "dry_run": True}),
    _Operation("POST", "/admin/api/skills", {"name": "addition", "description": "d"}, changes=True),
    _Operation("PUT", "/admin/api/skills/addition", {"name": "subtraction", "description": "d"}, changes=True),
    _Operation("DELETE", "/admin/api/skills/addition"),
    _Operation("POST", "/admin/api/questions", {"questions": [_QUESTION], "source": "fuzz"}, changes=True),
    _Operation("PUT", "/admin/api/questions/no-such-question", _QUESTION, changes=True),
    _Operation("PATCH", "/admin/api/questions/no-such-question", _QUESTION),
    _Operation("GET", "/admin/api/questions?skill=addition&limit=2&category=arithmetic"),
    _Operation(
        "POST", "/admin/api/profile-runs", {"experts": ["no-such-expert"], "limit": 1, "max_in_flight": 1, "note": "fuzz"}, changes=True
    ),
    _Operation("POST", "/admin/api/profile-runs/import", {"outcomes": [_OUTCOME], "note": "fuzz"}, changes=True),
    _Operation("GET", "/admin/api/profile-runs?status=finished&limit=1"),
    _Operation("POST", "/admin/api/profile-runs/none/resume", {"max_in_flight": 1}),
    _Operation("POST", "/admin/api/profile-runs/none/cancel"),
    _Operation("DELETE", "/admin/api/profile-runs/none"),
    _Operation("POST", "/admin/api/aggregator-runs", {"experts": ["no-such-expert"], "max_per_category": 1, "seed": 1}, changes=True),
    _Operation("GET", "/admin/api/category-map?budget_b=-1&generalist=none"),
    _Operation("GET", "/admin/api/traces?status=ok&limit=2&since=0&until=1&expert=numerals"),
    _Operation("DELETE", "/admin/api/traces?before=-1"),
    _Operation("GET", "/admin/api/feedback?status=counts&limit=1"),
    _Operation("POST", "/admin/api/feedback/none/rollback"),
    _Operation("POST", "/admin/api/feedback-profiles/no-such-expert/reset"),
    _Operation("POST", "/admin/api/manifest?dry_run=true", {"yaml": "experts: [{id: x}]"}),
    _Operation("POST", "/admin/api/keys", _KEY, changes=True),
    _Operation("PUT", f"/admin/api/keys/{MADE}", _KEY, changes=True),
    _Operation("PATCH", f"/admin/api/keys/{MADE}", _KEY, changes=True),
    _Operation("POST", "/admin/api/keys/no-such-key/rotate", {"overlap_s": 1.0}),
    _Operation("GET", "/admin/api/keys/usage?since=2026-01-01&until=2026-12-31&format=csv"),
    _Operation("GET", "/admin/api/audit?since=0&limit=1&actor=admin&path=/admin"),
    _Operation("GET", "/admin/api/workers?limit=1"),
    _Operation("GET", "/admin/api/workers/none/logs?lines=5"),
    _Operation("POST", "/admin/api/workers/none/start"),
)

_ODD_TEXTS: Sequence[str] = (
    "",
    " ",
    "\0",
    "\u202e",
    "a\u0300" * 50,
    "𝕌𝕟𝕚",
    "💥" * 20,
    "../../etc/passwd",
    "..\\..\\windows",
    "%00",
    "%2e%2e%2f",
    "{{7*7}}",
    "${jndi:x}",
    "' OR 1=1 --",
    '"; DROP TABLE experts; --',
    "<script>alert(1)</script>",
    "%s%n%x",
    "\r\nx-injected: 1",
    "\ufeff",
    "\ufffe",
    "x" * 5000,
    "-1",
    "1e999",
    "NaN",
    "true",
    "null",
    "auto",
    "consilium/",
    "consilium/none",
    "consilium/auto:latest",
    ":latest",
    "/",
    "//",
    ".",
    "..",
)
_ODD_NUMBERS: Sequence[Any] = (
    0,
    -1,
    1,
    2**31,
    2**53,
    2**63,
    2**64,
    -(2**63) - 1,
    10**40,
    1e308,
    -1e308,
    5e-324,
    0.1,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
)
_ODD_NUMERALS = ("1e400", "-1e400", "1" * 5000, "0x10", "01", "1.", ".5", "+1", "--1", "1_000", "Infinity", "١٢٣")
"""Numbers as text that stands in the JSON as it is."""
_METHODS = ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GETX", "get", "POST", "GET", "M-SEARCH", "Ω")
_CONTENT_TYPES = (
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "application/xml",
    "application/json; charset=utf-16",
    "application/json; charset=nonsense",
    "application/json;;;=",
    "APPLICATION/JSON",
    "json",
    "*/*",
    "application/vnd.api+json",
    "image/png",
    "application/json, text/plain",
    "\x7f",
    "a/b" * 100,
)
_CODINGS = ("gzip", "deflate", "br", "identity", "nonsense", "gzip, gzip")
_PATHS = (
    "/../../../../etc/passwd",
    "/v1/../admin/api/experts",
    "/v1/models/../../admin/api/keys",
    "/v1/files/..%2f..%2fconsilium.db/content",
    "/v1/files/%2e%2e/content",
    "/v1/files/..\\..\\admin.key/content",
    "/%00",
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/v1//chat//completions",
    "/v1/models/%F0%9F%92%A5",
    "/admin/api/experts/%0d%0ax-injected:%201",
    "/admin/api/skills/a/b/c",
    "/admin/api/questions/../keys",
    "//",
    "/v1/models/" + "x" * 4000,
    "/" + "a/" * 1000,
    "/v1/batches/%27%20OR%201=1",
    "/docs/../admin.key",
    "/static/../../api/settings.py",
    "/.env",
    "/v1/models?%ff=%fe&a[]=1&a[]=2&=&&",
    "/admin/api/traces?limit=%F0%9F%92%A5",
    "/admin/api/traces?cursor=" + "A" * 3000,
    "/v1/models#fragment",
    "/admin/api/traces?since=nan&until=inf",
    "/admin/api/experts?cursor=%00",
    "/admin/api/audit?path=%25%27",
    "/v1/files?after=%00",
    "/*",
    "/admin/api/keys/usage?since=0000-00-00",
    "/admin/api/profile-runs?cursor=////",
    "/admin/api/feedback?cursor=LTE",
    "*",
    "/admin/api/outcomes?limit=99999999999999999999",
    "http://elsewhere.example/v1/models",
    "/v1/models/auto:latest:latest",
    "\\v1\\models",
)


class Fuzzer:
    """Makes requests for a service at *host*, with *key* for both planes."""

    def __init__(self, seed: int, *, host: str, key: str) -> None:
        self._random = random.Random(seed)
        self._host, self._key = host, key
        self._kinds: Sequence[tuple[int, str, Callable[[], Fuzzed]]] = (
            (30, "wrong value", self._wrong_value),
            (8, "missing or unknown field", self._wrong_fields),
            (6, "number as text", self._odd_numeral),
            (6, "deep nesting", self._nested),
            (4, "duplicated keys", self._duplicated),
            (6, "broken JSON", self._truncated),
            (6, "broken encoding", self._mis_encoded),
            (5, "no object", self._no_object),
            (5, "content type", self._mistyped),
            (5, "headers", self._odd_headers),
            (5, "method", self._odd_method),
            (9, "path", self._odd_path),
            (4, "query", self._odd_query),
            (6, "form", self._bad_form),
            (5, "framing", self._bad_framing),
            (3, "key", self._odd_key),
        )

    def requests(self, num: int) -> Iterator[Fuzzed]:
        """*num* of them."""
        weights = [weight for weight, _, _ in self._kinds]
        for _ in range(num):
            yield self._random.choices(self._kinds, weights)[0][2]()

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _operation(self, *, body: bool = True) -> _Operation:
        return self._random.choice([operation for operation in _OPERATIONS if (operation.body is not None) is body])

    def _wrong_value(self) -> Fuzzed:
        operation = self._operation()
        body = copy.deepcopy(operation.body)
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            self._set(body, self._odd_value())
        return self._with_json("wrong value", operation, _spoilt(body) if operation.changes else body)

    def _wrong_fields(self) -> Fuzzed:
        operation = self._operation()
        body = copy.deepcopy(operation.body)
        for name in self._random.sample(sorted(body), self._random.randint(0, min(3, len(body)))):
            del body[name]
        for _ in range(self._random.randint(1, 3)):
            body[self._random.choice(_ODD_TEXTS)] = self._odd_value()
        return self._with_json("missing or unknown field", operation, _spoilt(body) if operation.changes else body)

    def _odd_numeral(self) -> Fuzzed:
        operation, mark = self._operation(), "@numeral@"
        body = copy.deepcopy(operation.body)
        self._set(body, mark)
        text = json.dumps(_spoilt(body) if operation.changes else body).replace(f'"{mark}"', self._random.choice(_ODD_NUMERALS))
        return self._with_body("number as text", operation, text.encode())

    def _nested(self) -> Fuzzed:
        operation = self._operation()
        depth = self._random.choice((100, 127, 128, 129, 500, 5000, 50_000))
        opening, closing = self._random.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
        inner = opening * depth + "1" + closing * depth
        name = self._random.choice([*operation.body, "unknown"])
        body = _spoilt(operation.body) if operation.changes else operation.body
        rest = json.dumps({key: value for key, value in body.items() if key != name})[1:]
        return self._with_body("deep nesting", operation, f'{{"{name}": {inner}, {rest}'.encode())

    def _duplicated(self) -> Fuzzed:
        operation = self._operation()
        body = json.dumps(_spoilt(operation.body) if operation.changes else operation.body)
        name = self._random.choice(sorted(operation.body))
        again = ", ".join(f"{json.dumps(name)}: {json.dumps(self._odd_value())}" for _ in range(self._random.choice((1, 2, 1000))))
        return self._with_body("duplicated keys", operation, f"{body[:-1]}, {again}}}".encode("utf-8", "surrogatepass"))

    def _truncated(self) -> Fuzzed:
        operation = self._operation()
        whole = json.dumps(operation.body).encode()
        broken = self._random.choice(
            (
                whole[: self._random.randrange(1, len(whole))],
                whole + self._random.choice((b"}", b"{}", b",", b"\0", b"//x", whole)),
                whole.replace(b'"', b"'"),
                whole.replace(b":", b"=", 1),
                whole.replace(b", ", b",,", 1),
                b"\x1f\x8b" + whole,
                bytes(self._random.randrange(256) for _ in range(self._random.choice((1, 16, 400)))),
            )
        )
        return self._with_body("broken JSON", operation, broken)

    def _mis_encoded(self) -> Fuzzed:
        operation = self._operation()
        text = json.dumps(_spoilt(operation.body) if operation.changes else operation.body, ensure_ascii=False)
        at = self._random.randrange(len(text))
        odd = self._random.choice(
            (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x82", b"\\ud800", b"\\u00", b"\\x41", b"\x00")
        )
        whole = self._random.choice(
            (
                text[:at].encode() + odd + text[at:].encode(),
                text.encode("utf-16"),
                text.encode("utf-32"),
                b"\xef\xbb\xbf" + text.encode(),
                text.replace("e", "é").encode("latin-1"),
            )
        )
        return self._with_body("broken encoding", operation, whole)

    def _no_object(self) -> Fuzzed:
        body = self._random.choice((b"", b"null", b"[]", b"[{}]", b'"text"', b"7", b"true", b"{}", b" ", b"\n\n", b"[" * 2000, b"{}" * 2))
        operation = self._random.choice([operation for operation in _OPERATIONS if operation.body is not None and not operation.changes])
        return self._with_body("no object", operation, body)

    def _mistyped(self) -> Fuzzed:
        operation = self._operation()
        body = json.dumps(_spoilt(operation.body) if operation.changes else operation.body).encode()
        if self._random.random() < 0.3:
            return self._with_body("content type", operation, body, **{"content-encoding": self._random.choice(_CODINGS)})
        return self._with_body("content type", operation, body, **{"content-type": self._random.choice(_CONTENT_TYPES)})

    # --- what is around a body --------------------------------------------------------------------------------------

    def _odd_headers(self) -> Fuzzed:
        operation = self._random.choice(_OPERATIONS)
        body = b"" if operation.body is None else json.dumps(_spoilt(operation.body)).encode()
        pad, text = self._random.choice((10, 8_000, 70_000, 200_000)), self._random.choice(_ODD_TEXTS).replace("\r\n", " ")
        headers = self._random.choice(
            (
                {f"x-{n}": "v" * (pad // 50) for n in range(50)},
                {"x-request-id": text},
                {"x-request-id": "i" * pad},
                {"x-session-id": text},
                {"x-consilium-explain": text},
                {"if-match": text},
                {"if-match": ", ".join(['"1"'] * (pad // 10))},
                {"cookie": "a=b; " * (pad // 5)},
                {"accept": text, "accept-encoding": "nonsense", "accept-language": "*" * 100},
                {"expect": "100-continue"},
                {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-key": "x", "sec-websocket-version": "13"},
                {"upgrade": "h2c", "http2-settings": "x", "connection": "upgrade, http2-settings"},
                {"host": self._random.choice(("", "evil.example", "127.0.0.1:99999", "[::1", "a b", "localhost:x", "127.0.0.1,localhost"))},
                {"origin": self._random.choice(("null", "http://[", "https://evil.example", text)), "sec-fetch-site": "cross-site"},
                {
                    "range": self._random.choice(
                        ("bytes=", "bytes=-1", "bytes=5-1", "bytes=0-99999999999999999999", "lines=1-2", "bytes=0-0,1-1,2-2")
                    )
                },
                {"x-forwarded-for": text, "x-forwarded-host": "evil.example", "forwarded": "for=;;"},
                {"content-language": text, "te": "trailers", "trailer": "x"},
            )
        )
        return self._framed("headers", operation.method, operation.path, body, headers)

    def _odd_method(self) -> Fuzzed:
        operation = self._random.choice(_OPERATIONS)
        method = self._random.choice(_METHODS)
        body = b"" if operation.body is None else json.dumps(_spoilt(operation.body)).encode()
        if method == "DELETE" and operation.path.startswith("/admin"):
            method = "PROPFIND"  # what is there has to stay
        return self._framed("method", method, operation.path, body, {}, is_framed=method.isascii())

    def _odd_path(self) -> Fuzzed:
        method = self._random.choice(("GET", "GET", "GET", "POST", "DELETE"))
        if self._random.random() < 0.5:
            path = self._random.choice(_PATHS)
            method = "GET" if path.startswith("/admin") else method  # some of them would begin a run
        else:
            operation = self._random.choice(_OPERATIONS)
            *before, _ = operation.path.partition("?")[0].split("/")
            odd = self._random.choice(_ODD_TEXTS)
            path = "/".join([*before, quote(odd, safe="") if self._random.random() < 0.8 else quote(odd)])
            method = "GET" if method == "DELETE" and operation.path.startswith("/admin") else method  # what is there has to stay
        return self._framed("path", method, path, b"{}" if method == "POST" else b"", {})

    def _odd_query(self) -> Fuzzed:
        path = self._random.choice([operation.path for operation in _OPERATIONS if "?" in operation.path and operation.method == "GET"])
        path, _, query = path.partition("?")
        pairs = [pair.partition("=")[::2] for pair in query.split("&")]
        place = self._random.randrange(len(pairs))
        value = self._random.choice((*_ODD_TEXTS, *map(str, _ODD_NUMBERS)))
        pairs[place] = (pairs[place][0], quote(value, safe=""))
        if self._random.random() < 0.3:
            pairs.append((quote(self._random.choice(_ODD_TEXTS), safe=""), "1"))
        return self._framed("query", "GET", path + "?" + "&".join(f"{name}={text}" for name, text in pairs), b"", {})

    def _odd_key(self) -> Fuzzed:
        operation = self._random.choice(_OPERATIONS)
        body = b"" if operation.body is None else json.dumps(_spoilt(operation.body)).encode()
        text = self._random.choice(_ODD_TEXTS).replace("\r\n", " ")
        given = self._random.choice(
            (text, f"Bearer {text}", "Bearer", "Basic YTpi", f"Bearer {self._key}x", f"bearer  {self._key[:-1]}", "Digest x")
        )
        return self._framed("key", operation.method, operation.path, body, {"authorization": given})

    # --- forms ------------------------------------------------------------------------------------------------------

    def _bad_form(self) -> Fuzzed:
        boundary = "bound"
        disposition = self._random.choice(
            (
                'form-data; name="file"; filename="a.jsonl"',
                'form-data; name="file"',
                "form-data",
                "",
                "attachment; name=file",
                'form-data; name="',
                f'form-data; name="file"; filename="{self._random.choice(_ODD_TEXTS)[:300]}"'.replace("\r\n", ""),
                'form-data; name="' + "n" * 9000 + '"',
            )
        )
        purpose = self._random.choice(("batch", "fine-tune", "", "\0", "assistants" * 200))
        content = self._random.choice((b"", b"{}", b"\x00" * 100, b"--bound", b"\r\n--boundx\r\n", b"x" * 100_000))
        parts = [
            b'--bound\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose.encode(),
            b"--bound\r\nContent-Disposition: " + disposition.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + content,
        ]
        form = b"\r\n".join(self._random.choice((parts, parts[::-1], parts[:1], parts[1:], parts * 20, []))) + b"\r\n--bound--\r\n"
        form = self._random.choice(
            (form, form, form[: self._random.randrange(len(form))], form.replace(b"\r\n", b"\n"), form[7:], form + b"more")
        )
        kinds = (
            f"multipart/form-data; boundary={boundary}",
            "multipart/form-data",
            "multipart/form-data; boundary=other",
            f'multipart/form-data; boundary="{"b" * 80}"',
            "multipart/mixed; boundary=bound",
            "multipart/form-data; boundary=b\u00fcnd",
        )
        kind = kinds[0] if self._random.random() < 0.6 else self._random.choice(kinds)
        if purpose == "batch" and kind == kinds[0]:
            form = form.replace(b'filename="a.jsonl"', b'filename=""')  # a right one would only be kept
        return self._framed("form", "POST", "/v1/files", form, {"content-type": kind})

    # --- framing ----------------------------------------------------------------------------------------------------

    def _bad_framing(self) -> Fuzzed:
        path = self._random.choice(("/v1/chat/completions", "/v1/files", "/admin/api/experts", "/v1/models"))
        host, auth = f"host: {self._host}\r\n", f"authorization: Bearer {self._key}\r\n"
        start = f"POST {path} HTTP/1.1\r\n{host}{auth}content-type: application/json\r\nconnection: close\r\n"
        chunked = start + "transfer-encoding: chunked\r\n\r\n"
        text = self._random.choice(
            (
                start + "content-length: -1\r\n\r\n{}",
                start + "content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
                start + "content-length: 99999999999999999999999\r\n\r\n{}",
                start + "content-length: abc\r\n\r\n{}",
                start + "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
                start + "content-length: 999999999\r\n\r\n{}",
                chunked + "zz\r\n{}\r\n0\r\n\r\n",
                chunked + "-2\r\n{}\r\n0\r\n\r\n",
                chunked + "fffffffffffffffff\r\n{}",
                chunked + "2\r\n{}XX0\r\n\r\n",
                chunked + "2;ext=" + "x" * 5000 + "\r\n{}\r\n0\r\ntrailer: x\r\n\r\n",
                start + "transfer-encoding: nonsense\r\n\r\n{}",
                start.replace("HTTP/1.1", "HTTP/9.9") + "\r\n",
                start.replace("HTTP/1.1", "HTTP/1.0") + "\r\n",
                start.replace("HTTP/1.1\r\n", "\r\n") + "\r\n",
                start.replace("POST ", "POST  ") + "\r\n",
                start.replace("\r\n", "\n") + "\n",
                start + " folded: x\r\n\r\n",
                start + "no colon here\r\n\r\n",
                start + ": no name\r\n\r\n",
                start + "na me: x\r\n\r\n",
                start + "x: a\0b\r\n\r\n",
                "\r\n\r\n" + start + "content-length: 0\r\n\r\n",
                "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "\0" * 100,
                "A" * 70_000,
            )
        )
        return Fuzzed("framing", "POST", path, text.encode("latin-1"), is_framed=False)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _odd_value(self) -> Any:
        roll = self._random.random()
        if roll < 0.3:
            return self._random.choice(_ODD_TEXTS)
        if roll < 0.55:
            return self._random.choice(_ODD_NUMBERS)
        odd: Sequence[Any] = (
            None,
            True,
            False,
            [],
            {},
            [[]],
            [None],
            {"": ""},
            [{}] * 50,
            {"a": {"b": {"c": []}}},
            ["x"] * 2000,
            {"\0": 1},
            "\ud800",
        )
        return copy.deepcopy(self._random.choice(odd))

    def _set(self, body: Json, value: Any) -> None:
        """Put *value* somewhere into *body*."""
        here: Any = body
        while True:
            places = list(here) if isinstance(here, dict) else list(range(len(here)))
            place = self._random.choice(places)
            inner = here[place]
            if isinstance(inner, dict | list) and inner and self._random.random() < 0.7:
                here = inner
                continue
            here[place] = value
            return

    def _with_json(self, kind: str, operation: _Operation, body: Any) -> Fuzzed:
        return self._with_body(kind, operation, json.dumps(body).encode())  # with NaN and Infinity as Python writes them

    def _with_body(self, kind: str, operation: _Operation, body: bytes, **headers: str) -> Fuzzed:
        return self._framed(kind, operation.method, operation.path, body, headers)

    def _framed(self, kind: str, method: str, path: str, body: bytes, headers: Mapping[str, str], *, is_framed: bool = True) -> Fuzzed:
        usual = {"host": self._host, "authorization": f"Bearer {self._key}", "content-type": "application/json", "connection": "close"}
        whole = {**usual, "content-length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in whole.items())]
        head = "\r\n".join(lines).encode("utf-8", "surrogatepass")
        sane = all(32 <= letter < 127 or letter in b"\r\n" for letter in head) and " " not in path
        return Fuzzed(kind, method, path, head + b"\r\n\r\n" + body, is_framed and sane)


def _spoilt(body: Any) -> Any:
    """*body* with a field that no body has: it cannot change anything, whatever else is right about it."""
    return {**body, "fuzz": "no such field"} if isinstance(body, dict) else body
