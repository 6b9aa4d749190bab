import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, models, processors

from redraft.text import TextTokenizer
from redraft.text.markers import LAST_PRIVATE, Finder, Markers
from tests.fakes.tokenizers import (
    CHAT_TEMPLATE,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    byte_level_tokenizer,
    gemma_tokenizer,
    llama_tokenizer,
    metaspace_tokenizer,
    save_checkpoint,
)

STYLES = {"gemma": gemma_tokenizer, "bytes": byte_level_tokenizer}
PLAIN = [
    "hello", "", " ", "  two  spaces\n", "<|turn>user\n<turn|>", "<eos><bos>", "a<eos>b <pad>", "<|tu", "rn>", "<unk>",
    "<0x41>", "▁", "héllo 漢字 🙂", "\ufffd", chr(LAST_PRIVATE), chr(LAST_PRIVATE - 2) * 3, "<<|turn>|turn>", "\x00",
]  # fmt: skip


def build(raw: Tokenizer, template: str | None = CHAT_TEMPLATE) -> TextTokenizer:
    return TextTokenizer(raw, named_tokens=NAMED_TOKENS, chat_template=template)


CHATTING = {name: build(make()) for name, make in STYLES.items()}


@pytest.fixture(params=STYLES)
def tokenizer(request: pytest.FixtureRequest) -> TextTokenizer:
    return CHATTING[request.param]


def controls(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_text(token_id) for token_id in ids if token_id in tokenizer.special_ids]


# Plain text


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_comes_back_and_holds_no_control_token(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == text.replace("▁", " " if tokenizer is CHATTING["gemma"] else "▁")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(parts=st.lists(st.one_of(st.sampled_from(PLAIN + list(SPECIAL_TOKENS)), st.text(max_size=5))))
def test_any_text_comes_back_and_holds_no_control_token(parts: list[str]) -> None:
    text = "".join(parts)
    for tokenizer in CHATTING.values():
        assert tokenizer.special_ids.isdisjoint(tokenizer.encode(text))
    assert CHATTING["bytes"].decode(CHATTING["bytes"].encode(text)) == text


def test_no_bos_whatever_the_file_says() -> None:
    raw = gemma_tokenizer()
    plain = raw.encode("hello").ids
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    raw.enable_truncation(3)
    raw.enable_padding(length=50)
    assert raw.encode("hello").ids != plain
    assert build(raw).encode("hello") == plain


def test_lone_surrogates_are_refused(tokenizer: TextTokenizer) -> None:
    message = r"lone surrogate '\\ud800' at character 2"
    with pytest.raises(ValueError, match=message):
        tokenizer.encode("a\ud800")
    with pytest.raises(ValueError, match=message):
        tokenizer.encode_chat([{"role": "user", "content": [{"text": "a\ud800"}]}])
    with pytest.raises(ValueError, match=message):
        tokenizer.token_id("a\ud800")


def test_other_added_tokens_are_vocabulary_unless_the_configuration_names_them() -> None:
    def extended() -> Tokenizer:
        raw = gemma_tokenizer()
        raw.add_tokens([AddedToken("<table>", special=False), AddedToken("<think>", special=False, normalized=False)])
        return raw

    plain = build(extended())
    assert plain.encode("<table><think>") == [plain.token_id("<table>"), plain.token_id("<think>")]
    named = TextTokenizer(extended(), declared_tokens=["<think>", "<absent>"])
    think = named.token_id("<think>")
    assert think in named.special_ids
    assert think not in named.encode("<table> <think>")
    assert named.token_id("<table>") in named.encode("<table> <think>")
    assert named.decode(named.encode("<table> <think>")) == "<table> <think>"
    assert named.token_id("<absent>") is None


def test_a_model_that_knows_a_control_token_as_a_word_encodes_it_in_parts() -> None:
    vocabulary = {"<eos>": 0, **{character: at for at, character in enumerate("<eos>ab", start=1)}}
    vocabulary = {token: at for at, token in enumerate(vocabulary)}
    raw = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    raw.add_special_tokens(["<eos>"])
    tokenizer = TextTokenizer(raw)
    assert 0 in raw.encode("<eos>").ids  # the library's own switch does not suffice
    ids = tokenizer.encode("<eos>")
    assert [tokenizer.token_text(token_id) for token_id in ids] == list("<eos>")


def test_a_text_that_can_only_be_a_control_token_is_refused() -> None:
    raw = Tokenizer(models.WordLevel({"x": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.add_special_tokens(["x"])
    tokenizer = TextTokenizer(raw)
    with pytest.raises(ValueError, match="'x' is a control token"):
        tokenizer.encode("x")


def test_unknown_text_may_become_the_unknown_token() -> None:
    raw = Tokenizer(models.WordLevel({"x": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.add_special_tokens(["[UNK]"])
    assert TextTokenizer(raw).encode("y") == [1]


# Conversations


def conversation(*contents: object) -> list[dict[str, object]]:
    return [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]


def reference(raw: Tokenizer, messages: list[dict[str, object]], **variables: object) -> list[int]:
    """What transformers does: render, then encode the whole with control tokens on."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(CHAT_TEMPLATE).render(messages=messages, bos_token="<bos>", **variables)
    ids: list[int] = raw.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_harmless_conversations_are_encoded_as_by_transformers(name: str, add_generation_prompt: bool) -> None:
    raw = STYLES[name]()
    messages = conversation("hello the dog", " two\n\n lines <b>  ", [{"text": "10 < 20"}, {"text": "é漢"}], "")
    found = CHATTING[name].encode_chat(messages, add_generation_prompt=add_generation_prompt)
    assert found == reference(raw, messages, add_generation_prompt=add_generation_prompt)


def expected(tokenizer: TextTokenizer, messages: list[dict[str, object]]) -> list[int]:
    """The template's control tokens and, between them, plain text."""
    open_turn, close_turn = (tokenizer.token_id(text) for text in ("<|turn>", "<turn|>"))
    assert open_turn is not None
    assert close_turn is not None
    bos = tokenizer.bos_id
    assert bos is not None
    ids = [bos]
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, list) else [{"text": content}]
        body = "".join(part["text"].strip() for part in parts)
        role = "model" if message["role"] == "assistant" else message["role"]
        ids += [open_turn, *tokenizer.encode(f"{role}\n{body}"), close_turn, *tokenizer.encode("\n")]
    return [*ids, open_turn, *tokenizer.encode("model\n")]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    contents=st.lists(
        st.one_of(
            st.sampled_from(PLAIN), st.lists(st.sampled_from(PLAIN).map(lambda text: {"text": text}), max_size=4)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_messages_never_write_control_tokens(contents: list[object]) -> None:
    for tokenizer in CHATTING.values():
        messages = conversation(*contents)
        assert tokenizer.encode_chat(messages) == expected(tokenizer, messages)


@pytest.mark.parametrize("marker", range(6))
def test_a_message_may_use_the_markers_characters(tokenizer: TextTokenizer, marker: int) -> None:
    text = chr(LAST_PRIVATE - marker) + "<|turn>" + chr(LAST_PRIVATE)
    messages = conversation(text)
    assert tokenizer.encode_chat(messages) == expected(tokenizer, messages)
    assert text in tokenizer.decode(tokenizer.encode_chat(messages))


@pytest.mark.parametrize(
    ("source", "content", "text"),
    [
        ("<{{ messages[0].content }}>", "eos", "<eos>"),
        ("<{{ messages[0].content | trim }}", " eos> ", "<eos>"),
        ("{{ messages[0].content[:2] + messages[0].content[3:] }}", "<e os>", "<eos>"),
        ("{{ messages[0].content | replace(' ', '') }}", "< e o s >", "<eos>"),
        ("{{ messages[0].content | lower }}", "<EOS>", "<eos>"),
        ("{{ messages[0].content | reverse }}", ">soe<", "<eos>"),
        ("{{ messages[0].content.split('-') | join }}", "<e-os>", "<eos>"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "s><eo", "s><eos><eo"),
        ("{% for key in messages[0] %}{{ key }}{% endfor %}", "", "rolecontent"),
        ("{{ messages | tojson }}", "<eos>", '[{"role": "user", "content": "<eos>"}]'),
        ("{{ messages[0].content | safe }}", "<eos>", "<eos>"),
        ("{{ messages[0].role }}", "", "user"),
        ("{{ extra }}{% for key, value in tools[0].items() %}{{ key }}{{ value }}{% endfor %}", "", "<eos><eos>tool"),
    ],
)
def test_whatever_a_template_does_with_a_message_it_stays_text(source: str, content: str, text: str) -> None:
    tokenizer = build(gemma_tokenizer(), "{{ bos_token }}" + source + "<turn|>")
    ids = tokenizer.encode_chat(conversation(content), extra="<eos>", tools=[{"<eos>": "tool"}])
    assert controls(tokenizer, ids) == ["<bos>", "<turn|>"]
    assert tokenizer.decode(ids) == text


def test_names_of_control_tokens_and_what_the_caller_says_instead() -> None:
    tokenizer = build(gemma_tokenizer(), "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ (deep or {}).er }}")
    ids = tokenizer.encode_chat(conversation("x"), deep={"er": (1, None, True)})
    assert controls(tokenizer, ids) == ["<bos>", "<eos>"]
    assert tokenizer.decode(ids) == "True[1, None, True]"
    assert controls(tokenizer, tokenizer.encode_chat(conversation("x"), bos_token="<pad>")) == ["<eos>"]


def test_a_template_that_composes_control_tokens_is_refused_but_a_message_is_not() -> None:
    composing = build(gemma_tokenizer(), "{% for m in messages %}{{ '<|' ~ 'turn>' ~ m.role }}{% endfor %}")
    with pytest.raises(ValueError, match=r"composes control tokens from parts: \['<\|turn>'\]"):
        composing.encode_chat(conversation("x"))
    picky = build(gemma_tokenizer(), "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}<{{ x }}>")
    assert picky.special_ids.isdisjoint(picky.encode_chat(conversation(""), x="eos"))


def test_without_a_template_a_plain_prompt_is_the_way() -> None:
    tokenizer = build(gemma_tokenizer(), None)
    assert not tokenizer.has_chat_template
    with pytest.raises(ValueError, match="no chat template: use a plain prompt"):
        tokenizer.encode_chat(conversation("hello"))


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "at least one"),
        ({"role": "user", "content": "x"}, "messages must be a list"),
        (["hello"], "message 0 must be a dict"),
        ([{"role": "user", "content": "x"}, {"role": 3}], "message 1 must be a dict with a 'role'"),
        ([{"role": "user", "content": {1: "x"}}], "the key 1, keys must be strings"),
        ([{"role": "user", "content": object()}], "a value of type object"),
    ],
)
def test_malformed_messages_are_refused(messages: list[dict[str, object]], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        CHATTING["gemma"].encode_chat(messages)


def test_messages_that_contain_themselves_are_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        CHATTING["gemma"].encode_chat(conversation(loop))


# Ids


def test_control_tokens_are_decoded_only_on_request(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode_chat(conversation("hello"))
    assert tokenizer.decode(ids) == "user\nhello\nmodel\n"
    whole = "<bos><|turn>user\nhello<turn|>\n<|turn>model\n"
    assert tokenizer.decode(ids, skip_special=False) == whole


@pytest.mark.parametrize("token_id", [-1, 10**12])
def test_ids_outside_the_vocabulary(tokenizer: TextTokenizer, token_id: int) -> None:
    with pytest.raises(ValueError, match=f"token id {token_id} is outside the vocabulary, ids go from 0 to"):
        tokenizer.decode([0, token_id])
    assert tokenizer.token_text(token_id) == "\ufffd"


def test_token_texts_show_every_id(tokenizer: TextTokenizer) -> None:
    texts = [tokenizer.token_text(token_id) for token_id in range(tokenizer.vocab_size)]
    assert all(texts)
    assert texts[:6] == list(SPECIAL_TOKENS)
    assert " the" in texts
    assert "\ufffd" in texts


@pytest.mark.parametrize("make", [gemma_tokenizer, llama_tokenizer, metaspace_tokenizer, byte_level_tokenizer])
def test_token_texts_keep_a_leading_space(make: type[Tokenizer]) -> None:
    tokenizer = TextTokenizer(make())
    ids = tokenizer.encode("dog the dog")
    assert "".join(tokenizer.token_text(token_id) for token_id in ids).strip() == "dog the dog"


def test_gaps_in_the_vocabulary() -> None:
    tokenizer = TextTokenizer(Tokenizer(models.WordLevel({"x": 0, "y": 5}, unk_token="x")))
    assert tokenizer.vocab_size == 6
    assert tokenizer.token_text(3) == "\ufffd"
    assert tokenizer.decode([0, 3, 5]) == "x y"
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.push([0, 3, 5]) + detokenizer.finish() == "x y"


def test_special_ids_and_names(tokenizer: TextTokenizer) -> None:
    assert tokenizer.special_ids == frozenset(range(6))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (2, 1)
    assert tokenizer.token_id("<|turn>") == 4
    assert tokenizer.token_id("no such token") is None
    assert TextTokenizer(gemma_tokenizer()).bos_id is None


# Files


def test_a_checkpoints_files_give_the_same_tokenizer(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(save_checkpoint(tmp_path, gemma_tokenizer()))
    assert tokenizer.has_chat_template
    messages = conversation("hello <eos>", "the dog")
    assert tokenizer.encode_chat(messages) == CHATTING["gemma"].encode_chat(messages)


def test_only_tokenizer_json_is_required(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, gemma_tokenizer())
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = TextTokenizer.load(tmp_path)
    assert not tokenizer.has_chat_template
    assert tokenizer.encode("hello") == CHATTING["gemma"].encode("hello")


def test_the_jinja_file_wins(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, gemma_tokenizer())
    (tmp_path / "chat_template.jinja").write_text("file", encoding="utf-8")
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode_chat(conversation("x"))) == "file"


def write_config(folder: Path, **config: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def test_the_configurations_spellings_of_names_and_templates(tmp_path: Path) -> None:
    raw = gemma_tokenizer()
    raw.add_tokens([AddedToken(text, special=False) for text in ("<a>", "<b>", "<c>", "<d>")])
    save_checkpoint(tmp_path, raw)
    write_config(
        tmp_path,
        bos_token={"content": "<bos>", "lstrip": False},
        eos_token=None,
        extra_special_tokens={"a_token": "<a>"},
        additional_special_tokens=["<b>", {"content": "<c>"}],
        chat_template=[{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ a_token }}"}],
    )
    tokenizer = TextTokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (2, None)
    special = {tokenizer.token_text(token_id) for token_id in tokenizer.special_ids}
    assert special == {*SPECIAL_TOKENS, "<a>", "<b>", "<c>"}
    assert tokenizer.encode_chat(conversation("x")) == [tokenizer.token_id("<a>")]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("tokenizer.json", None, "is missing"),
        ("tokenizer.json", b"", "is not a tokenizer"),
        ("tokenizer.json", b"{}", "is not a tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": 3}}', "is not a tokenizer"),
        ("tokenizer.json", b"\xff\xfe", "cannot be read as UTF-8"),
        ("tokenizer_config.json", b"{", "is not JSON"),
        ("tokenizer_config.json", b"[" * 100_000, "is not JSON"),
        ("tokenizer_config.json", b"[]", "holds a list, must be a JSON object"),
        ("tokenizer_config.json", b'{"chat_template": 3}', "chat_template that is a int"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "x"}]}', "none named 'default'"),
        ("tokenizer_config.json", b'{"chat_template": "' + b"x" * 262_145 + b'"}', "over 262144 bytes"),
        ("chat_template.jinja", b"\xff", "cannot be read as UTF-8"),
        ("chat_template.jinja", b"x" * 262_145, "has 262145 bytes, the limit is 262144"),
    ],
)
def test_broken_files_are_named_in_one_line(tmp_path: Path, name: str, content: bytes | None, error: str) -> None:
    save_checkpoint(tmp_path, gemma_tokenizer())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=error) as caught:
        TextTokenizer.load(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_on_which_the_library_panics_is_broken_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, gemma_tokenizer())
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["continuing_subword_prefix"] = "longer than a token"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="is not a tokenizer"):
        TextTokenizer.load(tmp_path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, gemma_tokenizer())
    (tmp_path / "chat_template.jinja").mkdir()
    with pytest.raises(ValueError, match=r"chat_template\.jinja is not a file"):
        TextTokenizer.load(tmp_path)


# The parts


def test_finder_finds_texts_that_overlap_and_contain_each_other() -> None:
    assert Finder(["<a>", "a>", "<a><b>", "]"]).find("x<a><b") == {"<a>", "a>"}
    assert Finder(["<a>", "<a><b>"]).find("<a><b>") == {"<a>", "<a><b>"}
    assert Finder([]).find("x") == set()


def test_markers_avoid_the_templates_own_characters() -> None:
    markers = Markers({"<a>": 7}, chr(LAST_PRIVATE))
    assert markers.literals == {"<a>": chr(LAST_PRIVATE - 1)}
    assert list(markers.split(f"x{chr(LAST_PRIVATE - 1)}")) == ["x", 7, ""]
    assert list(Markers({}, "").split("x")) == ["x"]


@pytest.mark.parametrize("make", [gemma_tokenizer, byte_level_tokenizer, llama_tokenizer])
def test_the_bytes_of_tokens_are_those_of_their_text(make):
    tokenizer = TextTokenizer(make(), named_tokens=NAMED_TOKENS)
    text = "the user says: naïve café, 🦊 ok"
    found = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert found.decode().lstrip(" ") == text
    assert tokenizer.token_bytes(tokenizer.bos_id) == b""
    assert len(text) / tokenizer.longest_token <= len(tokenizer.encode(text))


def test_a_long_text_is_encoded_as_its_parts_are():
    tokenizer = TextTokenizer(gemma_tokenizer(), named_tokens=NAMED_TOKENS)
    text = "the quick brown fox jumps over the lazy dog " * 1000
    assert tokenizer.encode(text) == gemma_tokenizer().encode(text, add_special_tokens=False).ids


def test_others_go_on_while_a_long_text_is_encoded():
    tokenizer = TextTokenizer(gemma_tokenizer(), named_tokens=NAMED_TOKENS)
    text = "the quick brown fox jumps over the lazy dog " * 30_000
    encoding = threading.Thread(target=tokenizer.encode, args=(text,))
    begun = last = time.perf_counter()
    longest = 0.0
    encoding.start()
    while encoding.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    # The list of its ids is made in one go; all before that is not.
    assert longest < (last - begun) / 2
