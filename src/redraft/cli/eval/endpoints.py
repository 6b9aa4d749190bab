"""`--endpoint`: a server that speaks the OpenAI protocol in place of a model in this process."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from redraft.cli import options

if TYPE_CHECKING:
    from redraft.client.stream import Endpoint

TIMEOUT = 600.0

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="A server's URL, like http://localhost:8000/v1.")
]
KeyOption = Annotated[
    str | None, typer.Option("--api-key-env", help="The environment variable that holds the server's key.")
]


def make_endpoint(
    model_options: options.ModelOptions, url: str, key_variable: str | None, timeout: float = TIMEOUT
) -> "Endpoint":
    """Returns the endpoint at `url`, with the server's first model unless --model names one.

    Raises ValueError for options that a request has no field for, and where the server does not answer.
    """
    options.require_package("httpx2", "load")
    from redraft.client.stream import Endpoint, check_url, list_models, request_fields

    if (model_options.device, model_options.precision) != ("auto", "auto"):
        raise ValueError("--device and --precision are the server's choice; leave them out with --endpoint")
    if "choice" in model_options.settings:
        raise ValueError("--choice has no field in a request to a server; leave it out with --endpoint")
    key = None
    if key_variable is not None and not (key := os.environ.get(key_variable)):
        raise ValueError(f"--api-key-env names {key_variable}, but no such variable is set")
    check_url(url)
    # "bundled" is what --model says when nobody gave it.
    model = model_options.model if model_options.model != "bundled" else list_models(url, key=key, timeout=timeout)[0]
    return Endpoint(url=url, model=model, key=key, fields=request_fields(model_options.settings), timeout=timeout)
