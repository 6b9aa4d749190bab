"""POST /v1/responses: OpenAI's newer protocol, in its text part, on the way of chat completions."""
