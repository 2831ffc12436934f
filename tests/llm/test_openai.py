import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.errors import InputError
from pipeline.llm.chat import ChatRequest, Sampling
from pipeline.llm.openai import OpenAiEngine
from pipeline.llm.replies import Fault
from pipeline.records import EncodedImage

SECRET = "zebra crossing"  # stands in every prompt here, and may stand in no error
KEY = "sesame"  # neither may a key
SOON = {"retry-after-ms": "1"}
AGAIN = "run the same command again; finished batches of prompts are kept"


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: object = None  # what is no text becomes JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: dict


def says(content: object, finish: str = "stop", **message: object) -> Reply:
    """A reply of the model."""
    message = {"role": "assistant", "content": content, **message}
    return Reply(body={"choices": [{"index": 0, "finish_reason": finish, "message": message}]})


def fails(status: int, message: str = "no", **error: object) -> Reply:
    """An error of the server, to be tried again at once."""
    return Reply(status, {"error": {"message": message, **error}}, SOON)


def asked(call: Call) -> str:
    """The text of a request, without its secret."""
    return call.body["messages"][1]["content"].removesuffix(f" {SECRET}")


class Server(ThreadingHTTPServer):
    """Answers as a test says; keeps what it was asked, and how much of it at a time."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.models = Reply(body={"object": "list", "data": [{"id": "m", "object": "model"}]})
        self.chat: Callable[[Call], Reply | None] = lambda call: says(asked(call))
        self.calls: list[Call] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.over = threading.Event()  # the test is done: whoever waits may go

    @property
    def chats(self) -> list[Call]:
        return [call for call in self.calls if call.method == "POST"]

    def answer(self, call: Call) -> Reply | None:
        with self.lock:
            self.calls.append(call)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.models if call.method == "GET" else self.chat(call)
        finally:
            with self.lock:  # before the answer goes out, which lets the next request in
                self.in_flight -= 1

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients of these tests hang up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, self.path, headers, json.loads(sent) if sent else {})
        reply = self.server.answer(call)
        if reply is None:  # hang up
            return
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        self.send_response(reply.status)
        kind = "text/html" if isinstance(reply.body, str) else "application/json"
        for name, value in {"content-type": kind, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def engine(server):
    """Makes engines that ask the server."""

    def make(model: str = "m", **options: object) -> OpenAiEngine:
        options = {"concurrency": 3, "timeout": 5.0, "retries": 0, "base_url": server.url} | options
        return OpenAiEngine(model, None, Sampling(0.7, 0.9, 48), **options)

    return make


def ask(*texts: object, **fields: object) -> list[ChatRequest]:
    return [ChatRequest("system", f"{t} {SECRET}", seed, **fields) for seed, t in enumerate(texts)]


def error_of(work: Callable[[], object]) -> str:
    """The one line of the InputError that the work ends with; nothing of it tells a secret."""
    with pytest.raises(InputError) as caught:
        work()
    whole = "".join(traceback.format_exception(caught.value))
    assert SECRET not in whole and KEY not in whole
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_module_needs_no_library():
    code = "import sys; sys.modules.update(openai=None, torch=None); import pipeline.llm.openai"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_replies_are_in_the_order_of_the_requests(server, engine):
    answered, order = [threading.Event() for _ in range(4)], []
    answered[3].set()

    def last_first(call):
        which = int(asked(call))
        assert answered[which + 1].wait(5)
        order.append(which)
        answered[which].set()
        return says(f"reply {which}")

    server.chat = last_first
    assert engine().generate(ask(0, 1, 2)) == ["reply 0", "reply 1", "reply 2"]
    assert order == [2, 1, 0]


def test_no_more_requests_are_in_flight_than_concurrency(server, engine):
    together = threading.Barrier(3)

    def wait_for_two_more(call):
        together.wait(5)
        time.sleep(0.02)  # for one too many to arrive
        return says("yes")

    server.chat = wait_for_two_more
    assert engine().generate(ask(*range(12))) == ["yes"] * 12
    assert server.most_in_flight == 3


def test_what_a_request_holds(server, engine, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sesame\n")
    schema = {"type": "object", "required": ["unsafe"]}
    [request] = ask("u", schema=schema)
    engine().generate([request])
    assert [(call.method, call.path) for call in server.calls] == [
        ("GET", "/v1/models"), ("POST", "/v1/chat/completions"),
    ]  # fmt: skip
    assert {call.headers["authorization"] for call in server.calls} == {"Bearer sesame"}
    assert server.chats[0].body == {
        "model": "m", "messages": request.messages, "seed": 0, "temperature": 0.7, "top_p": 0.9,
        "max_completion_tokens": 48,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": schema, "strict": True},
        },
    }  # fmt: skip


def test_each_request_has_its_seed_and_without_a_schema_no_format(server, engine):
    engine().generate(ask("a", "b"))
    assert {asked(call): call.body["seed"] for call in server.chats} == {"a": 0, "b": 1}
    assert not any("response_format" in call.body for call in server.chats)
    assert {call.headers["authorization"] for call in server.calls} == {"Bearer none"}


def test_pictures_are_sent_as_data_urls(server, engine):
    server.chat = lambda call: says("a picture")
    engine().generate(ask("what is this?", images=(EncodedImage(b"picture", "p.png"),)))
    picture, text = server.chats[0].body["messages"][1]["content"]
    kind, data = picture["image_url"]["url"].split(",")
    assert (kind, base64.b64decode(data)) == ("data:image/png;base64", b"picture")
    assert text == {"type": "text", "text": f"what is this? {SECRET}"}


def test_no_requests_make_no_call(server, engine):
    assert engine().generate([]) == []
    assert server.chats == []


@pytest.mark.parametrize(
    "reply",
    [
        says(None, tool_calls=[]), says([{"type": "text"}]), Reply(body={"choices": []}),
        Reply(body={"choices": [{}]}),
    ],
)  # fmt: skip
def test_a_reply_without_text_is_empty(server, engine, reply):
    server.chat = lambda call: reply
    assert engine().generate(ask("a")) == [""]


FILTERED = [
    fails(400, SECRET, code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
    fails(400, SECRET, code="content_policy_violation"),
    fails(400, SECRET, type="invalid_request_error", code="invalid_prompt"),
    fails(403, SECRET, code=403, metadata={"reasons": ["sexual"], "flagged_input": SECRET}),
    says(f"half a reply {SECRET}", finish="content_filter"),
    says(None, refusal=f"no {SECRET}"),
]


@pytest.mark.parametrize("reply", FILTERED)
def test_what_a_content_filter_stops_is_a_refusal_of_that_request_alone(server, engine, reply):
    server.chat = lambda call: reply if asked(call) == "1" else says(asked(call))
    found = engine(retries=2).generate(ask(0, 1, 2))
    assert found == ["0", "refusal", "2"] and isinstance(found[1], Fault)
    assert len(server.chats) == 3


def test_failures_that_pass_are_tried_again(server, engine):
    replies = [fails(500), fails(429), says("at last")]
    server.chat = lambda call: replies.pop(0)
    assert engine(retries=2).generate(ask("a")) == ["at last"]
    assert len(server.chats) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_the_retries_are_all_there_is(server, engine, status):
    server.chat = lambda call: fails(status, SECRET)
    message = error_of(lambda: engine(retries=2).generate(ask("a")))
    assert message.endswith(f"is busy or failing (HTTP {status}); {AGAIN}")
    assert len(server.chats) == 3


def test_a_silent_server_times_out(server, engine):
    server.chat = lambda call: server.over.wait(5) and None
    message = error_of(lambda: engine(timeout=0.5).generate(ask("a")))
    assert message.endswith(f"was silent for llm.openai.timeout, 0.5 s; {AGAIN}")


def test_a_lost_connection(server, engine):
    server.chat = lambda call: None
    message = error_of(lambda: engine().generate(ask("a")))
    assert message == f"the server at {server.url} stopped answering; {AGAIN}"


def test_the_first_failure_cancels_the_other_requests(server, engine):
    arrived = threading.Event()

    def refuse_the_first(call):
        if asked(call) == "0":
            assert arrived.wait(5)
            return fails(400)
        arrived.set()
        server.over.wait(5)

    server.chat = refuse_the_first
    start = time.monotonic()
    error_of(lambda: engine(concurrency=2).generate(ask(*range(6))))
    assert time.monotonic() - start < 4
    assert len(server.chats) == 2


def test_an_interrupt_cancels_the_requests_and_the_engine_goes_on(server, engine):
    def interrupt(call):
        os.kill(os.getpid(), signal.SIGINT)
        server.over.wait(60)

    server.chat = interrupt
    asking = engine(concurrency=1, timeout=60.0)  # a busy machine may be late to interrupt
    with pytest.raises(KeyboardInterrupt):
        asking.generate(ask(*range(6)))
    assert len(server.chats) == 1
    server.chat = lambda call: says("b")
    assert asking.generate(ask("a")) == ["b"]


def test_a_wrong_key_is_told_before_any_work(server, engine, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    server.models = fails(401, "Incorrect API key provided: sesame")
    message = error_of(engine)
    assert message.endswith("wants another key (HTTP 401); set OPENAI_API_KEY in the environment")


@pytest.mark.parametrize("error", [{}, {"code": "invalid_api_key"}, {"metadata": {}}])
def test_a_key_that_lists_models_but_may_not_ask(server, engine, monkeypatch, error):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    server.chat = lambda call: fails(403, "sesame may not", **error)
    assert "OPENAI_API_KEY" in error_of(lambda: engine().generate(ask("a")))


def test_openai_itself_needs_a_key(engine):
    message = error_of(lambda: engine(base_url="https://api.openai.com/v1"))
    assert message == "api.openai.com asks for a key; set OPENAI_API_KEY in the environment"


def test_a_key_that_no_header_can_hold(engine, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame\nsesame")
    assert "OPENAI_API_KEY holds a character" in error_of(engine)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "http://", "http://me:sesame@host/v1", "http://[/v1", "http://h:x/"],
)
def test_a_wrong_url_is_not_shown(engine, url):
    message = error_of(lambda: engine(base_url=url))
    assert message.startswith("llm.openai.base_url must be like http://localhost:8000/v1")


def test_an_unknown_model_names_the_served(server, engine):
    server.models = Reply(body={"data": [{"id": f"model-{k}"} for k in range(7)]})
    assert error_of(engine) == (
        f"llm.model 'm' is not served at {server.url}; served: 'model-0', 'model-1', 'model-2', "
        "'model-3', 'model-4' and 2 more"
    )


def test_no_server(engine):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    message = error_of(lambda: engine(base_url=f"http://127.0.0.1:{port}/v1"))
    assert f"no server answers at http://127.0.0.1:{port}/v1" in message
    assert "`vllm serve m --port 8000`" in message


def test_a_server_need_not_list_its_models(server, engine):
    server.models = fails(404)
    assert engine().generate(ask("a")) == ["a"]


@pytest.mark.parametrize("models", ["<html>", ["m"], {"data": None}, None])
def test_a_server_of_another_kind(server, engine, models):
    server.models = Reply(body=models)
    assert error_of(engine).endswith("llm.openai.base_url usually ends in /v1")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=f"<html>{SECRET}"), Reply(body={"error": SECRET}),
        Reply(body=SECRET, headers={"content-type": "application/json"}),
    ],
)  # fmt: skip
def test_an_answer_of_another_kind(server, engine, reply):
    server.chat = lambda call: reply
    message = error_of(lambda: engine().generate(ask("a")))
    assert message.endswith("llm.openai.base_url usually ends in /v1")


@pytest.mark.parametrize(
    "reply",
    [
        fails(400, f"This model's maximum context length is 64 tokens. {SECRET}"),
        fails(400, f"The decoder prompt is longer than the maximum model length of 64. {SECRET}"),
        fails(400, SECRET, code="context_length_exceeded"),
        fails(400, "the request exceeds the available context size", n_ctx=64),
    ],
)
def test_a_context_that_is_too_short(server, engine, reply):
    server.chat = lambda call: reply
    message = error_of(lambda: engine().generate(ask("a", schema={"type": "object"})))
    assert "llm.max_new_tokens 48; lower that, or serve the model with a longer" in message


@pytest.mark.parametrize(
    "reply, fields, message",
    [
        (fails(400, SECRET), {}, "refuses a request (HTTP 400)"),
        (fails(422, SECRET, param=[SECRET]), {}, "refuses a request (HTTP 422)"),
        (Reply(413, f"<html>{SECRET}"), {}, "refuses a request (HTTP 413)"),
        (fails(404, SECRET), {"schema": {"type": "object"}},
         "refuses a request (HTTP 404); check llm.model and llm.openai.base_url"),
        (fails(400, SECRET, param="response_format"), {"schema": {"type": "object"}},
         "refuses a request (HTTP 400); it may not support JSON schemas"),
        (fails(400, SECRET), {"images": (EncodedImage(b"p", "p.png"),)},
         "refuses a request (HTTP 400); it may not support pictures"),
        (fails(400, SECRET, param="temperature"), {"schema": {"type": "object"}},
         "refuses llm.temperature (HTTP 400)"),
    ],
)  # fmt: skip
def test_a_refusal_tells_its_status_alone(server, engine, reply, fields, message):
    server.chat = lambda call: reply
    text = error_of(lambda: engine(retries=2).generate(ask("a", **fields)))
    assert text == f"the server at {server.url} {message}"
    assert len(server.chats) == 1
