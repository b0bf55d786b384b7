// Every part has a colour of its own, the same in chips, budget, lists and overlays. A word that names a colour has it;
// the others take turns through hues that are far from those.
const NAMED = { red: 0, orange: 28, yellow: 48, green: 140, blue: 220, purple: 275, pink: 330, brown: 20 };
const HUES = [28, 190, 286, 140, 340, 220, 48, 95];
const FAR = 34;

function isDark() {
  return document.body.classList.contains("dark");
}

// The hues of the words that speak, in their order.
function huesOf(texts) {
  const taken = texts.filter((text) => text in NAMED).map((text) => NAMED[text]);
  const apart = (a, b) => Math.min(Math.abs(a - b), 360 - Math.abs(a - b));
  const free = HUES.filter((hue) => taken.every((other) => apart(hue, other) >= FAR));
  let turn = 0;
  return texts.map((text) => {
    if (text in NAMED) return NAMED[text];
    const hue = free[turn % free.length] + 17 * Math.floor(turn / free.length);
    turn += 1;
    return hue % 360;
  });
}

function wordColour(view, place) {
  const spoken = spokenOf(view.shown.words);
  const key = view.shown.words.map((word) => word.text).join(" ");
  if (view.hueKey !== key) {
    view.hueKey = key;
    view.hues = huesOf(spoken.map((index) => view.shown.words[index].text));
  }
  return fromHsl(view.hues[place], 0.78, isDark() ? 0.62 : 0.5);
}

function otherColour(kind) {
  if (kind === "noise") return isDark() ? [148, 163, 184] : [100, 116, 139];
  return isDark() ? [92, 100, 116] : [176, 184, 196];
}

function fromHsl(hue, saturation, lightness) {
  const a = saturation * Math.min(lightness, 1 - lightness);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (lightness - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

function css(colour, alpha = 1) {
  return `rgb(${colour.join(" ")} / ${alpha})`;
}

function percent(share) {
  const rounded = Math.round(share * 1000) / 10;
  return `${(rounded + 0).toFixed(1).replace("-", "−")} %`;
}
