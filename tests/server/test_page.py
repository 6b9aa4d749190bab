"""The playground in a real browser: against a server that answers from a script, and against ours."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.server.page_server import HOSTILE, JSON_WORDS, LENGTH, SCRIPT, WARNING, FakeServer, serving, words_of

Open = Callable[..., Page]
FINISHED = "Answer"
WAIT_MS = 20_000  # a machine that trains meanwhile is slow now and then
# What is shown for a moment only is collected, not waited for.
WATCHING = """addEventListener("DOMContentLoaded", () => {
    window.seen = []
    const watched = document.querySelector("WATCHED")
    new MutationObserver(() => window.seen.push(watched.textContent))
        .observe(watched, {childList: true, subtree: true})
})"""
ROOT = Path(__file__).parents[2]
PROMPT = "Extract name, date, amount as JSON: Hi, this is Ana Kovacs. I paid 42,50 EUR on 3 March 2024."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # The headless shell takes half the processor time of the whole browser.
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        assert "CI" not in os.environ, "no chromium on this machine: install it, the page must be tested"
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def bundled() -> Iterator[str]:
    """The address of our own server with the bundled model."""
    command = [str(Path(sys.executable).parent / "redraft"), "serve", "bundled", "--port", "0"]
    # One thread: on a busy machine two wait for each other longer than a tiny model's step takes.
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None
        yield f"{address[0]}/"
        process.terminate()
        process.stdout.read()
    assert process.returncode == 0


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens an address; afterwards nothing must have been complained about or asked of another server."""
    contexts, complaints = [], []

    def visit(
        address: str, *, prompt: str | None = None, fails: bool = False, watch: str = "", **options: object
    ) -> Page:
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        if watch:
            page.add_init_script(WATCHING.replace("WATCHED", watch))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # A failed request is written to the console by the browser itself.
        page.on(
            "console",
            lambda message: (
                None if fails and "Failed to load resource" in message.text else complaints.append(message.text)
            ),
        )
        origin = address.split("#")[0]
        page.on("request", lambda request: request.url.startswith(origin) or complaints.append(request.url))
        page.goto(address)
        if prompt is not None:
            expect(page.locator("#model")).to_have_text(re.compile("^model "))
            page.fill("#prompt", prompt)
            page.select_option("#pace", "0")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def generate(page: Page) -> None:
    page.click("#generate")
    expect(page.locator("#diffusion .answer-title")).to_have_text(FINISHED)


def skip_replay(page: Page) -> None:
    """Shows the end of both; does nothing where the replay is over."""
    expect(page.locator("#replay")).to_be_visible()
    page.locator("#stop").evaluate("stop => stop.click()")
    expect(page.locator("#stop")).to_be_disabled()


def states(page: Page, where: str = "#diffusion") -> list[str]:
    return page.locator(f"{where} .cell").evaluate_all("cells => cells.map(cell => cell.dataset.state)")


def test_the_page_shows_what_the_model_is_for_and_its_defaults(server: FakeServer, visit: Open):
    page = visit(server.address)
    expect(page.locator("#purpose")).to_have_text("Speaks the contract.")
    expect(page.locator("#limits")).to_have_text("It is no model.")
    expect(page.locator("#prompt")).to_have_value("one")
    expect(page.locator("[name=steps]")).to_have_attribute("placeholder", "48")
    expect(page.locator("#diffusion .cell")).to_have_count(LENGTH)
    assert server.requests == []


def test_examples_have_names_and_the_known_fields_are_listed(server: FakeServer, visit: Open):
    page = visit(server.address)
    expect(page.locator("#examples button").first).to_have_text("first")
    page.click("#known summary")
    expect(page.locator("#known dt").first).to_have_text("order")
    expect(page.locator("#known dd").first).to_have_text("name, date")


def test_json_is_laid_out_and_what_follows_its_end_is_folded(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="json")
    generate(page)
    answer = page.locator("#diffusion .answer")
    assert answer.text_content() == "".join(JSON_WORDS)
    lines = ["{", '"a": "x, {y}",', '"b": [', '"1",', "{}", "]", "}"]
    assert [line.strip() for line in answer.locator(".line").all_text_contents()] == lines
    cells = page.locator("#diffusion .cell:visible")
    expect(cells).to_have_count(len(JSON_WORDS) + 1)
    expect(cells.last).to_have_text("<eos>")
    cells.first.focus()
    page.keyboard.press("End")
    expect(page.locator("#details")).to_contain_text("Position 5 of")
    expect(page.locator("#diffusion .unfold")).to_have_text("11 more after the end")
    page.click("#diffusion .unfold")
    expect(cells).to_have_count(LENGTH)
    assert cells.all_text_contents().count("<eos>") == 1


@pytest.mark.parametrize("width", [375, 1280])
def test_warnings_stand_beside_the_answer(server: FakeServer, visit: Open, width: int):
    page = visit(server.address, prompt="json", viewport={"width": width, "height": 812})
    generate(page)
    expect(page.locator("[role=status] #warnings li")).to_have_text([WARNING])
    box = page.locator("#warnings").bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= width
    page.fill("#prompt", "hello")
    generate(page)
    expect(page.locator("#warnings")).to_be_hidden()


@pytest.mark.parametrize("width", [375, 1280])
def test_the_answer_and_each_value_have_a_mark(server: FakeServer, visit: Open, width: int):
    page = visit(server.address, prompt="json", viewport={"width": width, "height": 812})
    expect(page.locator("#trust")).to_be_hidden()
    generate(page)
    expect(page.locator("#trust p.doubt")).to_have_text("Right with a probability of 42 %.")
    items = page.locator("#trust li")
    expect(items).to_have_text(["items.0 · in the text · 99 %", "city · not in the text · 96 %"])
    expect(page.locator("#trust li.doubt")).to_have_text(["city · not in the text · 96 %"])
    box = page.locator("#trust").bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= width
    page.fill("#prompt", "hello")
    generate(page)
    expect(page.locator("#trust")).to_be_hidden()


def test_an_answer_is_copied_and_its_request_written_as_a_program(server: FakeServer, visit: Open):
    prompt = """It's "ünï" $HOME\n\\"""
    page = visit(server.address, prompt=prompt, permissions=["clipboard-read", "clipboard-write"])
    page.click("summary")
    page.fill("[name=steps]", "12")
    page.fill("[name=seed]", "7")
    generate(page)
    page.click("#copy")
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#diffusion .answer").text_content()

    page.click("#as-curl")
    expect(page.locator("#code")).to_contain_text("curl")
    command = shlex.split(page.locator("#code").text_content() or "")
    assert command[:2] == ["curl", f"{server.address}v1/chat/completions"]
    messages = [{"role": "user", "content": prompt}]
    assert json.loads(command[-1]) == {
        "model": "fake",
        "messages": messages,
        "seed": 7,
        "canvas": {"mode": "diffusion", "steps": 12},
    }

    page.click("#as-python")
    expect(page.locator("#code")).to_contain_text("OpenAI")
    (call,) = re.findall(r"create\((.*?)^\)", page.locator("#code").text_content() or "", re.DOTALL | re.MULTILINE)
    given = {
        "model": "fake",
        "messages": messages,
        "seed": 7,
        "extra_body": {"canvas": {"mode": "diffusion", "steps": 12}},
    }
    assert eval(f"dict({call})") == given


def test_an_answer_is_played_again(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello", watch="#step-text")
    expect(page.locator("#play")).to_be_disabled()
    generate(page)
    page.evaluate("window.seen = []")
    page.click("#play")
    expect(page.locator("#play")).to_have_text("Pause")
    expect(page.locator("#play")).to_have_text("Play")
    expect(page.locator("#diffusion .answer-title")).to_have_text(FINISHED)
    assert page.evaluate("window.seen") == [f"canvas 1, step {step} of 4" for step in range(1, 5)]
    page.locator("#play").evaluate("play => { play.click(); play.click() }")
    expect(page.locator("#play")).to_have_text("Play")
    expect(page.locator("#step-text")).to_have_text("canvas 1, step 1 of 4")
    expect(page.locator("#diffusion .answer-title")).to_contain_text("Draft")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("steps", "4097", "steps must be a whole number, at least 1 and at most 4096."),
        ("steps", "1.5", "steps must be a whole number"),
        ("temperature", "-1", "temperature must be a number, at least 0 and at most 2."),
        ("max_tokens", "2049", "at most 2048"),
    ],
)
def test_a_field_is_checked_before_it_is_sent(server: FakeServer, visit: Open, name: str, value: str, limits: str):
    page = visit(server.address, prompt="hello")
    page.click("summary")
    field = page.locator(f"[name={name}]")
    field.fill(value)
    field.blur()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#notice")).to_contain_text(limits)
    page.click("#generate")
    expect(field).to_be_focused()
    field.fill("")
    field.blur()
    expect(page.locator("#notice")).to_be_hidden()
    assert server.requests == []


def test_an_empty_prompt_is_not_sent_and_a_long_one_is_seen_whole(server: FakeServer, visit: Open):
    page = visit(server.address, prompt=" ")
    page.click("#generate")
    expect(page.locator("#notice")).to_contain_text("The prompt is empty")
    expect(page.locator("#prompt")).to_be_focused()
    assert server.requests == []
    page.fill("#prompt", "line\n" * 8)
    assert page.locator("#prompt").evaluate("box => box.scrollHeight - box.clientHeight") == 0


def test_only_settings_that_were_set_are_sent(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello")
    page.click("summary")
    page.fill("[name=steps]", "12")
    page.fill("[name=temperature]", "0.5")
    page.fill("[name=seed]", "7")
    generate(page)
    (sent,) = server.requests
    assert sent["canvas"] == {"mode": "diffusion", "steps": 12, "stream_drafts": True, "alternatives": 5}
    assert (sent["temperature"], sent["seed"]) == (0.5, 7)
    assert "max_tokens" not in sent


def test_the_answer_is_what_the_server_committed(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="long")
    generate(page)
    assert [request["messages"][0]["content"] for request in server.requests] == ["long"]
    assert page.locator("#diffusion .answer").text_content() == "".join("".join(words_of("", c)[:10]) for c in range(3))
    assert page.locator("#diffusion .before").text_content() == "".join("".join(words_of("", c)[:10]) for c in range(2))
    expect(page.locator("#diffusion .figures")).to_contain_text("12 (4 + 4 + 4)")
    expect(page.locator("#status")).to_contain_text("30 tokens in 12 steps")
    assert states(page) == ["settled"] * 10 + ["beyond"] * 6


def test_noise_changes_and_tokens_settle_while_one_watches(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello")
    page.select_option("#pace", "4")
    page.evaluate("""() => {
        window.seen = []
        const cells = () => [...document.querySelectorAll("#diffusion .cell")]
        new MutationObserver(() => window.seen.push(cells().map(cell => [cell.dataset.state, cell.textContent])))
            .observe(document.querySelector("#diffusion .clock"), {childList: true})
    }""")
    generate(page)
    seen = page.evaluate("window.seen")
    assert seen[0] == [["blank", ""]] * LENGTH
    steps = [frame for n, frame in enumerate(seen[1:]) if frame != seen[n]]
    assert [[state for state, _ in frame].count("noise") for frame in steps] == [12, 8, 4, 0]
    assert [[state for state, _ in frame].count("accepted") for frame in steps[:3]] == [4, 4, 4]
    assert [[state for state, _ in frame].count("settled") for frame in steps] == [0, 4, 8, 10]
    assert steps[0][15][1] != steps[1][15][1]


def test_stop_ends_the_request_and_what_came_can_be_scrubbed(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="slow")
    page.click("#generate")
    expect(page.locator("#step-text")).to_contain_text("step 2")
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped after")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#generate")).to_be_focused()
    assert server.aborted.wait(30)
    expect(page.locator("#diffusion .answer")).to_contain_text("w00 w01")
    page.press("#step", "Home")
    expect(page.locator("#step-text")).to_contain_text("step 1 of")
    assert states(page).count("noise") == 12


def test_the_slider_goes_through_all_steps_by_keyboard(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="long")
    generate(page)
    page.focus("#step")
    page.keyboard.press("Home")
    expect(page.locator("#step")).to_have_attribute("aria-valuetext", "canvas 1, step 1 of 4")
    expect(page.locator("#diffusion .answer-title")).to_contain_text("Draft")
    expect(page.locator("#accepted-now")).to_have_text(f"4 of {LENGTH}")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#step-text")).to_have_text("canvas 2, step 1 of 4")
    expect(page.locator("#diffusion .before")).to_have_text("".join(words_of("", 0)[:10]).strip())
    page.keyboard.press("End")
    expect(page.locator("#diffusion .answer-title")).to_have_text(FINISHED)


def test_a_token_tells_when_it_settled_and_what_else_could_stand_there(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello", viewport={"width": 700, "height": 900})  # 8 tokens in a row
    generate(page)
    assert page.locator("#diffusion .cell[tabindex='0']").count() == 1
    page.focus("#diffusion .cell[tabindex='0']")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    details = page.locator("#details")
    expect(details).to_contain_text(f"Position 6 of {LENGTH}")
    expect(details).to_contain_text("Settled at step 2.")
    expect(details).to_contain_text("entropy 0.001")
    expect(details.locator("li").first).to_contain_text("99.0 %")
    page.keyboard.press("ArrowDown")
    expect(details).to_contain_text("Position 14 of")
    page.keyboard.press("Home")
    expect(details).to_contain_text("Position 1 of")
    page.hover("#diffusion .cell:nth-child(10)")
    expect(details).to_contain_text("Settled at step 3.")
    page.press("#step", "Home")
    expect(details).to_contain_text("At step 1: not accepted")


def test_three_ways_of_decoding_stand_side_by_side_with_their_clocks(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello")
    page.check("#compare")
    page.click("#generate")
    skip_replay(page)
    first, second, third = server.requests
    assert "seed" not in second
    assert first["canvas"]["mode"] == "diffusion"
    assert second["canvas"] == {"mode": "autoregressive"}
    assert third["canvas"] == {"mode": "verified", "stream_drafts": True}
    assert first["messages"] == second["messages"] == third["messages"]
    left, *_ = stages = [page.locator(f"#{name}") for name in ("diffusion", "autoregression", "verification")]
    assert len({stage.locator(".answer").text_content() for stage in stages}) == 1
    expect(page.locator("#replay")).to_contain_text("Verified drafts gave the answer of token by token.")
    clocks = [stage.locator(".clock").inner_text() for stage in stages]
    # What the server waits between the tokens, and within the rounds.
    for clock, least in zip(clocks, (0.02, 0.3, 0.18), strict=True):
        assert float(clock.removesuffix(" s")) >= least
    expect(page.locator("#replay")).to_contain_text("The later ones found 7 tokens of the prompt read already.")
    assert len({stage.bounding_box()["y"] for stage in stages}) == 1
    page.click("#replay-slow")
    page.press("#step", "Home")
    expect(page.locator("#stop")).to_be_disabled()
    expect(left.locator(".caption")).to_have_text("canvas 1, step 1 of 4")
    for stage in stages[1:]:
        expect(stage.locator(".answer-title")).to_have_text(FINISHED)
    # On a machine that is slow enough both are the same, and one is hidden.
    page.click("#replay-real" if page.locator("#replay-real").is_visible() else "#replay-slow")
    for stage, clock in zip(stages, clocks, strict=True):
        expect(stage.locator(".clock")).to_have_text(clock)
    assert len(server.requests) == 3


def test_a_replay_shows_what_was_written_by_then(server: FakeServer, visit: Open):
    view = """async (ms) => {
        const [{ Recording }, { tokensView }] = await Promise.all(
            ["recording", "stage"].map((name) => import(`/page/${name}.js`)))
        const made = Object.assign(new Recording(), {total: 5, ended: true})
        made.pieces = [{at: 1, text: "a"}, {at: 3, text: "b"}]
        return tokensView(made, ms, 4)
    }"""
    page = visit(server.address)
    found = [page.evaluate(view, ms) for ms in (0, 2, 5)]
    assert [(one["caption"], one["title"], one["text"], one["clock"]) for one in found] == [
        ("token 0", "Written so far", "", 0), ("token 1", "Written so far", "a", 2), ("token 2", FINISHED, "ab", 5),
    ]  # fmt: skip


def test_kept_free_and_rejected_tokens_are_seen_round_by_round(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello")
    page.check("#compare")
    page.click("#generate")
    skip_replay(page)
    assert states(page, "#verification") == ["kept"] * 3 + ["free"] + ["kept"] * 3 + ["free", "kept", "free"] + [
        "blank"
    ] * (LENGTH - 10)
    expect(page.locator("#verification .figures")).to_contain_text("causal passes")
    expect(page.locator("#verification .rounds li")).to_have_count(3)
    first = page.locator("#verification .rounds li").first.locator(".chip")
    kinds = first.evaluate_all("chips => chips.map(chip => chip.className.replace('chip ', ''))")
    assert kinds == ["kept"] * 3 + ["free", "rejected"]
    expect(first.last).to_have_text("wrong")
    page.hover("#verification .cell:nth-child(4)")
    expect(page.locator("#details")).to_contain_text("Token 4, round 1")
    expect(page.locator("#details")).to_contain_text("Free: the causal pass wrote it itself")
    # As it was within the answer: what the rejected token's place looked like, and the draft that came after it.
    at = "async (ms) => (await import('/page/recording.js')).verifiedCells(window.made, ms)"
    page.evaluate("""async () => {
        const { Recording } = await import('/page/recording.js')
        window.made = new Recording()
        const round = (at, kept, written, rejected) => window.made.rounds.push({at, kept, written, rejected})
        const draft = {tokens: ["x"], noisy: ["y"], accepted: [0], text: ""}
        window.made.frames.push({at: 1, canvas: 0, step: 1, before: "", draft})
        round(2, ["a"], ["b"], ["c"])
        window.made.frames.push({at: 3, canvas: 1, step: 1, before: "", draft})
        round(4, [], ["d"], [])
        window.made.total = 5
        window.made.ended = true
    }""")

    def shown(ms: int) -> str:
        found = page.evaluate(at, ms)
        return " ".join(f"{cell['text']}:{cell['state']}" for part in ("cells", "behind") for cell in found[part])

    assert [shown(ms) for ms in (0, 1, 2, 3, 5)] == [
        "", "y:noise", "a:kept b:free c:rejected", "a:kept b:free y:noise", "a:kept b:free d:free",
    ]  # fmt: skip
    view = "async (ms) => (await import('/page/stage.js')).verifiedView(window.made, ms, 4)"
    views = [page.evaluate(view, ms) for ms in (1, 3, 5)]
    assert [one["caption"] for one in views] == ["round 0", "round 1", "round 2"]
    assert [dict(one["figures"][:3]) for one in views] == [
        {"kept": kept, "free": free, "rejected": rejected}
        for kept, free, rejected in (("0", "0", "0"), ("1", "1", "1"), ("0", "1", "0"))
    ]


def test_a_link_holds_prompt_settings_and_seed_and_runs_nothing(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="Ünïcode & <b>#</b>\nsecond line")
    page.click("summary")
    page.fill("[name=entropy_bound]", "0.25")
    generate(page)
    page.check("#compare")
    page.click("#share")
    expect(page.locator("#shared")).not_to_be_empty()
    link, seed = page.url, server.requests[0]["seed"]
    assert page.input_value("#link") == link
    other = visit(link)
    expect(other.locator("#model")).to_have_text("model fake")
    expect(other.locator("#prompt")).to_have_value("Ünïcode & <b>#</b>\nsecond line")
    expect(other.locator("[name=entropy_bound]")).to_have_value("0.25")
    expect(other.locator("[name=seed]")).to_have_value(str(seed))
    expect(other.locator("#compare")).to_be_checked()
    assert len(server.requests) == 1


def test_the_link_is_copied_where_the_clipboard_is_open(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello", permissions=["clipboard-read", "clipboard-write"])
    page.click("#share")
    expect(page.locator("#shared")).to_contain_text("copied")
    expect(page.locator("#link-box")).to_be_hidden()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_a_strange_link_is_checked(server: FakeServer, visit: Open):
    page = visit(f"{server.address}#prompt=hi&steps=9999&t_min=abc&seed=5&{SCRIPT}=1&__proto__=1&temperature=1e9")
    expect(page.locator("#prompt")).to_have_value("hi")
    expect(page.locator("[name=seed]")).to_have_value("5")
    expect(page.locator("[name=steps]")).to_have_value("")
    for name in ("steps", "t_min", "temperature", SCRIPT):
        expect(page.locator("#shared")).to_contain_text(name)


def test_the_seed_that_was_drawn_can_be_kept(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="hello")
    generate(page)
    page.click("#keep-seed")
    assert page.input_value("[name=seed]") == str(server.requests[0]["seed"])


def test_an_example_is_one_click_away(server: FakeServer, visit: Open):
    page = visit(server.address)
    page.select_option("#pace", "0")
    page.click("#examples button:nth-child(2)")
    expect(page.locator("#diffusion .answer-title")).to_have_text(FINISHED)
    assert server.requests[0]["messages"] == [{"role": "user", "content": "two"}]


@pytest.mark.parametrize("prompt", ["hostile", SCRIPT])
def test_markup_from_a_model_stays_text(server: FakeServer, visit: Open, prompt: str):
    page = visit(server.address, prompt=prompt)
    page.check("#compare")
    page.click("#generate")
    skip_replay(page)
    page.hover("#diffusion .cell:nth-child(2)")
    expect(page.locator("#details")).to_contain_text((HOSTILE if prompt == "hostile" else SCRIPT).replace(" ", "·"))
    assert page.locator("#diffusion .answer").text_content() == "".join(words_of(prompt, 0)[:10])
    assert page.locator("img, body script, #details *:not(p, ol, li, span)").count() == 0
    expect(page.locator("#examples button").nth(2)).to_have_text(SCRIPT)
    assert page.locator("#known dd").nth(1).text_content() == SCRIPT


def test_the_policy_forbids_what_the_page_does_not_need(server: FakeServer, visit: Open):
    page = visit(server.address)
    assert page.locator("[style], [onclick], script:not([src]), style").count() == 0
    assert page.locator("script[src], link[href]").evaluate_all(
        "all => all.every(one => new URL(one.src || one.href).origin === location.origin)"
    )


def test_a_model_that_is_loading_is_waited_for(server: FakeServer, visit: Open):
    server.loading = 1
    page = visit(server.address, fails=True, watch="#notice")
    expect(page.locator("#model")).to_have_text("model fake")
    seen = " ".join(page.evaluate("window.seen"))
    assert "not ready yet: the model is loading" in seen
    assert "Trying again in 1 s" in seen
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("prompt", ["loading", "busy"])
def test_a_request_that_is_put_off_is_sent_again(server: FakeServer, visit: Open, prompt: str):
    page = visit(server.address, prompt=prompt, fails=True, watch="#notice")
    generate(page)
    seen = " ".join(page.evaluate("window.seen"))
    assert ("the model is loading" if prompt == "loading" else "128 requests are waiting") in seen
    assert "Trying again in 1 s" in seen
    assert len(server.requests) == 2


def test_waiting_can_be_stopped(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="full", fails=True)
    page.click("#generate")
    expect(page.locator("#countdown")).to_be_visible()
    page.click("#stop")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#notice")).to_be_hidden()
    assert len(server.requests) == 1


def test_the_field_that_was_refused_is_marked(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="refused", fails=True)
    page.click("#generate")
    expect(page.locator("#notice")).to_contain_text("must lie between 1 and 4096")
    steps = page.locator("[name=steps]")
    expect(steps).to_be_visible()
    expect(steps).to_be_focused()
    expect(steps).to_have_attribute("aria-invalid", "true")
    expect(steps).to_have_accessible_description("steps is 0, must lie between 1 and 4096")
    page.fill("#prompt", "hello")
    generate(page)
    expect(page.locator("[aria-invalid]")).to_have_count(0)


@pytest.mark.parametrize(
    ("prompt", "message"), [("broken", "connection broke off"), ("failing", "logits are not finite")]
)
def test_what_came_before_an_error_is_kept(server: FakeServer, visit: Open, prompt: str, message: str):
    page = visit(server.address, prompt=prompt)
    page.click("#generate")
    expect(page.locator("#notice")).to_contain_text(message)
    expect(page.locator("#status")).to_have_text("The answer is incomplete.")
    expect(page.locator("#diffusion .answer")).to_contain_text("w00 w01 w02")
    page.press("#step", "Home")
    expect(page.locator("#step-text")).to_contain_text("step 1 of 3")


def test_a_server_that_is_gone_is_reported_and_the_text_kept(visit: Open):
    with serving() as server:
        page = visit(server.address, prompt="hello", fails=True)
        generate(page)
        kept = page.locator("#diffusion .answer").text_content()
    page.click("#share")
    page.click("#generate")
    expect(page.locator("#notice")).to_contain_text("can't be reached")
    assert kept


def test_a_narrow_screen_scrolls_in_one_direction(server: FakeServer, visit: Open):
    page = visit(server.address, prompt="long", viewport={"width": 360, "height": 740})
    page.check("#compare")
    page.click("summary")
    page.click("#generate")
    expect(page.locator("#replay")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # Both at one moment: the page may still be scrolling.
    boxes = page.locator(".stage").evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")
    assert boxes[0]["bottom"] <= boxes[1]["top"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(server: FakeServer, visit: Open, scheme: str):
    page = visit(server.address, prompt="hello", color_scheme=scheme)
    generate(page)
    page.press("#step", "Home")
    page.press("#step", "ArrowRight")
    page.wait_for_timeout(250)  # until the cells' colours have changed over
    faint = page.evaluate("""() => {
        const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number)
        const light = (colour) => {
            const [r, g, b] = numbers(colour).map(c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
            return .2126 * r + .7152 * g + .0722 * b
        }
        const ground = (element) => {
            for (; element; element = element.parentElement) {
                const colour = getComputedStyle(element).backgroundColor
                if ((numbers(colour)[3] ?? 1) > 0) return colour
            }
        }
        return [...document.querySelectorAll("p, b, h2, h3, h4, label, .cell, dt, dd, button:enabled, summary")]
            .filter(element => element.textContent.trim() && element.checkVisibility())
            .map(element => {
                const [a, b] = [getComputedStyle(element).color, ground(element)].map(light)
                return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), element.className, element.textContent]
            })
            .filter(([ratio]) => ratio < 4.5)
    }""")
    assert faint == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 26)"
    assert dark == (scheme == "dark")


def test_whoever_wants_less_motion_gets_it_and_every_control_has_a_name(server: FakeServer, visit: Open):
    page = visit(server.address, reduced_motion="reduce")
    expect(page.locator("#pace")).to_have_value("1")
    expect(page.locator(".cell").first).to_have_css("transition-property", "none")

    unnamed = page.locator("input, select, textarea, button, [role=listbox], [role=img]").evaluate_all("""all => all
        .filter(one => !one.labels?.length && !one.getAttribute("aria-label") && !one.textContent.trim())
        .map(one => one.outerHTML)""")
    assert unnamed == []


def test_our_server_writes_what_the_page_shows(bundled: str, visit: Open):
    page = visit(bundled, prompt=PROMPT)
    page.click("summary")
    page.fill("[name=seed]", "1")
    generate(page)
    expect(page.locator("#seed-text")).to_have_text("Seed 1.")
    asked = {"model": "bundled", "messages": [{"role": "user", "content": PROMPT}], "seed": 1}
    asked["canvas"] = {"mode": "diffusion"}
    request = urllib.request.Request(
        f"{bundled}v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    assert page.locator("#diffusion .answer").text_content() == answer["choices"][0]["message"]["content"]
    expect(page.locator("#status")).to_contain_text(f"{answer['usage']['completion_tokens']} tokens in")
    expect(page.locator("#diffusion .figures")).to_contain_text(f"{answer['usage']['tokens_per_forward']:.2f}")
    page.hover("#diffusion .cell:nth-child(4)")
    expect(page.locator("#details .token").first).to_have_text("Ana")
    expect(page.locator("#details li")).to_have_count(5)
    page.press("#step", "Home")
    assert states(page).count("noise") > 5


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080), (375, 812)])
def test_the_answer_is_the_largest_and_the_canvas_on_the_first_screen(
    bundled: str, visit: Open, width: int, height: int
):
    page = visit(bundled, prompt=PROMPT, viewport={"width": width, "height": height})
    generate(page)
    # Both at one moment, and when the page has scrolled to them.
    answer, cells = page.evaluate(
        """async () => {
          for (let last; last !== scrollY; await new Promise((done) => setTimeout(done, 300))) last = scrollY;
          const boxOf = (kind) => document.querySelector(`#diffusion .${kind}`).getBoundingClientRect().toJSON();
          return ["answer", "cells"].map(boxOf);
        }"""
    )
    assert answer["y"] + answer["height"] <= cells["y"]
    assert answer["y"] >= 0
    assert cells["y"] + cells["height"] <= height
    if width > 1000:
        page.press("#step", "Home")
        page.evaluate("scrollTo(0, 0)")
        last = page.locator("#diffusion .cell").last.bounding_box()
        assert last["y"] + last["height"] <= height
    sizes = page.locator("body *").evaluate_all(
        "all => all.map(one => [parseFloat(getComputedStyle(one).fontSize), one.closest('.answer') !== null])"
    )
    assert max(size for size, _ in sizes) == max(size for size, is_answer in sizes if is_answer)
    assert max(size for size, is_answer in sizes if not is_answer) < max(size for size, _ in sizes)


def test_our_server_refuses_a_setting_and_the_page_marks_it(bundled: str, visit: Open):
    page = visit(bundled, prompt=PROMPT, fails=True)
    page.click("summary")
    page.fill("[name=steps]", "0")
    page.click("#generate")
    expect(page.locator("[name=steps]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#notice")).to_contain_text("steps")


def test_our_server_writes_token_by_token_beside_it(bundled: str, visit: Open):
    page = visit(bundled, prompt=PROMPT)
    page.check("#compare")
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("token by token")
    skip_replay(page)
    expect(page.locator("#autoregression .answer-title")).to_have_text(FINISHED)
    expect(page.locator("#autoregression .answer")).to_contain_text("Ana Kovacs")
    expect(page.locator("#autoregression .figures")).to_contain_text("1.00")
    answers = [page.locator(f"#{name} .answer").text_content() for name in ("autoregression", "verification")]
    assert answers[0] == answers[1]
    assert {"kept", "free"} <= set(states(page, "#verification"))


def test_our_server_can_be_stopped(bundled: str, visit: Open):
    page = visit(bundled, prompt=PROMPT)
    page.click("summary")
    page.fill("[name=steps]", "4096")
    for name in ("t_min", "t_max"):
        page.fill(f"[name={name}]", "50")  # so that it is never sure
    page.click("#generate")
    expect(page.locator("#step-text")).to_contain_text("at most 4096")
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped after")
    page.press("#step", "Home")
    expect(page.locator("#step-text")).to_contain_text("step 1 of")


def test_a_number_and_its_noun_agree(server: FakeServer, visit: Open):
    page = visit(server.address)
    counted = "async (n) => (await import('/page/stage.js')).counted(n, 'step')"
    assert [page.evaluate(counted, n) for n in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]


SELECT = """([from, to]) => {
    const answer = document.querySelector("#diffusion .answer")
    const walker = document.createTreeWalker(answer, NodeFilter.SHOW_TEXT)
    const at = (offset) => {
        walker.currentNode = answer
        for (let node; (node = walker.nextNode()); offset -= node.length) {
            if (offset <= node.length) return [node, offset]
        }
    }
    getSelection().setBaseAndExtent(...at(from), ...at(to))
}"""


def test_a_selected_part_of_the_answer_is_written_anew_and_nothing_else(bundled: str, visit: Open):
    # On a busy machine the first build takes longer than the server waits: the page asks again.
    page = visit(bundled, prompt=PROMPT, fails=True)
    expect(page.locator("#rewrite")).to_be_disabled()
    generate(page)
    answer = page.locator("#diffusion .answer")
    text = answer.text_content() or ""
    start = text.index("Ana")
    end = text.index('"', start)
    page.evaluate(SELECT, [start, end])
    expect(page.locator("#rewrite")).to_be_enabled()
    with page.expect_request("**/v1/chat/completions") as sent:
        page.click("#rewrite")
    body = json.loads(sent.value.post_data or "")
    assert body["canvas"]["pinned"] is True
    assert len(body["canvas"]["start"]) >= 2
    expect(page.locator("#diffusion .answer-title")).to_have_text(FINISHED)
    anew = answer.text_content() or ""
    assert (anew[:start], anew[len(anew) - len(text) + end :]) == (text[:start], text[end:])
    assert json.loads(anew)["name"] == "Ana Kovacs"
    expect(page.locator("#rewrite")).to_be_disabled()
    page.click("#as-python")
    expect(page.locator("#code")).to_contain_text('"structured_outputs":{"regex":')
    expect(page.locator("#code")).to_contain_text('"pinned":True')
    # A selection elsewhere is none of the answer's.
    page.locator("#honest").select_text()
    expect(page.locator("#rewrite")).to_be_disabled()


def test_values_are_linked_to_their_place_in_the_prompt(bundled: str, visit: Open):
    prompt = PROMPT.replace("Hi", "Hi \U0001f600")
    page = visit(bundled, prompt=prompt, fails=True)
    page.check("#hold")
    page.check("#grounded")
    page.fill("#schema", json.dumps({"properties": {name: {"type": "string"} for name in ("name", "date")}}))
    with page.expect_request("**/v1/chat/completions") as sent:
        generate(page)
    assert json.loads(sent.value.post_data or "")["grounded"] is True
    values = json.loads(page.locator("#diffusion .answer").text_content() or "")
    for name, value in values.items():
        page.click(f"#trust .link:text-is('{name}')")
        chosen = "const {value, selectionStart, selectionEnd} = document.querySelector('#prompt')"
        assert page.evaluate(f"() => {{ {chosen}; return value.slice(selectionStart, selectionEnd) }}") == value
    page.click("#as-python")
    expect(page.locator("#code")).to_contain_text('extra_body={"grounded":True,"canvas":{"mode":"diffusion"}}')
    expect(page.locator("#code")).to_contain_text('"strict":True')
    page.click("#share")
    opened = visit(page.evaluate("location.href"))
    expect(opened.locator("#grounded")).to_be_checked()


def test_an_answer_is_held_to_the_schema_of_the_example(bundled: str, visit: Open):
    page = visit(bundled)
    expect(page.locator("#model")).to_have_text(re.compile("^model "))
    expect(page.locator("#schema-box")).to_be_hidden()
    page.check("#hold")
    schema = json.loads(page.input_value("#schema"))
    assert schema["required"] == list(schema["properties"])
    page.select_option("#pace", "0")
    generate(page)
    answer = json.loads(page.locator("#diffusion .answer").text_content() or "")
    assert list(answer) == schema["required"]
    # Keys and signs are forced, values are not.
    assert 0 < page.locator("#diffusion .cell.forced").count() < page.locator("#diffusion .cell").count()
    expect(page.locator("#diffusion .figures")).to_contain_text("forced tokens")
    expect(page.locator("#diffusion .figures")).to_contain_text("guided steps")
    page.click("#as-python")
    expect(page.locator("#code")).to_contain_text('response_format={"type":"json_schema"')

    page.click("#share")
    shared = page.evaluate("location.href")
    opened = visit(shared)
    expect(opened.locator("#hold")).to_be_checked()
    assert json.loads(opened.input_value("#schema")) == schema

    page.fill("#schema", "{")
    page.click("#generate")
    expect(page.locator("#notice-text")).to_contain_text("not a JSON object")
    expect(page.locator("#schema")).to_have_attribute("aria-invalid", "true")


def test_of_an_answer_in_parts_each_has_a_canvas(bundled: str, visit: Open):
    page = visit(bundled, prompt="Extract name, city as a JSON array:\nAnna Berg lives in Rome.\nBob Stone, Paris")
    generate(page)
    expect(page.locator("#diffusion .answer")).to_contain_text("Anna Berg")
    expect(page.locator("#diffusion .answer")).to_contain_text("Bob Stone")
    expect(page.locator("#diffusion .figures")).to_contain_text("parts2")
    expect(page.locator("#diffusion .caption")).to_contain_text("canvas 2")
    page.press("#step", "Home")
    expect(page.locator("#diffusion .caption")).to_contain_text("canvas 1, step 1")
