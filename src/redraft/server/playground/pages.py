"""The playground's routes: its files, read once, so that a request can name one of them and nothing else."""

from html import escape
from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import Response

from redraft import SETTINGS, Setting
from redraft.server.openai.errors import ApiError
from redraft.server.openai.requests import CANVAS_SETTINGS, MAX_TEMPERATURE, OPENAI_NAMES
from redraft.server.service import Service

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INDEX = "index.html"
FIELDS_MARK = b"<!-- fields -->"


def add_routes(app: FastAPI, _: Service) -> None:
    pages = load_pages()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _response(pages, INDEX)

    @app.get("/favicon.ico", include_in_schema=False)
    async def no_icon() -> Response:
        # Browsers ask for it whatever they show; the page names an icon of its own.
        return Response(status_code=204)

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return _response(pages, name)


def load_pages() -> dict[str, tuple[bytes, str]]:
    pages = {
        file.name: (file.read_bytes(), kind)
        for file in files("redraft.server.playground").iterdir()
        if (kind := CONTENT_TYPES.get("." + file.name.rpartition(".")[2]))
    }
    content, kind = pages[INDEX]
    # `index` has no field: the page asks for one answer.
    fields = "\n".join(form_field(setting) for setting in SETTINGS if setting.name != "index")
    return pages | {INDEX: (content.replace(FIELDS_MARK, fields.encode()), kind)}


def form_field(setting: Setting) -> str:
    """Returns the form's field for a sampler setting; its data-attributes tell the page's script the limits."""
    name = OPENAI_NAMES.get(setting.name, setting.name)
    maximum = MAX_TEMPERATURE if name == "temperature" else setting.maximum
    attributes = {"name": name, "data-param": name, "data-setting": "canvas" if setting in CANVAS_SETTINGS else "top"}
    if setting.choices:
        options = "".join(f"<option>{escape(choice)}</option>" for choice in ("", *setting.choices))
        control = f"<select {_written(attributes)}>{options}</select>"
    else:
        limits = {"data-min": setting.minimum, "data-above": setting.above, "data-max": maximum}
        attributes |= {key: f"{value:.17g}" for key, value in limits.items() if value is not None}
        attributes |= {"type": "number", "step": "1" if setting.type is int else "any"}
        control = f"<input {_written(attributes)}>"
    label = name.replace("_", " ").capitalize()
    return f'          <label title="{escape(setting.help)}">{escape(label)} {control}</label>'


def _written(attributes: dict[str, str]) -> str:
    return " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())


def _response(pages: dict[str, tuple[bytes, str]], name: str) -> Response:
    if name not in pages:
        raise ApiError(404, "there is no such page", code="not_found")
    content, kind = pages[name]
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }  # fmt: skip
    return Response(content, headers=headers, media_type=kind)
