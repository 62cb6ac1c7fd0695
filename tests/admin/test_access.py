"""Who may see what the admin listener tells: its rules, asked alone, and its settings."""

import os
import time
from pathlib import Path

import pytest
from adminserved import TOKEN
from hypothesis import example, given
from hypothesis import strategies as st

from fastasgi import Config
from fastasgi.admin import access
from fastasgi.admin.access import SESSION_S, Access, is_own_form
from fastasgi.errors import ConfigError
from fastasgi.system.adminsettings import LEAST_TOKEN

LOCAL = Access("127.0.0.1:9000", None, None)


def locked() -> Access:
    return Access("0.0.0.0:9000", None, TOKEN)


def status(rules: Access, *fields: tuple[str, str]) -> int:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    refusal = rules.refusal(headers)
    return 200 if refusal is None else refusal.status


# The host, without a token


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LocalHost"])
@pytest.mark.parametrize("port", ["", ":1", ":9000", ":65535"])
def test_names_of_this_machine_may_ask(host: str, port: str) -> None:
    assert status(LOCAL, ("host", host + port)) == 200


OTHER_HOSTS = [
    "", "localhost.", "localhost.evil.example", "evil.example", "evil.example:9000", "127.0.0.1.evil.example",
    "127.0.0.1.", "127.0.0.2", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "0.0.0.0", "::1", "[::]",
    "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::1%25lo]", "localhost:", "localhost:123456",
    "localhost:9000:1", "localhost:evil", "localhost:-1", "localhost:+1", "localhost @evil.example",
    "evil.example#localhost", "localhost@evil.example", "localhost/", "localhost\t", " localhost",
    "xlocalhost", "localhostx", "localhost,evil.example", "l\u00f6calhost", "localhost:\u00b2",
    "localhost\n", "127.0.0.1\n",
]  # fmt: skip


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_other_hosts_may_not(host: str) -> None:
    assert status(LOCAL, ("host", host)) == 421


@given(st.binary(max_size=40))
@example(b"localhost:00080")
@example(b"LOCALHOST:1")
@example(b"[::1]:1")
def test_what_may_ask_is_one_of_three_names_and_a_port(host: bytes) -> None:
    name, colon, port = host.rpartition(b":")
    if not colon or host.endswith(b"]"):
        name, port = host, b"0"
    is_port = 1 <= len(port) <= 5 and all(0x30 <= digit <= 0x39 for digit in port)
    is_ours = is_port and name.lower() in (b"localhost", b"127.0.0.1", b"[::1]")
    assert (LOCAL.refusal([(b"host", host)]) is None) == is_ours


def test_one_host_is_asked_for() -> None:
    assert status(LOCAL) == 421
    assert status(LOCAL, ("host", "localhost"), ("host", "evil.example")) == 421
    assert status(LOCAL, ("host", "localhost"), ("host", "localhost")) == 421


def test_what_proxies_say_of_a_host_counts_for_nothing() -> None:
    for name in ("x-forwarded-host", "forwarded", "x-host", "x-original-host", ":authority"):
        assert status(LOCAL, ("host", "evil.example"), (name, "localhost")) == 421
        assert status(LOCAL, ("host", "localhost"), (name, "evil.example")) == 200


# Pages of other sites


@pytest.mark.parametrize("site", ["cross-site", "same-site", "evil", "same-origin, cross-site"])
@pytest.mark.parametrize("rules", [LOCAL, locked()])
def test_pages_of_other_sites_may_only_lead_here(site: str, rules: Access) -> None:
    fields = [("host", "localhost"), ("authorization", f"Bearer {TOKEN}"), ("sec-fetch-site", site)]
    for dest in ("empty", "script", "image", "iframe", "embed", ""):
        assert status(rules, *fields, ("sec-fetch-dest", dest)) == 403
    assert status(rules, *fields) == 403
    assert status(rules, *fields, ("sec-fetch-dest", "document")) == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_pages_and_users_may_ask(site: str) -> None:
    assert status(LOCAL, ("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-dest", "empty")) == 200


@pytest.mark.parametrize(
    ("fields", "is_own"),
    [
        ([], True),
        ([("origin", "http://box:9000")], True),
        ([("origin", "https://box:9000")], True),  # a proxy may end TLS
        ([("origin", "http://box")], False),
        ([("origin", "http://box:8000")], False),
        ([("origin", "http://evil.example")], False),
        ([("origin", "null")], False),
        ([("origin", "http://box:9000"), ("origin", "http://evil.example")], False),
        ([("origin", "null"), ("sec-fetch-site", "same-origin")], True),
        ([("sec-fetch-site", "none")], True),
        ([("origin", "http://box:9000"), ("sec-fetch-site", "cross-site")], False),
        ([("origin", "http://box:9000"), ("sec-fetch-site", "same-site")], False),
        ([("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], False),
    ],
)
def test_forms_are_taken_of_own_pages(fields: list[tuple[str, str]], is_own: bool) -> None:
    headers = [(b"host", b"box:9000"), *((n.encode(), v.encode()) for n, v in fields)]
    assert is_own_form(headers) == is_own


# Tokens


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_lets_in_whatever_the_host(scheme: str) -> None:
    assert status(locked(), ("host", "evil.example"), ("authorization", f"{scheme} {TOKEN}")) == 200


@pytest.mark.parametrize(
    "value",
    [
        "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}",
        "Bearer \xff", f"Basic {TOKEN}", TOKEN, f"Bearer{TOKEN}", f'Bearer "{TOKEN}"',
        f"Bearer token={TOKEN}",
    ],
)  # fmt: skip
def test_anything_else_does_not(value: str) -> None:
    assert status(locked(), ("host", "localhost"), ("authorization", value)) == 401


def test_a_token_is_asked_for_on_loopback_too_if_there_is_one() -> None:
    rules = Access("127.0.0.1:9000", None, TOKEN)
    assert rules.asks_for_token
    assert status(rules, ("host", "localhost")) == 401
    assert status(rules, ("host", "localhost"), ("authorization", f"Bearer {TOKEN}")) == 200
    assert not LOCAL.asks_for_token


def test_credentials_for_a_proxy_leave_the_cookie_its_worth() -> None:
    rules = locked()
    cookie = rules.new_cookie(is_secure=False).decode().partition(";")[0]
    assert status(rules, ("authorization", "Basic dXNlcjpwYXNz"), ("cookie", cookie)) == 200


def test_the_right_token_is_taken_while_wrong_ones_come() -> None:
    rules = locked()
    statuses = [refusal.status for _ in range(200) if (refusal := rules.check(b"wrong")) is not None]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert statuses.count(401) < 60
    assert rules.check(TOKEN.encode()) is None


def test_wrong_tokens_are_answered_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    rules = locked()
    while (refusal := rules.check(b"wrong")) is not None and refusal.status == 401:
        pass
    assert (b"retry-after", b"10") in refusal.fields
    now[0] += 1.0
    assert rules.check(b"wrong").status == 401


# Sessions


def session_of(rules: Access) -> tuple[str, str]:
    name, _, value = rules.new_cookie(is_secure=False).decode().partition(";")[0].partition("=")
    return name, value


def test_a_cookie_is_for_this_host_and_its_own_pages_only() -> None:
    plain, secure = (locked().new_cookie(is_secure=is_secure).decode() for is_secure in (False, True))
    name, *attributes = plain.split("; ")
    assert name.startswith("fastasgi_admin_9000=")
    assert sorted(attributes) == sorted(["Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={SESSION_S}"])
    assert secure.split("; ")[1:] == [*attributes, "Secure"]
    assert TOKEN not in plain


def test_a_session_lets_in_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = locked()
    name, value = session_of(rules)
    assert status(rules, ("cookie", f"{name}={value}")) == 200
    assert status(rules, ("cookie", f"theme=dark; {name}={value} ;x")) == 200
    later = time.time() + SESSION_S + 1
    monkeypatch.setattr(access.time, "time", lambda: later)
    assert status(rules, ("cookie", f"{name}={value}")) == 401


def test_a_session_can_neither_be_made_nor_prolonged() -> None:
    rules = locked()
    name, value = session_of(rules)
    ends_at, _, proof = value.partition(".")
    forged_values = (
        f"{int(ends_at) + 1}.{proof}", f"{ends_at}.{proof[:-1]}", f"{ends_at}.{proof.upper()}", f".{proof}",
        f"0{ends_at}.{proof}", f"{ends_at}.{'0' * 64}", f"{ends_at}.{proof}\n", f'"{value}"', TOKEN,
        f"{value}x", "", ".",
    )  # fmt: skip
    for forged in forged_values:
        assert status(rules, ("cookie", f"{name}={forged}")) == 401, forged
    assert status(rules, ("cookie", f"{name.upper()}={value}")) == 401
    assert status(rules, ("cookie", f"x{name}={value}")) == 401


def test_a_session_ends_with_the_process() -> None:
    name, value = session_of(locked())
    assert status(locked(), ("cookie", f"{name}={value}")) == 401


def test_what_others_of_this_host_set_does_not_lock_out() -> None:
    rules = locked()
    name, value = session_of(rules)
    assert status(rules, ("cookie", f"{name}=planted; {name}={value}; {name}=1.2")) == 200
    assert status(rules, ("cookie", f"{name}=planted"), ("cookie", f"{name}={value}")) == 200


def test_listeners_of_one_host_have_cookies_of_their_own() -> None:
    assert session_of(Access("0.0.0.0:9001", None, TOKEN))[0] != session_of(locked())[0]


# Settings


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:9000", "127.8.9.1:0", "[::1]:9000", "localhost:9000", "LOCALHOST:1", "unix:/run/a.sock"],
)
def test_addresses_of_this_machine_need_no_token(address: str) -> None:
    Config("app:app", admin=address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9000", ":9000", "[::]:9000", "10.0.0.1:1", "box:9000", "localhost.evil.example:1"]
)
def test_all_others_do(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config("app:app", admin=address)
    assert f"admin {address!r}" in str(error.value)
    assert "admin_token_file" in str(error.value)
    Config("app:app", admin=address, admin_token=TOKEN)


@pytest.mark.parametrize("address", ["9000", "fd://3", "unix:", "localhost", "localhost:65536", "http://x:1"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"admin .*: give HOST:PORT, \[IPV6\]:PORT or unix:PATH"):
        Config("app:app", admin=address)


def refused(**settings: object) -> str:
    with pytest.raises(ConfigError) as error:
        Config("app:app", admin="127.0.0.1:9000", **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"short\n", b"x" * (LEAST_TOKEN - 1), b"\n" + TOKEN.encode(), b"two words are no token",
        b"\xff" * 20, b"\x00" * 20, "\u00fcber-lange-t\u00f6kens".encode(),
    ],
)  # fmt: skip
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    assert f"admin_token_file {str(path)!r}" in refused(admin_token_file=path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(admin_token_file=tmp_path / "missing")
    assert "is no file" in refused(admin_token_file=tmp_path)
    assert "is no file" in refused(admin_token_file="/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in refused(admin_token_file=tmp_path / "pipe")


def test_a_short_token_is_refused_without_telling_it() -> None:
    message = refused(admin_token="hunter2")
    assert "16" in message
    assert "hunter2" not in message


def test_a_token_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    message = refused(admin_token=TOKEN, admin_token_file=tmp_path / "token")
    assert "both" in message
    assert TOKEN not in message


@pytest.mark.parametrize("content", [f"{TOKEN}\n", f"{TOKEN}\r\n", f"{TOKEN}\nnotes\n", f"\ufeff{TOKEN}"])
def test_the_first_line_of_a_file_is_the_token(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content.encode())
    assert Access("0.0.0.0:9000", path, None).check(TOKEN.encode()) is None
