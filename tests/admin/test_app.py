"""What the admin listener answers, asked without a server."""

import asyncio
import dataclasses
import json
import logging
from typing import Any

import pytest
from adminserved import BEARER, LOCAL, TOKEN, Answer, Asked, FakeSource
from hypothesis import given
from hypothesis import strategies as st
from wire import in_loop

from fastasgi.admin import app as app_module
from fastasgi.admin import metrics, seldomlog

FORM = "content-type: application/x-www-form-urlencoded"
PUBLIC = ["/livez", "/readyz", "/assets/script.js", "/assets/style.css"]
GUARDED = ["/", "/status", "/metrics", "/events"]
OTHERS = [
    "/nothing", "/status/", "//status", "/./status", "/x/../status", "/status/..", "/STATUS", "/status;x",
    "/status\\", "/assets/", "/assets/../access.py", "/assets//style.css", "/assets/login.html",
    "/index.html", "", "*", "status", "/livez/", "//livez", "/livez/..", "/status\x00", "/favicon.ico",
    "http://localhost/status", "/login/",
]  # fmt: skip


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def local(source: FakeSource) -> Asked:
    """A listener on a loopback address, which asks for no token."""
    return Asked(source)


@pytest.fixture
def locked(source: FakeSource) -> Asked:
    """A listener that asks for TOKEN."""
    return Asked(source, "0.0.0.0:9000", TOKEN)


# Probes


@in_loop
async def test_whoever_asks_is_told_whether_the_server_lives(locked: Asked) -> None:
    answer = await locked("/livez", "host: evil.example", "sec-fetch-site: cross-site")
    assert (answer.status, answer.body) == (200, b"the supervisor runs\n")
    assert answer["content-type"] == "text/plain; charset=utf-8"
    answer = await locked("/readyz")
    assert (answer.status, answer.body) == (200, b"2 of 2 workers serve\n")


@in_loop
async def test_what_is_wrong_is_one_line(source: FakeSource, local: Asked) -> None:
    source.value = dataclasses.replace(
        source.value,
        is_live=False,
        live_reason="it ended:\n  boom\r\n",
        is_ready=False,
        ready_reason="drains",
    )
    answer = await local("/livez")
    assert (answer.status, answer.body) == (503, b"it ended: boom\n")
    answer = await local("/readyz")
    assert (answer.status, answer.body) == (503, b"drains\n")


@in_loop
async def test_workers_are_listed_for_who_may_see_more(local: Asked, locked: Asked) -> None:
    for path, first in (("/livez", b"the supervisor runs"), ("/readyz", b"2 of 2 workers serve")):
        for query in ("verbose", "verbose=1", "exclude=x&verbose"):
            target = f"{path}?{query}"
            answer = await local(target, LOCAL)
            assert answer.body.splitlines() == [
                first,
                b"worker 0 [4711] serving, ready for 40 s",
                b"worker 1 [4712] starting, started 5 s ago",
            ]
            assert (await locked(target, BEARER)).body == answer.body
            assert (await local(target, "host: evil.example")).body == first + b"\n"
            assert (await locked(target, LOCAL)).body == first + b"\n"
            assert (await locked(target, LOCAL, f"{BEARER}x")).body == first + b"\n"
    assert (await local("/livez?nonverbose", LOCAL)).body == b"the supervisor runs\n"


# Methods and paths


@pytest.mark.parametrize("path", [*PUBLIC, *GUARDED, "/nothing", "/login"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"])
@in_loop
async def test_nothing_can_be_changed(local: Asked, path: str, method: str) -> None:
    answer = await local(path, LOCAL, FORM, method=method, pieces=(b"token=x",))
    assert answer.status == 405
    assert answer["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
@in_loop
async def test_a_form_is_posted(locked: Asked, method: str) -> None:
    answer = await locked("/login", BEARER, method=method)
    assert answer.status == 405
    assert answer["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("path", [path for path in [*PUBLIC, *GUARDED] if path != "/events"])
@in_loop
async def test_head_is_get_without_a_body(local: Asked, path: str) -> None:
    got, headed = await local(path, LOCAL), await local(path, LOCAL, method="HEAD")
    assert got.status == headed.status == 200
    assert int(got["content-length"]) == len(got.body)
    assert headed.body == b""
    assert [name for name, _ in headed.headers] == [name for name, _ in got.headers]
    assert headed["content-type"] == got["content-type"]


@in_loop
async def test_head_of_events_ends(local: Asked) -> None:
    answer = await local("/events", LOCAL, method="HEAD")
    assert (answer.status, answer.body, answer.is_complete) == (200, b"", True)


@pytest.mark.parametrize("path", OTHERS)
@in_loop
async def test_other_paths_lead_nowhere(local: Asked, locked: Asked, path: str) -> None:
    answer = await local(path, LOCAL)
    assert (answer.status, answer.body) == (404, b"there is nothing at this path\n")
    answer = await locked(path, LOCAL)
    assert answer.status == 401


@pytest.mark.parametrize("path", [*PUBLIC, *GUARDED, "/nothing", "/login"])
@pytest.mark.parametrize("fields", [(LOCAL,), (BEARER, LOCAL), ("host: evil.example", "origin: http://evil")])
@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
@in_loop
async def test_every_response_is_locked_down(
    local: Asked, locked: Asked, path: str, fields: tuple[str, ...], method: str
) -> None:
    for asked in (local, locked):
        check_locked_down(await asked(path, *fields, method=method))


def check_locked_down(answer: Answer) -> None:
    policy = dict(part.split(" ", 1) for part in answer["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert (
        policy["script-src"]
        == policy["style-src"]
        == policy["connect-src"]
        == policy["form-action"]
        == "'self'"
    )
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["referrer-policy"] in ("no-referrer", "same-origin")
    assert answer["cache-control"] == "no-store"
    assert answer["cross-origin-opener-policy"] == answer["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name, _ in answer.headers if name.startswith(b"access-control-")]


# Who may see more


@pytest.mark.parametrize("path", [*GUARDED, "/nothing"])
@in_loop
async def test_without_a_token_another_host_is_refused(local: Asked, path: str) -> None:
    answer = await local(path, "host: evil.example", "accept: text/html")
    assert answer.status == 421
    assert answer.body.count(b"\n") == 1
    assert b"localhost" in answer.body


@pytest.mark.parametrize("path", [*GUARDED, "/nothing"])
@in_loop
async def test_where_one_is_asked_for_nothing_is_told_without(locked: Asked, path: str) -> None:
    for fields in ((), (f"{BEARER}x",), ("cookie: fastasgi_admin_9000=1.2",)):
        answer = await locked(f"{path}?token={TOKEN}&access_token={TOKEN}", LOCAL, *fields)
        assert answer.status == 401
        assert answer["www-authenticate"].startswith("Bearer ")
        assert answer.body.count(b"\n") == 1


@in_loop
async def test_a_browser_is_led_to_the_form(locked: Asked) -> None:
    answer = await locked("/", LOCAL, "accept: text/html,*/*;q=0.8")
    assert (answer.status, answer["location"]) == (303, "login")
    answer = await locked("/login", LOCAL, "accept: text/html")
    assert (answer.status, answer["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'<form method="post" action="login">' in answer.body
    assert (await locked("/", LOCAL, "accept: */*")).status == 401
    assert (await locked("/status", LOCAL, "accept: text/html")).status == 401


@in_loop
async def test_the_page_s_files_say_nothing_of_the_server(locked: Asked) -> None:
    for path in ("/assets/script.js", "/assets/style.css"):
        answer = await locked(path)
        assert answer.status == 200
        assert answer["content-type"].startswith(("text/javascript", "text/css"))


PARTS = st.sampled_from(
    ["/", "status", "login", "livez", "assets", "style.css", "..", "%2e", "\\", ";", "\x00"]
)
FIELDS = st.sampled_from(
    ["host", "authorization", "cookie", "origin", "sec-fetch-site", "sec-fetch-dest", "content-type",
     "accept", "x-forwarded-host", "x-original-url", "x-http-method-override", "forwarded", "referer"]
)  # fmt: skip
VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.sampled_from(
        ["localhost", "127.0.0.1:9000", "Bearer ", "bearer \xa0", "fastasgi_admin_9000=1.2", "same-origin",
         "none", "document", "text/html", "/status", "GET", FORM.partition(": ")[2]]
    ),
)  # fmt: skip


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]),
    path=st.one_of(st.sampled_from([*PUBLIC, *GUARDED, "/login"]), st.lists(PARTS, max_size=6).map("".join)),
    query=st.sampled_from(["", "?verbose", f"?token={TOKEN}", f"?access_token={TOKEN}&verbose"]),
    fields=st.lists(st.tuples(FIELDS, VALUES), max_size=6),
    body=st.one_of(st.binary(max_size=60), st.sampled_from([b"token=", b"token=%zz&" * 20, b"&=;" * 40])),
)
def test_nobody_without_the_token_is_told_anything(
    method: str, path: str, query: str, fields: list[tuple[str, str]], body: bytes
) -> None:
    locked = Asked(FakeSource(), "0.0.0.0:9000", TOKEN)
    lines = [f"{name}: {value}" for name, value in fields]
    answer = asyncio.run(locked(path + query, *lines, method=method, pieces=(body,)))
    check_locked_down(answer)
    assert answer.status in (200, 303, 400, 401, 403, 405, 413, 415)
    assert "set-cookie" not in answer
    if answer.status == 200:
        assert path in (*PUBLIC, "/login")
        assert b"4711" not in answer.body
    if answer.status == 303:
        assert (path, answer["location"]) == ("/", "login")


async def log_in(
    asked: Asked, body: bytes = f"token={TOKEN}".encode(), *fields: str, **options: Any
) -> Answer:
    return await asked("/login", "host: box:9000", FORM, *fields, method="POST", pieces=(body,), **options)


@pytest.mark.parametrize("scheme", ["http", "https"])
@in_loop
async def test_a_form_with_the_token_gives_a_session(locked: Asked, scheme: str) -> None:
    answer = await log_in(locked, scheme=scheme)
    assert (answer.status, answer["location"]) == (303, ".")
    cookie = answer["set-cookie"]
    assert ("; Secure" in cookie) == (scheme == "https")
    assert TOKEN not in cookie
    session = f"cookie: {cookie.partition(';')[0]}"
    assert (await locked("/status", session)).status == 200
    assert (await locked("/login", session)).status == 303


@pytest.mark.parametrize(
    "body",
    [
        b"", b"token=", b"token=wrong", b"tok=" + TOKEN.encode(), b"token=a&token=b", b"%",
        b"token=%00%ff%zz", b"\xff\xfe", f"token={TOKEN}&token={TOKEN}".encode(),
    ],
)  # fmt: skip
@in_loop
async def test_a_form_without_it_is_shown_again(locked: Asked, body: bytes) -> None:
    answer = await log_in(locked, body)
    assert answer.status == 401
    assert b"this is not the token" in answer.body
    assert b"<form" in answer.body
    assert "set-cookie" not in answer
    assert "www-authenticate" in answer


@in_loop
async def test_a_token_of_special_characters_can_be_sent(source: FakeSource) -> None:
    asked = Asked(source, "0.0.0.0:9000", "a+b&c=d%26;~!{}<>\"'")
    answer = await log_in(asked, b"token=a%2Bb%26c%3Dd%2526%3B%7E%21%7B%7D%3C%3E%22%27")
    assert answer.status == 303


@in_loop
async def test_a_token_in_the_query_is_not_looked_at(locked: Asked) -> None:
    answer = await locked(f"/login?token={TOKEN}", FORM, method="POST")
    assert answer.status == 401
    answer = await locked(f"/login?token={TOKEN}")
    assert answer.status == 200
    assert TOKEN.encode() not in answer.body
    assert "set-cookie" not in answer


@pytest.mark.parametrize(
    "fields",
    [("sec-fetch-site: cross-site",), ("sec-fetch-site: same-site",), ("origin: http://evil.example",),
     ("origin: null",), ("origin: http://box:8000",)],
)  # fmt: skip
@in_loop
async def test_a_form_of_another_site_is_refused(locked: Asked, fields: tuple[str, ...]) -> None:
    assert (await log_in(locked, f"token={TOKEN}".encode(), *fields)).status == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data; boundary=x", ""])
@in_loop
async def test_only_a_form_is_taken(locked: Asked, kind: str) -> None:
    answer = await locked(
        "/login", f"content-type: {kind}", method="POST", pieces=(f"token={TOKEN}".encode(),)
    )
    assert answer.status == 415


@in_loop
async def test_a_large_form_is_not_read_to_its_end(locked: Asked) -> None:
    pieces = tuple([b"x" * 1024] * 100)
    assert (await locked("/login", FORM, method="POST", pieces=pieces)).status == 413
    answer = await log_in(locked, b"&".join([b"a=1"] * 9))
    assert (answer.status, answer.body) == (400, b"this form has too many fields\n")


FORM_SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/login",
    "query_string": b"",
    "scheme": "http",
    "client": None,
    "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
}


@in_loop
async def test_a_slow_form_is_given_up(locked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "FORM_S", 0.05)
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await locked.app(FORM_SCOPE, receive, send)
    assert messages[0]["status"] == 408


@in_loop
async def test_a_client_that_leaves_its_form_is_no_error(locked: Asked) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("nobody is there to be answered")

    await locked.app(FORM_SCOPE, receive, send)


# The log


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time for the log, which stands."""
    value = [1000.0]
    monkeypatch.setattr(seldomlog.time, "monotonic", lambda: value[0])
    return value


async def run_sample(asked: Asked) -> None:
    """What is done each second."""
    task = asyncio.create_task(asked.app.sample())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_loop
async def test_wrong_tokens_make_few_lines(
    locked: Asked, caplog: pytest.LogCaptureFixture, now: list[float]
) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    for path in ("/status", "/metrics", "/livez?verbose", "/nothing\nINFO: forged"):
        await locked(path, "authorization: Bearer hunter2-hunter2\x1b[31m")
    await log_in(locked, b"token=hunter2%0aINFO")
    await locked("/status")
    assert caplog.messages == ["The admin listener has refused a wrong token from 192.0.2.7"]
    now[0] += 9.9
    await run_sample(locked)
    assert len(caplog.messages) == 1
    now[0] += 0.1
    await run_sample(locked)
    await run_sample(locked)
    assert caplog.messages[1:] == ["The admin listener has refused 4 more wrong tokens"]
    now[0] += 10
    await log_in(locked, b"token=hunter2")
    assert len(caplog.messages) == 3
    assert "hunter2" not in caplog.text


@in_loop
async def test_a_fault_is_one_answer_and_one_traceback(
    source: FakeSource, local: Asked, caplog: pytest.LogCaptureFixture, now: list[float]
) -> None:
    source.error = ValueError("boom")
    for _ in range(3):
        answer = await local("/status", LOCAL)
        assert answer.status == 500
        assert answer.body.count(b"\n") == 1
        assert b"boom" not in answer.body
        check_locked_down(answer)
    assert caplog.messages == ["The admin listener can't answer /status"]
    assert "ValueError: boom" in caplog.text
    source.error = None
    assert (await local("/status", LOCAL)).status == 200


@in_loop
async def test_without_prometheus_client_the_rest_is_told(
    local: Asked, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CollectorRegistry", None)
    for _ in range(2):
        answer = await local("/metrics", LOCAL)
        assert answer.status == 501
        assert answer.body.count(b"\n") == 1
        assert b"pip install 'fastasgi[metrics]'" in answer.body
    assert len(caplog.messages) == 1
    assert (await local("/status", LOCAL)).status == 200


# What is told


@in_loop
async def test_status_is_json(local: Asked) -> None:
    answer = await local("/status", LOCAL)
    assert answer["content-type"] == "application/json"
    assert isinstance(json.loads(answer.body), dict)


@in_loop
async def test_metrics_are_what_the_client_asks_for(local: Asked) -> None:
    answer = await local("/metrics", LOCAL)
    assert answer["content-type"].startswith("text/plain; version=")
    answer = await local("/metrics", LOCAL, "accept: application/openmetrics-text; version=1.0.0")
    assert answer["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    assert (await local("/metrics", LOCAL, "accept: \xff;q=x, ,;=")).status == 200
