"""The page for people: numbers that are read anew each second from /stats.json, and small charts of the last minutes.

It is one document with no resource but that. Its policy lets the browser run and apply what is written here and nothing
else, and what is shown (a certificate's name may be anybody's choice) is always set as text.
"""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--fg:#1c1e21;--bg:#f6f7f9;--card:#fff;--line:#d9dce1;--dim:#6a7078;--ink:#1769c4;
--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--fg:#e3e5e8;--bg:#121417;--card:#1b1e22;--line:#30353c;--dim:#979da6;
--ink:#6db1ff;--bad:#ff8a80}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem;color:var(--fg);
background:var(--bg)}
h1{font-size:1.25rem;margin:0}h2{font-size:1rem;margin:1.5rem 0 .5rem}
p{margin:.2rem 0 1rem;overflow-wrap:anywhere;color:var(--dim)}p.bad,td.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.75rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.card b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
.card span{color:var(--dim)}
svg{display:block;width:100%;height:2.5rem;margin-top:.3rem}
polyline{fill:none;stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line)}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums;
white-space:nowrap}
th{font-weight:600;color:var(--dim)}
.pairs th{white-space:normal}
.pairs td{overflow-wrap:anywhere}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr));gap:.75rem;align-items:start}
"""

SCRIPT = """
"use strict";
const POINTS = 180, POINTS_LEAST = 45, series = {};
let last = null;
const by = (id) => document.getElementById(id);
function add(parent, tag, text) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}
function short(n) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (n >= size) return (n / (unit === "k" ? 1e3 : size)).toFixed(1) + " " + unit;
  return n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1);
}
function age(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= 2 * size) return Math.floor(seconds / size) + " " + unit;
  return Math.max(0, Math.floor(seconds)) + " s";
}
function remaining(c, now) {
  const left = c.not_after - now;
  return now < c.expiry_warning ? age(left) : {bad: left > 0 ? age(left) : "expired"};
}
const sum = (group) => Object.values(group).reduce((a, b) => a + b, 0);
function chart(svg, points) {
  const top = Math.max(...points, 1e-9);
  const shown = Math.max(POINTS_LEAST, points.length), first = shown - points.length;
  const place = (v, i) => ((first + i) * 100 / (shown - 1)).toFixed(2) + "," + (29 - 28 * v / top).toFixed(2);
  svg.firstChild.setAttribute("points", points.map(place).join(" "));
}
function card(name, value, text) {
  let kept = series[name];
  if (!kept) {
    const box = add(by("cards"), "div");
    box.className = "card";
    const label = add(box, "span", name), number = add(box, "b");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
    box.append(svg);
    kept = series[name] = {label, number, svg, points: []};
  }
  kept.points.push(value);
  if (kept.points.length > POINTS) kept.points.shift();
  kept.number.textContent = text;
  chart(kept.svg, kept.points);
}
function table(id, heads, rows) {
  const place = by(id);
  place.textContent = "";
  const body = add(place, "table"), head = add(body, "tr");
  for (const text of heads) add(head, "th", text);
  for (const row of rows) {
    const line = add(body, "tr");
    for (const cell of row) {
      const bad = cell !== null && typeof cell === "object";
      const node = add(line, "td", bad ? cell.bad : cell);
      if (bad) node.className = "bad";
    }
  }
}
function pairs(id, groups) {
  by(id).textContent = "";
  for (const [name, group] of groups) {
    const found = Object.entries(group).filter(([, count]) => count);
    if (!found.length) continue;
    const body = add(by(id), "table"), head = add(body, "tr");
    add(head, "th", name);
    add(head, "th", "");
    for (const [key, count] of found) {
      const line = add(body, "tr");
      add(line, "td", key === key.toLowerCase() ? key.replaceAll("_", " ") : key);
      add(line, "td", typeof count === "string" ? count : short(count));
    }
  }
}
function within(buckets) {
  const found = {}, all = sum(buckets);
  const bounds = Object.entries(buckets).map(([bound, count]) => [bound === "inf" ? Infinity : Number(bound), count]);
  bounds.sort((a, b) => a[0] - b[0]);
  for (const [share, name] of [[0.5, "half of them"], [0.95, "95 in 100"], [0.99, "99 in 100"]]) {
    let seen = 0;
    const place = bounds.find(([, count]) => (seen += count) >= share * all);
    if (all) found[name] = place[0] === Infinity ? "longer" : place[0] * 1000 + " ms";
  }
  return found;
}
function show(now) {
  const tls = now.tls, before = last && last.tls;
  last = now;
  by("what").textContent = "uwsgi-tls " + now.version + ": " + tls.state + ", generation " + tls.generation;
  by("since").textContent = "up " + age(tls.time - tls.started) + ", " + (tls.workers.serving || 0) + " of " +
    tls.workers_wanted + " workers serve, " + short(tls.requests) + " requests, " + tls.worker_deaths +
    " workers have died";
  by("since").className = (tls.workers.serving || 0) < tls.workers_wanted ? "bad" : "";
  by("failure").textContent = tls.last_failure;
  if (before && tls.time > before.time) {
    const rate = (a, b) => Math.max(0, (a - b) / (tls.time - before.time));
    const done = tls.requests - before.requests;
    const requests = rate(tls.requests, before.requests), out = rate(tls.tx, before.tx);
    const hands = rate(sum(tls.handshakes), sum(before.handshakes));
    const failures = rate(sum(tls.handshake_failures), sum(before.handshake_failures));
    const errors = rate(tls.responses["5xx"], before.responses["5xx"]);
    const time = done > 0 ? (tls.running_time - before.running_time) / done / 1000 : 0;
    card("requests a second", requests, short(requests));
    card("milliseconds a request", time, time.toFixed(time < 10 ? 2 : 0));
    card("5xx a second", errors, short(errors));
    card("connections", sum(tls.connections), short(sum(tls.connections)));
    card("handshakes a second", hands, short(hands));
    card("failed handshakes a second", failures, short(failures));
    card("bytes a second to clients", out, short(out));
    card("listen queue", now.listen_queue, short(now.listen_queue));
  }
  table("workers", ["worker", "pid", "generation", "status", "requests", "ms", "exceptions", "memory", "up"],
    now.workers.map((w) => [w.id, w.pid, w.generation, w.status, short(w.requests), (w.avg_rt / 1000).toFixed(1),
      w.exceptions, short(w.rss) + "B", age(tls.time - w.last_spawn)]));
  pairs("counts", [["connections now", tls.connections], ["responses", tls.responses],
    ["requests took at most", within(tls.request_seconds)], ["handshakes took at most", within(tls.handshake_seconds)],
    ["handshakes", tls.handshakes], ["failed handshakes", tls.handshake_failures],
    ["client certificates", tls.client_certificates], ["TLS versions", tls.protocols], ["ciphers", tls.ciphers],
    ["time was over", tls.deadlines], ["limits reached", tls.limits],
    ["other", {"backend errors": tls.backend_errors, exceptions: tls.exceptions, "spooled bytes": tls.spooled,
      "failed reloads": tls.failed_reloads, harakiris: tls.harakiris}]]);
  table("certificates", ["certificate", "names", "expires", "in", "key", "file"], tls.certificates.map((c) => {
    return [c.subject, c.names.join(", "), new Date(c.not_after * 1000).toISOString().slice(0, 10),
      remaining(c, tls.time), c.key, c.file];
  }));
}
async function look() {
  try {
    const answer = await fetch("/stats.json", {cache: "no-store"});
    show(await answer.json());
    by("trouble").textContent = "";
  } catch (error) {
    by("trouble").textContent = "no answer: " + error.message;
  }
  setTimeout(look, 1000);
}
look();
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; connect-src 'self'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The icon is empty, so that no browser asks for another.
HTML = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>uwsgi-tls</title>'
    '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
    f"<style>{STYLE}</style></head><body>"
    '<h1 id="what">uwsgi-tls</h1><p id="since"></p><p id="failure" class="bad"></p>'
    '<p id="trouble" class="bad"></p>'
    '<div id="cards" class="cards"></div>'
    '<h2>Workers</h2><div id="workers" class="wide"></div>'
    '<h2>Counts since the start</h2><div id="counts" class="pairs"></div>'
    '<h2>Certificates</h2><div id="certificates" class="wide"></div>'
    f"<script>{SCRIPT}</script></body></html>\n"
).encode()
