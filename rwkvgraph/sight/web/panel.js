// Details of what is selected.

const panel = document.getElementById("panel");

function closePanel() {
  panel.classList.remove("open");
  panel.replaceChildren(hint());
  const before = document.getElementById(state.selected);
  state.selected = null;
  mark();
  before?.focus({ preventScroll: true });
  history.replaceState(null, "", location.pathname + location.search);
}

function hint() {
  return el("p", { class: "hint" }, "Select an operation, a pass or a hook site to see what it is. Lines that feed it and lines that use it are marked.");
}

function showPanel(item) {
  const made = { op: opPanel, pass: passPanel, site: sitePanel }[item.type](item);
  const close = el("button", { class: "close", type: "button", "aria-label": "Close details", onclick: closePanel }, "×");
  panel.replaceChildren(close, ...made.filter(Boolean));
  panel.classList.add("open");
  panel.scrollTop = 0;
}

function part(title, ...content) {
  const there = content.flat().filter(Boolean);
  return there.length ? el("section", {}, el("h3", {}, title), ...there) : null;
}

function table(heads, rows) {
  if (!rows.length) return null;
  const head = el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)));
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)))))));
}

function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** A button that goes to an operation. */
function link(n, from) {
  const target = state.view.items.get(`op-${n}`);
  if (!target) return document.createTextNode("…");
  const elsewhere = target.section !== from ? el("small", {}, target.section.layer === null ? "outside the layers" : `layer ${target.section.layer}`) : null;
  const name = target.row.name ? ` ${target.row.name.split(" ")[0]}` : ` ${target.row.kind.name}`;
  return el("button", { class: "ref", type: "button", onclick: () => select(`op-${n}`, { scroll: true }) }, `%${n}${name}`, elsewhere ? " " : "", elsewhere);
}

function heading(kicker, title, text) {
  return [el("p", { class: "kicker" }, kicker), el("h2", {}, title), text ? el("p", { class: "meaning" }, text) : null];
}

function opPanel({ section, card, row }) {
  const layer = section.layer === null ? "outside the layers" : `layer ${section.layer}`;
  const { feeds, uses } = neighbours({ type: "op", row });
  const links = (list) => (list.length ? el("p", { class: "refs" }, list.map((n) => link(n, section))) : null);
  const [first, ...rest] = row.kind.meaning.split("\n\n");
  return [
    ...heading(`%${row.n} · ${layer}`, row.name || row.kind.name, first),
    rest.length ? el("p", { class: "more" }, rest.join(" ")) : null,
    facts([
      ["operation", `${row.kind.name} (${row.kind.skeleton})`],
      ["result", `${row.dtype}${row.shape}, ${bytes(row.bytes)}`],
      ["slots", row.name],
      ["kept in", livesIn(card, row)],
      [row.at ? "added at" : "built at", row.built],
      ["defined in", row.kind.where],
    ]),
    part("Operands", table(["name", "what", "shape", "bytes"], row.in.map((operand) => [operand.field, operandCell(operand, section), `${operand.dtype}${operand.shape}`, bytes(operand.bytes)])),
      row.par.length ? facts(row.par) : null),
    part("On numpy", row.kind.numpy ? code(row.kind.numpy, "python") : null),
    part("In WGSL", row.kind.wgsl.map(([label, text]) => [el("p", { class: "caption" }, label), code(text, "wgsl")]).flat()),
    part("Fed by", links(feeds)),
    part("Used by", links(uses)),
    card.label ? part("Runs in", el("p", { class: "refs" }, el("button", { class: "ref", type: "button", onclick: () => select(card.id, { scroll: true }) }, `pass ${card.index} `, el("small", {}, card.label)))) : null,
  ];
}

function livesIn(card, row) {
  if (row.lives.length) return `${row.lives[0]}, from element ${row.lives[1]} of ${row.lives[2]} a row`;
  return card.label ? "registers of its pass, or what it writes" : "";
}

function operandCell(operand, section) {
  const notes = [operand.how, operand.home && operand.home !== operand.ref ? `${operand.home}, element ${operand.first.toLocaleString("en")}` : ""];
  const what = typeof operand.ref === "number" ? link(operand.ref, section) : el("span", { class: "mono" }, operand.ref ?? "…");
  return el("span", {}, what, ...notes.filter(Boolean).map((text) => el("small", {}, text)));
}

function passPanel({ section, card }) {
  const moved = card.read + card.written;
  const ops = card.rows.filter((row) => !row.h);
  const { feeds, uses } = neighbours({ type: "pass", card });
  const links = (list) => (list.length ? el("p", { class: "refs" }, list.map((n) => link(n, section))) : null);
  const chosen = (card.variants || []).find((variant) => variant[4]);
  return [
    ...heading(`Pass ${card.index} · ${section.layer === null ? "outside the layers" : `layer ${section.layer}`}`, `${plural(ops.length, "operation")} in one dispatch`, card.label.replaceAll("+", " + ")),
    facts([
      ["skeleton", card.kind],
      ["read", bytes(card.read)],
      ["written", bytes(card.written)],
      ["time", card.us === null ? "" : `${duration(card.us)} · ${speed(moved, card.us)}`],
      ["workgroups", chosen ? `${chosen[2]} of ${plural(chosen[3], "thread")}` : ""],
      ["runs if", card.needs ? `${card.needs} > 0` : ""],
    ]),
    card.binds ? part("Bindings", table(["", "buffer", "access", "read", "written"], [["0", "uniform", "", "", ""], ...card.binds.map(([home, access, element, read, written], at) =>
      [String(at + 1), el("span", { class: "mono" }, home), `${access} ${element}`, read ? bytes(read) : "", written ? bytes(written) : ""])])) : null,
    card.variants?.length ? part("Shader", shaders(card)) : null,
    part("Fed by", links(feeds)),
    part("Used by", links(uses)),
    part("Kept apart", card.apart.length ? el("ul", { class: "apart" }, card.apart.map(([a, b, why]) => el("li", {}, link(a, section), " | ", link(b, section), el("small", {}, why)))) : null),
  ];
}

/** The pass's kernels: one, or several by the number of rows, and of slots. */
function shaders(card) {
  const place = el("div");
  const buttons = card.variants.map(([shader, label, grid, threads], at) => {
    const show = () => {
      buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === at)));
      place.replaceChildren(code(DATA.shaders[shader].trimEnd(), "wgsl", true));
    };
    return el("button", { type: "button", "aria-pressed": "false", onclick: show, title: `${grid} workgroups of ${threads}` }, label);
  });
  buttons[Math.max(0, card.variants.findIndex((variant) => variant[4]))]?.click();
  return [card.variants.length > 1 ? el("div", { class: "choices", role: "group", "aria-label": "Kernel" }, buttons) : null, place];
}

function sitePanel({ section, row }) {
  const module = DATA.about.module;
  const slot = row.slots.find((item) => item.name !== "cursors" && item.name !== "x")?.name || "x";
  const example = `@hooks.on(${module}.${row.call})\ndef change(frame: ${module}.Frame) -> None:\n    frame.${slot} = 0.5 * frame.${slot}`;
  return [
    ...heading("Hook site", row.call, DATA.sites[row.h]),
    part("Hooked by", row.fn.length ? el("ul", {}, row.fn.map((text) => el("li", { class: "mono" }, text))) : null),
    part("Slots of its frame", table(["slot", "now holds", "shape"], row.slots.map((item) =>
      [el("span", { class: "mono" }, item.name), typeof item.ref === "number" ? link(item.ref, section) : el("span", { class: "mono" }, item.ref ?? "…"), item.shape]))),
    part("To hook it", code(example, "python")),
  ];
}
