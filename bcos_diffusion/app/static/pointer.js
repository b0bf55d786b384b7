// Asking the picture with mouse, finger or keys. A box is two corners, both included while it is drawn.
function listenToPicture(view) {
  const frame = view.find(".ours");
  const pixelAt = (event) => {
    const bounds = frame.getBoundingClientRect();
    const { size } = view.shown;
    const along = (value, start, length, count) =>
      Math.max(0, Math.min(count - 1, Math.floor(((value - start) / length) * count)));
    return [along(event.clientX, bounds.left, bounds.width, size[0]),
      along(event.clientY, bounds.top, bounds.height, size[1])];
  };
  frame.addEventListener("pointerdown", (event) => {
    if (!view.ready() || event.button) return;
    frame.setPointerCapture(event.pointerId);
    view.leaveBox();
    view.corner = view.cursor = pixelAt(event);
    drawMarks(view);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!view.ready()) return;
    view.cursor = pixelAt(event);
    drawMarks(view);
    if (!view.corner && !view.region) showPixel(view, ...view.cursor);
  });
  frame.addEventListener("pointerup", () => view.corner && askBox(view));
  frame.addEventListener("pointercancel", () => view.leaveBox());
  frame.addEventListener("pointerleave", () => {
    if (view.corner || view.region || !view.ready()) return;
    view.cursor = null;
    drawMarks(view);
    showNothing(view);
  });
  frame.addEventListener("keydown", (event) => moveByKey(view, event));
  frame.addEventListener("focus", () => {
    if (!view.ready() || view.cursor || !frame.matches(":focus-visible")) return;
    view.cursor = view.shown.size.map((side) => Math.floor(side / 2));
    drawMarks(view);
  });
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveByKey(view, event) {
  if (!view.ready()) return;
  if (event.key === "Escape") {
    view.leaveBox();
    if (view.cursor) showPixel(view, ...view.cursor);
  } else if (event.key === "Enter" || event.key === " ") {
    view.corner = view.corner || view.cursor;
    if (view.corner) askBox(view);
  } else if (MOVES[event.key]) {
    const from = view.cursor || view.shown.size.map((side) => Math.floor(side / 2));
    if (event.shiftKey && !view.corner) {
      view.leaveBox();
      view.corner = from;
    } else if (!event.shiftKey) {
      view.leaveBox();
    }
    view.cursor = from.map((value, axis) =>
      Math.max(0, Math.min(view.shown.size[axis] - 1, value + MOVES[event.key][axis])));
    drawMarks(view);
    view.find(".heard").textContent = showPixel(view, ...view.cursor);
  } else {
    return;
  }
  event.preventDefault();
}

// Left, top, right, bottom of the box between two corners, the last two exclusive.
function boxBetween(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]) + 1, Math.max(a[1], b[1]) + 1];
}

function askBox(view) {
  view.boxed = boxBetween(view.corner, view.cursor);
  view.corner = null;
  drawMarks(view);
  view.askRegion();
}

function drawMarks(view) {
  const cursor = view.find(".cursor");
  const box = view.find(".box");
  cursor.hidden = !view.cursor;
  if (view.cursor) place(view, cursor, boxBetween(view.cursor, view.cursor));
  const shown = view.corner && view.cursor ? boxBetween(view.corner, view.cursor) : view.boxed;
  box.hidden = !shown;
  if (shown) place(view, box, shown);
}

function place(view, mark, [left, top, right, bottom]) {
  const [width, height] = view.shown.size;
  mark.style.left = `${(100 * left) / width}%`;
  mark.style.top = `${(100 * top) / height}%`;
  mark.style.width = `${(100 * (right - left)) / width}%`;
  mark.style.height = `${(100 * (bottom - top)) / height}%`;
}
