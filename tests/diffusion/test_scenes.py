"""Scenes against a renderer of their own: their pixels, masks, captions, splits and determinism."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from references.scenes import rendered

from bcos_diffusion.scenes import COLOURS, NOUNS, Scene, Scenes, held_out_pairs, nouns, prompts, vocabulary
from bcos_diffusion.scenes.lexicon import NUMERALS, plural
from bcos_diffusion.scenes.sheet import highlight, write_sheets
from bcos_diffusion.text.function_words import ARTICLES, FUNCTION_WORDS, PREPOSITIONS

SIZE = 32
NOUN_OF = {form: noun for noun in NOUNS for form in (noun, plural(noun))}


@cache
def scenes(split: str = "train", count: int = 400) -> list[Scene]:
    data = Scenes(size=SIZE, split=split, seed=3)
    return [data[i] for i in range(count)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_and_masks_match_an_independent_renderer(split: str) -> None:
    compared, solid = [], 0
    for scene in scenes(split)[:80]:
        picture, alphas, certain = rendered(scene, SIZE)
        assert np.abs(scene.image / 255 - picture)[certain].max() < 2.5 / 255  # rounded to 8 bits on the way
        for number, placed in enumerate(scene.objects):
            covered = np.max([np.zeros((SIZE, SIZE)), *alphas[number + 1 :]], axis=0)
            sure = certain & (np.abs(alphas[number] - 0.5) > 0.005) & (np.abs(covered - 0.5) > 0.005)
            expected = (alphas[number] >= 0.5) & (covered < 0.5)
            assert placed.mask is not None and placed.mask.any()
            assert (placed.mask == expected)[sure].all()
            compared.append(sure[alphas[number] > 0].mean())
            solid += int((placed.mask & sure).sum())
    assert np.mean(compared) > 0.75 and solid > 5000


def test_masks_of_a_scene_do_not_overlap_and_the_background_has_its_colour() -> None:
    named = 0
    for scene in scenes():
        seen = np.sum([placed.mask for placed in scene.objects], axis=0)
        assert seen.max() == 1
        if scene.background in scene.words:
            named += 1
            region = scene.masks[scene.background]
            assert (region == (seen == 0)).all()
            plain = (scene.image == COLOURS[scene.background]).all(-1)
            assert plain[region].mean() > 0.6  # soft edges of objects remain
    assert named > 200


def test_every_word_that_is_seen_has_a_mask_and_no_other() -> None:
    for scene in scenes():
        drawn = {w for w in scene.words if w in NOUN_OF} | ({scene.background} & set(scene.words))
        assert scene.masks.keys() == drawn
        assert all(mask.any() for mask in scene.masks.values())


# ---- captions ----


def region(scene: Scene, noun: str) -> NDArray[np.int64]:
    (mask,) = (p.mask for p in scene.objects if p.noun == noun)
    return np.argwhere(mask)


def test_relations_are_true_of_the_picture() -> None:
    seen: Counter[str] = Counter()
    for scene in scenes(count=1500):
        words = [w for w in scene.words if w in NOUN_OF or w in ("left", "right", "above", "below")]
        if len(words) != 3 or words[1] in NOUN_OF:
            continue
        first, relation, second = words
        a, b = region(scene, first), region(scene, second)
        gaps = {
            "left": b[:, 1].min() - a[:, 1].max(),
            "right": a[:, 1].min() - b[:, 1].max(),
            "above": b[:, 0].min() - a[:, 0].max(),
            "below": a[:, 0].min() - b[:, 0].max(),
        }
        assert gaps[relation] > 0, scene.caption
        seen[relation] += 1
    assert len(seen) == 4 and min(seen.values()) > 20


def test_counts_and_plurals_are_true_of_the_picture() -> None:
    numerals = plurals = 0
    for scene in scenes(count=1500):
        nouns = [NOUN_OF[w] for w in scene.words if w in NOUN_OF]
        many = [w for w in scene.words if w in NOUN_OF and w not in NOUNS]
        if many:
            plurals += 1
            assert len(many) == len(nouns) == 1 and {p.noun for p in scene.objects} == set(nouns)
            assert len(scene.objects) > 1
        elif nouns:
            assert sorted(nouns) == sorted(p.noun for p in scene.objects)
        for numeral in set(scene.words) & set(NUMERALS):
            numerals += 1
            assert len(scene.objects) == NUMERALS.index(numeral) + 1 and many
    assert numerals > 50 and plurals > numerals


def test_colours_are_true_of_the_picture() -> None:
    for scene in scenes():
        assert set(scene.words) & COLOURS.keys() <= {scene.background}


def test_captions_have_no_constant_word_and_come_in_many_forms() -> None:
    captions = [scene.words for scene in scenes(count=1500)]
    share = Counter(word for words in captions for word in set(words))
    assert max(share.values()) < 0.4 * len(captions)
    glue = ARTICLES | PREPOSITIONS - {"above", "below"}
    assert sum(not set(words) & glue for words in captions) > 0.4 * len(captions)
    assert sum(not set(words) & FUNCTION_WORDS for words in captions) > 0.15 * len(captions)
    single = [words[0] for words in captions if len(words) == 1]
    assert len(single) > 0.04 * len(captions)
    assert set(single) & COLOURS.keys() and set(single) & NOUNS.keys()
    forms = {re.sub(r"\b\w+\b", lambda m: form(m.group()), " ".join(words)) for words in captions}
    assert len(forms) > 60
    assert {word for words in captions for word in words} <= set(vocabulary())


def test_finer_scenes_name_finer_nouns() -> None:
    data, drawn = Scenes(size=64, seed=3), set()
    for scene in map(data.__getitem__, range(400)):
        drawn |= {placed.noun for placed in scene.objects}
        assert set(scene.words) <= set(vocabulary(64))
    assert len(drawn - {*nouns(32)}) > 80 and len(drawn & {*nouns(32)}) > 50
    fine = {word for text in prompts(80, size=64) for word in text.split()}
    assert fine <= set(vocabulary(64)) and not fine <= set(vocabulary(32))


def form(word: str) -> str:
    return "N" if word in NOUN_OF else "C" if word in COLOURS else word


def test_the_lexicon_is_as_large_as_promised() -> None:
    assert len(nouns(32)) >= 60 and {*nouns(32)} >= {"banana", "cat", "goat", "flamingo", "penguin"}
    assert len(nouns(64)) >= 150 and {*nouns(32)} < {*nouns(64)} == NOUNS.keys()
    assert nouns(63) == nouns(32) and nouns(128) == nouns(64) and [*nouns(64)] == sorted(NOUNS)
    assert len(set(NOUNS.values())) == len(NOUNS)
    assert len(COLOURS) >= 8
    assert not {form for noun in NOUNS for form in (noun, plural(noun))} & COLOURS.keys()
    assert len(NOUN_OF) == 2 * len(NOUNS)
    assert {len(scene.objects) for scene in scenes()} == {1, 2, 3, 4}


def test_sizes_and_positions_vary() -> None:
    every = [(len(scene.objects), placed) for scene in scenes(count=600) for placed in scene.objects]
    assert len({placed.size for _, placed in every}) >= 8
    for count, sizes, positions in ((1, 4, 20), (2, 3, 60), (3, 3, 20), (4, 3, 20)):
        alike = [placed for n, placed in every if n == count]
        assert len({placed.size for placed in alike}) >= sizes
        assert len({(placed.top, placed.left) for placed in alike}) >= positions
    middles = np.array([(p.box[0] + p.box[2], p.box[1] + p.box[3]) for _, p in every]) / 64
    assert (middles.min(0) < 0.3).all() and (middles.max(0) > 0.7).all()


def test_several_objects_of_a_scene_never_cover_one_another() -> None:
    for scene in scenes(count=400):
        cover = np.zeros((32, 32), int)
        for top, left, bottom, right in (placed.box for placed in scene.objects):
            cover[top:bottom, left:right] += 1
        assert cover.max() == 1


# ---- numbering and splits ----


def fingerprint(scene: Scene) -> str:
    parts = [
        scene.image.tobytes(),
        scene.caption.encode(),
        *(p.mask.tobytes() for p in scene.objects if p.mask is not None),
    ]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def test_item_i_is_the_same_in_any_order_and_in_another_process() -> None:
    here = {i: fingerprint(Scenes(SIZE, "train", 7)[i]) for i in (9, 0, 999_999)}
    program = (
        "from bcos_diffusion.scenes import Scenes; import hashlib\n"
        f"data = Scenes({SIZE}, 'train', 7)\n"
        "for i in (999999, 0, 9):\n"
        "    s = data[i]; parts = [s.image.tobytes(), s.caption.encode(), *(p.mask.tobytes() for p in s.objects)]\n"
        "    print(i, hashlib.sha256(b'|'.join(parts)).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    there = dict(line.split() for line in run.stdout.splitlines())
    assert there == {str(i): value for i, value in here.items()}
    assert len(set(here.values())) == 3


def test_a_batch_is_its_items() -> None:
    data = Scenes(SIZE, "validation", 1)
    images, captions = data.batch([5, 2, 5])
    assert captions == [data[i].caption for i in (5, 2, 5)]
    assert all((image == data[i].image).all() for image, i in zip(images, (5, 2, 5), strict=True))


def test_seeds_and_splits_give_different_pictures() -> None:
    streams = [Scenes(SIZE, split, seed) for split in ("train", "validation", "test") for seed in (0, 1)]
    pictures = [{fingerprint(data[i]) for i in range(40)} for data in streams]
    assert sum(map(len, pictures)) == len(set.union(*pictures)) > 200


def test_held_out_pairs_are_in_the_test_split_alone() -> None:
    pairs = {(colour, noun) for colour, noun in held_out_pairs() if noun in nouns(SIZE)}
    assert 0.02 < len(pairs) / (len(nouns(SIZE)) * len(COLOURS)) < 0.1
    shown = {
        split: {(scene.background, p.noun) for scene in scenes(split, 1200) for p in scene.objects}
        for split in ("train", "validation", "test")
    }
    assert not shown["train"] & pairs and not shown["validation"] & pairs
    assert len(shown["test"] & pairs) > 0.6 * len(pairs)
    held_out_nouns = {noun for _, noun in pairs}
    assert held_out_nouns <= {noun for _, noun in shown["train"]}


@pytest.mark.parametrize("wrong", [{"split": "all"}, {"size": 8}, {"length": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Scenes(**wrong)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        Scenes(length=3)[3]


def test_prompts_for_evaluation_are_full_sentences_of_known_words() -> None:
    texts = prompts(50, seed=2)
    assert texts == prompts(50, seed=2) != prompts(50, seed=3)
    assert {word for text in texts for word in text.split()} <= set(vocabulary())
    assert all(re.match(r"an? \w+ .*\bon an? \w+ background$", text) for text in texts)


# ---- the contact sheet ----


def test_the_contact_sheet_shows_every_scene_and_mask(tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = Scenes(SIZE, "test", 0, length=35)
    files = write_sheets(data, tmp_path)
    assert [f.name for f in files] == ["sheet-000.png", "sheet-001.png", "index.html"]
    page = files[-1].read_text(encoding="utf-8")
    assert "http" not in page.replace("https://openmoji.org", "")
    assert page.count("data:image/png;base64,") == sum(1 + len(data[i].masks) for i in range(35))
    assert all(f"{i}: {data[i].caption}</h2>" in page for i in range(35))
    assert Image.open(files[0]).size[0] == Image.open(files[1]).size[0]


def test_a_highlight_keeps_the_masked_pixels_and_pales_the_rest() -> None:
    scene = scenes()[0]
    mask = scene.objects[0].mask
    assert mask is not None
    shown = highlight(scene.image, mask)
    assert (shown[mask] == scene.image[mask]).all()
    assert shown[~mask].min() >= 190 and (np.ptp(shown[~mask], axis=-1) == 0).all()
