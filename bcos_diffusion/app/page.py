"""The page: what is where, and which event asks for what."""

from __future__ import annotations

import html
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from bcos_diffusion.app.ask import LARGEST_SEED, MOST_GUIDANCE, MOST_STEPS
from bcos_diffusion.app.events import Events
from bcos_diffusion.app.export import KEPT_SECONDS
from bcos_diffusion.app.studio import Studio
from bcos_diffusion.app.vocabulary import known_words

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("packing.js", "colours.js", "picture.js", "words.js", "made.js", "pointer.js", "viewer.js")
STATE_SECONDS = 3600
_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "sans-serif"]
THEME = gr.themes.Base(
    primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=_FONT,
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
)  # fmt: skip
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_WAIT = "(...values) => { window.dispatchEvent(new Event('bcos:wait')); return values; }"
_STOPPED = "() => { window.dispatchEvent(new Event('bcos:stopped')); }"


def text_of(name: str) -> str:
    """A file that is sent to the browser."""
    return (STATIC / name).read_text(encoding="utf-8")


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio, whose first picture is drawn here."""
    events = Events(studio)
    with gr.Blocks(title="B-cos diffusion", analytics_enabled=False, delete_cache=(300, KEPT_SECONDS)) as page:
        gr.HTML(
            html.escape(studio.pipeline.name), html_template=text_of("header.html"), js_on_load=text_of("header.js"),
            apply_default_css=False, elem_id="head",
        )  # fmt: skip
        inputs, starts, stop = _form(studio)
        with gr.Row(elem_id="examples"):
            clickable = [
                gr.Button(example, size="sm", elem_classes="example", min_width=40) for example in studio.examples
            ]
        with gr.Row(elem_id="viewers", equal_height=False):
            views = [_viewer(f"viewer-{name}") for name in "ab"]
        states = [gr.State(time_to_live=STATE_SECONDS) for _ in views]
        downloads = [gr.DownloadButton("download", visible="hidden", elem_id=f"download-{name}") for name in "ab"]
        shown = [views[0], states[0], views[1], states[1]]
        drawn = gr.on(starts, events.draw, inputs, shown, js=_WAIT, concurrency_id="draw", concurrency_limit=1, **QUIET)
        drawn.failure(None, js=_STOPPED, **QUIET)
        running = [drawn, *_draw_examples(clickable, events, inputs, shown)]
        for view, state, download in zip(views, states, downloads, strict=True):
            running += _listen(events, view, state, download)
        stop.click(None, js=_STOPPED, cancels=running, **QUIET)
        page.load(events.welcome, None, shown[:2], **QUIET)
    return page


def _form(studio: Studio) -> tuple[list[Any], list[Any], gr.Button]:
    """What can be asked for: the inputs of a drawing, what starts it, and the button that stops it."""
    defaults = studio.pipeline.defaults
    with gr.Group(elem_id="ask"):
        with gr.Row(elem_id="ask-row"):
            prompt = gr.Textbox(studio.examples[0], label="Prompt", lines=1, max_lines=3, scale=6, elem_id="prompt")
            draw = gr.Button("Draw", variant="primary", scale=1, min_width=90, elem_id="draw")
            stop = gr.Button("Stop", scale=1, min_width=70, elem_id="stop")
        with gr.Accordion("Settings, and a second prompt to compare", open=False, elem_id="settings"):
            second = gr.Textbox(label="Compare with this prompt, at the same seed", elem_id="second")
            negative = gr.Textbox(label="Negative prompt", elem_id="negative")
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, elem_id="seed")
                steps = gr.Slider(
                    1, MOST_STEPS, min(defaults.steps, MOST_STEPS), step=1, label="Steps", elem_id="steps"
                )
                guidance = gr.Slider(
                    1, MOST_GUIDANCE, defaults.guidance, step=0.1, label="Guidance", elem_id="guidance"
                )
        _known(studio)
    starts = [draw.click, prompt.submit, second.submit, negative.submit]
    return [prompt, negative, seed, steps, guidance, second], starts, stop


def _known(studio: Studio) -> None:
    """The words that the model knows, where it has a list of its own."""
    known = known_words(studio.pipeline)
    if known["things"]:
        count = len(known["things"])
        with gr.Accordion(f"The {count} things that this model can draw", open=False, elem_id="known"):
            lines = [f"<p><b>{kind}</b> {html.escape(' · '.join(words))}</p>" for kind, words in known.items()]
            gr.HTML("".join(lines), apply_default_css=False, padding=True)


def _draw_examples(buttons: list[Any], events: Events, inputs: list[Any], shown: list[Any]) -> list[Any]:
    """Each example that is clicked is put into the form and drawn."""
    drawings = []
    for button in buttons:
        put = button.click(partial(_same, button.value), None, inputs[:1], queue=False, **QUIET)
        drawn = put.then(events.draw, inputs, shown, js=_WAIT, concurrency_id="draw", concurrency_limit=1, **QUIET)
        drawn.failure(None, js=_STOPPED, **QUIET)
        drawings.append(drawn)
    return drawings


def _same(text: str) -> str:
    return text


def _viewer(name: str) -> gr.HTML:
    """A picture that can be asked. value: the picture; said: a notice; region, attention: answers to questions."""
    script = "\n".join(text_of(file) for file in SCRIPTS)
    return gr.HTML(
        {}, html_template=text_of("viewer.html"), js_on_load=script, apply_default_css=False, elem_id=name,
        elem_classes="viewer", said=None, region=None, attention=None, min_width=300,
    )  # fmt: skip


def _listen(events: Events, view: gr.HTML, state: gr.State, download: gr.DownloadButton) -> list[Any]:
    """Answer what a viewer asks; returns what can be stopped."""
    drawing: dict[str, Any] = {"concurrency_id": "draw", "concurrency_limit": 1, **QUIET}
    repaired = view.retry(events.repair, [state], [view, state], **drawing)
    heard = view.expand(events.attention, [state], [view], **drawing)
    repaired.failure(None, js=_STOPPED, **QUIET)
    heard.failure(None, js=_STOPPED, **QUIET)
    view.select(
        events.region, [state], [view], trigger_mode="always_last", concurrency_id="look", concurrency_limit=2, **QUIET
    )
    # The figure is drawn by matplotlib, which is not made for two threads.
    saved = view.download(events.save, [state], [view, download], concurrency_id="save", concurrency_limit=1, **QUIET)
    saved.success(None, js=f"() => {{ document.querySelector('#{download.elem_id}').click(); }}", **QUIET)
    return [repaired, heard]
