"""POST /tokenize, POST /detokenize and GET /tokenizer_info, as vLLM has them."""

import asyncio

from fastapi import FastAPI
from starlette.responses import Response

from redraft import Model
from redraft.server.openai.answers import json_response
from redraft.server.openai.errors import bad_request
from redraft.server.openai.messages import encode_conversation
from redraft.server.openai.preparation import check_length, encode
from redraft.server.openai.requests import DetokenizeRequest, TokenizeRequest
from redraft.server.openai.responses import DetokenizeResponse, TokenizeResponse, TokenizerInfo
from redraft.server.service import Service
from redraft.text import ReadPrompt


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize", response_model=TokenizeResponse)
    async def tokenize(request: TokenizeRequest) -> Response:
        """Returns the token ids of a text, or of a conversation as the chat template writes it."""
        service.model(request.model)
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
        service.model(request.model)
        tokenizer = service.engine.model.tokenizer
        try:
            text = await asyncio.to_thread(tokenizer.decode, request.tokens, skip_special=False)
        except ValueError as error:
            raise bad_request(str(error), "tokens", "invalid_value") from error
        return json_response(DetokenizeResponse(prompt=text))

    @app.get("/tokenizer_info", response_model=TokenizerInfo)
    async def tokenizer_info() -> Response:
        """Returns what clients that count tokens ask of a tokenizer."""
        tokenizer = service.engine.model.tokenizer
        names = {
            name: None if token is None else tokenizer.decode([token], skip_special=False)
            for name, token in (("bos_token", tokenizer.bos_id), ("eos_token", tokenizer.eos_id))
        }
        return json_response(
            TokenizerInfo(**names, vocab_size=tokenizer.vocab_size, model_max_length=service.max_context)
        )


def _encode(service: Service, request: TokenizeRequest) -> ReadPrompt:
    if request.messages is not None:
        return encode_conversation(service, service.model(request.model), request.messages)
    text = request.prompt
    assert text is not None
    check_length(service, text, "prompt")
    return ReadPrompt(encode(lambda: _encode_text(service.engine.model, text, request), "prompt"))


def _encode_text(model: Model, text: str, request: TokenizeRequest) -> list[int]:
    if request.add_special_tokens:
        return model.encode_plain(text)
    # Clients look control tokens up by their names. In a longer text such a name is text.
    token = model.tokenizer.token_id(text)
    return [token] if token in model.tokenizer.special_ids else model.tokenizer.encode(text)
