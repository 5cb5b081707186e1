"""Whatever the OpenAPI document allows, and much that it does not: no unexpected 5xx, errors in the right dialect."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Fake, listening

schemathesis: Any = pytest.importorskip("schemathesis", reason="needs schemathesis")
pytestmark = pytest.mark.slow


def test_every_request_gets_an_answer_of_its_dialect() -> None:
    quiet = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    with listening(Fake(slots=8, queue=1000, screened=True)) as url:
        operations = [one.ok() for one in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]
        assert len(operations) > 15
        for operation in operations:
            strategy = st.one_of(operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode)
            quiet(given(case=strategy)(check))()


def check(case: Any) -> None:
    answer = case.call()
    assert answer.status_code < 500, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert isinstance(error, str) == case.path.startswith("/api/")
        if not isinstance(error, str):
            assert error["message"] and error["type"] and {"param", "code"} <= set(error)
