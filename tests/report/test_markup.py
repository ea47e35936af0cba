from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.report.markup import Markup, badge, pairs, sentence, tag, tags


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.words = [], ""

    def handle_starttag(self, name, attributes):
        self.seen.append((name, dict(attributes)))

    def handle_data(self, words):
        self.words += words


@given(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_comes_back_as_text(words):
    reader = Reader()
    reader.feed(tag("p", words, title=words))
    reader.close()
    assert reader.seen == [("p", {"title": words})]
    assert reader.words == words


def test_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "<"), Markup("<hr>")) == "<p><b>&lt;</b><hr></p>"
    assert tags("a", ["<", tag("br")]) == "a&lt;<br>"


def test_empty_attributes_are_left_out():
    assert tag("p", "x", class_="", data_name="y") == '<p data-name="y">x</p>'


def test_badge_of_unknown_words_is_not_a_class():
    assert 'class="badge good"' in badge("good")
    assert 'class="badge"' in badge('"><script>')
    assert badge("") == ""


def test_small_pieces():
    assert pairs([("a", "<")]) == "<dl><dt>a</dt><dd>&lt;</dd></dl>"
    assert sentence("size: smaller") == "Size: smaller."
