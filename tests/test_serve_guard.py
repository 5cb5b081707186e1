"""Who may ask and how much: keys, Host, Origin, sizes, nothing a client sends breaks the server or is logged."""

import asyncio
import gzip
import itertools
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import QUESTION, Fake, app_of, listening, post

from medmind.core.errors import DataError, EnvironmentFault, UsageError
from medmind.recipe.load import load_recipe
from medmind.serve.beyond import FIELDS
from medmind.serve.config import ServeConfig
from medmind.serve.guard import LARGEST_BODY
from medmind.serve.keys import digest_of, find_key, make_key
from medmind.serve.openapi import ASKED, LOOKED_AT
from medmind.serve.run import demand_key, open_door

KEY = "a-key-of-more-than-16-letters"
ROUTES = [*(("POST", path) for path in ASKED), *(("GET", path) for path in LOOKED_AT if path != "/health")]
ROUTES += [("GET", "/v1/models/fake"), ("POST", "/api/pull"), ("DELETE", "/api/delete"), ("GET", "/nothing/here")]


def ask(app: Any, method: str, path: str, **settings: Any) -> httpx.Response:
    """Straight into the application: no socket, but all that stands before the routes."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **settings)

    return asyncio.run(call())


@pytest.fixture(scope="module")
def open_app() -> Any:
    return app_of(Fake())


@pytest.fixture(scope="module")
def locked_app() -> Any:
    return app_of(Fake(), digest=digest_of(KEY))


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=str)
def test_every_route_under_every_form_of_key_host_and_origin(locked_app: Any, method: str, path: str) -> None:
    good = ({"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY})
    bad: tuple[dict[str, str], ...] = ({}, {"authorization": "Bearer "}, {"authorization": KEY}, {"x-api-key": "no"})
    bad += ({"authorization": f"Basic {KEY}"}, {"authorization": f"Bearer {KEY}x"}, {"x-api-key": f"Bearer {KEY}"})
    hosts = {
        "localhost": True,
        "127.0.0.1:11435": True,
        "[::1]:80": True,
        "evil.com": False,
        "localhost.evil.com": False,
    }
    origins = {None: True, "http://evil.com": False, "null": False, "http://localhost": True}
    for keys, (host, ours), (origin, same) in itertools.product((*good, *bad), hosts.items(), origins.items()):
        if origin == "http://localhost" and host != "localhost":
            continue
        headers = {**keys, "host": host, **({"origin": origin} if origin else {})}
        found = ask(locked_app, method, path, headers=headers)
        wanted = 403 if not (ours and same) else 401 if keys in bad else None
        assert found.status_code == wanted if wanted else found.status_code not in (401, 403), headers
        assert "access-control-allow-origin" not in found.headers
        assert found.headers["x-request-id"]


def test_a_preflight_is_never_allowed(open_app: Any) -> None:
    headers = {"origin": "http://evil.com", "access-control-request-method": "POST"}
    found = ask(open_app, "OPTIONS", "/v1/chat/completions", headers=headers)
    assert found.status_code == 403
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_only_health_needs_no_key(locked_app: Any) -> None:
    assert ask(locked_app, "GET", "/health").json() == {"status": "ok"}
    assert ask(locked_app, "GET", "/metrics").status_code == 401


def test_a_key_is_demanded_beyond_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "clinic"):
        with pytest.raises(UsageError, match="no key"):
            demand_key(ServeConfig(host=host))
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        assert demand_key(ServeConfig(host=host)) is None
    monkeypatch.setenv("MEDMIND_API_KEY", "short")
    with pytest.raises(UsageError, match="fewer than 16"):
        demand_key(ServeConfig(host="0.0.0.0"))
    for odd in ("ключ" * 9, f"{KEY} ", f"{KEY}\n", f"{KEY}\x7f"):
        monkeypatch.setenv("MEDMIND_API_KEY", odd)
        with pytest.raises(UsageError, match="no header can carry"):
            demand_key(ServeConfig(host="0.0.0.0"))
    monkeypatch.setenv("MEDMIND_API_KEY", KEY)
    assert demand_key(ServeConfig(host="0.0.0.0")) == digest_of(KEY)
    assert "MEDMIND_API_KEY" not in os.environ
    file = tmp_path / "key"
    file.write_text(KEY)
    with pytest.raises(DataError, match="not the hash"):
        find_key(str(file))


def test_a_new_key_is_shown_once_and_only_its_hash_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    make_key(file)
    key = capsys.readouterr().err.split("only now: ")[1].replace("\n", "").strip()
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert find_key(str(file)) == digest_of(key)


def test_bodies_are_bounded_also_when_packed(open_app: Any) -> None:
    path = "/v1/chat/completions"
    assert ask(open_app, "POST", path, content=b" " * (LARGEST_BODY + 1)).status_code == 413
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 1 << 17
    assert ask(open_app, "POST", path, content=bomb, headers={"content-encoding": "gzip"}).status_code == 413
    good = json.dumps({"model": "fake", "messages": QUESTION}).encode()
    for encoding, packed in (("gzip", gzip.compress(good)), ("deflate", zlib.compress(good))):
        assert ask(open_app, "POST", path, content=packed, headers={"content-encoding": encoding}).status_code == 200
        cut = ask(open_app, "POST", path, content=packed[:-9], headers={"content-encoding": encoding})
        assert cut.status_code == 400
    assert ask(open_app, "POST", path, content=good, headers={"content-encoding": "br"}).status_code == 415


BOUNDS = {
    "n": [0, 9, -1, 1e30, "x", True and "3x"],
    "max_tokens": [-1, 0, 10**400, 1.5, "many"],
    "max_completion_tokens": [0],
    "top_logprobs": [21, -1],
    "temperature": [-1, float("1e308") * 10, "hot"],
    "top_p": [-0.1, 1.1],
    "seed": [1 << 64],
    "stop": [["x"] * 17, "x" * 257, [1]],
    "messages": [
        [],
        None,
        "x",
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
    ],
    "model": ["", "../../etc/passwd", 5, "x" * 300],
}


@pytest.mark.parametrize("name", BOUNDS)
def test_every_number_and_list_has_a_bound(open_app: Any, name: str) -> None:
    for value in BOUNDS[name]:
        body = json.dumps({"model": "fake", "messages": QUESTION, name: value})
        found = ask(open_app, "POST", "/v1/chat/completions", content=body)
        assert found.status_code in (400, 404), value
        error = found.json()["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert name == "model" or error["param"] == name


HALF = (
    b'{"model": "fake", "prompt": "\xed\xa0\x80", "input": "\xed\xa0\x80", "tokens": [5], "messages": "\xed\xa0\x80"}'
)
"""Half a character as it cannot stand in UTF-8."""


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"\xff", b'{"model": "\\ud800"}', b"[" * 10**5, b'{"n": ' + b"9" * 5000, HALF),
        *(HALF.decode("utf-8", "replace").encode(codec) for codec in ("utf-16", "utf-16-le", "utf-32")),
    ],
)
def test_what_is_not_json_is_a_400_in_either_dialect(open_app: Any, body: bytes) -> None:
    for path in ASKED:
        found = ask(open_app, "POST", path, content=body)
        assert found.status_code == 400
        error = found.json()["error"]
        assert isinstance(error, str if path.startswith("/api") else dict)
        assert body in (b"", b"[]") or "not JSON in UTF-8" in str(error)


SCRAPS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["fake", "user", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION, "max_tokens": 2},
    "/v1/completions": {"prompt": "nose", "max_tokens": 2},
    "/v1/embeddings": {"input": "nose"},
    "/api/chat": {"messages": QUESTION, "options": {"num_predict": 2}},
    "/api/generate": {"prompt": "nose", "options": {"num_predict": 2}},
    "/api/show": {},
    "/api/embed": {"input": "nose"},
    "/api/embeddings": {"prompt": "nose"},
    "/tokenize": {"prompt": "nose"},
    "/detokenize": {"tokens": [5]},
}


CODECS = ["utf-8", "utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("path", ASKED)
def test_no_body_whatever_is_an_internal_error(open_app: Any, path: str) -> None:
    names = sorted({*ASKED[path].model_fields, *FIELDS})

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    @given(st.dictionaries(st.sampled_from(names), SCRAPS, max_size=3), st.booleans(), st.sampled_from(CODECS))
    def fuzz(changes: dict[str, Any], escaped: bool, codec: str) -> None:
        body = {"model": "fake", **VALID[path], **changes}
        raw = json.dumps(body, ensure_ascii=escaped).encode(codec, "surrogatepass")
        found = ask(open_app, "POST", path, content=raw)
        assert found.status_code in (200, 400, 404), (found.status_code, body)
        if found.status_code != 200:
            assert isinstance(found.json()["error"], str if path.startswith("/api") else dict)

    fuzz()


def test_paths_and_methods_have_errors_in_their_dialect(open_app: Any) -> None:
    for method, path, status in (("GET", "/v1/x", 404), ("GET", "/v1/completions", 405), ("GET", "/api/x", 404)):
        found = ask(open_app, method, path)
        assert found.status_code == status
        assert isinstance(found.json()["error"], str if path.startswith("/api") else dict)


def test_bodies_never_reach_a_log(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    fake = Fake(write=lambda _: "CANARY-reply")
    with listening(fake) as url:
        for messages in (QUESTION, [{"role": "user", "content": "CANARY-question"}], [{"role": "CANARY-role"}]):
            for path in ("/v1/chat/completions", "/api/chat", "/CANARY-path", "/v1/chat/completions?q=CANARY-query"):
                httpx.post(url + path, json={"model": "fake", "messages": messages}, headers={"x-user": "CANARY-user"})
        fake.decoder.fault = "CANARY-fault"
        assert post(url, "/api/chat", model="fake", messages=QUESTION).status_code == 503
    ours = [record for record in caplog.records if record.name.startswith(("medmind", "uvicorn"))]
    assert len(ours) >= 13
    assert not [record for record in ours if "CANARY" in record.getMessage() + str(record.exc_text)]
    assert "CANARY" not in "".join(capfd.readouterr())


def without_ids(caplog: pytest.LogCaptureFixture) -> str:
    """What was logged, less the random names of requests, in which any three digits may stand."""
    return re.sub(r"[0-9a-f]{32}", "", "\n".join(record.getMessage() for record in caplog.records))


def test_who_asks_for_bodies_gets_them_without_identifiers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="medmind.serve")
    asked = [{"role": "user", "content": "May Mr. Miller, 555-867-5309, take aspirin?"}]
    with listening(Fake(write=lambda _: "Call 555-867-5309 first."), log_bodies=True) as url:
        post(url, "/v1/chat/completions", model="fake", messages=asked)
    told = without_ids(caplog)
    assert "take aspirin?" in told and "first." in told and told.count("[PHONE]") == 2
    assert "867" not in told


def test_an_identifier_reaches_the_log_neither_escaped_nor_in_tokens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="medmind.serve")
    text = "Write to jos\u00e9.m\u00fcller@klinik.de or 555\u2011867\u20115309 today."
    fake = Fake()
    ids = fake.served.renderer.tokenizer.encode("Call 555-867-5309.")
    with listening(fake, log_bodies=True) as url:
        for content in (json.dumps({"model": "fake", "prompt": text}), json.dumps({"model": "fake", "prompt": ids})):
            httpx.post(f"{url}/v1/completions", content=content)
        scored = post(url, "/v1/completions", model="fake", prompt=text, echo=True, logprobs=0, max_tokens=1)
        packed = zlib.compress(json.dumps({"prompt": text}).encode(), 0)
        httpx.post(f"{url}/tokenize", content=packed, headers={"content-encoding": "deflate"})
    assert scored.json()["choices"][0]["logprobs"]
    told = without_ids(caplog)
    assert "[EMAIL]" in told and "[PHONE]" in told and f"{len(ids)} numbers" in told and f"{len(packed)} bytes" in told
    assert not [part for part in ("klinik", "867", "ller", str(ids)[1:-1]) if part in told]


def test_what_is_not_screened_is_not_logged() -> None:
    with pytest.raises(Exception, match=r"serve.log_bodies needs serve.redact_phi"):
        load_recipe("base", ["serve.log_bodies=true", "serve.redact_phi=false"])


@pytest.fixture(scope="module")
def screened() -> Iterator[str]:
    with listening(Fake(write=lambda _: "Call Mr. Miller at 555-867-5309 today.", screened=True)) as url:
        yield url


def test_identifiers_do_not_leave(screened: str) -> None:
    for stream in (False, True):
        for path in ("/v1/chat/completions", "/api/chat", "/v1/completions", "/api/generate"):
            asked = {"messages": QUESTION} if "chat" in path else {"prompt": "Whom do I call?"}
            limit = {"max_tokens": 60} if path == "/v1/completions" else {}
            found = post(screened, path, model="fake", stream=stream, **asked, **limit)
            assert "867-5309" not in found.text and "[PHONE]" in found.text, path
    refused = post(screened, "/v1/chat/completions", model="fake", messages=QUESTION, logprobs=True)
    assert refused.status_code == 400


def test_a_port_in_use_is_told_before_anything_is_loaded() -> None:
    with open_door(ServeConfig(port=11996)), pytest.raises(EnvironmentFault, match=r"in use.*127\.0\.0\.1:11996"):
        open_door(ServeConfig(port=11996))
    with pytest.raises(EnvironmentFault, match="cannot listen"):
        open_door(ServeConfig(host="203.0.113.1"))
