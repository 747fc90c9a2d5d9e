// The KV blocks of a live engine, drawn as its frames arrive; afterwards the frames of the run, to step through.
//
// A frame, as labkit/workbook/blocks.py packs it: t seconds, n blocks, s tokens a block, h [[request, tokens, [ids], colour]],
// w [[request, colour where it was preempted]], nw waiting, f [findable free ids], p preempted and d finished so far,
// e [[what, request]].
//
// It is drawn when a frame arrives, never between: an animation would take processor time from an engine on this machine.

const MARK_FRAMES = 5; // how long a change stays marked
const LIVE_S = 30; // seconds in the live time line
const ROWS = 10;
const CELL = { most: 46, least: 5, height: 330 };

function node(tag, className, parent, attributes = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

const known = new WeakMap();

function held(frame) {
  if (known.has(frame)) return known.get(frame);
  const blocks = new Map(); // id → {holders, tokens}
  known.set(frame, blocks);
  for (const [request, tokens, ids] of frame.h) {
    ids.forEach((id, index) => {
      if (!id) return;
      const block = blocks.get(id) ?? { holders: [], tokens: 0 };
      block.holders.push(request);
      block.tokens = Math.max(0, Math.min(frame.s, tokens - index * frame.s));
      blocks.set(id, block);
    });
  }
  return blocks;
}

// What became of blocks in the last few frames: id → {what: "new" | "freed" | "preempted", age in frames}.
function changes(frames, last) {
  const marks = new Map();
  for (let k = Math.max(1, last - MARK_FRAMES + 1); k <= last; k++) {
    const [before, now] = [held(frames[k - 1]), held(frames[k])];
    const lost = new Set(frames[k].e.filter(([what]) => what === "preempted").map(([, request]) => request));
    for (const [id, block] of before) {
      const gone = block.holders.every(request => !now.get(id)?.holders.includes(request));
      if (!gone) continue;
      if (block.holders.some(request => lost.has(request))) marks.set(id, { what: "preempted", age: last - k });
      else if (!now.has(id)) marks.set(id, { what: "freed", age: last - k });
    }
    for (const id of now.keys()) {
      if (!before.has(id) && marks.get(id)?.age !== last - k) marks.set(id, { what: "new", age: last - k });
    }
  }
  return marks;
}

function words(frame) {
  const blocks = held(frame);
  const shared = [...blocks.values()].filter(block => block.holders.length > 1).length;
  const back = frame.w.filter(([, colour]) => colour !== null).length;
  const many = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
  const parts = [
    `${frame.t.toFixed(1)} s: ${many(frame.h.length, "request")} hold${frame.h.length === 1 ? "s" : ""} ${blocks.size} of ` +
      `${frame.n} blocks (${Math.round((100 * blocks.size) / frame.n)} %)${shared ? `, ${shared} of them shared` : ""}`,
    `${many(frame.f.length, "free block")} can still be found`,
    frame.nw ? `${many(frame.nw, "request")} wait${frame.nw === 1 ? "s" : ""}${back ? `, ${back} of them preempted` : ""}` : "nobody waits",
  ];
  return `${parts.join("; ")}.`;
}

function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

function cellSize(n, width) {
  for (let size = CELL.most; size > CELL.least; size--) {
    if (Math.ceil(n / Math.floor(width / size)) * size <= CELL.height) return size;
  }
  return CELL.least;
}

function drawCell(pen, kind, x, y, size, look) {
  const { ink, paper, colour, fill, label } = look;
  pen.lineWidth = 1;
  if (kind === "free" || kind === "findable") {
    const small = size < 12; // a thousand outlines would be all one sees
    pen.strokeStyle = pen.fillStyle = ink;
    if (kind === "findable") {
      pen.globalAlpha = small ? 0.28 : 0.16;
      pen.fillRect(x, y, size, size);
      if (!small) pen.setLineDash([3, 2]);
    }
    pen.globalAlpha = small ? 0.3 : 0.6;
    if (kind === "free" || !small) pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    return;
  }
  if (kind === "shared") {
    pen.fillStyle = ink;
    pen.fillRect(x, y, size, size);
    pen.save();
    pen.beginPath();
    pen.rect(x, y, size, size);
    pen.clip();
    pen.strokeStyle = paper;
    pen.globalAlpha = 0.5;
    for (let d = -size; d < size; d += Math.max(4, size / 5)) {
      pen.beginPath();
      pen.moveTo(x + d, y + size);
      pen.lineTo(x + d + size, y);
      pen.stroke();
    }
    pen.restore();
  } else {
    pen.globalAlpha = 0.18;
    pen.fillStyle = colour;
    pen.fillRect(x, y, size, size);
    pen.globalAlpha = 1;
    const height = Math.max(fill ? 1 : 0, Math.round(fill * size));
    pen.fillRect(x, y + size - height, size, height);
    pen.strokeStyle = colour;
    pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
  }
  if (label && size >= 20) {
    pen.font = `600 ${Math.min(14, Math.round(size * 0.38))}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.lineWidth = 4;
    [pen.strokeStyle, pen.fillStyle] = kind === "shared" ? [ink, paper] : [paper, ink];
    pen.strokeText(label, x + size / 2, y + size / 2 + 1);
    pen.fillText(label, x + size / 2, y + size / 2 + 1);
  }
}

function drawMark(pen, what, age, x, y, size, look) {
  const strong = look.still ? 1 : 1 - age / MARK_FRAMES;
  pen.globalAlpha = 0.25 + 0.75 * strong;
  pen.lineWidth = Math.max(1.5, size / 14);
  if (what === "new") {
    pen.strokeStyle = look.ink;
    pen.strokeRect(x - 1, y - 1, size + 2, size + 2);
  } else if (what === "freed") {
    const inset = size * 0.32;
    pen.strokeStyle = look.ink;
    pen.beginPath();
    pen.moveTo(x + inset, y + inset);
    pen.lineTo(x + size - inset, y + size - inset);
    pen.moveTo(x + size - inset, y + inset);
    pen.lineTo(x + inset, y + size - inset);
    pen.stroke();
  } else {
    pen.strokeStyle = pen.fillStyle = look.alarm;
    pen.strokeRect(x - 1, y - 1, size + 2, size + 2);
    const [left, wide] = look.corner ? [x + size * 0.62, size * 0.38] : [x + size * 0.25, size * 0.5];
    const above = look.corner ? y : y + size * 0.28;
    pen.beginPath();
    pen.moveTo(left, above);
    pen.lineTo(left + wide, above);
    pen.lineTo(left + wide / 2, above + wide * 0.9);
    pen.closePath();
    pen.lineWidth = 2;
    pen.strokeStyle = look.paper;
    pen.stroke();
    pen.fill();
  }
  pen.globalAlpha = 1;
}

async function unpack(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function render({ model, el }) {
  const palette = model.get("palette");
  const alarm = model.get("alarm");
  const still = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
  let frames = []; // live: the last LIVE_S seconds; replay: the recording
  let last = -1;
  let replay = false;
  let playing = 0;
  let shown = []; // when frames were drawn
  let said = 0;

  const root = node("div", "lkb", el, { role: "group", "aria-label": "KV blocks of a live engine" });
  const top = node("div", "lkb-top", root);
  const headline = node("div", "lkb-headline", top);
  const counters = node("div", "lkb-counters", top);
  const state = node("div", "lkb-state", top);
  const main = node("div", "lkb-main", root);
  const side = node("div", "lkb-side", main);
  const runningTitle = node("div", "lkb-title lkb-apart", side);
  for (const part of ["", "lkb-plain"]) node("span", part, runningTitle);
  const rows = node("div", "lkb-rows", side);
  const waitingTitle = node("div", "lkb-title", side);
  const queue = node("div", "lkb-queue", side);
  const middle = node("div", "lkb-middle", main);
  const grid = node("canvas", "lkb-grid", middle, { role: "img" });
  const legend = node("div", "lkb-legend", middle, { "aria-hidden": "true" });
  const lineTitle = node("div", "lkb-title", root);
  const line = node("canvas", "lkb-line", root, { "aria-hidden": "true" });
  // JupyterLab's own use of the arrow keys would come first.
  const controls = node("div", "lkb-controls", root, { "data-lm-suppress-shortcuts": "true" });
  controls.hidden = true;
  const play = node("button", "lkb-play", controls, { type: "button" });
  const slider = node("input", "lkb-slider", controls, { type: "range", min: "0", step: "1", "aria-label": "Moment of the run" });
  const where = node("span", "lkb-where", controls);
  const sentence = node("div", "lkb-words", root, { role: "status" });

  const samples = [];
  for (const [kind, text, mark] of [
    ["held", "held by one request (its number), its tokens as the fill"],
    ["shared", "shared, and by how many"],
    ["findable", "free, content can still be found"],
    ["free", "free"],
    ["held", "just given out", "new"],
    ["free", "just freed", "freed"],
    ["held", "just taken from a preempted request", "preempted"],
  ]) {
    const item = node("span", "lkb-sample", legend);
    samples.push([node("canvas", "", item), kind, mark]);
    node("span", "", item).textContent = text;
  }

  function look() {
    const style = getComputedStyle(root);
    return { ink: style.color, paper: style.backgroundColor, alarm, still };
  }

  function drawGrid(frame, how) {
    const width = Math.max(120, middle.clientWidth);
    const size = cellSize(frame.n, width);
    const down = Math.ceil(frame.n / Math.floor(width / size));
    const across = Math.ceil(frame.n / down);
    const gap = size >= 30 ? 5 : size >= 14 ? 3 : size >= 8 ? 2 : 1;
    const pen = sharp(grid, width, down * size + 2);
    const blocks = held(frame);
    const colours = new Map(frame.h.map(([request, , , colour]) => [request, palette[colour]]));
    const findable = new Set(frame.f);
    const marks = changes(frames, last);
    for (let id = 1; id <= frame.n; id++) {
      const [x, y] = [((id - 1) % across) * size + 1, Math.floor((id - 1) / across) * size + 1];
      const block = blocks.get(id);
      const kind = block ? (block.holders.length > 1 ? "shared" : "held") : findable.has(id) ? "findable" : "free";
      const first = block?.holders[0];
      const label = kind === "shared" ? `×${block.holders.length}` : kind === "held" ? `${first}` : "";
      const one = { ...how, colour: colours.get(first), fill: block ? block.tokens / frame.s : 0, label };
      drawCell(pen, kind, x, y, size - gap, one);
      const mark = marks.get(id);
      // On a grid of small cells a ring around each new block would be all one sees.
      if (mark && !(mark.what === "new" && (size < 14 || mark.age > 0))) drawMark(pen, mark.what, mark.age, x, y, size - gap, { ...how, corner: Boolean(label) && size >= 20 });
    }
    grid.setAttribute("aria-label", words(frame));
    return blocks;
  }

  function drawLegend(how) {
    for (const [canvas, kind, mark] of samples) {
      canvas.style.width = "18px";
      const pen = sharp(canvas, 18, 18);
      drawCell(pen, kind, 2, 2, 14, { ...how, colour: palette[0], fill: 0.6, label: "" });
      if (mark) drawMark(pen, mark, 0, 2, 2, 14, how);
    }
  }

  function drawRequests(frame) {
    runningTitle.firstChild.textContent = `Running: ${frame.h.length}`;
    runningTitle.lastChild.textContent = `${frame.h.length > ROWS ? `first ${ROWS}: ` : ""}tokens in blocks`;
    waitingTitle.textContent = `Waiting: ${frame.nw}`;
    const wanted = frame.h.slice(0, ROWS);
    while (rows.children.length > wanted.length) rows.lastChild.remove();
    while (rows.children.length < wanted.length) {
      const row = node("div", "lkb-row", rows);
      for (const part of ["chip", "name", "track", "text"]) node("span", `lkb-${part}`, row);
      node("span", "lkb-bar", row.children[2]);
    }
    const most = Math.max(4, ...frame.h.map(([, , ids]) => ids.length));
    wanted.forEach(([request, tokens, ids, colour], index) => {
      const [chip, name, track, text] = rows.children[index].children;
      chip.style.background = track.firstChild.style.background = palette[colour];
      name.textContent = request;
      track.firstChild.style.width = `${(100 * ids.length) / most}%`;
      text.textContent = `${tokens} in ${ids.length}`;
    });
    queue.replaceChildren();
    for (const [request, colour] of frame.w.slice(0, 24)) {
      const chip = node("span", "lkb-wait", queue);
      if (colour !== null) {
        chip.classList.add("lkb-preempted");
        chip.title = "preempted: it ran, lost its blocks, and will compute its tokens anew";
        node("span", "lkb-chip", chip).style.background = palette[colour];
      }
      chip.append(`${request}${colour === null ? "" : " ▼"}`);
    }
    if (frame.nw > 24) queue.append(` and ${frame.nw - 24} more`);
    if (!frame.nw) queue.textContent = "nobody";
  }

  function drawLine(frame, how) {
    const [width, height, left] = [Math.max(120, line.clientWidth), 56, 44];
    const pen = sharp(line, width, height);
    const from = replay ? frames[0].t : Math.max(0, frame.t - LIVE_S);
    const to = replay ? frames[frames.length - 1].t : from + LIVE_S;
    const x = t => left + ((width - left - 8) * (t - from)) / Math.max(0.1, to - from);
    const y = share => 6 + (height - 14) * (1 - share);
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillStyle = how.ink;
    pen.fillText("100 %", left - 6, y(1) + 2);
    pen.fillText("0 %", left - 6, y(0) - 2);
    pen.strokeStyle = how.ink;
    pen.globalAlpha = 0.3;
    for (const share of [0, 1]) {
      pen.beginPath();
      pen.moveTo(left, y(share));
      pen.lineTo(width - 8, y(share));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = palette[0];
    pen.lineWidth = 2;
    pen.beginPath();
    const visible = frames.filter(one => one.t >= from);
    visible.forEach((one, index) => pen[index ? "lineTo" : "moveTo"](x(one.t), y(one.u)));
    pen.stroke();
    pen.fillStyle = alarm;
    for (const one of visible) {
      if (!one.e.some(([what]) => what === "preempted")) continue;
      pen.beginPath();
      pen.moveTo(x(one.t) - 4, y(0) - 8);
      pen.lineTo(x(one.t) + 4, y(0) - 8);
      pen.lineTo(x(one.t), y(0));
      pen.fill();
    }
    if (replay) {
      pen.strokeStyle = how.ink;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.moveTo(x(frame.t), 2);
      pen.lineTo(x(frame.t), height - 2);
      pen.stroke();
    }
    lineTitle.textContent = `Share of the blocks that are held, ${replay ? "whole run" : `last ${LIVE_S} s`} (▼ a preemption)`;
  }

  function draw() {
    const how = look();
    drawLegend(how);
    const frame = frames[last];
    if (!frame) {
      state.textContent = model.get("ended") ? "no frame arrived: the engine did not step" : "waiting for the engine's next step";
      return;
    }
    const blocks = drawGrid(frame, how);
    drawRequests(frame);
    drawLine(frame, how);
    headline.textContent = `${blocks.size} of ${frame.n} blocks held (${Math.round((100 * blocks.size) / frame.n)} %)`;
    counters.textContent = `preempted so far ${frame.p} · finished ${frame.d}`;
    const now = performance.now();
    sentence.classList.toggle("lkb-unseen", !replay);
    if (replay) {
      state.textContent = `recorded in this run: ${model.get("caption")}`;
      slider.value = `${last}`;
      slider.setAttribute("aria-valuetext", words(frame));
      where.textContent = `${frame.t.toFixed(1)} s, frame ${last + 1} of ${frames.length}`;
    } else {
      shown = [...shown.filter(time => now - time < 2000), now];
      const rate = shown.length > 1 ? (1000 * (shown.length - 1)) / (now - shown[0]) : 0;
      state.textContent = `live, ${rate.toFixed(1)} frames/s`;
      root.dataset.rate = rate.toFixed(1);
    }
    root.dataset.frames = `${Number(root.dataset.frames ?? 0) + 1}`;
    if (now - said > 1000) {
      said = now;
      sentence.textContent = words(frame);
    }
  }

  let asked = false;
  function soon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  }

  function arrived(message) {
    if (replay || !message.frame) return;
    frames.push({ ...message.frame, u: held(message.frame).size / message.frame.n });
    while (frames[0].t < message.frame.t - LIVE_S) frames.shift();
    last = frames.length - 1;
    soon();
  }

  function goTo(index) {
    last = Math.max(0, Math.min(frames.length - 1, index));
    said = 0;
    draw();
  }

  function stop() {
    clearInterval(playing);
    playing = 0;
    play.textContent = "▶ Play";
  }

  async function recorded() {
    const packed = model.get("recording");
    if (!packed?.byteLength) {
      if (model.get("ended")) draw();
      return;
    }
    frames = (await unpack(packed)).map(frame => ({ ...frame, u: held(frame).size / frame.n }));
    replay = true;
    controls.hidden = false;
    slider.max = `${frames.length - 1}`;
    stop();
    goTo(model.get("start"));
  }

  play.addEventListener("click", () => {
    if (playing) return stop();
    if (last === frames.length - 1) goTo(0);
    const step = (1000 * (frames[frames.length - 1].t - frames[0].t)) / Math.max(1, frames.length - 1);
    playing = setInterval(() => (last < frames.length - 1 ? goTo(last + 1) : stop()), Math.max(50, step));
    play.textContent = "❚❚ Pause";
  });
  slider.addEventListener("keydown", event => event.stopPropagation()); // the notebook would keep the arrow keys
  slider.addEventListener("input", () => {
    stop();
    goTo(Number(slider.value));
  });

  model.on("msg:custom", arrived);
  model.on("change:recording", recorded);
  model.on("change:ended", recorded);
  const resized = new ResizeObserver(soon);
  resized.observe(middle);
  const themed = new MutationObserver(soon);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  recorded();
  draw();
  return () => {
    stop();
    resized.disconnect();
    themed.disconnect();
    model.off("msg:custom", arrived);
    model.off("change:recording", recorded);
    model.off("change:ended", recorded);
  };
}

export default { render };
