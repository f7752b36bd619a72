"""The prose of docstrings, comments, messages and pages: words and forms that need a second reading.

`FORMS` names what not to write and what to write instead; single words stand in docs/contributing/words.txt, for
codespell. What is quoted between back quotes is left alone.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.rst")), *sorted((ROOT / "docs").glob("[a-z]*/*.rst"))]
MADE = ("generated", "auto_examples", "sg_execution_times.rst")  # by a build of the pages
PAGES = [page for page in PAGES if page.parent.name not in MADE and page.name not in MADE]
MODULES = [*sorted((ROOT / "flowdetect").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
LONGEST_SENTENCE = 45  # words

FORMS = {  # regular expression -> what to write
    r"(?<![=\w])([a-z]+)\s+\1\b(?! that)": "the word once",
    r"\b(go|goes|going|went) on\b": "continue, resume, follow, pass on",
    r"\b(give|gives|given|giving|hands?|handed) back\b": "return",
    r"\b(but|save) for (?!the name)": "except for",
    r"\bfor want of\b": "because there is no",
    r"\b(anew|kin)\b": "again; others of the kind",
    r"\b(that|those) which\b(?!,)": "what, the one that",
    r"\bso \w+, and [^.]{0,30}\bso \w+[.:]": "one sentence for each",
    r"\b(in|whatever) (any |the |its )?company\b": "whatever the other rows of the batch are",
    r"\blatent codes?\b": "latent",
    r"\b(along|t|t \*) (a |the |each )?ways?\b": "direction",
    r"\bspeaks? (to|pyod|scikit-learn)\b": "follow the conventions of; exchange messages with",
    r"\bas (good|far) as (it|they) (is|are) (with|trained)\b": "the quality or the state, as a noun",
}
EXAMPLES = [
    "the the model",
    "a fit that was killed goes on",
    "gives back the axes",
    "all but for one",
    "for want of others",
    "trained anew",
    "that which makes it likelier",
    "so simple, and for images so wrong.",
    "the same in any company",
    "a latent code",
    "log p(x0 + t way)",
    "speaks pyod",
    "as far as it is trained",
]
QUICK = re.compile("|".join(f"(?:{form})" for form in FORMS))  # the first has the group that it refers to
ABBREVIATIONS = r"\b(al|eq|e\.g|i\.e|cf|vs|sec|fig)\."


def plain(text):
    """Replace what is code, or a link's address, by Q, and take the periods from abbreviations and gaps."""
    text = re.sub(r"``.*?``|:\w+:`.*?`|`.*?`_*|https?://\S+", "Q", text, flags=re.DOTALL)
    return re.sub(ABBREVIATIONS, r"\1", re.sub(r" ?\.\. ?", " to ", text))


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


def pieces(path):
    """Yield (line, text): the paragraphs of a page; of a module those of its strings, and runs of comments."""
    text = path.read_text()
    if not QUICK.search(text):
        return
    if path.suffix != ".py":
        yield from paragraphs(text)
        return
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for line, paragraph in paragraphs(node.value):
                yield node.lineno + line - 1, paragraph
    for run in re.finditer(r"(?:^ *#.*\n)+|(?<= )# .*\n", text, flags=re.MULTILINE):
        yield text[: run.start()].count("\n") + 1, re.sub(r"(?m)^ *#", "", run[0])


def paragraphs(text):
    """Yield (line, paragraph), lines counted from 1."""
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", text):
        yield line, paragraph
        line += paragraph.count("\n")


def found(text):
    """Find forms in a text: (line in it from 0, words, what to write)."""
    text = plain(text)
    for form, better in FORMS.items():
        for match in re.finditer(form, text):
            yield text[: match.start()].count("\n"), " ".join(match[0].split()), better


def docstrings(path):
    """Yield (line, name, docstring) of a module and what it defines."""
    for node in nodes(path):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), getattr(node, "name", path.stem), text


def sentences(paragraph):
    return re.split(r"[.:;?!]\s+", plain(paragraph).rstrip())


def prose_of(docstring):
    """Keep the paragraphs that are neither formula, heading nor example."""
    for _, paragraph in paragraphs(docstring.split("Examples\n---")[0]):
        if not re.search(r"^\.\. math|^\s*[-=]{3}|^ {4}", paragraph, re.MULTILINE):
            yield paragraph


def report(faults):
    return "\n".join(["", *faults])


def place(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


@pytest.mark.parametrize(("form", "example"), list(zip(FORMS, EXAMPLES, strict=True)))
def test_each_form_is_found(form, example):
    assert FORMS[form] in [better for _, _, better in found(example)]
    assert not list(found("A fit that was killed resumes from the checkpoint."))


def test_words_are_plain():
    faults = [
        f"{place(path, line + offset)}: {words!r}; write: {better}"
        for path in [*PAGES, *MODULES]
        for line, text in pieces(path)
        for offset, words, better in found(text)
    ]
    assert not faults, report(faults)


def test_a_public_docstring_opens_with_one_sentence():
    faults = [
        f"{place(path, line)}: {name}: {first!r}"
        for path in MODULES
        for line, name, text in docstrings(path)
        if not name.startswith("_") and "flowdetect" in path.parts[-3:]
        for first in [text.split("\n\n")[0]]
        if len(sentences(first)) > 1 + first.count(":") + first.count(";") or not first.endswith((".", "?", "::", ":"))
    ]
    assert not faults, report(faults)


def test_a_docstring_opens_with_a_standard_verb():
    faults = [
        f"{place(path, line)}: {name}: {text.split()[0]}; write: return, compute, describe, raise"
        for path in MODULES
        for line, name, text in docstrings(path)
        if "examples" not in path.parts and text.split()[0] in ("Give", "Gives", "Say", "Says", "Ask", "Tell")
    ]
    assert not faults, report(faults)


def test_sentences_are_short():
    faults = [
        f"{place(path, line)}: {name}: {len(sentence.split())} words: {sentence[:80]!r}"
        for path in MODULES
        for line, name, text in docstrings(path)
        for paragraph in prose_of(text)
        for sentence in sentences(paragraph)
        if len(sentence.split()) > LONGEST_SENTENCE
    ]
    assert not faults, report(faults)
