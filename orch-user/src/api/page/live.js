// The stream, and what of it is worth saying aloud.

const EVENTS = 100;
/** Longer than the second between two pictures, and than a busy host's delay. */
const SILENCE_MS = 5000;
const AGAIN_MS = 2000;
const NEWS_MS = 3000;
/** Events that end a backend before its time. */
const ENDS = ["exited", "unhealthy", "replaced"];

class Page {
  constructor() {
    const find = (id) => document.getElementById(id);
    this.live = find("live");
    this.plain = find("plain");
    this.sections = find("sections");
    this.events = find("events");
    this.link = find("link");
    this.uptime = find("uptime");
    this.newsroom = find("news");
    this.services = new Map();
    this.states = new Map();
    this.news = [];
    this.heard = 0;
    setInterval(() => this.listen(), 1000);
    setInterval(() => this.tell(), NEWS_MS);
    this.connect();
  }

  connect() {
    this.say("", "connecting");
    this.source = new EventSource("_orch/v1/live");
    this.source.addEventListener("whole", (event) => this.take(event, true));
    this.source.addEventListener("step", (event) => this.take(event, false));
    this.source.addEventListener("error", () => {
      this.lose();
      // The browser tries again by itself, unless the answer was an error.
      if (this.source.readyState === EventSource.CLOSED) setTimeout(() => this.connect(), AGAIN_MS);
    });
  }

  /** A stream that is open and silent is a lost one, too. */
  listen() {
    if (this.heard && Date.now() - this.heard > SILENCE_MS) this.lose();
  }

  lose() {
    this.live.classList.add("stale");
    const since = this.heard ? ` since ${clock(this.heard / 1000)}` : "";
    this.say("lost", `no connection${since}, trying again`);
  }

  say(state, text) {
    this.link.dataset.link = state;
    say(this.link, text);
  }

  take(event, whole) {
    const picture = JSON.parse(event.data);
    this.heard = Date.now();
    this.live.classList.remove("stale");
    this.say("live", "live");
    if (whole) {
      this.events.replaceChildren();
      for (const service of this.services.values()) service.chart.clear();
    }
    // Shown first: a chart that is hidden has no width.
    this.live.hidden = false;
    this.plain.hidden = true;
    say(this.uptime, "up " + age(picture.uptime_s));
    document.title = title(picture);
    this.draw(picture, whole ? new Set() : struck(picture.events));
    this.list(picture.events);
    this.compare(picture, whole);
  }

  draw(picture, hit) {
    const names = new Set(picture.services.map((row) => row.service));
    for (const [name, service] of this.services) {
      if (names.has(name)) continue;
      service.root.remove();
      this.services.delete(name);
    }
    for (const row of picture.services) {
      let service = this.services.get(row.service);
      if (!service) {
        this.services.set(row.service, (service = new Service(row)));
        this.sections.append(service.root);
      }
      const own = (one) => one.service === row.service;
      service.update(row, picture.slots.filter(own), picture.decisions.filter(own), hit);
    }
  }

  list(rows) {
    for (const row of rows) this.events.prepend(eventRow(row));
    while (this.events.children.length > EVENTS) this.events.lastChild.remove();
  }

  /** Only what went wrong, and that it is well again. */
  compare(picture, first) {
    for (const row of picture.slots) {
      const key = `${row.service} ${nameOf(row)}`, before = this.states.get(key);
      this.states.set(key, row.state);
      if (first || before === row.state) continue;
      const trouble = ["failed", "backoff"];
      if (trouble.includes(row.state) && !trouble.includes(before)) {
        this.trouble = (this.trouble || new Set()).add(key);
        this.news.push(`${key} ${row.state}: ${row.note}`);
      } else if (row.state === "ready" && this.trouble && this.trouble.delete(key)) {
        this.news.push(`${key} is ready again`);
      }
    }
    if (first) return;
    // Often quicker than two pictures of the states.
    for (const one of picture.events) {
      if (!ENDS.includes(one.kind)) continue;
      const key = `${one.service} ${nameOf(one)}`;
      this.news = this.news.filter((said) => !said.startsWith(key + " "));
      this.news.push(`${key}: ${one.text}`);
    }
    for (const one of picture.decisions)
      if (one.from !== one.to) this.news.push(`${one.service}: ${one.from} to ${one.to} copies`);
  }

  tell() {
    if (!this.news.length) return;
    this.newsroom.textContent = this.news.splice(0).slice(-4).join(". ");
  }
}

/** The slots whose backend had to go since the picture before. */
function struck(events) {
  const ended = events.filter((one) => ENDS.includes(one.kind) && one.slot !== null);
  return new Set(ended.map((one) => `${one.service} ${one.slot}`));
}

/** What a tab in the background should show. */
function title(picture) {
  const wrong = picture.slots.filter((row) => ["failed", "backoff"].includes(row.state)).length;
  const copies = picture.services.map((row) => `${row.service} ${row.ready}/${row.desired}`).join(", ");
  return `${wrong ? "! " : ""}${copies || "no service"} · orch`;
}

new Page();
