// Making elements, and writing numbers, equations and code.

/** An element: `el("b", {class: "x"}, "text", child)`. Keys that start with "on" are listeners. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function rounded(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function bytes(count) {
  if (count < 1000) return `${count} B`;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    count /= 1000;
    if (count < 999.5 || unit === "TB") return `${rounded(count)} ${unit}`;
  }
}

function duration(us) {
  return us < 1000 ? `${rounded(us)} µs` : `${rounded(us / 1000)} ms`;
}

/** Bytes in so many microseconds, as GB/s. */
function speed(count, us) {
  return us > 0 ? `${rounded(count / us / 1000)} GB/s` : "";
}

function plural(count, word, many = `${word}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? word : many}`;
}

/** A weight's name without the layer that its section is. */
function short(name, layer) {
  return name.startsWith(`blocks.${layer}.`) ? name.slice(`blocks.${layer}.`.length) : name;
}

/** `att_r = matmul(att.receptance.weight, att_rx)` as nodes. */
function equation(made, row, section) {
  const operands = [];
  row.in.forEach((operand, at) => {
    const text = typeof operand.ref === "number" ? nameOf(made, operand, section) : operand.ref === null ? "…" : short(operand.ref, section.layer);
    const kind = typeof operand.ref === "number" ? "value" : operand.home.startsWith("state.") ? "state" : "weight";
    operands.push(el("span", { class: kind }, (operand.how.includes("writes") ? "&" : "") + text), at + 1 < row.in.length ? ", " : "");
  });
  const result = row.name ? [el("b", {}, row.name.split(" ")[0]), " = "] : [];
  return el("span", { class: "equation" }, ...result, el("i", {}, row.kind.name), "(", ...operands, ")");
}

const GRAMMARS = {
  wgsl: /(\/\/.*)|(@\w+)|\b(fn|let|var|const|struct|alias|if|else|for|loop|while|switch|case|default|return|break|continue|enable|override)\b|\b([uif]32|vec[234]|mat\dx\d|array|bool|atomic|texture_2d|storage|uniform|workgroup|function|read|read_write|V|Here)\b|\b((?:0x)?\d[\w.+]*)\b/g,
  python: /(#.*|"""[\s\S]*?"""|"[^"\n]*")|(@\w+)|\b(def|return|for|in|if|else|and|or|not|is|None|True|False|lambda|import|from|class|with|as|while|assert)\b|\b(self|np|Array|int|float)\b|\b(\d[\d._e]*)\b/g,
};
const CLASSES = ["", "comment", "mark", "word", "type", "number"];

/** Code with its words marked, in numbered lines where `numbered`. */
function code(text, language, numbered = false) {
  const inner = el("code");
  let end = 0;
  for (const found of text.matchAll(GRAMMARS[language])) {
    const group = found.slice(1).findIndex((part) => part !== undefined) + 1;
    inner.append(text.slice(end, found.index), el("span", { class: `c-${CLASSES[group]}` }, found[0]));
    end = found.index + found[0].length;
  }
  inner.append(text.slice(end));
  const copy = el("button", { class: "copy", type: "button", onclick: () => copyText(text, copy) }, "Copy");
  const lines = numbered ? el("span", { class: "lines", "aria-hidden": "true" }, text.split("\n").map((_, at) => at + 1).join("\n")) : null;
  return el("div", { class: "code" }, copy, el("pre", { tabindex: "0", "aria-label": `${language} source` }, lines, inner));
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.parentElement.querySelector("code"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
