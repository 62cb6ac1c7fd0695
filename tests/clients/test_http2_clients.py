"""Clients of HTTP/2: curl, nghttp, h2load, httpx and Node, by TLS and by prior knowledge."""

import asyncio
import contextlib
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import Authority, Pair
from clientsapp import BODY, app
from wire import Served, in_each_loop, in_loop, served

LARGE = 24 * 2**20  # bytes: many times what any window allows

each_scheme = pytest.mark.parametrize("scheme", ["https", "http"])


@contextlib.asynccontextmanager
async def serving_by(scheme: str, pair: Pair, **settings: Any) -> AsyncIterator[Served]:
    """A server whose clients come by TLS, or by prior knowledge."""
    async with served(app, **(pair.settings if scheme == "https" else {}), **settings) as server:
        yield server


async def run(*command: Any, stdin: bytes = b"") -> str:
    """What a program writes to stdout; it must succeed."""
    done = await asyncio.to_thread(
        subprocess.run, [*map(str, command)], input=stdin, capture_output=True, check=False, timeout=15
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout.decode("latin-1")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def size_of(text: str) -> bytes:
    """Bytes that were printed."""
    return text.encode("latin-1")


# --- curl ---


def curl_knows_http2() -> bool:
    if shutil.which("curl") is None:
        return False
    shown = subprocess.run(["curl", "--version"], capture_output=True, check=True, text=True, timeout=15)
    return "HTTP2" in shown.stdout


with_curl = pytest.mark.skipif(not curl_knows_http2(), reason="no curl that speaks HTTP/2")


class Curl:
    """curl with what it needs for this scheme."""

    def __init__(self, server: Served, scheme: str, authority: Authority) -> None:
        self._base = f"{scheme}://localhost:{server.port}"
        self._options = ["-sS", "--max-time", "10", "-4"]
        if scheme == "https":
            self._options += ["--http2", "--cacert", str(authority.path)]
        else:
            self._options += ["--http2-prior-knowledge"]

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        """What curl writes. `URL` in the arguments is the server's."""
        given = [argument.replace("URL", self._base) for argument in arguments]
        return await run("curl", *self._options, *given, stdin=stdin)


@with_curl
@each_scheme
@in_each_loop
async def test_curl_downloads(scheme: str, authority: Authority, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        curl = Curl(server, scheme, authority)
        for path in ("/whole", "/stream"):
            shown = await curl(f"URL{path}", "-w", "%{http_version}")
            assert size_of(shown) == BODY + b"2"


@with_curl
@in_loop
async def test_curl_asks_many_times_on_one_connection(authority: Authority, pair: Pair) -> None:
    """By TLS: curl 7.88 does not keep connections with prior knowledge."""
    async with serving_by("https", pair) as server:
        curl = Curl(server, "https", authority)
        paths = [f"URL/{('whole', 'stream')[n % 2]}" for n in range(24)]
        output = ["-o", "/dev/null"] * len(paths)
        report = "%{http_version} %{http_code} %{num_connects} %{size_download}\n"
        for options in ([], ["-Z", "--parallel-max", "12"]):
            shown = await curl(*options, *paths, *output, "-w", report)
            lines = [line.split() for line in shown.splitlines()]
            assert [(line[0], line[1], line[3]) for line in lines] == [("2", "200", str(len(BODY)))] * 24
            assert sum(int(line[2]) for line in lines) == 1


@with_curl
@each_scheme
@pytest.mark.parametrize(
    "arguments",
    [
        ["--data-binary", "@-"],
        ["--data-binary", "@-", "-H", "Expect: 100-continue"],
        ["-T", "-"],
        ["-T", "-", "-H", "Expect: 100-continue"],
    ],
    ids=" ".join,
)
@in_loop
async def test_curl_uploads(arguments: list[str], scheme: str, authority: Authority, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        shown = await Curl(server, scheme, authority)(*arguments, "URL/echo?a=b", stdin=BODY)
        assert size_of(shown) == BODY


@with_curl
@each_scheme
@in_loop
async def test_curl_uploads_much(scheme: str, authority: Authority, pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE))
    async with serving_by(scheme, pair) as server:
        assert await Curl(server, scheme, authority)("-T", str(file), "URL/size") == str(LARGE)


@with_curl
@each_scheme
@in_loop
async def test_curl_takes_a_refusal_of_its_upload(scheme: str, authority: Authority, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        shown = await Curl(server, scheme, authority)("-i", "--data-binary", "@-", "URL/refuse", stdin=BODY)
        assert shown.startswith("HTTP/2 413 \r\n")
        assert shown.endswith("\r\n\r\nno")


@with_curl
@each_scheme
@in_loop
async def test_curl_asks_by_other_methods(scheme: str, authority: Authority, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        curl = Curl(server, scheme, authority)
        assert await curl("-I", "URL/whole") == "HTTP/2 200 \r\n\r\n"
        assert (await curl("-i", "URL/empty")).startswith("HTTP/2 204 \r\n")
        assert (await curl("-i", "URL/none")).startswith("HTTP/2 404 \r\n")
        assert 'x-seen: ["DELETE", "2", "x"]\r\n' in await curl("-i", "-X", "DELETE", "URL/echo?x")
        seen = await curl("-i", "-X", "OPTIONS", "--request-target", "*", "URL")
        assert seen.endswith("not found")


@with_curl
@each_scheme
@in_loop
async def test_curl_shows_early_hints_and_trailers(scheme: str, authority: Authority, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        curl = Curl(server, scheme, authority)
        shown = await curl("-i", "URL/hints")
        assert shown.startswith("HTTP/2 103 \r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/2 200 \r\n")
        assert "x-sum: 5\r\n" in await curl("-i", "-H", "TE: trailers", "URL/trailers")


@with_curl
@in_loop
async def test_curl_that_offers_an_upgrade_gets_http_1_1() -> None:
    """RFC 9113 section 3.1: ``Upgrade: h2c`` is obsolete."""
    async with served(app) as server:
        url = f"http://127.0.0.1:{server.port}/echo"
        shown = await run("curl", "-sS", "-i", "--http2", "-d", "body", url)
        assert shown.startswith("HTTP/1.1 200 OK\r\n")
        assert shown.endswith("\r\n\r\nbody")


@with_curl
@in_loop
async def test_curl_has_no_http2_where_it_is_off(authority: Authority, pair: Pair) -> None:
    async with served(app, http2="off", **pair.settings) as server:
        shown = await Curl(server, "https", authority)("-i", "URL/echo")
        assert shown.startswith("HTTP/1.1 200 OK\r\n")


# --- nghttp ---


class Nghttp:
    """nghttp, which tells of every frame with ``-v``."""

    def __init__(self, server: Served, scheme: str) -> None:
        self._base = f"{scheme}://localhost:{server.port}"

    async def __call__(self, *arguments: str) -> str:
        """What nghttp writes. `URL` in the arguments is the server's."""
        given = [argument.replace("URL", self._base) for argument in arguments]
        return await run("nghttp", "--timeout=10", *given)

    async def frames(self, *arguments: str) -> list[str]:
        """What nghttp tells of each frame that came; the fields of a block are behind that."""
        shown = re.sub(r"\x1b\[[0-9;]*m", "", await self("-v", "-n", *arguments))
        frames, fields = [], ""
        for part in re.split(r"(?m)^\[ *[0-9.]+\] ", shown):
            assert not part.startswith("[ERROR]"), part
            if part.startswith("recv (stream_id="):
                fields += part.partition(") ")[2]
            elif part.startswith("recv "):
                frames.append(part + fields)
                fields = ""
        return frames


@needs("nghttp")
@each_scheme
@in_each_loop
async def test_nghttp_downloads(scheme: str, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        nghttp = Nghttp(server, scheme)
        for path in ("/whole", "/stream"):
            assert size_of(await nghttp(f"URL{path}")) == BODY
            # By windows of 1023 bytes, and with padding
            assert size_of(await nghttp("-w", "10", "-W", "10", "--padding=200", f"URL{path}")) == BODY


@needs("nghttp")
@each_scheme
@in_loop
async def test_nghttp_uploads(scheme: str, pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(BODY)
    async with serving_by(scheme, pair) as server:
        nghttp = Nghttp(server, scheme)
        for options in ([], ["--padding=200"], ["--expect-continue"], ["--trailer=x-sum: 5"]):
            assert size_of(await nghttp(*options, "-d", str(file), "URL/echo")) == BODY
        frames = await nghttp.frames("--expect-continue", "-d", str(file), "URL/echo")
        assert any(":status: 100\n" in frame for frame in frames)


@needs("nghttp")
@each_scheme
@in_loop
async def test_nghttp_asks_many_times_at_once(scheme: str, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        frames = await Nghttp(server, scheme).frames("-m", "50", "URL/whole")
        ends = [frame for frame in frames if frame.startswith("recv DATA ") and "END_STREAM" in frame]
        assert len(ends) == 50


@needs("nghttp")
@each_scheme
@in_loop
async def test_nghttp_sends_a_header_in_continuations(scheme: str, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        frames = await Nghttp(server, scheme).frames("--continuation", "-H", "x-y: z", "URL/echo?q")
        assert any('x-seen: ["GET", "2", "q"]\n' in frame for frame in frames)


@needs("nghttp")
@each_scheme
@in_loop
async def test_nghttp_sees_early_hints_and_trailers(scheme: str, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        nghttp = Nghttp(server, scheme)
        hints, page = [frame for frame in await nghttp.frames("URL/hints") if ":status: " in frame]
        assert ":status: 103\n" in hints
        assert "link: </a.css>; rel=preload\n" in hints
        assert ":status: 200\n" in page
        frames = await nghttp.frames("-H", "te: trailers", "URL/trailers")
        [trailers] = [frame for frame in frames if "x-sum: 5\n" in frame]
        assert "; END_STREAM" in trailers


@needs("nghttp")
@each_scheme
@in_loop
async def test_nghttp_gets_what_is_pushed(scheme: str, pair: Pair) -> None:
    async with serving_by(scheme, pair) as server:
        nghttp = Nghttp(server, scheme)
        frames = await nghttp.frames("URL/push")
        promises = [frame for frame in frames if frame.startswith("recv PUSH_PROMISE ")]
        told = r"(?s)promised_stream_id=(\d+)\).*:path: (\S+)\n.*x-pushed: yes\n"
        assert re.findall(told, promises[0]) == [("2", "/whole")]
        assert re.findall(told, promises[1]) == [("4", "/none?a=b")]
        answers = re.findall(r"(?s)recv HEADERS [^>]*stream_id=(\d+)>.*?:status: (\d+)", "".join(frames))
        assert dict(answers) == {"13": "200", "2": "200", "4": "404"}
        frames = await nghttp.frames("--no-push", "URL/push")
        assert not [frame for frame in frames if frame.startswith("recv PUSH_PROMISE ")]


# --- h2load ---


@needs("h2load")
@each_scheme
@in_loop
async def test_h2load_fails_nothing(scheme: str, pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(bytes(100_000))
    async with serving_by(scheme, pair) as server:
        url = f"{scheme}://localhost:{server.port}"
        for arguments, count in (
            (["-c4", "-m100", f"{url}/echo"], 4000),
            (["-c4", "-m10", f"{url}/whole"], 80),
            (["-c4", "-m10", "-d", file, f"{url}/size"], 200),
        ):
            shown = await run("h2load", "-n", count, *arguments)
            assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in shown
            assert f"status codes: {count} 2xx," in shown


# --- httpx ---


@contextlib.asynccontextmanager
async def httpx_client(
    scheme: str, authority: Authority, pair: Pair
) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    verify: Any = authority.client() if scheme == "https" else False
    async with (
        serving_by(scheme, pair) as server,
        httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{server.port}",
            http1=scheme == "https",
            http2=True,
            verify=verify,
            trust_env=False,
        ) as client,
    ):
        yield server, client


@each_scheme
@in_each_loop
async def test_httpx_over_one_connection(scheme: str, authority: Authority, pair: Pair) -> None:
    async with httpx_client(scheme, authority, pair) as (server, client):
        for path in ("/whole", "/stream"):
            response = await client.get(path)
            assert response.http_version == "HTTP/2"
            assert response.content == BODY
        assert (await client.head("/whole")).content == b""
        assert (await client.get("/empty")).status_code == 204
        assert (await client.get("/none")).status_code == 404
        assert (await client.post("/echo", content=BODY)).content == BODY
        response = await client.put("/echo", params={"a": "é"}, json={"a": [1]})
        assert response.json() == {"a": [1]}
        assert json.loads(response.headers["x-seen"]) == ["PUT", "2", "a=%C3%A9"]
        assert server.context.registry.connection_count == 1


@each_scheme
@in_loop
async def test_httpx_uploads_pieces(scheme: str, authority: Authority, pair: Pair) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(BODY), 7_777):
            yield BODY[start : start + 7_777]
            await asyncio.sleep(0)

    async with httpx_client(scheme, authority, pair) as (_, client):
        for _ in range(2):
            assert (await client.post("/echo", content=pieces())).content == BODY


@each_scheme
@in_loop
async def test_httpx_asks_much_at_once(scheme: str, authority: Authority, pair: Pair) -> None:
    async with httpx_client(scheme, authority, pair) as (server, client):
        await client.get("/empty")
        paths = ["/whole", "/stream"] * 4
        responses = await asyncio.gather(*[client.get(path) for path in paths])
        assert [response.content == BODY for response in responses] == [True] * 8
        assert server.context.registry.connection_count == 1


@each_scheme
@in_loop
async def test_httpx_that_leaves_a_stream(
    scheme: str, authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with httpx_client(scheme, authority, pair) as (server, client):
        async with client.stream("GET", "/stream") as response:
            async for _ in response.aiter_raw():
                break
        assert (await client.get("/empty")).status_code == 204
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        assert server.context.registry.connection_count == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@in_loop
async def test_httpx_that_knows_both_asks_for_http2(authority: Authority, pair: Pair) -> None:
    for http2, version in (("on", "HTTP/2"), ("off", "HTTP/1.1"), ("only", "HTTP/2")):
        async with served(app, http2=http2, **pair.settings) as server:
            context: ssl.SSLContext = authority.client()
            async with httpx.AsyncClient(http2=True, verify=context, trust_env=False) as client:
                response = await client.get(f"https://localhost:{server.port}/echo")
                assert (response.status_code, response.http_version) == (200, version)


# --- Node ---

NODE = """
const http2 = require("node:http2");
const fs = require("node:fs");
const [url, ca] = process.argv.slice(2);
const session = http2.connect(url, ca ? { ca: fs.readFileSync(ca) } : {});
const told = { pushed: [] };

session.on("stream", (stream, headers) => {
  const pushed = { path: headers[":path"] };
  told.pushed.push(pushed);
  stream.on("push", (answer) => (pushed.status = answer[":status"]));
  pushed.size = read(stream).then((data) => data.length);
});

async function read(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function ask(path, body, options = {}) {
  const stream = session.request({ ":path": path, ...options });
  const answer = { hints: [], trailers: {} };
  stream.on("headers", (headers) => answer.hints.push([headers[":status"], headers.link]));
  stream.on("trailers", (headers) => (answer.trailers = { ...headers }));
  const head = new Promise((resolve, reject) => stream.on("response", resolve).on("error", reject));
  body === undefined ? stream.end() : stream.end(body);
  const data = await read(stream);
  const headers = await head;
  return { ...answer, status: headers[":status"], seen: headers["x-seen"], data };
}

async function cancel(path) {
  const stream = session.request({ ":path": path });
  await new Promise((resolve) => stream.once("data", resolve));
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await new Promise((resolve) => stream.once("close", resolve));
}

async function main() {
  const body = Buffer.alloc(3_000_000, "abc");
  const echoed = await ask("/echo?q", body, { ":method": "PUT" });
  told.echoed = echoed.data.equals(body);
  told.seen = JSON.parse(echoed.seen);
  const head = await ask("/whole", undefined, { ":method": "HEAD" });
  told.head = [head.status, head.data.length];
  told.none = (await ask("/none")).status;
  const hints = await ask("/hints");
  told.hints = [hints.hints, hints.status, String(hints.data)];
  told.trailers = (await ask("/trailers", undefined, { te: "trailers" })).trailers["x-sum"];
  const many = await Promise.all(Array.from({ length: 40 }, (_, n) => ask(n % 2 ? "/stream" : "/whole")));
  told.many = [many.length, ...new Set(many.map((answer) => answer.data.length))];
  await Promise.all(Array.from({ length: 50 }, () => cancel("/stream")));
  told.push = String((await ask("/push")).data);
  for (const pushed of told.pushed) pushed.size = await pushed.size;
  told.ping = await new Promise((resolve) => session.ping((error) => resolve(error === null)));
  told.allowed = session.remoteSettings.enableConnectProtocol;
  session.close();
  await new Promise((resolve) => session.once("close", resolve));
  console.log(JSON.stringify(told));
}

main();
"""


@needs("node")
@each_scheme
@in_loop
async def test_node(scheme: str, authority: Authority, pair: Pair, tmp_path: Path) -> None:
    script = tmp_path / "client.js"
    script.write_text(NODE)
    async with serving_by(scheme, pair) as server:
        certificates = [authority.path] if scheme == "https" else []
        told = json.loads(await run("node", script, f"{scheme}://localhost:{server.port}", *certificates))
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
    assert told == {
        "echoed": True,
        "seen": ["PUT", "2", "q"],
        "head": [200, 0],
        "none": 404,
        "hints": [[[103, "</a.css>; rel=preload"]], 200, "page"],
        "trailers": "5",
        "many": [40, len(BODY)],
        "push": "page",
        "pushed": [
            {"path": "/whole", "status": 200, "size": len(BODY)},
            {"path": "/none?a=b", "status": 404, "size": 9},
        ],
        "ping": True,
        "allowed": True,
    }
