"""POST /tokenize and POST /detokenize."""

import asyncio

from fastapi import FastAPI
from starlette.responses import Response

from redraft.server.openai.answers import json_response
from redraft.server.openai.errors import bad_request
from redraft.server.openai.messages import encode_conversation
from redraft.server.openai.preparation import check_length, check_model, encode
from redraft.server.openai.requests import DetokenizeRequest, TokenizeRequest
from redraft.server.openai.responses import DetokenizeResponse, TokenizeResponse
from redraft.server.service import Service
from redraft.text import ReadPrompt


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize", response_model=TokenizeResponse)
    async def tokenize(request: TokenizeRequest) -> Response:
        """Returns the token ids of a text, or of a conversation as the chat template writes it."""
        check_model(request.model, service.name)
        if (request.prompt is None) == (request.messages is None):
            raise bad_request("send either prompt or messages", "prompt")
        if request.messages is not None and "add_special_tokens" in request.model_fields_set:
            raise bad_request("add_special_tokens requires a prompt, not messages", "add_special_tokens")
        async with service.encoding:
            encoded = await asyncio.to_thread(_encode, service, request)
        return json_response(
            TokenizeResponse(
                tokens=encoded.ids,
                count=len(encoded.ids),
                max_model_len=service.max_context,
                warnings=list(encoded.warnings) or None,
            )
        )

    @app.post("/detokenize", response_model=DetokenizeResponse)
    async def detokenize(request: DetokenizeRequest) -> Response:
        """Returns the text of token ids, control tokens as their names."""
        check_model(request.model, service.name)
        tokenizer = service.engine.model.tokenizer
        try:
            text = await asyncio.to_thread(tokenizer.decode, request.tokens, skip_special=False)
        except ValueError as error:
            raise bad_request(str(error), "tokens", "invalid_value") from error
        return json_response(DetokenizeResponse(prompt=text))


def _encode(service: Service, request: TokenizeRequest) -> ReadPrompt:
    if request.messages is not None:
        return encode_conversation(service, request.messages)
    text, model = request.prompt, service.engine.model
    assert text is not None
    check_length(service, text, "prompt")
    encode_text = model.encode_plain if request.add_special_tokens else model.tokenizer.encode
    return ReadPrompt(encode(lambda: encode_text(text), "prompt"))
