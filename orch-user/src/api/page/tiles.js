// The parts of a service that are not its chart.

const SPARES = 64;
/** A crash is often mended between two pictures: its tile shows it for this long all the same. */
const STRUCK_MS = 1000;
const isSpare = (row) => row.slot >= SPARES;
const nameOf = (row) => (isSpare(row) ? `spare ${row.slot - SPARES + 1}` : `slot ${row.slot}`);

/** A name and a value below it. */
function figure(list, word) {
  const value = make("dd"), box = make("div", {}, make("dt", {}, word), value);
  list.append(box);
  return { box, value };
}

class Tile {
  constructor(row) {
    this.use = draw("use");
    this.word = make("span");
    this.port = make("span", { class: "port mono" });
    this.id = make("code");
    this.runtime = make("span");
    this.paths = {};
    this.dots = draw("svg", { class: "dots", role: "img", viewBox: "0 0 240 14", preserveAspectRatio: "none" });
    for (const name of ["good", "wait", "bad"]) this.dots.append((this.paths[name] = draw("path", { class: name })));
    const list = make("dl");
    this.rate = figure(list, "req/s").value;
    this.p50 = figure(list, "p50").value;
    this.p99 = figure(list, "p99").value;
    this.open = figure(list, "open").value;
    this.age = figure(list, "age").value;
    this.note = make("p", { class: "note", tabindex: "0", role: "note", hidden: "" });
    const state = make("span", { class: "state" }, draw("svg", { "aria-hidden": "true" }, this.use), this.word);
    this.root = make("li", { class: "tile" },
      make("header", {}, make("h3", {}, nameOf(row)), this.port, state),
      make("div", { class: "id" }, this.id, this.runtime), this.dots, list, this.note);
  }

  state(state) {
    if (this.root.dataset.state === state) return;
    this.root.dataset.state = state;
    this.use.setAttribute("href", "#s-" + state);
    say(this.word, state);
  }

  update(row, hit) {
    const tile = this.root;
    this.now = row.state;
    if (hit && row.state === "ready" && tile.dataset.state === "ready") {
      this.state("failed");
      clearTimeout(this.later);
      this.later = setTimeout(() => {
        this.later = 0;
        this.state(this.now);
      }, STRUCK_MS);
    } else if (!this.later || row.state !== "ready") this.state(row.state);
    say(this.port, isSpare(row) ? "" : ":" + row.port);
    if (tile.dataset.backend !== row.backend) {
      tile.classList.toggle("fresh", Boolean(tile.dataset.backend !== undefined && row.backend));
      tile.dataset.backend = row.backend;
      this.id.title = row.backend;
    }
    say(this.id, row.backend.slice(0, 12) || "no backend");
    say(this.runtime, row.backend ? row.runtime : "");
    say(this.rate, rate(row.request_rate));
    say(this.p50, duration(row.p50_s));
    say(this.p99, duration(row.p99_s));
    say(this.open, String(row.connections));
    say(this.age, row.backend ? age(row.age_s) : "–");
    say(this.note, row.note);
    this.note.hidden = !row.note;
    this.poll(row.polls);
  }

  /** Good polls are low, bad ones high, and what is between lies on the ground. */
  poll(polls) {
    if (this.polls === polls) return;
    this.polls = polls;
    const marks = { "+": ["good", 4, 5], ".": ["wait", 10, 4], "!": ["bad", 0, 14] };
    const paths = { good: "", wait: "", bad: "" }, count = { good: 0, wait: 0, bad: 0 };
    const begin = 60 - polls.length;
    [...polls].forEach((mark, at) => {
      const [name, y, height] = marks[mark];
      count[name] += 1;
      paths[name] += `M${(begin + at) * 4 + 0.8} ${y}h2.2v${height}h-2.2z`;
    });
    for (const name of Object.keys(paths)) this.paths[name].setAttribute("d", paths[name]);
    this.dots.setAttribute("aria-label", `The last ${polls.length} polls: ${count.good} good, ${count.bad} bad, ${count.wait} while starting`);
  }
}

class Service {
  constructor(row) {
    this.name = row.service;
    const list = make("dl", { class: "figures" });
    this.copies = figure(list, "copies").value;
    this.requests = figure(list, "requests/s").value;
    this.responses = figure(list, "responses/s").value;
    this.errors = figure(list, "errors/s");
    this.where = make("p");
    this.sentence = make("span");
    this.fill = make("i");
    this.bar = make("div", { class: "bar", "aria-hidden": "true" }, this.fill);
    this.chart = new Chart(row.service);
    this.tiles = make("ul", { class: "tiles", "aria-label": "Slots of " + row.service });
    this.bySlot = new Map();
    const title = make("h2", {}, row.service);
    this.root = make("section", { class: "service", "aria-label": "Service " + row.service },
      make("div", { class: "head" }, make("div", { class: "title" }, title, this.where), list),
      make("div", { class: "outlook" }, make("b", {}, "Next decision"), this.sentence, this.bar),
      this.chart.root, this.tiles);
  }

  update(row, slots, decisions, hit) {
    say(this.where, `listens at ${row.listen}, mode ${row.mode}`);
    this.copies.replaceChildren(String(row.ready), make("small", {}, ` of ${row.desired}`));
    say(this.requests, rate(row.request_rate));
    say(this.responses, rate(row.response_rate));
    const newest = row.samples[row.samples.length - 1];
    if (newest) {
      say(this.errors.value, rate(newest.errors));
      this.errors.box.classList.toggle("alarm", newest.errors > 0);
    }
    say(this.sentence, row.outlook);
    const open = row.window_ends_in_s !== null && !row.held && row.next_step;
    this.bar.hidden = !open;
    if (open) this.fill.style.width = Math.min(100, (100 * row.window_count) / row.next_step) + "%";
    this.chart.update(row.samples, decisions);
    this.slots(slots, hit);
  }

  slots(rows, hit) {
    const there = new Set(rows.map((row) => row.slot));
    for (const [slot, tile] of this.bySlot) {
      if (there.has(slot)) continue;
      tile.root.remove();
      this.bySlot.delete(slot);
    }
    rows.forEach((row, at) => {
      let tile = this.bySlot.get(row.slot);
      if (!tile) this.bySlot.set(row.slot, (tile = new Tile(row)));
      if (this.tiles.children[at] !== tile.root) this.tiles.insertBefore(tile.root, this.tiles.children[at] || null);
      tile.update(row, hit.has(`${row.service} ${row.slot}`));
    });
  }
}

const KINDS = {
  good: ["ready", "replaced", "started", "back", "adopted", "spare"],
  bad: ["unhealthy", "exited", "lost", "error", "backoff"],
  turn: ["scaled", "reset", "reloaded"],
};

function eventRow(row) {
  const tone = Object.keys(KINDS).find((name) => KINDS[name].includes(row.kind)) || "";
  const place = row.service ? row.service + (row.slot === null ? "" : "/" + row.slot) : "orch";
  const iso = new Date(row.time * 1000).toISOString();
  return make("li", {},
    make("time", { datetime: iso, title: iso }, clock(row.time)),
    make("span", { class: "place" }, place),
    make("span", { class: ("kind " + tone).trim() }, row.kind),
    make("span", { class: "text" }, row.text));
}
