"""`redraft serve`: the model behind OpenAI's API, and the playground."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

import redraft
from redraft.cli import options
from redraft.generation.modes import ANSWERING_MODES, Mode
from redraft.model.precision import check_precision
from redraft.server.settings import ServerSettings
from redraft.utils.signals import delay_interrupt

if TYPE_CHECKING:
    from redraft.server.routing.rules import RoutingRules

API_KEY_VARIABLE = "REDRAFT_API_KEY"


def serve(
    model: Annotated[
        str,
        typer.Argument(
            envvar=options.MODEL_VARIABLE, help='A checkpoint: "bundled", a folder, or a name on the Hugging Face hub.'
        ),
    ] = "bundled",
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(help=f"Key that clients must send; by default the value of {API_KEY_VARIABLE}.")
    ] = None,
    owner_key: Annotated[
        list[str] | None, typer.Option(help="Another key; each key has files and batches of its own; repeatable.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep files and batches here: /v1/files and /v1/batches.")
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="The model's name in the API; by default its own.")
    ] = None,
    max_concurrent: Annotated[int, typer.Option(help="Requests processed at once.")] = 16,
    max_queue: Annotated[int, typer.Option(help="Requests that may wait; the next one gets a 429.")] = 128,
    max_context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together; by default the model's limit.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="An adapter, a model of that name in the API; repeatable."),
    ] = None,
    allow_adapter_changes: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Let clients load adapters from below this folder, and unload any."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help=f"How answers are written where a request does not say: {', '.join(ANSWERING_MODES)}; by default as "
            "the model's card says, or by diffusion."
        ),
    ] = None,
    route: Annotated[
        Path | None,
        typer.Option(metavar="RULES.toml", help="Rules by which requests go to a mode, an adapter or another server."),
    ] = None,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="<str>", help="A web origin that may call, like https://example.org; repeatable."),
    ] = None,
    log_format: Annotated[str, typer.Option(help="text or json.")] = "text",
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts to the log.")] = False,
    drain_seconds: Annotated[float, typer.Option(help="Seconds that running requests may go on after SIGTERM.")] = 30.0,
) -> None:
    """Serve a model behind OpenAI's API, with a playground at /."""
    options.require_package("fastapi", "serve")
    if api_key is None:
        # Not left to typer, which takes an empty variable for a missing one: that would be a server without a key.
        api_key = os.environ.get(API_KEY_VARIABLE)
    adapters = options.parse_adapters("--adapter", adapter)
    rules = None if route is None else _read_rules(route, host, port)
    if rules is not None and allow_adapter_changes is None:
        rules.check_adapters(adapters)
    settings = ServerSettings(
        host=host, port=port, api_key=api_key, owner_keys=tuple(owner_key or ()), state=state,
        served_name=served_model_name, max_concurrent=max_concurrent,
        max_queue=max_queue, max_context=max_context, cors_origins=tuple(cors_origin or ()), log_format=log_format,
        log_prompts=log_prompts, drain_seconds=drain_seconds, adapter_root=allow_adapter_changes,
        mode=cast(Mode | None, mode), rules=rules,
    )  # fmt: skip
    check_precision(precision)
    load = functools.partial(redraft.load, model, device=device, precision=precision, adapters=adapters)
    with delay_interrupt():
        from redraft.server import lifecycle
    lifecycle.serve(settings, load)


def _read_rules(route: Path, host: str, port: int) -> "RoutingRules":
    options.require_package("httpx2", "load")
    from redraft.server.routing.rules import read_rules

    rules = read_rules(route)
    rules.check_address(host, port)
    return rules
