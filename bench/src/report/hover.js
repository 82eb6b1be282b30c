"use strict";
// Values under the pointer. All drawings are there without it; the numbers come from the drawings themselves.
(() => {
  if (!document.querySelector("svg[data-x]")) return;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const rule = document.createElementNS(document.querySelector("svg").namespaceURI, "line");
  rule.setAttribute("class", "rule");
  const points = new WeakMap();

  const digits = (value) => (value >= 99.95 || value === 0 ? value.toFixed(0) : value.toPrecision(3));
  const scaled = (value, units) => {
    const [least, unit] = units.find(([least]) => value >= least) || units[units.length - 1];
    return digits(value / least) + unit;
  };
  const show = {
    latency: (ns) => scaled(ns, [[1e9, " s"], [1e6, " ms"], [1e3, " us"], [1, " ns"]]),
    rate: (n) => (n < 9999.5 ? n.toFixed(0) : scaled(n, [[1e9, "G"], [1e6, "M"], [1e3, "k"]])),
    seconds: (s) => s.toFixed(1) + " s",
    quantile: (q) => "p" + +(q * 100).toFixed(Math.max(0, Math.ceil(-Math.log10(1 - q)) - 1)),
  };

  const axisOf = (text) => {
    const [scale, min, max, unit] = text.split(" ");
    return { scale, min: +min, max: +max, unit };
  };
  const valueAt = ({ scale, min, max }, share) => {
    if (scale === "log") return min * (max / min) ** share;
    if (scale === "nines") return 1 - (1 - max) ** share;
    return min + (max - min) * share;
  };
  const pointsOf = (path) => {
    if (!points.has(path)) {
      const found = path.getAttribute("d").matchAll(/[ML]([\d.]+) ([\d.]+)/g);
      points.set(path, Array.from(found, (match) => [+match[1], +match[2]]));
    }
    return points.get(path);
  };
  const nearest = (all, x) => all.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));

  const hide = () => {
    tip.hidden = true;
    rule.remove();
  };
  const line = (className, text, value) => {
    const row = document.createElement("div");
    row.className = className;
    const label = document.createElement("span");
    label.textContent = text;
    const shown = document.createElement("b");
    shown.textContent = value;
    row.append(label, shown);
    return row;
  };

  const move = (event) => {
    const svg = event.currentTarget;
    const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
    const area = svg.getBoundingClientRect();
    const zoom = svg.viewBox.baseVal.width / area.width;
    const x = (event.clientX - area.left) * zoom;
    const y = (event.clientY - area.top) * zoom;
    if (x < left - 4 || x > right + 4 || y < top - 4 || y > bottom + 4) return hide();
    const [across, up] = [axisOf(svg.dataset.x), axisOf(svg.dataset.y)];
    const upValue = (at) => valueAt(up, (bottom - at) / (bottom - top));
    const clamp = (share) => Math.min(1, Math.max(0, share));
    const rows = [];
    const head = show[across.unit](valueAt(across, clamp((x - left) / (right - left))));
    if (event.target.closest(".heat")) {
      rows.push(line("", show[up.unit](upValue(y)), event.target.dataset.name || ""));
    } else {
      const lines = Array.from(svg.querySelectorAll("path[data-name]"), (path) => [path, pointsOf(path)]);
      const hit = lines.filter(([, all]) => all.length && x <= all[all.length - 1][0] + 6);
      const values = hit.map(([path, all]) => [path.dataset.name, nearest(all, x)[1]]);
      values.sort((a, b) => a[1] - b[1]);
      rows.push(...values.map(([name, at]) => line("", name, show[up.unit](upValue(at)))));
    }
    if (!rows.length) return hide();
    tip.replaceChildren(line("at", head, ""), ...rows);
    tip.hidden = false;
    const wide = tip.offsetWidth;
    const past = event.clientX + 16 + wide > document.documentElement.clientWidth;
    tip.style.left = Math.max(4, past ? event.clientX - 16 - wide : event.clientX + 16) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY - 12, innerHeight - tip.offsetHeight - 8)) + "px";
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", top], ["y2", bottom]]) rule.setAttribute(name, value);
    if (rule.parentNode !== svg) svg.append(rule);
  };

  for (const svg of document.querySelectorAll("svg[data-x]")) {
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
})();
