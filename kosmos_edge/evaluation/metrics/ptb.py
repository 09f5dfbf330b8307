"""Words of captions, as the Penn Treebank tokenizer of the COCO caption evaluation cuts them (Stanford's PTBTokenizer
3.4.1, lower-cased, with its list of marks that are left out). CIDEr, BLEU and ROUGE-L count these words.

What captions contain is cut alike; marks-up, emoticons and foreign scripts may not be.
"""

from __future__ import annotations

import re

# Left out behind the tokenizer. Brackets are lower-cased before (-lrb-), so that they stay, as in the original.
DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_CHARACTERS = str.maketrans(
    {
        "‘": "'", "’": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "–": "--", "—": "--", "…": "...",
        "½": "1/2", "¼": "1/4", "¾": "3/4", "\xa0": " ", "\xad": "", "£": "#", "€": "$",
    }
)  # fmt: skip
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|st|prof|gen|sen|rep|gov|lt|col|capt|sgt|maj|rev|hon|jr|sr|inc|ltd|co|corp|bros|vs|etc|"
    "jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|ave|blvd|rd|ft|mt"
)
_WORD = r"[^\W_]+"
_TOKEN = re.compile(
    r"(?P<url>(?:https?://|www\.)[^\s\"<>]*[\w/])"
    rf"|(?P<mail>[\w.+-]+@{_WORD}(?:[.-]{_WORD})+)"
    rf"|(?P<tag>[#@](?=[^\W\d_]){_WORD}(?:_{_WORD})*)"
    r"|(?P<initials>(?:[^\W\d_]\.){2,}|(?<![\w'])[^\W\d_]\.(?!\w)|(?<!\w)ph\.d\.)"
    rf"|(?P<short>(?<!\w)(?:{_ABBREVIATIONS})\.(?!\w)|(?<!\w)no\.(?= ?\d))"
    r"|(?P<number>(?<!\w)[-+]?\d*(?:[.,:]\d+)+(?![\w/])|(?<!\w)\d+(?:[.,:/]\d+)+|(?<![\w-])[-+]\d+(?!\w))"
    rf"|(?P<word>{_WORD}(?:(?:[-/&_]|(?<=[^\W\d_])(?:'|\.(?=[^\W\d_]))){_WORD})*)"
    r"|'(?:s|re|ve|ll|d|m)(?!\w)|'t(?=(?:is|was)\b)|'\d0s|(?<!\w)'n'(?!\w)"
    r"|\.{2,}|-{2,}|[!?]{2,}|\S"
)
_CLITIC = re.compile(r"(.+?)(n't|'s|'re|'ve|'ll|'d|'m)")
_JOINED = {
    "cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "wanna": ("wan", "na"),
    "gimme": ("gim", "me"), "lemme": ("lem", "me"),
}  # fmt: skip


def words(text: str) -> list[str]:
    """The words of one caption, in order."""
    out: list[str] = []
    for found in _TOKEN.finditer(" ".join(text.translate(_CHARACTERS).lower().split())):
        token = found[0]
        if found["word"]:
            out += _split(token)
        elif token in _BRACKETS:
            out.append(_BRACKETS[token])
        elif token[0] in ".-" and not found["number"]:
            pass  # marks of two and more, which DROPPED has in their one spelling
        elif token != '"':  # straight quotes become `` and ''
            out.append(token)
    return [token for token in out if token not in DROPPED]


def _split(word: str) -> list[str]:
    """A word without its clitics, which are words of their own."""
    if word in _JOINED:
        return list(_JOINED[word])
    found = _CLITIC.fullmatch(word)
    return [*_split(found[1]), found[2]] if found else [word]
