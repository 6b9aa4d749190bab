"""The playground's files, and the fields of its form, made from the table of settings; test_page.py has the browser."""

import re

import redraft
from redraft.server.openai.requests import OPENAI_NAMES
from redraft.server.playground.pages import FIELDS_MARK, form_field, load_pages


def test_the_form_has_a_field_for_every_setting_of_a_request():
    page = load_pages()["index.html"][0].decode()
    assert FIELDS_MARK.decode() not in page
    found = re.findall(r'name="(\w+)" data-param="\1" data-setting="(canvas|top)"', page)
    expected = {
        OPENAI_NAMES.get(setting.name, setting.name): "top" if setting.name in OPENAI_NAMES else "canvas"
        for setting in redraft.SETTINGS
        if setting.name != "index"
    }
    assert dict(found) == expected
    assert len(found) == len(expected)


def test_a_field_knows_its_limits_and_is_escaped():
    whole = redraft.Setting(name="some_steps", type=int, minimum=1, maximum=9, help='"<b>')
    assert form_field(whole).strip() == (
        '<label title="&quot;&lt;b&gt;">Some steps <input name="some_steps" data-param="some_steps" '
        'data-setting="top" data-min="1" data-max="9" type="number" step="1"></label>'
    )
    assert 'data-above="0"' in form_field(redraft.Setting(name="x", type=float, above=0, help=""))
    rule = redraft.Setting(name="rule", type=str, choices=("a", "b"), help="")
    assert "<option></option><option>a</option><option>b</option></select>" in form_field(rule)


def test_only_files_of_the_page_are_pages():
    pages = load_pages()
    assert {"index.html", "main.js", "playground.css", "icon.svg"} <= pages.keys()
    assert not any(name.endswith(".py") for name in pages)
