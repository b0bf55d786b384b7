// Painting: the picture as it is, or faded under the map of one word.
const FADE = 0.45;

function paint(canvas, size, image, heat, offset, colour) {
  const [width, height] = size;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const data = context.createImageData(width, height);
  const ground = isDark() ? 16 : 255;
  for (let p = 0; p < width * height; p++) {
    const rgb = [image[3 * p], image[3 * p + 1], image[3 * p + 2]];
    const gray = (rgb[0] + rgb[1] + rgb[2]) / 3;
    const strength = heat ? Math.sqrt(heat[offset + p] / 255) : 0;
    for (let c = 0; c < 3; c++) {
      const faded = ground + (gray - ground) * FADE;
      data.data[4 * p + c] = heat ? faded + (colour[c] - faded) * strength : rgb[c];
    }
    data.data[4 * p + 3] = 255;
  }
  context.putImageData(data, 0, 0);
}

// The picture of the step that is shown; with a word, its map over it, and DAAM's beside it.
function paintViewer(view) {
  const { size } = view.shown;
  const frame = view.frame();
  if (!frame) return;
  const open = unpackFrame(frame);
  const place = spokenOf(view.shown.words).indexOf(view.word);
  const colour = place < 0 ? null : wordColour(view, place);
  const pixels = size[0] * size[1];
  paint(view.canvas, size, open.image, place < 0 ? null : open.heat, place * pixels, colour);
  const rival = view.attention && view.attention.frames[view.step];
  if (view.rivalCanvas && rival) {
    rival.open = rival.open || bytesOf(rival.heat);
    const heard = place >= 0 && (place + 1) * pixels <= rival.open.length;
    paint(view.rivalCanvas, size, open.image, heard ? rival.open : null, place * pixels, colour);
  }
  view.find(".ours").setAttribute("aria-label", describe(view, place < 0 ? "" : view.shown.words[view.word].text));
  showCaption(view);
}

// Under the picture: what is under way, or whose map is shown.
function showCaption(view) {
  const word = view.shown && view.word !== null ? view.shown.words[view.word] : null;
  view.find(".ours-name").textContent = view.status || (word ? `“${word.text}”: exactly what it gave` : "");
}

function describe(view, name) {
  const { size, prompt } = view.shown;
  const shown = name ? `the map of the word ${name}` : "the picture";
  return `${shown} of “${prompt}”, ${size[0]} by ${size[1]} pixels. ` +
    "Arrow keys move over pixels, with shift they draw a box, Enter asks it, Escape leaves it.";
}
