"""The OpenAPI document says what the server does: read by a machine that tries what it allows, and what it does not."""

import re

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
OPERATIONS = {
    ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/responses"),
    ("POST", "/v1/decisions"), ("POST", "/v1/systemone"),
    ("POST", "/tokenize"), ("POST", "/detokenize"), ("GET", "/tokenizer_info"),
    ("GET", "/v1/models"), ("GET", "/v1/models/{model}"), ("GET", "/health/live"), ("GET", "/health/ready"),
    ("GET", "/health"), ("GET", "/metrics"), ("POST", "/v1/adapters"), ("DELETE", "/v1/adapters/{name}"),
}  # fmt: skip


@pytest.fixture(scope="module")
def document(server):
    with server.client() as client:
        return client.get("/openapi.json").json()


def test_the_document_has_the_routes_and_no_others(document):
    found = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert found == OPERATIONS


def test_every_error_is_declared_in_its_shape_and_none_is_422(document):
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
            for status in ("400", "401", "404", "413", "429", "500", "503"):
                schema = operation["responses"][status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()


def test_what_is_not_known_is_forbidden_in_the_document_too(document):
    schemas = document["components"]["schemas"]
    for name in ("ChatRequest", "CompletionRequest", "TokenizeRequest", "DetokenizeRequest", "Canvas", "Message"):
        # Null is absent, whatever its name.
        assert schemas[name]["additionalProperties"] == {"type": "null"}


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    for name in set(re.findall(r"#/components/schemas/(\w+)", str(document))):
        assert name in schemas


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_no_request_that_a_machine_can_think_of_finds_a_hole(server, document, method, path):
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    operation = schema[path][method]
    # What takes a body gets more.
    examples = 25 if method == "POST" else 5

    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode.POSITIVE))
    @BOUNDED(examples)
    def fitting(case: Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=30)

    @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
    @BOUNDED(examples)
    def not_fitting(case: Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=30)

    fitting()
    if method == "POST":
        not_fitting()


def BOUNDED(examples: int) -> settings:
    """So many, the same every time."""
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
