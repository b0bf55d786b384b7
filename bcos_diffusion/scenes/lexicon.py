"""What scenes are made of: nouns with their OpenMoji artwork, and background colours.

How many nouns there are depends on the size of the pictures: finer ones tell more of them apart.
"""

from __future__ import annotations

from functools import cache

# noun: OpenMoji code point. Chosen to stay recognisable at 16 pixels and to be one word each.
_COARSE: dict[str, str] = {
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

# These take twice as many pixels to be told from each other and from those above.
_FINE: dict[str, str] = {
    "airplane": "2708", "alien": "1F47D", "anchor": "2693", "avocado": "1F951", "backpack": "1F392", "bat": "1F987",
    "bicycle": "1F6B2", "bird": "1F426", "bone": "1F9B4", "boot": "1F462", "bucket": "1FAA3", "cake": "1F382",
    "camel": "1F42A", "camera": "1F4F7", "candle": "1F56F", "candy": "1F36C", "castle": "1F3F0", "chair": "1FA91",
    "chocolate": "1F36B", "church": "26EA", "clock": "23F0", "cloud": "2601", "clover": "1F340", "corn": "1F33D",
    "croissant": "1F950", "cucumber": "1F952", "cupcake": "1F9C1", "diamond": "1F48E", "dinosaur": "1F995",
    "dolphin": "1F42C", "door": "1F6AA", "dragon": "1F409", "dress": "1F457", "drum": "1F941", "egg": "1F95A",
    "envelope": "2709", "eye": "1F441", "feather": "1FAB6", "fire": "1F525", "flag": "1F6A9", "flower": "1F33A",
    "gift": "1F381", "giraffe": "1F992", "globe": "1F30D", "grape": "1F347", "hammer": "1F528",
    "helicopter": "1F681", "honey": "1F36F", "horse": "1F434", "kangaroo": "1F998", "kite": "1FA81",
    "koala": "1F428", "lobster": "1F99E", "lock": "1F512", "lollipop": "1F36D", "magnet": "1F9F2", "medal": "1F3C5",
    "microphone": "1F3A4", "monkey": "1F435", "motorcycle": "1F3CD", "mountain": "26F0", "onion": "1F9C5",
    "pancake": "1F95E", "parrot": "1F99C", "peach": "1F351", "peacock": "1F99A", "pencil": "270F",
    "pepper": "1FAD1", "piano": "1F3B9", "pill": "1F48A", "popcorn": "1F37F", "pretzel": "1F968",
    "pumpkin": "1F383", "rabbit": "1F430", "raccoon": "1F99D", "rainbow": "1F308", "ring": "1F48D",
    "rooster": "1F413", "sandwich": "1F96A", "saxophone": "1F3B7", "shark": "1F988", "ship": "1F6A2",
    "shirt": "1F455", "skull": "1F480", "snake": "1F40D", "snowflake": "2744", "snowman": "26C4", "spider": "1F577",
    "squirrel": "1F43F", "sun": "1F31E", "swan": "1F9A2", "sword": "1F5E1", "taco": "1F32E", "teapot": "1FAD6",
    "telephone": "260E", "tent": "26FA", "tiger": "1F42F", "tooth": "1F9B7", "tractor": "1F69C", "train": "1F686",
    "trophy": "1F3C6", "tulip": "1F337", "turkey": "1F983", "unicorn": "1F984", "violin": "1F3BB",
    "volcano": "1F30B", "watch": "231A", "wolf": "1F43A", "zebra": "1F993",
}  # fmt: skip

FINE_FROM = 64
"""The side of a picture, in pixels, from which on it shows the finer nouns too."""
NOUNS: dict[str, str] = dict(sorted((_COARSE | _FINE).items()))
"""The code point of every noun's artwork, in alphabetical order."""

_IRREGULAR = {"snowman": "snowmen", "tooth": "teeth", "wolf": "wolves"}

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


@cache
def nouns(size: int) -> tuple[str, ...]:
    """The nouns of scenes of side ``size``, sorted: 65, and 174 from :data:`FINE_FROM` on."""
    return tuple(noun for noun in NOUNS if size >= FINE_FROM or noun in _COARSE)


def plural(noun: str) -> str:
    """The plural of a noun of the lexicon."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")) or noun in {"tomato"}:
        return noun + "es"
    return noun + "s"


STRUCTURE_WORDS = frozenset("a an the of on in and with to left right above below background picture".split())


def vocabulary(size: int = 32) -> list[str]:
    """Every word and mark that a caption of scenes of side ``size`` can contain, sorted."""
    named = {form for noun in nouns(size) for form in (noun, plural(noun))}
    return sorted(named | set(COLOURS) | STRUCTURE_WORDS | set(NUMERALS) | {",", "."})


def with_article(word: str) -> str:
    """The word after "a" or "an"."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
