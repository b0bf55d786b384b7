"""What happens when something is clicked: from Gradio's events to the studio and back.

A page shows a mistake in words and keeps the picture that it has; only bugs of ours reach Gradio's own error message.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import gradio as gr

from bcos_diffusion.app.drawing import Drawing
from bcos_diffusion.app.export import export
from bcos_diffusion.app.studio import Looking, Message, Studio

LONGEST_NOTICE = 400
NO_PICTURE = "there is no picture yet, or it is too old: draw one first"


class Events:
    """Handlers of one page's events. Each keeps to its own session: what was drawn comes in and goes out as state."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.first = studio.welcome()
        self._numbers = itertools.count(1)

    def show(self, message: Message) -> Any:
        """A viewer with a picture. It is numbered: a page does nothing where nothing changed."""
        return gr.HTML(value=message | {"number": next(self._numbers)})

    def say(self, kind: str, text: str = "", **more: Any) -> Any:
        """A viewer with a notice, numbered, so that the same can be said twice.

        kind: "error" or "info", which end what is under way; "busy", which says how far it is (``share``); or "none".
        """
        text = text if len(text) <= LONGEST_NOTICE else text[:LONGEST_NOTICE] + " …"
        return gr.HTML(said={"kind": kind, "text": text, "number": next(self._numbers)} | more)

    def welcome(self) -> tuple[Any, Drawing]:
        """The first picture, drawn when the server started."""
        message, drawing = self.first
        return self.show(message), drawing

    def draw(
        self, prompt: object, negative: object, seed: object, steps: object, guidance: object, second: object
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Draw a prompt, and the second beside it where there is one: viewer and state of each."""
        skip = gr.skip()
        try:
            settings = (negative, seed, steps, guidance)
            ask = self.studio.read(prompt, *settings)
            other = self.studio.read(second, *settings) if second else None
            yield self.say("none"), skip, (skip if other else gr.HTML(value={})), (skip if other else None)
            for message, drawing in self.studio.picture(ask):
                yield self.show(message), drawing or skip, skip, skip
            if other is not None:
                for message, drawing in self.studio.picture(other):
                    yield skip, skip, self.show(message), drawing or skip
        except ValueError as error:
            yield self.say("error", str(error)), skip, skip, skip

    def repair(self, drawing: Drawing | None) -> Iterator[tuple[Any, Any]]:
        """Draw again until every word is there."""
        if drawing is None:
            yield self.say("error", NO_PICTURE), gr.skip()
            return
        try:
            for found in self.studio.repair(drawing):
                if isinstance(found, Looking):
                    yield self.say("busy", found.text, share=found.share), gr.skip()
                elif isinstance(found, str):
                    yield self.say("info", found), gr.skip()
                else:
                    message, repaired = found
                    yield self.show(message), repaired or gr.skip()
        except ValueError as error:
            yield self.say("error", str(error)), gr.skip()

    def region(self, drawing: Drawing | None, event: gr.EventData) -> Any:
        """Which words made the box that was dragged."""
        if drawing is None:
            return self.say("error", NO_PICTURE)
        asked = event._data if isinstance(event._data, dict) else {}
        try:
            found = self.studio.region(drawing, asked.get("box"), asked.get("step"))
            return gr.HTML(region=found | {"number": next(self._numbers)})
        except ValueError as error:
            return self.say("error", str(error))

    def attention(self, drawing: Drawing | None) -> Iterator[Any]:
        """DAAM's maps of the picture."""
        if drawing is None:
            yield self.say("error", NO_PICTURE)
            return
        for found in self.studio.attention(drawing):
            yield gr.skip() if found is None else gr.HTML(attention=found | {"number": next(self._numbers)})

    def save(self, drawing: Drawing | None, event: gr.EventData) -> tuple[Any, Any]:
        """Write the file that was asked for: the viewer, and the download."""
        if drawing is None:
            return self.say("error", NO_PICTURE), gr.skip()
        asked = event._data if isinstance(event._data, dict) else {}
        try:
            return gr.skip(), str(export(drawing, str(asked.get("kind"))))
        except (ValueError, OSError) as error:
            return self.say("error", str(error)), gr.skip()
