"""`redraft serve`: the model behind OpenAI's API, and the playground."""

import os
from typing import Annotated

import typer

from redraft.cli import options

KEY_VARIABLE = "REDRAFT_API_KEY"


def serve(
    model: Annotated[
        str, typer.Argument(help='A checkpoint: "bundled", a folder, or a name on the Hugging Face hub.')
    ] = "bundled",
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let other machines in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(help=f"What clients have to show; else what {KEY_VARIABLE} holds.")
    ] = None,
    served_model_name: Annotated[str | None, typer.Option(help="The model's name in the API; else its own.")] = None,
    max_concurrent: Annotated[int, typer.Option(help="Requests in work at a time.")] = 16,
    max_queue: Annotated[int, typer.Option(help="How many more may wait; the next is answered 429.")] = 128,
    max_context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together; else as many as the model can.")
    ] = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A web origin that may call, like https://example.org; repeatable.")
    ] = None,
    log_format: Annotated[str, typer.Option(help="text or json.")] = "text",
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write what is asked into the log.")] = False,
    drain_seconds: Annotated[float, typer.Option(help="How long SIGTERM lets running requests go on.")] = 30.0,
) -> None:
    """Serve a model behind OpenAI's API, with a playground at /."""
    options.needs("fastapi", "serve")
    options.check_precision(precision)
    from redraft.server.settings import ServerSettings

    if api_key is None:
        # Not left to the framework, which takes an empty variable for none: that would be a server without a key.
        api_key = os.environ.get(KEY_VARIABLE)
    settings = ServerSettings(
        host=host, port=port, api_key=api_key, served_name=served_model_name, max_concurrent=max_concurrent,
        max_queue=max_queue, max_context=max_context, cors_origins=tuple(cors_origin or ()), log_format=log_format,
        log_prompts=log_prompts, drain_seconds=drain_seconds,
    )  # fmt: skip
    from redraft.server import lifecycle

    lifecycle.serve(settings, lambda: options.Request(model, device, precision, {}).load())
