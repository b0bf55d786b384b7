// Chips of words, the warning about missing ones, and the budget bar.
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // never as HTML: prompts come from anybody
  return element;
}

function showChips(view) {
  const { words } = view.shown;
  const chips = view.find(".chips");
  const key = words.map((word) => `${word.negative}${word.speaks}${word.text}`).join("\n");
  if (view.chipKey !== key) {
    view.chipKey = key;
    chips.replaceChildren(...words.map((word, index) => chip(view, word, index)));
  }
  const shares = view.frame().relevance;
  const most = Math.max(1e-9, ...shares.map(Math.abs));
  [...chips.children].forEach((element, index) => {
    const word = words[index];
    if (!word.speaks) return;
    const colour = wordColour(view, spokenOf(words).indexOf(index));
    element.style.setProperty("--shade", css(colour, 0.08 + 0.62 * Math.sqrt(Math.abs(shares[index]) / most)));
    element.style.setProperty("--ink", css(colour));
    element.dataset.relevance = shares[index];
    element.querySelector("small").textContent = percent(shares[index]);
    element.classList.toggle("lacking", word.drawn === false);
    element.setAttribute("aria-pressed", String(view.pinned === index));
    const lacking = word.drawn === false ? ", probably not drawn" : "";
    element.setAttribute("aria-label", `${word.text}, ${percent(shares[index])} of the picture${lacking}`);
  });
}

function spokenOf(words) {
  return words.map((word, index) => (word.speaks ? index : -1)).filter((index) => index >= 0);
}

function chip(view, word, index) {
  const text = word.negative ? `−${word.text}` : word.text;
  if (!word.speaks) {
    const silent = make("span", "silent", text);
    silent.title = "steers where others speak; gives exactly 0";
    return silent;
  }
  const button = make("button", "chip", text);
  button.type = "button";
  button.append(make("small"));
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && view.look(index));
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && view.look(view.pinned));
  button.addEventListener("focus", () => button.matches(":focus-visible") && view.look(index));
  button.addEventListener("blur", () => view.look(view.pinned));
  button.addEventListener("click", () => view.pin(view.pinned === index ? null : index));
  return button;
}

function showWarning(view) {
  const lacking = (view.shown.words || []).filter((word) => word.drawn === false && word.group === "object");
  const warning = view.find(".warning");
  warning.hidden = lacking.length === 0;
  if (lacking.length) {
    const named = lacking.map((word) => `“${word.text}” (${percent(word.probability)} likely)`).join(", ");
    warning.querySelector("p").textContent = `Probably not in the picture: ${named}.`;
    view.find(".repair").textContent = lacking.length > 1 ? "Draw until they are there" : "Draw until it is there";
  }
}

// The words' share, each in its own colour, then noise and bias. What is negative stands in the list alone.
function showBudget(view) {
  const { words } = view.shown;
  const frame = view.frame();
  const spoken = spokenOf(words);
  const share = Object.fromEntries(frame.budget);
  const rows = spoken.map((index, place) => ({
    name: words[index].text, share: frame.relevance[index] * share.words, colour: wordColour(view, place),
  }));
  rows.push({ name: "noise x_T", share: share.noise, colour: otherColour("noise") });
  rows.push({ name: "bias, time", share: share.bias, colour: otherColour("bias") });
  const whole = rows.reduce((sum, row) => sum + Math.max(0, row.share), 0) || 1;
  const bar = view.find(".budget");
  bar.replaceChildren(...rows.map((row) => {
    const piece = make("span");
    piece.style.width = `${(100 * Math.max(0, row.share)) / whole}%`;
    piece.style.background = css(row.colour);
    return piece;
  }));
  bar.setAttribute("aria-label", rows.map((row) => `${row.name} ${percent(row.share)}`).join(", "));
  view.find(".legend").replaceChildren(...rows.map((row) => {
    const item = make("li", "", row.name);
    item.style.setProperty("--ink", css(row.colour));
    item.append(make("b", "", percent(row.share)));
    return item;
  }));
  const { completeness: error, frames } = view.shown; // a preview has neither
  const last = frames && view.step === frames.length - 1;
  view.find("h2 + .budget").previousElementSibling.querySelector("small").textContent =
    error === undefined ? "so far" : last ? `adds up to ${error.toExponential(0)}` : `of step ${frame.step}`;
}
