// One viewer: what it shows, and what happens when the server answers. Runs last, with Gradio's own names:
// element, trigger, props and watch.
const root = element.querySelector(".bcos");
const view = {
  find: (selector) => root.querySelector(selector),
  shown: null, // what is on the screen: a preview or a whole picture
  whole: null, // the last whole picture
  step: 0, // which of its frames
  word: null, // whose map is shown
  pinned: null, // which word stays when nothing is hovered
  cursor: null,
  corner: null,
  boxed: null,
  region: null,
  attention: null,
  measure: "push",
  status: "", // what is under way
};
view.canvas = view.find(".ours canvas");
view.rivalCanvas = view.find(".rival canvas");
view.ready = () => view.shown !== null && view.shown.kind === "whole";
view.frame = () => view.shown && (view.shown.frames ? view.shown.frames[view.step] : view.shown);
view.look = (word) => {
  view.word = view.ready() ? word : null;
  if (view.shown) paintViewer(view);
};
view.pin = (word) => {
  view.pinned = word;
  view.look(word);
  showChips(view);
};
view.leaveBox = () => {
  view.region = view.boxed = view.corner = null;
  if (view.shown) drawMarks(view);
};
view.askRegion = () => {
  view.region = { box: view.boxed, waiting: true };
  view.find(".where").textContent = "asking…";
  trigger("select", { box: view.boxed, step: view.frame().step });
};

function showAll() {
  root.dataset.state = view.shown.kind;
  const slider = view.find(".steps input");
  if (view.ready()) {
    slider.max = view.shown.frames.length - 1;
    slider.value = view.step;
    view.find(".steps output").textContent = `step ${view.frame().step} of ${view.shown.steps}`;
  }
  showChips(view);
  showBudget(view);
  showWarning(view);
  paintViewer(view);
  drawMarks(view);
}

function showStep(step) {
  view.step = step;
  showAll();
  if (view.boxed) view.askRegion();
  else if (view.cursor) showPixel(view, ...view.cursor);
}

// The list again, in the measure and the colours of now.
function showAnswer() {
  if (view.region && !view.region.waiting) showRegion(view, view.region);
  else if (view.cursor && view.ready()) showPixel(view, ...view.cursor);
}

function showProgress(text, share) {
  view.find(".progress").hidden = !text;
  view.status = view.find(".status").textContent = text;
  showCaption(view);
  view.find(".fill").style.width = `${100 * share}%`;
  root.toggleAttribute("aria-busy", Boolean(text));
}

function showValue() {
  const value = props.value;
  if (!value || !value.kind) {
    root.dataset.state = "empty";
    view.shown = view.whole = null;
    showProgress("", 0);
    return;
  }
  if (value.kind === "preview") {
    Object.assign(view, { word: null, pinned: null, cursor: null, attention: null });
    view.leaveBox();
    view.shown = { ...value };
    showProgress(`drawing “${value.prompt}”, step ${value.step} of ${value.steps}`, value.step / value.steps);
  } else {
    // A copy, since frames are unpacked in place and Gradio compares what it sent with what it finds.
    view.shown = view.whole = { ...value, frames: value.frames.map((frame) => ({ ...frame })) };
    root.dataset.number = value.number;
    Object.assign(view, { step: value.frames.length - 1, word: null, pinned: null, cursor: null, attention: null });
    view.leaveBox();
    showProgress("", 0);
    showNothing(view);
  }
  showRival();
  showAll();
  if (view.ready() && switched()) hear();
}

function showSaid() {
  const said = props.said;
  const place = view.find(".said");
  if (said && said.kind === "busy") showProgress(said.text, said.share);
  place.hidden = !said || !["error", "info"].includes(said.kind) || !said.text;
  place.textContent = said ? said.text : "";
  place.dataset.kind = said ? said.kind : "none";
  if (said && ["error", "info"].includes(said.kind)) backToWhole();
}

// After an error or a stop the last whole picture stands; without one, nothing is drawing any more.
function backToWhole() {
  showProgress("", 0);
  if (view.ready() || !view.shown) return;
  view.shown = view.whole;
  root.dataset.state = "empty";
  if (!view.whole) return; // what was begun beside another picture is gone
  view.step = view.whole.frames.length - 1;
  showAll();
}

const switched = () => view.find(".daam").getAttribute("aria-checked") === "true";

function hear() {
  if (view.attention) return;
  showProgress("listening to attention for DAAM …", 0.5);
  trigger("expand", {});
}

function showRival() {
  view.find(".rival").hidden = !switched() || !view.attention;
  root.toggleAttribute("data-rival", switched() && Boolean(view.attention));
}

view.find(".steps input").addEventListener("input", (event) => {
  clearInterval(view.playing);
  if (view.ready()) showStep(Number(event.target.value));
});
view.find(".play").addEventListener("click", () => {
  if (!view.ready()) return;
  clearInterval(view.playing);
  view.leaveBox();
  let step = 0;
  view.playing = setInterval(() => {
    if (!view.ready() || step >= view.shown.frames.length) clearInterval(view.playing);
    else showStep(step++);
  }, 120);
});
view.find(".daam").addEventListener("click", (event) => {
  event.currentTarget.setAttribute("aria-checked", String(!switched()));
  if (switched() && view.ready()) hear();
  showRival();
  if (view.shown) paintViewer(view);
});
view.find(".repair").addEventListener("click", () => {
  showProgress("looking for a picture that has every word …", 0.02);
  trigger("retry", {});
});
root.querySelectorAll("[data-kind]").forEach((button) => {
  if (button.tagName === "BUTTON") {
    button.addEventListener("click", () => view.ready() && trigger("download", { kind: button.dataset.kind }));
  }
});
root.querySelectorAll("[data-measure]").forEach((button) => {
  button.addEventListener("click", () => {
    view.measure = button.dataset.measure;
    root.querySelectorAll("[data-measure]").forEach((other) =>
      other.setAttribute("aria-pressed", String(other === button)));
    showAnswer();
  });
});
listenToPicture(view);
window.addEventListener("bcos:theme", () => {
  if (view.shown) showAll();
  showAnswer();
});
window.addEventListener("bcos:stopped", backToWhole);
window.addEventListener("bcos:wait", () => {
  if (element.closest("#viewer-a")) showProgress("waiting for the model …", 0.02);
});
watch("value", showValue);
watch("said", showSaid);
watch("region", () => {
  const region = props.region;
  const waited = region && view.boxed && String(region.box) === String(view.boxed);
  if (!waited || !view.ready() || region.step !== view.frame().step) return;
  view.region = region;
  showRegion(view, region);
});
watch("attention", () => {
  showProgress("", 0);
  if (!view.ready() || !props.attention || props.attention.frames.length !== view.shown.frames.length) return;
  view.attention = { frames: props.attention.frames.map((frame) => ({ ...frame })) };
  showRival();
  paintViewer(view);
});
showValue();
