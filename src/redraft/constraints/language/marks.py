"""Bytes that stand for control tokens: those that never occur in UTF-8, so no text is taken for one."""

LAST_IN_UTF8 = 0xF4
QUOTE = b"\xff"
CALL, CALL_END = b"\xfd", b"\xfe"
CHANNEL, CHANNEL_END = b"\xfb", b"\xfc"

BYTES_OF_MARKS = {
    '<|"|>': QUOTE,
    "<|tool_call>": CALL,
    "<tool_call|>": CALL_END,
    "<|channel>": CHANNEL,
    "<channel|>": CHANNEL_END,
}
"""By the control tokens of Gemma 4's chat template."""
