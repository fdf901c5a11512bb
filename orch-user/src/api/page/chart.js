"use strict";
// Small helpers, and the chart of a service. Everything that is shown is set as text or attribute.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The same in SVG. */
function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Sets text only where it differs: assistive technology hears of every change. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const clock = (time, seconds = true) =>
  new Date(time * 1000).toLocaleTimeString([], {
    hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hour12: false,
  });

function rate(value) {
  if (value >= 9950) return (value / 1000).toFixed(value < 99950 ? 1 : 0) + "k";
  return value > 0 && value < 9.95 ? value.toFixed(1) : String(Math.round(value));
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.00995) return (seconds * 1000).toFixed(1) + " ms";
  if (seconds < 0.995) return Math.round(seconds * 1000) + " ms";
  return seconds.toFixed(1) + " s";
}

function age(seconds) {
  const whole = Math.floor(seconds), two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return whole + "s";
  if (whole < 3600) return Math.floor(whole / 60) + "m" + two(whole % 60) + "s";
  if (whole < 86400) return Math.floor(whole / 3600) + "h" + two(Math.floor(whole / 60) % 60) + "m";
  return Math.floor(whole / 86400) + "d" + two(Math.floor(whole / 3600) % 24) + "h";
}

/** The next round number above. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((step) => step >= value) || 10 * unit;
}

const PLOT = { top: 22, height: 132, gap: 22, copies: 38, axis: 20, left: 40, right: 10, longest: 600, shortest: 120 };

class Chart {
  constructor(service) {
    this.samples = [];
    this.decisions = [];
    this.at = null;
    this.service = service;
    this.paths = {};
    this.lines = draw("g");
    this.labels = draw("g");
    this.svg = draw("svg", { role: "img", height: PLOT.top + PLOT.height + PLOT.gap + PLOT.copies + PLOT.axis });
    this.svg.append(this.lines, this.labels);
    for (const name of ["area", "requests", "responses", "errors", "ready", "desired", "cursor"])
      this.svg.append((this.paths[name] = draw("path", { class: name })));
    this.marks = make("div", { role: "group", "aria-label": "Decisions about " + service });
    this.tip = make("div", { class: "tip", hidden: "" });
    this.slide = make("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": "Moment of the chart of " + service,
      "aria-valuemin": "0", "aria-orientation": "horizontal",
    }, this.svg);
    this.legend = make("div", { class: "legend" });
    this.values = {};
    for (const [name, word] of [["requests", "requests/s"], ["responses", "responses/s"], ["errors", "errors/s"], ["copies", "copies in the ring"]])
      this.legend.append(this.key(name, word));
    this.when = make("span", { class: "at" });
    this.legend.append(this.when);
    this.stage = make("div", { class: "stage" }, this.slide, this.marks, this.tip);
    this.stage.style.position = "relative";
    this.root = make("figure", { class: "chart", "aria-label": "The last minutes of " + service }, this.legend, this.stage);
    this.listen();
  }

  key(name, word) {
    const shapes = {
      requests: draw("path", { class: "requests", d: "M0 6H20" }),
      responses: draw("path", { class: "responses", d: "M0 6H20" }),
      errors: draw("path", { class: "errors", d: "M3 10V4h3v6zM9 10V0h3v10zM15 10V6h3v4z" }),
      copies: draw("path", { class: "ready", d: "M0 10V5H10V1H20V10" }),
    };
    this.values[name] = make("b");
    return make("span", {}, draw("svg", { "aria-hidden": "true" }, shapes[name]), this.values[name], word);
  }

  listen() {
    new ResizeObserver(() => this.render()).observe(this.slide);
    this.slide.addEventListener("pointermove", (event) => {
      const from = this.slide.getBoundingClientRect().left;
      this.point(this.nearest(this.timeAt(event.clientX - from)));
    });
    this.slide.addEventListener("pointerleave", () => this.point(null));
    this.slide.addEventListener("blur", () => this.point(null));
    this.slide.addEventListener("keydown", (event) => {
      const last = this.samples.length - 1;
      const now = this.at === null ? last : this.index(this.at);
      const to = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now + 60, PageDown: now - 60, Home: 0, End: last }[event.key];
      if (event.key === "Escape") this.point(null);
      if (to === undefined || last < 0) return;
      event.preventDefault();
      this.point(this.samples[Math.min(last, Math.max(0, to))].time);
    });
    // One stop of the tab key for all marks; the arrows go from one to the next.
    this.marks.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") this.tip.hidden = true;
      if (!step) return;
      event.preventDefault();
      const all = [...this.marks.children], next = all[all.indexOf(document.activeElement) + step];
      if (next) next.focus();
    });
  }

  update(samples, decisions) {
    if (samples.length) {
      this.samples.push(...samples);
      this.samples = this.samples.slice(-PLOT.longest);
    }
    this.decisions.push(...decisions);
    if (this.decisions.length > 200) this.decisions = this.decisions.slice(-200);
    this.render();
  }

  clear() {
    this.samples = [];
    this.decisions = [];
  }

  span() {
    const last = this.samples.length ? this.samples[this.samples.length - 1].time : Date.now() / 1000;
    const first = this.samples.length ? this.samples[0].time : last;
    const length = Math.min(PLOT.longest, Math.max(PLOT.shortest, last - first));
    return { begin: last - length, end: last, length };
  }

  x(time) {
    const { begin, length } = this.span();
    return PLOT.left + ((time - begin) / length) * (this.width - PLOT.left - PLOT.right);
  }

  timeAt(x) {
    const { begin, length } = this.span();
    return begin + ((x - PLOT.left) / (this.width - PLOT.left - PLOT.right)) * length;
  }

  index(time) {
    let best = 0;
    this.samples.forEach((sample, at) => {
      if (Math.abs(sample.time - time) < Math.abs(this.samples[best].time - time)) best = at;
    });
    return best;
  }

  nearest(time) {
    return this.samples.length ? this.samples[this.index(time)].time : null;
  }

  point(time) {
    this.at = time;
    this.read();
  }

  render() {
    this.width = this.slide.clientWidth;
    if (!this.width) return;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.svg.getAttribute("height")}`);
    const highest = Math.max(...this.samples.map((one) => Math.max(one.requests, one.responses)), 0);
    this.top = roundUp(Math.max(highest, 4));
    this.most = Math.max(...this.samples.map((one) => Math.max(one.ready, one.desired)), 1);
    const y = (value) => PLOT.top + PLOT.height * (1 - value / this.top);
    const floor = PLOT.top + PLOT.height;
    const line = (value) => this.samples.map((one, at) => `${at ? "L" : "M"}${this.x(one.time).toFixed(1)} ${y(value(one)).toFixed(1)}`).join("");
    const requests = line((one) => one.requests);
    this.paths.requests.setAttribute("d", requests);
    this.paths.responses.setAttribute("d", line((one) => one.responses));
    if (this.samples.length) {
      const ends = [this.samples[this.samples.length - 1], this.samples[0]].map((one) => this.x(one.time).toFixed(1));
      this.paths.area.setAttribute("d", `${requests}L${ends[0]} ${floor}L${ends[1]} ${floor}Z`);
    }
    const bars = this.samples.filter((one) => one.errors > 0);
    this.paths.errors.setAttribute("d", bars.map((one) => {
      const height = Math.max(3, floor - y(Math.min(one.errors, this.top)));
      return `M${(this.x(one.time) - 1.25).toFixed(1)} ${floor}v${-height}h2.5v${height}z`;
    }).join(""));
    this.steps();
    this.rulers(y, floor);
    this.flags();
    this.read();
  }

  /** The number of copies, below: a step where it changed. */
  steps() {
    const top = PLOT.top + PLOT.height + PLOT.gap, floor = top + PLOT.copies;
    const y = (value) => (floor - (PLOT.copies - 4) * (value / this.most)).toFixed(1);
    const step = (value) => {
      let path = "", before = null;
      for (const one of this.samples) {
        const x = this.x(one.time).toFixed(1), now = y(value(one));
        path += before === null ? `M${x} ${now}` : before === now ? "" : `H${x}V${now}`;
        before = now;
      }
      return path && `${path}H${this.x(this.span().end).toFixed(1)}`;
    };
    const ready = step((one) => one.ready);
    const close = ready && `V${floor}H${this.x(this.samples[0].time).toFixed(1)}Z`;
    this.paths.ready.setAttribute("d", ready + close);
    this.paths.desired.setAttribute("d", step((one) => one.desired));
  }

  rulers(y, floor) {
    this.lines.replaceChildren();
    this.labels.replaceChildren();
    const right = this.width - PLOT.right;
    const across = (at) => this.lines.append(draw("path", { class: "grid", d: `M${PLOT.left} ${Math.round(at)}H${right}` }));
    const label = (x, at, text, anchor) => this.labels.append(draw("text", { x, y: at, "text-anchor": anchor }, text));
    for (const share of [0, 0.5, 1]) {
      across(y(this.top * share));
      label(PLOT.left - 8, y(this.top * share) + 4, rate(this.top * share).replace(".0", ""), "end");
    }
    const copies = floor + PLOT.gap + PLOT.copies;
    across(copies);
    label(PLOT.left - 8, copies + 1, "0", "end");
    label(PLOT.left - 8, copies - PLOT.copies + 11, String(this.most), "end");
    const { begin, end, length } = this.span();
    const every = length > 300 ? (this.width < 560 ? 180 : 60) : this.width < 560 ? 60 : 30;
    for (let time = Math.ceil(begin / every) * every; time <= end; time += every) {
      const x = this.x(time);
      if (x < PLOT.left + 16 || x > right - 14) continue;
      label(x, copies + 16, clock(time, every < 60), "middle");
    }
  }

  /** What was decided; what lies too close together is one mark. */
  flags() {
    const { begin } = this.span();
    const groups = [];
    for (const one of this.decisions) {
      if (one.time < begin) continue;
      const x = Math.min(this.x(one.time), this.width - PLOT.right);
      const last = groups[groups.length - 1];
      if (last && x - last.x < 25) last.all.push(one);
      else groups.push({ x, all: [one] });
    }
    while (this.marks.children.length > groups.length) this.marks.lastChild.remove();
    groups.forEach((group, at) => {
      const mark = this.marks.children[at] || this.marks.appendChild(this.mark());
      const first = group.all[0], last = group.all[group.all.length - 1];
      const shape = last.to > first.from ? "M8 3l5 8H3z" : last.to < first.from ? "M8 13l5-8H3z" : "M8 5.5a2.5 2.5 0 1 0 .01 0z";
      mark.firstChild.firstChild.setAttribute("d", shape);
      mark.style.left = group.x + "px";
      mark.tabIndex = at === groups.length - 1 ? 0 : -1;
      mark.decisions = group.all;
      const label = group.all.map((one) => `${clock(one.time)}, ${this.sentence(one)}`).join("; ");
      if (mark.getAttribute("aria-label") !== label) mark.setAttribute("aria-label", label);
      this.lines.append(draw("path", { class: "decision", d: `M${group.x.toFixed(1)} 18V${PLOT.top + PLOT.height}` }));
    });
  }

  sentence(decision) {
    const copies = decision.from === decision.to ? `stays at ${decision.to}` : `${decision.from} to ${decision.to} copies`;
    return `${copies}: ${decision.reason}`;
  }

  mark() {
    const mark = make("button", { type: "button", class: "mark" }, draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, draw("path", { fill: "currentColor" })));
    const show = () => {
      const rows = mark.decisions.slice(-4).map((one) => make("p", {}, make("time", {}, clock(one.time)), " " + this.sentence(one)));
      this.tip.replaceChildren(...rows);
      this.tip.hidden = false;
      const x = parseFloat(mark.style.left);
      this.tip.style.left = Math.max(0, Math.min(x - 40, this.width - this.tip.offsetWidth)) + "px";
    };
    const hide = () => { this.tip.hidden = true; };
    for (const name of ["pointerenter", "focus", "click"]) mark.addEventListener(name, show);
    for (const name of ["pointerleave", "blur"]) mark.addEventListener(name, hide);
    return mark;
  }

  /** The numbers at the moment that is pointed at, or now. */
  read() {
    const last = this.samples.length - 1;
    const at = this.at === null ? last : this.index(this.at);
    const sample = this.samples[at];
    if (!sample) return;
    for (const name of ["requests", "responses", "errors"]) say(this.values[name], rate(sample[name]));
    say(this.values.copies, sample.ready === sample.desired ? String(sample.ready) : `${sample.ready} of ${sample.desired}`);
    say(this.when, this.at === null ? "" : clock(sample.time));
    const x = this.x(sample.time).toFixed(1);
    this.paths.cursor.setAttribute("d", this.at === null ? "" : `M${x} ${PLOT.top}V${PLOT.top + PLOT.height + PLOT.gap + PLOT.copies}`);
    this.slide.setAttribute("aria-valuemax", String(Math.max(last, 1)));
    this.slide.setAttribute("aria-valuenow", String(at));
    this.slide.setAttribute("aria-valuetext",
      `${clock(sample.time)}: ${rate(sample.requests)} requests, ${rate(sample.responses)} responses, ${rate(sample.errors)} errors a second, ${sample.ready} copies`);
    this.svg.setAttribute("aria-label", `Requests, responses and errors per second, and copies, of ${this.service}: at most ${rate(this.top)} a second`);
  }
}
