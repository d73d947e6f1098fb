// Search in all layers of the stage that is shown.

const query = document.getElementById("query");
const found = document.getElementById("found");
const MOST_FOUND = 50;
let active = -1;

/** Everything of a view that can be found: its id, what it is called, and the words that find it. */
function entries(made) {
  if (made.entries) return made.entries;
  made.entries = [];
  for (const [id, { type, section, card, row }] of made.items) {
    const layer = section.layer === null ? "" : `layer ${section.layer}`;
    let name, detail;
    if (type === "op") {
      name = `%${row.n} ${row.name || row.kind.name}`;
      detail = [row.kind.name, ...row.in.filter((operand) => typeof operand.ref === "string").map((operand) => operand.ref), row.at];
    } else if (type === "pass") {
      name = `pass ${card.index}`;
      detail = [card.label, card.kind];
    } else {
      name = row.call;
      detail = ["hook site", ...row.fn];
    }
    detail = detail.filter(Boolean).join(" ");
    made.entries.push({ id, name, detail, layer, words: `${name} ${detail} ${layer}`.toLowerCase() });
  }
  return made.entries;
}

function search(text) {
  const layer = text.match(/\blayer\s+(\d+)\b/i);
  const words = text.replace(layer?.[0], "").toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length && !layer) return [];
  const hits = entries(state.view).filter((entry) => (!layer || entry.layer === `layer ${layer[1]}`) && words.every((word) => entry.words.includes(word)));
  if (!words.length) return hits;
  const rank = (entry) => (entry.name.toLowerCase().split(/[\s(]/).includes(words[0]) ? 0 : entry.name.toLowerCase().includes(words[0]) ? 1 : 2);
  return hits.map((entry) => [rank(entry), entry]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
}

function showFound() {
  const hits = search(query.value);
  active = hits.length ? 0 : -1;
  const items = hits.slice(0, MOST_FOUND).map((entry, at) => el("li", { role: "option", id: `found-${at}`, "data-id": entry.id, "aria-selected": String(at === 0), onclick: () => go(entry.id) },
    el("b", {}, entry.name), " ", el("span", {}, entry.detail), el("small", {}, entry.layer)));
  if (query.value.trim() && !hits.length) items.push(el("li", { class: "none" }, "Nothing is called that."));
  if (hits.length > MOST_FOUND) items.push(el("li", { class: "none" }, `and ${hits.length - MOST_FOUND} more`));
  found.replaceChildren(...items);
  found.hidden = !items.length;
  query.setAttribute("aria-expanded", String(!found.hidden));
  setActive(active);
}

function setActive(at) {
  const options = found.querySelectorAll('[role="option"]');
  if (!options.length) return query.removeAttribute("aria-activedescendant");
  active = Math.max(0, Math.min(at, options.length - 1));
  options.forEach((option, index) => option.setAttribute("aria-selected", String(index === active)));
  options[active].scrollIntoView({ block: "nearest" });
  query.setAttribute("aria-activedescendant", options[active].id);
}

function closeFound() {
  found.hidden = true;
  query.setAttribute("aria-expanded", "false");
}

function go(id) {
  closeFound();
  select(id, { scroll: true, focus: true });
}

query.addEventListener("input", showFound);
query.addEventListener("focus", () => query.value && showFound());
query.addEventListener("blur", () => setTimeout(closeFound, 150));
query.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    setActive(active + (event.key === "ArrowDown" ? 1 : -1));
  } else if (event.key === "Enter") {
    const option = found.querySelectorAll('[role="option"]')[active];
    if (option) go(option.dataset.id);
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (query.value) { query.value = ""; showFound(); } else query.blur();
  }
  event.stopPropagation();
});
