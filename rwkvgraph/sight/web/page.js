// What is above the model, the keyboard, and links into the page.

function about() {
  const { about: it } = DATA;
  const last = view(LAST);
  const cards = last.passes.filter(Boolean);
  const sizes = it.sizes.filter(([, size]) => size).map(([name, size]) => el("span", {}, el("b", {}, size.toLocaleString("en")), ` ${name}`));
  const head = el("h1", {}, it.version, " ", el("small", {}, it.source));
  const made = [el("p", { class: "brand" }, "rwkvgraph"), head, el("p", { class: "sizes" }, sizes)];
  if (cards.length) {
    const moved = cards.reduce((sum, card) => sum + card.read + card.written, 0);
    const texts = [plural(cards.length, "pass", "passes"), DATA.shaders.length ? plural(DATA.shaders.length, "shader") : "", `${bytes(moved)} moved for ${plural(it.tokens, "token")}`];
    if (it.timing) texts.push(duration(it.timing.total), speed(moved, it.timing.total));
    if (it.hooks) texts.push(plural(it.hooks, "hook"));
    made.push(el("p", { class: "totals" }, texts.filter(Boolean).join(" · ")), overview(cards), legend());
  }
  made.push(el("p", { class: "target" }, `Compiled for ${it.target}.`, it.timing ? ` Timed on ${it.timing.adapter}: ${it.timing.method}.` : ""));
  document.getElementById("about").append(...made);
}

/** All passes in order, as wide as they take time, or move bytes. */
function overview(cards) {
  const total = cards.reduce((sum, card) => sum + weightOf(card), 0) || 1;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const what = cards[0].us === null ? "bytes that they move" : "time that they take";
  for (const [name, value] of Object.entries({ viewBox: "0 0 1000 36", preserveAspectRatio: "none", class: "overview", role: "img", "aria-label": `All passes in order, by the ${what}` })) svg.setAttribute(name, value);
  let x = 0;
  for (const card of cards) {
    const width = (1000 * weightOf(card)) / total;
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x: x.toFixed(2), y: 0, width: Math.max(width - Math.min(0.6, width / 4), 0.2).toFixed(2), height: 36, class: `k-${card.kind}` })) rect.setAttribute(name, value);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = `pass ${card.index}: ${card.label}, ${figures([card])}`;
    rect.append(title);
    rect.addEventListener("click", () => { if (state.view.name !== LAST) showStage(LAST); select(card.id, { scroll: true }); });
    svg.append(rect);
    x += width;
  }
  return svg;
}

function legend() {
  const kinds = [["matmul", "matrix products"], ["row", "rows reduced"], ["wkv", "recurrence"], ["map", "element by element"]];
  return el("p", { class: "legend" }, kinds.map(([kind, text]) => el("span", {}, el("span", { class: `dot k-${kind}` }), ` ${text}`)));
}

function stageButtons() {
  const buttons = DATA.stages.map((stage) => el("button", { type: "button", "data-stage": stage.name, title: stage.note, onclick: () => showStage(stage.name) }, stage.name));
  document.getElementById("stages").append(...buttons);
}

function visibleItems() {
  return [...model.querySelectorAll(".item")].filter((item) => !item.closest("[hidden]"));
}

function move(by) {
  const items = visibleItems();
  const at = items.indexOf(document.activeElement.closest?.(".item"));
  const from = at >= 0 ? at : items.findIndex((item) => item.tabIndex === 0) - (by > 0 ? 1 : 0);
  land(items[Math.max(0, Math.min(items.length - 1, from + by))]);
}

/** Focus an item; where details are open beside it, show its own. */
function land(item) {
  if (!item) return;
  roveTo(item);
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "nearest" });
  if (item.id && panel.classList.contains("open") && WIDE.matches) select(item.id);
}

function outward() {
  const item = document.activeElement.closest?.(".item");
  if (item?.group) return item.group.open ? setOpen(item.group, false) : null;
  const head = item?.classList.contains("pass-head") ? null : item?.closest(".card")?.querySelector(".pass-head");
  land(head || item?.closest(".layer")?.querySelector(".layer-head"));
}

function inward() {
  const item = document.activeElement.closest?.(".item");
  if (item?.group && !item.group.open) setOpen(item.group, true);
  else if (item?.group) move(1);
  else if (item) select(item.id);
}

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  ArrowLeft: outward, h: outward, ArrowRight: inward, l: inward,
  Home: () => land(visibleItems()[0]), End: () => land(visibleItems().at(-1)),
  "/": () => { query.focus(); query.select(); },
  Escape: () => panel.classList.contains("open") && closePanel(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inside = event.target.closest?.("select, pre, input, #panel");
  if (inside && event.key !== "Escape" && event.key !== "/") return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

/** Show what the address names: #pass-12, #op-13, #site-PostFfn(3), or with a stage before: #build:op-3. */
function follow() {
  const name = decodeURIComponent(location.hash.slice(1));
  if (!name || name === "model") return;
  const stage = name.includes(":") ? name.slice(0, name.indexOf(":")) : LAST;
  if (!DATA.stages.some((item) => item.name === stage)) return;
  if (state.view.name !== stage) showStage(stage);
  select(name.slice(name.indexOf(":") + 1), { scroll: true });
}

function keyHelp() {
  const keys = [["↑ ↓", "or j k to move"], ["enter", "to open"], ["← →", "out and in"], ["/", "to search"], ["esc", "to close"]];
  document.getElementById("keys").append(...keys.map(([key, text]) => el("span", {}, el("kbd", {}, key), ` ${text}`)));
}

stageButtons();
about();
keyHelp();
panel.append(hint());
showStage(LAST);
follow();
addEventListener("hashchange", follow);
document.documentElement.dataset.ready = "true";
