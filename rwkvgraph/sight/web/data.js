// The page's data: stages unpacked when they are shown, references made absolute, equal layers found.

const DATA = JSON.parse(document.getElementById("data").textContent);
const views = new Map();

/** A packed value with its changed leaves, counted depth first: `pack` in packing.py. */
function changed(value, changes, count) {
  if (Array.isArray(value)) return value.map((inner) => changed(inner, changes, count));
  if (value !== null && typeof value === "object") {
    const copy = {};
    for (const key in value) copy[key] = changed(value[key], changes, count);
    return copy;
  }
  const at = count.at++;
  return changes.has(at) ? changes.get(at) : value;
}

function unpack(packed) {
  return packed.map((item) => {
    const changes = new Map();
    const set = item.set || [];
    for (let at = 0; at < set.length; at += 2) changes.set(set[at], set[at + 1]);
    return changed(item.whole || packed[item.as].whole, changes, { at: 0 });
  });
}

/** A stage: its sections, groups of equal ones, passes, and operations and sites by name. */
function view(name) {
  if (views.has(name)) return views.get(name);
  const stage = DATA.stages.find((item) => item.name === name);
  const made = { name, note: stage.note, sections: unpack(stage.sections), passes: [], items: new Map(), users: new Map() };
  made.sections.forEach((section, index) => settle(made, section, index));
  made.groups = grouped(made.sections);
  made.groups.forEach((group) => group.sections.forEach((section) => (section.group = group)));
  views.set(name, made);
  return made;
}

/** Numbers counted from the section's first operation made absolute, `{L}` made the layer. */
function settle(made, section, index) {
  const named = (text) => text.replaceAll("{L}", section.layer);
  const absolute = (ref) => (typeof ref === "number" ? ref + section.base : typeof ref === "string" ? named(ref) : null);
  section.index = index;
  section.cards.forEach((card, at) => {
    card.section = section;
    if (card.label) {
      card.index = section.first + at;
      card.id = `pass-${card.index}`;
      made.passes[card.index] = card;
      made.items.set(card.id, { type: "pass", section, card });
      card.binds = (card.binds || []).map(([home, ...rest]) => [named(home), ...rest]);
      card.apart = card.apart.map(([a, b, why]) => [absolute(a), absolute(b), why]);
    }
    card.rows.forEach((row) => (row.h ? settleSite(made, section, card, row, absolute) : settleOp(made, section, card, row, absolute, named)));
  });
}

function settleOp(made, section, card, row, absolute, named) {
  row.n += section.base;
  row.id = `op-${row.n}`;
  row.in = row.in.map(([field, ref, shape, how, bytes, home, first, dtype, written]) =>
    ({ field, ref: absolute(ref), shape, how, bytes, home: named(home), first, dtype, written }));
  row.kind = DATA.kinds[row.k];
  made.items.set(row.id, { type: "op", section, card, row });
  for (const operand of row.in) {
    if (typeof operand.ref !== "number") continue;
    if (!made.users.has(operand.ref)) made.users.set(operand.ref, new Set());
    made.users.get(operand.ref).add(row.n);
  }
}

function settleSite(made, section, card, row, absolute) {
  row.call = row.l ? `${row.h}(${section.layer})` : row.h;
  row.id = `site-${row.call}`;
  row.slots = row.slots.map(([name, ref, shape]) => ({ name, ref: absolute(ref), shape }));
  made.items.set(row.id, { type: "site", section, card, row });
}

/** Runs of layers that differ only in which weights, slots and operations they name. */
function grouped(sections) {
  const groups = [];
  for (const section of sections) {
    const last = groups[groups.length - 1];
    const form = section.layer === null ? null : formOf(section);
    if (last && form !== null && last.form === form) last.sections.push(section);
    else groups.push({ form, sections: [section], at: 0, open: false });
  }
  return groups;
}

function formOf(section) {
  const rows = (card) => card.rows.map((row) =>
    row.h ? [row.h, row.fn] : [row.k, row.shape, row.at, row.in.map((operand) => [operand.field, operand.shape, operand.how])]);
  return JSON.stringify(section.cards.map((card) => [card.label, card.binds?.length, card.variants?.map((item) => item[0]), rows(card)]));
}

/** What an operand is called: its slot's name, or its number. What an earlier layer left, as this layer calls it. */
function nameOf(made, operand, section) {
  const target = made.items.get(`op-${operand.ref}`);
  const name = target?.row.name.split(" ")[0];
  if (!name) return `%${operand.ref}`;
  return target.section !== section && name !== "x" && operand.written ? operand.written : name;
}
