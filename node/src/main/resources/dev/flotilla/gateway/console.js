"use strict";

// The console of one node: asks this node's API once a second, and draws what it says.

const $ = (id) => document.getElementById(id);
const KEY = "flotilla-key";
const SPEED_SECONDS = 60;
const NODE_COLOURS = 8;

let key = takeKey();
let nodes = [];
let deployments = [];
let wasLost = new Set();
let healedUntil = 0;
const speeds = [];

/** The key may come once in the address, from where it must not be copied along. */
function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) || "";
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

/** Replaces children only where something changed, so that nothing flickers or loses its place. */
function show(parent, children) {
  const next = element("div");
  next.append(...children);
  if (parent.innerHTML !== next.innerHTML) parent.replaceChildren(...children);
}

async function ask(path, options = {}) {
  const response = await fetch(path, {
    ...options,
    headers: { Authorization: "Bearer " + key, ...(options.headers || {}) },
  });
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    const error = new Error(body.error?.message || "HTTP " + response.status);
    error.status = response.status;
    throw error;
  }
  return response;
}

const askJson = async (path) => (await ask(path)).json();

// Key

function lock(message) {
  $("console").hidden = true;
  $("locked").hidden = false;
  $("forget").hidden = true;
  banner("", "");
  $("key-error").textContent = message || "";
  connection("bad", "no key");
  $("key-input").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key-input").value.trim();
  sessionStorage.setItem(KEY, key);
  $("key-input").value = "";
  refresh();
});

$("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  key = "";
  lock();
});

function connection(kind, text) {
  $("connection").className = "pill " + kind;
  $("connection").textContent = text;
}

function banner(kind, text) {
  $("banner").className = kind + (text ? " shown" : "");
  if ($("banner").textContent !== text) $("banner").textContent = text;
}

// Cluster

const nodeName = (id) => nodes.find((n) => n.id === id)?.name || id;
const nodeLost = (id) => nodes.length > 0 && nodes.find((n) => n.id === id)?.state !== "up";

/** Colours follow the order of ids, so a node keeps its own when others are lost. */
function nodeColour(id) {
  const order = nodes.map((n) => n.id).sort();
  return "var(--node-" + (Math.max(0, order.indexOf(id)) % NODE_COLOURS) + ")";
}

function bytes(n) {
  return n >= 1e9 ? (n / 1e9).toFixed(n < 1e10 ? 1 : 0) + " GB" : Math.round(n / 1e6) + " MB";
}

function layersOf(id) {
  let count = 0;
  for (const d of deployments)
    for (const r of d.replicas)
      for (const s of r.stages) if (s.node === id) count += s.last_layer - s.first_layer + 1;
  return count;
}

function drawNodes(cluster, stats) {
  const up = nodes.filter((n) => n.state === "up").length;
  $("node-count").textContent = up + " of " + nodes.length + " up";
  show($("nodes"), nodes.map((n) => {
    const item = element("li", n.state);
    const swatch = element("span", "swatch");
    swatch.style.background = nodeColour(n.id);
    const details = [n.address];
    if (n.id === cluster.self) details.push("this node");
    if (n.roles.includes("controller")) details.push("controller");
    const layers = layersOf(n.id);
    details.push(layers === 0 ? "no layers" : layers + (layers === 1 ? " layer" : " layers"));
    if (n.profile.memory_bytes) details.push(bytes(n.profile.memory_bytes));
    const speed = stats.nodes.find((s) => s.id === n.id)?.tokens_per_second || 0;
    const state = n.state === "up" && speed >= 0.5 ? Math.round(speed) + " tok/s" : n.state;
    item.append(swatch, element("span", "name", n.name), element("span", "state", state), element("span", "detail", details.join(" · ")));
    return item;
  }));
}

function drawDeployments() {
  if (deployments.length === 0) {
    const empty = element("p", "empty", "No model is being served yet. Deploy one with ");
    empty.append(element("code", "", "./flotilla serve MODEL"));
    return show($("deployments"), [empty]);
  }
  show($("deployments"), deployments.flatMap((d) => {
    const rows = d.replicas.length > 0 ? d.replicas : [{ id: "", state: d.state, stages: [] }];
    return rows.map((r, index) => {
      const block = element("div");
      const title = element("div", "deployment-name");
      title.append(element("strong", "", d.model + (rows.length > 1 ? " · replica " + (index + 1) : "")));
      const degraded = r.stages.some((s) => nodeLost(s.node));
      const state = degraded ? "degraded" : r.state;
      title.append(element("span", "state " + state, state));
      if (d.layers) title.append(element("span", "count", d.layers + " layers over " + r.stages.length + (r.stages.length === 1 ? " node" : " nodes")));
      if (d.reason) title.append(element("span", "count", d.reason));
      const bar = element("div", "bar");
      const numbers = element("div", "layer-numbers");
      bar.setAttribute("role", "img");
      bar.setAttribute("aria-label", r.stages.map((s) => "layers " + s.first_layer + " to " + s.last_layer + " on " + nodeName(s.node)).join(", ") || "not placed yet");
      for (const s of r.stages) {
        const slice = element("div", "slice" + (nodeLost(s.node) ? " lost" : ""));
        slice.style.flexGrow = s.last_layer - s.first_layer + 1;
        slice.style.background = nodeColour(s.node);
        slice.append(element("span", "", nodeName(s.node)));
        const range = element("span", "", s.first_layer === s.last_layer ? "" + s.first_layer : s.first_layer + "–" + s.last_layer);
        range.style.flexGrow = slice.style.flexGrow;
        bar.append(slice);
        numbers.append(range);
      }
      if (r.stages.length === 0) {
        bar.append(element("div", "slice pending", "placing layers…"));
        numbers.append(element("span", "", "\u00a0"));
      }
      block.append(title, bar, numbers);
      return block;
    });
  }));
}

function drawBanner() {
  const lost = nodes.filter((n) => n.state === "lost").map((n) => n.name);
  const unwell = deployments.some((d) => d.state !== "ready" || d.replicas.some((r) => r.state !== "ready" || r.stages.some((s) => nodeLost(s.node))));
  if (lost.length > 0 && unwell) {
    healedUntil = Date.now() + 8000;
    banner("", lost.join(", ") + (lost.length === 1 ? " is lost." : " are lost.") + " Re-placing layers on the others; streams pause and go on.");
  } else if (lost.length > 0 && Date.now() < healedUntil) {
    banner("good", "All layers are placed again without " + lost.join(", ") + ".");
  } else if (deployments.some((d) => d.state !== "ready")) {
    banner("", "Loading layers of " + deployments.filter((d) => d.state !== "ready").map((d) => d.model).join(", ") + "…");
  } else {
    banner("", "");
  }
  for (const name of lost) if (!wasLost.has(name)) healedUntil = Date.now() + 8000;
  wasLost = new Set(lost);
}

function drawModels() {
  const select = $("chat-model");
  const names = deployments.map((d) => d.model);
  if ([...select.options].map((o) => o.value).join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) select.value = chosen;
  drawChatEmpty();
}

// Charts

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, text) {
  const e = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

/** A round number at or above x, so that the scale does not tremble. */
function roundUp(x) {
  const power = 10 ** Math.floor(Math.log10(x));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((m) => m * power).find((m) => m >= x * 0.999);
}

const label = (x) => (x === 0 ? "0" : x >= 100 ? Math.round(x).toString() : +x.toPrecision(2) + "");

/** Draws points [x, y] as a line, and others as dots; the y axis begins at 0. */
function chart(target, { line, dots = [], xMin, xMax, xText, area }) {
  const width = target.clientWidth || 300;
  const height = target.clientHeight || 150;
  target.setAttribute("viewBox", "0 0 " + width + " " + height);
  const left = 38, right = 6, top = 8, bottom = 20;
  const yMax = roundUp(Math.max(1e-3, ...line.map((p) => p[1]), ...dots.map((p) => p[1])));
  const x = (v) => left + ((v - xMin) / Math.max(1e-9, xMax - xMin)) * (width - left - right);
  const y = (v) => top + (1 - v / yMax) * (height - top - bottom);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const at = y(yMax * share);
    parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    parts.push(svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, label(yMax * share)));
  }
  parts.push(svg("text", { x: left, y: height - 4 }, xText[0]));
  parts.push(svg("text", { x: width - right, y: height - 4, "text-anchor": "end" }, xText[1]));
  if (line.length > 1) {
    const path = line.map((p, i) => (i ? "L" : "M") + x(p[0]).toFixed(1) + " " + y(p[1]).toFixed(1)).join("");
    if (area) parts.push(svg("path", { class: "area", d: path + "L" + x(line.at(-1)[0]).toFixed(1) + " " + y(0) + "L" + x(line[0][0]).toFixed(1) + " " + y(0) + "Z" }));
    parts.push(svg("path", { class: "main", d: path }));
  }
  for (const p of dots) parts.push(svg("circle", { class: "second", cx: x(p[0]).toFixed(1), cy: y(p[1]).toFixed(1), r: 3 }));
  target.replaceChildren(...parts);
}

function message(target, text) {
  const width = target.clientWidth || 300;
  const height = target.clientHeight || 150;
  target.setAttribute("viewBox", "0 0 " + width + " " + height);
  target.replaceChildren(svg("text", { class: "message", x: width / 2, y: height / 2, "text-anchor": "middle" }, text));
}

function drawSpeed(stats) {
  const now = Date.now() / 1000;
  speeds.push([now, stats.cluster_tokens_per_second]);
  while (speeds.length && speeds[0][0] < now - SPEED_SECONDS - 2) speeds.shift();
  $("speed-now").textContent = stats.cluster_tokens_per_second < 10 ? +stats.cluster_tokens_per_second.toFixed(1) : Math.round(stats.cluster_tokens_per_second);
  const n = stats.cluster_requests_running;
  $("speed-running").textContent = n === 0 ? "no requests running" : n + (n === 1 ? " request running" : " requests running");
  chart($("speed-chart"), { line: speeds.filter((p) => p[0] >= now - SPEED_SECONDS), xMin: now - SPEED_SECONDS, xMax: now, xText: ["1 minute ago", "now"], area: true });
}

/** At most as many points as the chart has room for: of each run of steps its mean. */
function thinned(points, most) {
  const size = Math.ceil(points.length / most);
  const result = [];
  for (let i = 0; i < points.length; i += size) {
    const run = points.slice(i, i + size);
    result.push([run.at(-1)[0], run.reduce((sum, p) => sum + p[1], 0) / run.length]);
  }
  return result;
}

function drawTraining(job) {
  if (!job) {
    $("training-state").textContent = "";
    $("training-figures").textContent = "";
    return message($("loss-chart"), "No training has run yet.");
  }
  $("training-state").textContent = job.model + " · " + job.state;
  const points = job.curve.filter((p) => p.loss !== undefined);
  const last = points.at(-1);
  if (!last) {
    $("training-figures").textContent = job.reason;
    return message($("loss-chart"), job.state === "failed" ? "Failed before its first step." : "Waiting for the first step…");
  }
  const steps = Math.max(job.steps, last.step);
  chart($("loss-chart"), {
    line: thinned(points.map((p) => [p.step, p.loss]), 300),
    dots: job.curve.filter((p) => p.validation_loss !== undefined).map((p) => [p.step, p.validation_loss]),
    xMin: 0, xMax: steps, xText: ["0", "step " + steps],
  });
  const figures = ["step " + last.step + " of " + steps, "loss " + last.loss.toFixed(3)];
  const validated = job.curve.findLast((p) => p.validation_loss !== undefined);
  if (validated) figures.push("validation ● " + validated.validation_loss.toFixed(3));
  if (job.state === "running" && last.tokens_per_second) figures.push(Math.round(last.tokens_per_second) + " tok/s");
  if (job.held_out_accuracy !== undefined) figures.push("held-out " + (100 * job.held_out_accuracy).toFixed(1) + "%");
  if (job.reason) figures.push(job.reason);
  $("training-figures").textContent = figures.join(" · ");
}

// Refreshing

async function refresh() {
  if (!key) return lock();
  try {
    const [cluster, list, stats] = await Promise.all([askJson("api/cluster"), askJson("api/deployments"), askJson("api/stats")]);
    $("locked").hidden = true;
    $("console").hidden = false;
    $("forget").hidden = false;
    nodes = cluster.nodes.sort((a, b) => a.id.localeCompare(b.id));
    deployments = list;
    drawNodes(cluster, stats);
    drawDeployments();
    drawBanner();
    drawModels();
    drawSpeed(stats);
    const lost = nodes.some((n) => n.state !== "up");
    if (cluster.leader) connection(lost ? "warn" : "good", lost ? "a node is away" : "all nodes up");
    else connection("bad", "no majority");
  } catch (error) {
    if (error.status === 401) {
      sessionStorage.removeItem(KEY);
      key = "";
      return lock("This key is not one of this cluster's.");
    }
    connection("bad", error.status ? "error" : "no answer");
    banner("", error.status ? error.message : "This node does not answer. Trying again…");
  }
}

async function refreshTraining() {
  if (!key || $("console").hidden) return;
  try {
    const jobs = await askJson("api/training");
    drawTraining(jobs.length ? await askJson("api/training/" + encodeURIComponent(jobs[0].id)) : undefined);
  } catch (error) {
    if (error.status) message($("loss-chart"), error.message);
  }
}

async function forever(work, pauseMs) {
  for (;;) {
    if (!document.hidden) await work();
    await new Promise((next) => setTimeout(next, pauseMs));
  }
}

// Chat

const conversation = [];
let running;

function drawChatEmpty() {
  if (conversation.length > 0) return;
  const text = deployments.length === 0 ? "There is no model to talk to yet." : "Say something to " + $("chat-model").value + ".";
  $("chat-log").replaceChildren(element("p", "empty", text));
}

function say(role, text) {
  if (conversation.length === 0) $("chat-log").replaceChildren();
  const bubble = element("div", "said " + role, text);
  $("chat-log").append(bubble);
  $("chat-log").scrollTop = $("chat-log").scrollHeight;
  return bubble;
}

/** Yields id and data of server-sent events as they arrive. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", id = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("id: ")) id = line.slice(4);
      if (line.startsWith("data: ")) yield [id, line.slice(6)];
    }
  }
}

/** Yields the chunks of a streamed answer; where the connection breaks off, it asks for the rest. */
async function* streamed(path, body, signal) {
  let last = "", since = performance.now(), pause = 100;
  for (;;) {
    try {
      const headers = { "Content-Type": "application/json", ...(last && { "Last-Event-ID": last }) };
      const response = await ask(path, { method: "POST", signal, headers, body: JSON.stringify(body) });
      for await (const [id, data] of events(response)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw Object.assign(new Error(chunk.error.message), { status: chunk.error.code === "unavailable" ? 503 : 400 });
        yield chunk;
        last = id;
        since = performance.now();
        pause = 100;
      }
      throw new Error("the stream ended early");
    } catch (error) {
      const passing = !error.status || error.status === 503 || error.status === 429;
      if (signal.aborted || !last || !passing || performance.now() - since > 60000) throw error;
      await new Promise((next) => setTimeout(next, pause));
      pause = Math.min(2 * pause, 1000);
    }
  }
}

async function chat(text) {
  const question = say("user", text);
  conversation.push({ role: "user", content: text });
  const bubble = say("assistant", "");
  bubble.classList.add("running");
  running = new AbortController();
  $("chat-send").hidden = true;
  $("chat-stop").hidden = false;
  const start = performance.now();
  let first, last, longest = 0, tokens = 0, answer = "", reason = "";
  const figures = () => {
    if (!first) return "waiting for the first token…";
    const parts = ["first token after " + Math.round(first - start) + " ms"];
    const count = tokens || 0;
    if (count > 1 && last > first) parts.push(((count - 1) / ((last - first) / 1000)).toFixed(1) + " tok/s");
    if (longest > 500) parts.push("longest pause " + (longest / 1000).toFixed(1) + " s");
    if (reason === "length") parts.push("cut at the length limit");
    return parts.join(" · ");
  };
  const ticker = setInterval(() => {
    const waiting = performance.now() - (last || start);
    const unwell = nodes.some((n) => n.state === "lost") && deployments.some((d) => d.state !== "ready");
    $("chat-figures").textContent = waiting > 1500 && unwell ? "paused " + (waiting / 1000).toFixed(0) + " s: a node is lost, its layers are being placed elsewhere" : figures();
  }, 250);
  try {
    const request = {
      model: $("chat-model").value,
      messages: conversation,
      temperature: Number($("chat-temperature").value) || 0,
      stream: true,
      stream_options: { include_usage: true },
    };
    for await (const chunk of streamed("v1/chat/completions", request, running.signal)) {
      if (chunk.usage) tokens = chunk.usage.completion_tokens;
      const choice = chunk.choices[0];
      reason = choice?.finish_reason || reason;
      const piece = choice?.delta.content;
      if (piece) {
        const now = performance.now();
        if (last) longest = Math.max(longest, now - last);
        first ??= now;
        last = now;
        tokens += 1;
        answer += piece;
        const log = $("chat-log");
        const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
        bubble.textContent = answer;
        if (atEnd) log.scrollTop = log.scrollHeight;
      }
    }
    conversation.push({ role: "assistant", content: answer });
  } catch (error) {
    if (error.name === "AbortError") {
      conversation.push({ role: "assistant", content: answer });
      bubble.append(element("span", "note", "stopped"));
    } else {
      conversation.pop();
      question.classList.add("failed");
      bubble.classList.add("failed");
      bubble.append(element("span", "note", error.status || answer ? error.message : "The node does not answer: " + error.message));
    }
  } finally {
    clearInterval(ticker);
    $("chat-figures").textContent = first ? figures() : "";
    bubble.classList.remove("running");
    $("chat-send").hidden = false;
    $("chat-stop").hidden = true;
    $("chat-input").focus();
  }
}

$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("chat-input").value.trim();
  if (!text || !$("chat-send").checkVisibility() || !$("chat-model").value) return;
  $("chat-input").value = "";
  chat(text);
});

$("chat-input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("chat-form").requestSubmit();
  }
});

$("chat-stop").addEventListener("click", () => running?.abort());

$("chat-clear").addEventListener("click", () => {
  running?.abort();
  conversation.length = 0;
  $("chat-figures").textContent = "";
  drawChatEmpty();
});

addEventListener("hashchange", () => {
  key = takeKey();
  refresh();
});

drawChatEmpty();
message($("loss-chart"), "");
forever(refresh, 1000);
forever(refreshTraining, 2000);
