"""Small real tokenizers, trained in memory, in the styles that matter to text: Gemma's, GPT's and Llama's."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from redraft.text import TextTokenizer

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>")
NAMED_TOKENS = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
}
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
CORPUS = (
    "the quick brown fox jumps over the lazy dog and the dog sleeps on",
    "a diffusion model writes the whole canvas at once and then writes it again",
    "the user says hello and the model says hello to the user",
    "héllo wörld, ça va? naïve café, 2 + 2 = 4; 10 < 20 > 5",
    "turn the page, return to the eos, the bos and the pad",
)

# What Gemma 4's template writes for conversations without tools, thoughts or pictures.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<|turn>' + role + '\\n' -}}
    {%- if message['content'] is string -%}
        {{- message['content'] | trim -}}
    {%- else -%}
        {%- for item in message['content'] -%}
            {{- item['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|turn>model\\n' -}}
{%- endif -%}
"""

THINKING_TOKENS = (
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|tool>",
    "<tool|>",
    "<|think|>",
    '<|"|>',
)
# Tools and thoughts as Gemma 4's template writes them: an answer goes on after its tools' responses in the same turn.
THINKING_TEMPLATE = """\
{%- macro value(given) -%}
    {%- if given is string -%}
        {{- '<|"|>' + given + '<|"|>' -}}
    {%- elif given is boolean -%}
        {{- 'true' if given else 'false' -}}
    {%- elif given is none -%}
        {{- 'null' -}}
    {%- elif given is mapping -%}
        {{- '{' -}}{{- entries(given) -}}{{- '}' -}}
    {%- elif given is sequence -%}
        {{- '[' -}}
        {%- for item in given -%}
            {{- ',' if not loop.first -}}{{- value(item) -}}
        {%- endfor -%}
        {{- ']' -}}
    {%- else -%}
        {{- given -}}
    {%- endif -%}
{%- endmacro -%}
{%- macro entries(given) -%}
    {%- for key, item in given | dictsort -%}
        {{- ',' if not loop.first -}}{{- key -}}:{{- value(item) -}}
    {%- endfor -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set thinking = enable_thinking | default(false) -%}
{%- set instructed = messages[0]['role'] == 'system' -%}
{%- if instructed or tools or thinking -%}
    {{- '<|turn>system\\n' -}}
    {%- if thinking -%}
        {{- '<|think|>\\n' -}}
    {%- endif -%}
    {%- if instructed -%}
        {{- messages[0]['content'] | trim -}}
    {%- endif -%}
    {%- for tool in tools or [] -%}
        {{- '<|tool>declaration:' + tool['function']['name'] + '{' -}}
        {{- entries(tool['function']) -}}{{- '}<tool|>' -}}
    {%- endfor -%}
    {{- '<turn|>\\n' -}}
{%- endif -%}
{%- set turn = namespace(answering=false) -%}
{%- set called = namespace(name='unknown') -%}
{%- for message in (messages[1:] if instructed else messages) -%}
    {%- if message['role'] == 'tool' -%}
        {%- set called.name = message['name'] | default('unknown') -%}
        {%- for call in messages | map(attribute='tool_calls') | select | sum(start=[]) -%}
            {%- if call['id'] is defined and call['id'] == message['tool_call_id'] -%}
                {%- set called.name = call['function']['name'] -%}
            {%- endif -%}
        {%- endfor -%}
        {{- '<|tool_response>response:' + called.name + '{value:' -}}
        {{- value(message['content']) -}}{{- '}<tool_response|>' -}}
    {%- else -%}
        {%- if not turn.answering -%}
            {{- '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
        {%- endif -%}
        {{- (message['content'] or '') | trim -}}
        {%- for call in message['tool_calls'] or [] -%}
            {{- '<|tool_call>call:' + call['function']['name'] + '{' -}}
            {{- entries(call['function']['arguments']) -}}{{- '}<tool_call|>' -}}
        {%- endfor -%}
        {%- set turn.answering = message['tool_calls'] | default(none) is not none -%}
        {%- if not turn.answering -%}
            {{- '<turn|>\\n' -}}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not turn.answering -%}
    {{- '<|turn>model\\n' -}}
    {%- if not thinking -%}
        {{- '<|channel>thought\\n<channel|>' -}}
    {%- endif -%}
{%- endif -%}
"""


def gemma_tokenizer(*, vocab_size: int = 400) -> Tokenizer:
    """BPE over "▁" for space, unknown characters as byte tokens; no prefix space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    _train(tokenizer, vocab_size, [*SPECIAL_TOKENS, *BYTE_TOKENS])
    return _as_vocabulary(
        tokenizer, decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    )


def llama_tokenizer(*, vocab_size: int = 400) -> Tokenizer:
    """Gemma's style, but a text gets a space in front, which decoding strips again."""
    tokenizer = gemma_tokenizer(vocab_size=vocab_size)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def metaspace_tokenizer(*, vocab_size: int = 400) -> Tokenizer:
    """Gemma's vocabulary under a Metaspace pre-tokenizer and decoder."""
    tokenizer = gemma_tokenizer(vocab_size=vocab_size)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def byte_level_tokenizer(*, vocab_size: int = 400) -> Tokenizer:
    """BPE over bytes, as GPT-2 has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, vocab_size, list(SPECIAL_TOKENS))
    return tokenizer


def thinking_tokenizer(make: Callable[..., Tokenizer] = gemma_tokenizer, *, vocab_size: int = 400) -> Tokenizer:
    """One of the above, of as many tokens, that has Gemma 4's control tokens for thoughts and tools, too."""
    tokenizer = make(vocab_size=vocab_size - len(THINKING_TOKENS))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in THINKING_TOKENS])
    return tokenizer


def spelled_ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    """The ids of a text in which control tokens are spelled out."""
    ids: list[int] = []
    names = {tokenizer.token_text(token): token for token in tokenizer.special_ids}
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    for piece in re.split(f"({pattern})", text):
        ids += [names[piece]] if piece in names else tokenizer.encode(piece)
    return ids


def save_checkpoint(folder: Path, tokenizer: Tokenizer, *, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Writes tokenizer.json and tokenizer_config.json, the template inside the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, **NAMED_TOKENS}
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _train(tokenizer: Tokenizer, vocab_size: int, special_tokens: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        if isinstance(tokenizer.decoder, decoders.ByteLevel)
        else [],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)


def _as_vocabulary(tokenizer: Tokenizer, decoder: decoders.Decoder) -> Tokenizer:
    """The same model with only the control tokens added: the trainer adds the byte tokens as special ones, too."""
    fresh = Tokenizer(tokenizer.model)
    fresh.normalizer, fresh.pre_tokenizer, fresh.decoder = tokenizer.normalizer, tokenizer.pre_tokenizer, decoder
    fresh.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    return fresh
