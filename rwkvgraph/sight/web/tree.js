// The model: layers that open, in them passes, operations and hook sites.

const model = document.getElementById("model");
const WIDE = matchMedia("(min-width: 60rem)");
const state = { view: null, selected: null };
const LAST = DATA.stages[DATA.stages.length - 1].name;

function weightOf(card) {
  return card.us ?? card.read + card.written;
}

function figures(cards) {
  const total = (key) => cards.reduce((sum, card) => sum + (card[key] || 0), 0);
  const moved = total("read") + total("written");
  const us = total("us");
  return us ? `${duration(us)} · ${speed(moved, us)}` : moved ? bytes(moved) : "";
}

function showStage(name) {
  state.view = view(name);
  state.selected = null;
  model.replaceChildren(el("p", { class: "note" }, `${name[0].toUpperCase()}${name.slice(1)}: ${state.view.note}.`));
  state.view.groups.forEach((group) => model.append(layerElement(group)));
  for (const button of document.querySelectorAll("#stages button")) {
    button.setAttribute("aria-pressed", String(button.dataset.stage === name));
  }
  const first = state.view.groups.find((group) => group.sections[0].layer !== null) || state.view.groups[0];
  if (!state.view.groups.some((group) => group.open)) setOpen(first, true);
  roveTo(model.querySelector(".item"));
}

function titleOf(group) {
  const { sections } = group;
  const [first, last] = [sections[0].layer, sections[sections.length - 1].layer];
  if (first === null) return sections[0].index === 0 ? "Before the layers" : "After the layers";
  return first === last ? `Layer ${first}` : `Layers ${first}–${last}`;
}

function layerElement(group) {
  const section = group.sections[0];
  const cards = group.sections.flatMap((item) => item.cards);
  const ops = section.cards.reduce((sum, card) => sum + card.rows.filter((row) => !row.h).length, 0);
  const count = group.sections.length;
  const passes = section.cards[0].label ? `${plural(section.cards.length, "pass", "passes")}, ` : "";
  const note = `${count > 1 ? `${count} alike, each ` : ""}${passes}${plural(ops, "op")}`;
  group.head = el("button", { class: "layer-head item", type: "button", tabindex: "-1", "aria-expanded": "false", onclick: () => setOpen(group, !group.open) },
    el("span", { class: "title" }, titleOf(group)), el("span", { class: "sum" }, note), strip(section.cards), el("span", { class: "figure" }, figures(cards)));
  group.head.group = group;
  group.body = el("div", { class: "layer-body", hidden: true });
  group.element = el("section", { class: "layer" }, el("h2", {}, group.head), group.body);
  if (group.open) setOpen(group, true);
  return group.element;
}

/** A layer's passes side by side, as wide as they take time, or move bytes. */
function strip(cards) {
  if (!cards[0].label) return "";
  const parts = cards.map((card) => el("span", { class: `k-${card.kind}`, style: `flex-grow:${Math.max(1, weightOf(card))}` }));
  return el("span", { class: "strip", "aria-hidden": "true" }, parts);
}

function setOpen(group, open) {
  group.open = open;
  group.head.setAttribute("aria-expanded", String(open));
  group.body.hidden = !open;
  if (open && !group.body.hasChildNodes()) fill(group);
}

function fill(group) {
  const section = group.sections[group.at];
  const cards = section.cards.map((card) => cardElement(section, card));
  group.body.replaceChildren(...(group.sections.length > 1 ? [picker(group)] : []), ...cards);
}

/** Which of several equal layers is shown. */
function picker(group) {
  const show = (at) => { group.at = at; fill(group); group.body.querySelector("select").focus(); };
  const options = group.sections.map((section, at) => el("option", { value: at, selected: at === group.at }, `layer ${section.layer}`));
  const step = (by, label, sign) => el("button", { type: "button", "aria-label": label, disabled: !group.sections[group.at + by], onclick: () => show(group.at + by) }, sign);
  const select = el("select", { "aria-label": "Layer shown", onchange: (event) => show(Number(event.target.value)) }, options);
  return el("div", { class: "picker" }, "Showing ", step(-1, "layer before", "‹"), select, step(1, "next layer", "›"));
}

function cardElement(section, card) {
  const items = [];
  let sites = null;
  for (const row of card.rows) {
    if (row.h) {
      if (!sites) items.push((sites = el("li", { class: "sites" })));
      sites.append(siteElement(row));
    } else {
      sites = null;
      items.push(el("li", {}, opElement(row, section)));
    }
  }
  const list = el("ol", { class: "rows" }, items);
  if (!card.label) return el("div", { class: "card plain" }, list);
  const head = el("button", { class: "pass-head item", type: "button", tabindex: "-1", id: card.id, onclick: () => select(card.id) },
    el("span", { class: "number" }, String(card.index)), el("span", { class: `dot k-${card.kind}`, title: card.kind }),
    el("span", { class: "label" }, card.label.replaceAll("+", " + ")), el("span", { class: "figure" }, figures([card])));
  return el("article", { class: "card", "aria-label": `Pass ${card.index}` }, el("h3", {}, head), list);
}

function opElement(row, section) {
  const spliced = row.at ? el("span", { class: "at" }, row.at) : null;
  return el("button", { class: `op item${row.at ? " spliced" : ""}`, type: "button", tabindex: "-1", id: row.id, onclick: () => select(row.id) },
    el("span", { class: "number" }, `%${row.n}`), equation(state.view, row, section), spliced, el("span", { class: "shape" }, row.shape));
}

function siteElement(row) {
  const hooked = row.fn.length > 0;
  return el("button", { class: `site item${hooked ? " hooked" : ""}`, type: "button", tabindex: "-1", id: row.id, onclick: () => select(row.id),
    "aria-label": `Hook site ${row.call}${hooked ? `, hooked: ${row.fn.join(", ")}` : ""}` }, row.h, hooked ? el("span", {}, row.fn.join(", ")) : null);
}

/** Open what holds an item and mark it, its producers and its consumers. */
function select(id, { scroll = false, focus = false } = {}) {
  const item = state.view.items.get(id);
  if (!item) return false;
  const { group } = item.section;
  const at = group.sections.indexOf(item.section);
  if (group.at !== at) { group.at = at; if (group.body.hasChildNodes()) fill(group); }
  setOpen(group, true);
  state.selected = id;
  mark();
  const element = document.getElementById(id);
  roveTo(element);
  if (scroll) element.scrollIntoView({ block: WIDE.matches ? "center" : "start" });
  if (focus) element.focus({ preventScroll: scroll });
  showPanel(item);
  history.replaceState(null, "", `#${state.view.name === LAST ? "" : `${state.view.name}:`}${id}`);
  return true;
}

function mark() {
  for (const old of model.querySelectorAll(".selected, .feeds, .uses")) {
    old.classList.remove("selected", "feeds", "uses");
    old.removeAttribute("aria-current");
  }
  const item = state.view.items.get(state.selected);
  const element = document.getElementById(state.selected);
  if (!item || !element) return;
  element.classList.add("selected");
  element.setAttribute("aria-current", "true");
  const around = neighbours(item);
  for (const n of around.feeds) document.getElementById(`op-${n}`)?.classList.add("feeds");
  for (const n of around.uses) document.getElementById(`op-${n}`)?.classList.add("uses");
}

/** The operations that an item reads, and those that read it; of a pass those outside of it. */
function neighbours(item) {
  const made = state.view;
  const rows = item.type === "op" ? [item.row] : item.type === "pass" ? item.card.rows.filter((row) => !row.h) : [];
  const own = new Set(rows.map((row) => row.n));
  const feeds = item.type === "site" ? item.row.slots.map((slot) => slot.ref) : rows.flatMap((row) => row.in.map((operand) => operand.ref));
  const uses = rows.flatMap((row) => [...(made.users.get(row.n) || [])]);
  const others = (list) => [...new Set(list)].filter((n) => typeof n === "number" && !own.has(n));
  return { feeds: others(feeds), uses: others(uses) };
}

function roveTo(element) {
  if (!element) return;
  model.querySelector('.item[tabindex="0"]')?.setAttribute("tabindex", "-1");
  element.setAttribute("tabindex", "0");
}
