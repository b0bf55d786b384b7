// The list of what made a pixel (from the maps at hand) or a box (from the server, by one backward pass).
function wordParts(view) {
  const { words } = view.shown;
  return spokenOf(words).map((index, place) => ({
    name: words[index].text, negative: words[index].negative, word: index, colour: wordColour(view, place),
  }));
}

function pixelParts(view, x, y) {
  const { size, others } = view.shown;
  const open = unpackFrame(view.frame());
  const pixels = size[0] * size[1];
  const at = (measure, part) => open[measure].values[part * pixels + y * size[0] + x] * open[measure].scale;
  const parts = [...wordParts(view), ...others.map((name) => ({ name, colour: otherColour(name) }))];
  return parts.map((part, index) => ({ ...part, push: at("push", index), mass: at("mass", index) }));
}

function regionParts(view, region) {
  return [
    ...wordParts(view).map((part) => ({ ...part, ...region.words[part.word] })),
    { name: "noise", colour: otherColour("noise"), ...region.others.noise },
    { name: "bias, time", colour: otherColour("bias"), ...region.others["time and constants"] },
  ];
}

function showParts(view, where, parts, total, sum) {
  const measure = view.measure;
  const ordered = [...parts].sort((a, b) => b[measure] - a[measure]);
  const most = Math.max(1e-12, ...parts.map((part) => Math.abs(part[measure])));
  const spread = parts.reduce((all, part) => all + Math.abs(part[measure]), 0);
  const shared = Math.abs(total) > 0.05 * spread; // else shares of what cancels would be anything
  view.find(".where").textContent = where;
  view.find(".made tbody").replaceChildren(...ordered.map((part) => {
    const row = make("tr");
    const name = make("th", "", part.negative ? `−${part.name}` : part.name);
    name.scope = "row";
    name.style.setProperty("--ink", css(part.colour));
    const cell = make("td", "bar");
    const bar = make("span", part[measure] < 0 ? "against" : "");
    bar.style.width = `${(100 * Math.abs(part[measure])) / most}%`;
    bar.style.background = css(part.colour);
    cell.append(bar);
    row.append(name, cell, make("td", "value", signed(part[measure])));
    row.append(make("td", "share", shared ? percent(part[measure] / total) : ""));
    row.dataset.value = part[measure];
    return row;
  }));
  view.find(".sum").textContent = sum;
  view.find(".made").dataset.total = total;
}

function signed(value) {
  const size = Math.abs(value);
  const digits = size >= 100 ? 1 : size >= 1 ? 2 : 4;
  return `${value < 0 ? "−" : ""}${size.toFixed(digits)}`;
}

function showPixel(view, x, y) {
  const parts = pixelParts(view, x, y);
  const total = parts.reduce((sum, part) => sum + part[view.measure], 0);
  showParts(view, `Pixel ${x}, ${y} at step ${view.frame().step}`, parts, total, `sum ${signed(total)}`);
  const top = [...parts].sort((a, b) => b[view.measure] - a[view.measure])[0];
  return `Pixel ${x}, ${y}: most from ${top.name}`;
}

function showRegion(view, region) {
  const [left, top, right, bottom] = region.box;
  const where = `Box ${left}–${right} × ${top}–${bottom} at step ${region.step}`;
  const total = region.total[view.measure];
  const parts = regionParts(view, region);
  showParts(view, where, parts, total,
    `sum ${signed(total)} by one backward pass, rest ${region.error.toExponential(0)}`);
  const first = [...parts].sort((a, b) => b[view.measure] - a[view.measure])[0];
  view.find(".heard").textContent = `${where}: most from ${first.name}`;
}

function showNothing(view) {
  view.find(".where").textContent = "Move over the picture for a pixel, drag a box for a region.";
  view.find(".made tbody").replaceChildren();
  view.find(".sum").textContent = "";
  delete view.find(".made").dataset.total;
}
