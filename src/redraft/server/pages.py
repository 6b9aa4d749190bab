"""The playground's files, read once: a request can name one of them and nothing else."""

from importlib.resources import files

from starlette.responses import Response

from redraft.server.errors import ApiError

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INDEX = "index.html"


class Pages:
    """All files of the folder `playground`, by name."""

    def __init__(self) -> None:
        self._files = {
            file.name: (file.read_bytes(), kind)
            for file in files("redraft.server").joinpath("playground").iterdir()
            if (kind := KINDS.get("." + file.name.rpartition(".")[2]))
        }

    def get(self, name: str) -> Response:
        """One of them. 404 for any other name."""
        if name not in self._files:
            raise ApiError(404, "there is no such page", code="not_found")
        content, kind = self._files[name]
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
        return Response(content, headers=headers, media_type=kind)
