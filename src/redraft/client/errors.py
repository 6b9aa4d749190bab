"""The error of a request to a server, apart from the client so that it can be caught without `httpx2`."""


class RequestFailed(Exception):
    """A request that was not answered: `kind` is what such failures are counted by, the message says more."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
