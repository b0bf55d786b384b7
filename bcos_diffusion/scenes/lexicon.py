"""What scenes are made of: nouns with their OpenMoji artwork, and background colours."""

from __future__ import annotations

# noun: OpenMoji code point. Chosen to stay recognisable at 16 pixels and to be one word each.
NOUNS: dict[str, str] = {
    "apple": "1F34E", "ball": "26BD", "balloon": "1F388", "banana": "1F34C", "basketball": "1F3C0",
    "bear": "1F43B", "bee": "1F41D", "bell": "1F514", "book": "1F4D5", "broccoli": "1F966",
    "bus": "1F68C", "butterfly": "1F98B", "cactus": "1F335", "car": "1F697", "carrot": "1F955",
    "cat": "1F431", "cheese": "1F9C0", "cherry": "1F352", "chicken": "1F414", "cookie": "1F36A",
    "cow": "1F42E", "crab": "1F980", "crown": "1F451", "dog": "1F436", "donut": "1F369",
    "duck": "1F986", "eggplant": "1F346", "elephant": "1F418", "fish": "1F41F", "flamingo": "1F9A9",
    "fox": "1F98A", "frog": "1F438", "ghost": "1F47B", "goat": "1F410", "guitar": "1F3B8",
    "hamburger": "1F354", "hat": "1F3A9", "heart": "2764", "house": "1F3E0", "key": "1F511",
    "lemon": "1F34B", "lion": "1F981", "moon": "1F319", "mushroom": "1F344", "octopus": "1F419",
    "owl": "1F989", "panda": "1F43C", "pear": "1F350", "penguin": "1F427", "pig": "1F437",
    "pineapple": "1F34D", "pizza": "1F355", "robot": "1F916", "rocket": "1F680", "rose": "1F339",
    "snail": "1F40C", "star": "2B50", "strawberry": "1F353", "sunflower": "1F33B", "tomato": "1F345",
    "tree": "1F333", "turtle": "1F422", "umbrella": "2602", "watermelon": "1F349", "whale": "1F433",
}  # fmt: skip

_IRREGULAR = {"fish": "fishes", "pear": "pears"}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (247, 143, 30),
    "yellow": (252, 222, 76),
    "green": (62, 160, 72),
    "blue": (46, 98, 214),
    "purple": (128, 62, 170),
    "pink": (250, 162, 196),
    "brown": (124, 80, 46),
    "gray": (142, 142, 142),
    "black": (22, 22, 22),
    "white": (246, 246, 246),
}

NUMERALS = ("one", "two", "three", "four")

ATTRIBUTION = (
    "Objects are drawn from OpenMoji (https://openmoji.org), the open-source emoji and icon project, "
    "licensed CC BY-SA 4.0."
)


def plural(noun: str) -> str:
    """The plural of a noun of the lexicon."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")) or noun in {"tomato"}:
        return noun + "es"
    return noun + "s"


CONTENT_WORDS = frozenset(NOUNS) | {plural(noun) for noun in NOUNS} | frozenset(COLOURS)
STRUCTURE_WORDS = frozenset("a an the of on in and with to left right above below background picture".split())


def vocabulary() -> list[str]:
    """Every word and mark that a caption can contain, sorted."""
    return sorted(CONTENT_WORDS | STRUCTURE_WORDS | set(NUMERALS) | {",", "."})
