"""The readable loop for one request, and decoding token by token beside it."""
