"""An extractive summary: the sentences of a text that most others resemble.

It is TextRank (Mihalcea and Tarau, 2004, https://aclanthology.org/W04-3252/): sentences are nodes, the words that two
share, weighed by their rarity, are the edge between them, and PageRank finds the central ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_WORD = re.compile(r"[A-Za-z][a-z]{2,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_STOP = frozenset(
    "the and for that this with from are not can was were has have had its but all any may one two into than then when "
    "which will must see also such other these those they their there been being does more some only each used using "
    "same you your our out who how what where while would should could about after before between because".split()
)
DAMPING = 0.85
ROUNDS = 30


def sentences(text: str) -> list[str]:
    """Cut a text into sentences of a reasonable length, without markup and code."""
    plain = re.sub(r"\s+", " ", re.sub(r"\n(?: {3,}|\*\*|\+-).*", " ", text))
    return [each for each in _SENTENCE.split(plain) if 40 <= len(each) <= 400]


def summarize(text: str, count: int) -> list[str]:
    """Give the `count` most central sentences of a text, in their order; one of those with the same words."""
    by_words = {frozenset(words(each)): each for each in sentences(text)}
    candidates = list(by_words.values())
    bags = [words(each) for each in candidates]
    ranks = rank(bags)
    best = sorted(range(len(candidates)), key=lambda index: -ranks[index])[:count]
    return [candidates[index] for index in sorted(best)]


def words(sentence: str) -> Counter[str]:
    """Count the words of a sentence that say something."""
    return Counter(word for word in map(str.lower, _WORD.findall(sentence)) if word not in _STOP)


def rank(bags: list[Counter[str]]) -> list[float]:
    """Give the PageRank of each bag of words in the graph of what they share."""
    frequency = Counter(word for bag in bags for word in bag)
    rarity = {word: math.log(1 + len(bags) / many) for word, many in frequency.items()}
    edges = [[0.0] * len(bags) for _ in bags]
    for i, left in enumerate(bags):
        for j in range(i):
            shared = sum(rarity[word] for word in left.keys() & bags[j].keys())
            if shared:
                edges[i][j] = edges[j][i] = shared / (math.log(2 + len(left)) + math.log(2 + len(bags[j])))
    weights = [sum(row) or 1.0 for row in edges]
    ranks = [1.0] * len(bags)
    for _ in range(ROUNDS):
        ranks = [
            1 - DAMPING + DAMPING * sum(edge * ranks[j] / weights[j] for j, edge in enumerate(row) if edge)
            for row in edges
        ]
    return ranks
