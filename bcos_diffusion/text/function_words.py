"""Words that steer but carry no value.

With a value of their own, words that nearly every caption has become the network's source of energy:
measured, "on" drew the strawberry. So the closed classes of English (articles, prepositions,
conjunctions, pronouns, copulas, numerals, words of place) reach the network through the attention
keys alone, where they say how many and where, and contribute exactly 0. Content words carry values.
"""

from __future__ import annotations

ARTICLES = frozenset("a an the".split())
PREPOSITIONS = frozenset(
    "of on in at with and or by to from over under above below beside near behind between inside "
    "outside against across around through into onto upon within without for as next".split()
)
PLACES = frozenset("left right top bottom middle center centre side".split())
NUMERALS = frozenset("one two three four five six seven eight nine ten some few many several".split())
OTHERS = frozenset(
    "is are was were be being been there here this that these those it its has have had "
    "background picture image photo drawing scene canvas".split()
)
FUNCTION_WORDS = ARTICLES | PREPOSITIONS | PLACES | NUMERALS | OTHERS
