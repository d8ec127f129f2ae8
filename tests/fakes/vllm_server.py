"""A stand-in for a vLLM server, run as a script: its HTTP paths, its processes, and every way to misbehave that has to be staged.

Beside vLLM's arguments (those that we pass) it takes some of its own, and ``POST /crash``, ``/hang`` and ``/hang_up`` make it
misbehave later.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHILD = "import signal, time; {prepare}; time.sleep(600)"
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


class Handler(BaseHTTPRequestHandler):
    server: FakeVllm

    def do_GET(self) -> None:
        if self.server.hangs:
            time.sleep(600)
        match self.path:
            case "/health":
                self._answer(200)
            case "/v1/models":
                own = {"id": self.server.told.served_model_name, "root": self.server.told.model, "parent": None}
                more = [{"id": name, "root": path, "parent": own["id"]} for name, path in self.server.adapters.items()]
                self._answer(200, {"object": "list", "data": [own, *more]})
            case "/is_sleeping":
                self._answer(200, {"is_sleeping": self.server.sleeping})
            case "/environment":
                self._answer(200, dict(os.environ))
            case _:
                self._answer(404)

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        match self.path:
            case "/sleep?level=1":
                self.server.sleeping = True
                if "--sleep-without-answer" in sys.argv:
                    self.close_connection = True
                elif "--sleepless" in sys.argv:
                    self.server.sleeping = False
                    self._answer(500, {"error": {"message": "no sleep"}})
                else:
                    self._answer(200)
            case "/wake_up":
                self.server.sleeping = False
                self._answer(200)
            case "/v1/load_lora_adapter":
                if told["lora_name"] in self.server.adapters or "--enable-lora" not in sys.argv:
                    self._answer(400, {"error": {"message": "has already been loaded", "code": 400}})
                elif not Path(told["lora_path"]).exists():
                    self._answer(404, {"error": {"message": "No adapter found", "code": 404}})
                else:
                    self.server.adapters[told["lora_name"]] = told["lora_path"]
                    self._answer(200)
            case "/v1/unload_lora_adapter":
                if "--keeps-adapters" in sys.argv:
                    self._answer(500, {"error": {"message": "it is kept"}})
                else:
                    self._answer(200 if self.server.adapters.pop(told["lora_name"], None) else 404)
            case "/v1/chat/completions":
                self._chat(told)
            case "/crash":
                os._exit(told.get("code", 1))
            case "/hang":
                self.server.hangs = True
                self._answer(200)
            case "/say":
                sys.stdout.write(told["text"])
                sys.stdout.flush()
                self._answer(200)
            case _:
                self._answer(404)

    def _chat(self, told: dict[str, Any]) -> None:
        """Answers "MODEL on PID". A last message ``die FILE`` kills it instead, once: the file says that it has been done; the content
        ``wait FILE`` is answered when the file is there."""
        said = str(told["messages"][-1]["content"])
        if said.startswith("die ") and not (file := Path(said[4:])).exists():
            file.touch()
            os._exit(9)
        if said.startswith("wait "):
            while not Path(said[5:]).exists():
                time.sleep(0.01)
        if told["model"] not in {self.server.told.served_model_name, *self.server.adapters}:
            self._answer(404, {"error": {"message": f"there is no {told['model']}", "code": 404}})
            return
        text, usage = f"{told['model']} on {os.getpid()}", {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        if not told.get("stream"):
            message = {"role": "assistant", "content": text}
            self._answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
            return
        pieces = [[{"index": 0, "delta": {"content": word}, "finish_reason": None}] for word in text.split(" ")]
        events = [{"choices": piece} for piece in [*pieces, [{"index": 0, "delta": {}, "finish_reason": "stop"}]]]
        data = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in [*events, {"choices": [], "usage": usage}])
        self._send(200, data + b"data: [DONE]\n\n")

    def _answer(self, status: int, body: object = None) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: Any) -> None:
        """Nothing for each request."""


class FakeVllm(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, told: argparse.Namespace) -> None:
        super().__init__((told.host, told.port), Handler)
        self.told = told
        self.adapters: dict[str, str] = {}
        self.sleeping = False
        self.hangs = False


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in (
        "--model",
        "--served-model-name",
        "--host",
        "--dtype",
        "--max-lora-rank",
        "--max-loras",
        "--max-model-len",
        "--gpu-memory-utilization",
        "--tensor-parallel-size",
        "--distributed-executor-backend",
    ):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    for name in ("--enable-lora", "--enforce-eager", "--disable-uvicorn-access-log", "--enable-sleep-mode"):
        parser.add_argument(name, action="store_true")
    # --- what vLLM does not have ---
    parser.add_argument("--hang-at-start", action="store_true")
    parser.add_argument("--slow-start", type=float, default=0.0, help="seconds")
    parser.add_argument("--crash-at-start", type=int, help="exit code")
    parser.add_argument("--crashes-left", type=Path, help="a file with the number of starts that still have to crash")
    parser.add_argument("--serve-as", help="another name than it was told")
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--sleep-without-answer", action="store_true")
    parser.add_argument("--sleepless", action="store_true")
    parser.add_argument("--keeps-adapters", action="store_true")
    parser.add_argument("--children", nargs="*", choices=("plain", "deaf", "apart"), default=[], help="apart: in a session of its own")
    return parser.parse_args()


def main() -> None:
    told = arguments()
    if told.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    for kind in told.children:
        code = CHILD.format(prepare="pass" if kind == "plain" else IGNORE)
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code], start_new_session=kind == "apart")
    print(f"serving {told.model}", flush=True)
    if told.crash_at_start is not None:
        print("ValueError: it was told to crash", file=sys.stderr, flush=True)
        os._exit(told.crash_at_start)
    if told.crashes_left is not None and (left := int(told.crashes_left.read_text())) > 0:
        told.crashes_left.write_text(str(left - 1))
        os._exit(1)
    time.sleep(told.slow_start)
    if told.hang_at_start:
        threading.Event().wait()
    told.served_model_name = told.serve_as or told.served_model_name
    FakeVllm(told).serve_forever()


if __name__ == "__main__":
    main()
