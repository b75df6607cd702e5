// The controls and the picture of explore.md. The formulas are in shapes.js. The table
// of modes is written into the page by docs/conf.py, from Python's own.
"use strict";

(() => {
  const at = (id) => document.getElementById(`explore-${id}`);
  const modes = JSON.parse(at("modes").textContent);
  const betas = Object.keys(modes.radam.lengths);
  const most = { total: 100000, steps: 100000, start: 2, lr: 1000 };
  const short = (number) => String(Number(number.toPrecision(6)));
  let ownStart = null; // null: the mode's own

  function fill(select, names, chosen) {
    select.innerHTML = names.map((name) => `<option>${name}</option>`).join("");
    select.value = chosen;
  }

  // A number that makes sense, whatever is in the field.
  function number(id, least, whole = false) {
    const value = Number(at(id).value);
    const kept = Math.min(Math.max(value || least, least), most[id] ?? Infinity);
    return whole ? Math.round(kept) : kept;
  }

  function settings() {
    const mode = at("mode").value;
    const known = modes[mode];
    const beta2 = at("beta2").value;
    return {
      mode,
      beta2,
      shape: known.shape,
      untuned: known.lengths !== null,
      steps: known.lengths ? known.lengths[beta2] : number("steps", 1, true),
      start: ownStart === null ? known.start : number("start", known.least),
      schedule: at("schedule").value,
      waits: at("waits").checked && at("schedule").value !== "none",
      total: number("total", 2, true),
      lr: number("lr", 1e-9),
    };
  }

  function code(now, run) {
    const beta2 = now.untuned && now.beta2 !== "0.999" ? `, betas=(0.9, ${now.beta2})` : "";
    const options = now.untuned ? [] : [`steps=${now.steps}`];
    if (now.mode !== "linear") options.push(`mode="${now.mode}"`);
    if (now.start !== modes[now.mode].start) options.push(`start=${now.start}`);
    const lines = [
      "import torch",
      `from warmopt import ${now.waits ? "AfterWarmup, " : ""}Warmed`,
      "",
      `optimizer = torch.optim.AdamW(model.parameters(), lr=${now.lr}${beta2})`,
      `optimizer = Warmed(optimizer, ${options.join(", ")})`,
    ];
    if (now.schedule !== "none") {
      const rest = warmup.schedules[now.schedule].options(run.scheduled);
      lines.splice(1, 0, `from torch.optim.lr_scheduler import ${now.schedule}`);
      lines.push(`scheduler = ${now.schedule}(optimizer, ${rest})`);
      if (now.waits) lines.push("scheduler = AfterWarmup(scheduler)");
    }
    return lines.join("\n");
  }

  // The picture: the factor on the left axis, the learning rate on the right one.
  function draw(now, run, chosen) {
    const picture = at("picture");
    const width = Math.max(picture.clientWidth, 200);
    const height = 320;
    const [left, right, top, bottom] = [36, width - 62, 12, height - 36];
    const peak = Math.max(1, now.start);
    const x = (t) => left + ((t - 1) / (now.total - 1)) * (right - left);
    const y = (part) => bottom - (part / peak) * (bottom - top);
    const every = Math.ceil(now.total / 800);
    const shown = run.rows.map((_, i) => i).filter((i) => i % every === 0 || i === now.total - 1);
    const curve = (name, part) => {
      const points = shown.map((i) => `${x(i + 1).toFixed(1)},${y(part(run.rows[i])).toFixed(1)}`);
      return `<polyline class="${name}" points="${points.join(" ")}"/>`;
    };
    const parts = [];
    for (const tick of [0, 0.25, 0.5, 0.75, 1].map((share) => share * peak)) {
      const lr = Number((tick * now.lr).toPrecision(3));
      parts.push(
        `<line class="grid" x1="${left}" x2="${right}" y1="${y(tick)}" y2="${y(tick)}"/>`,
        `<text x="${left - 6}" y="${y(tick) + 4}" text-anchor="end">${+tick.toFixed(3)}</text>`,
        `<text x="${right + 6}" y="${y(tick) + 4}">${lr}</text>`,
      );
    }
    for (const share of [0, 0.5, 1]) {
      const t = Math.round(1 + share * (now.total - 1));
      const anchor = ["start", "middle", "end"][share * 2];
      parts.push(`<text x="${x(t)}" y="${bottom + 16}" text-anchor="${anchor}">${t}</text>`);
    }
    parts.push(
      `<text x="${left}" y="${height - 4}">update</text>`,
      `<line class="chosen" x1="${x(chosen)}" x2="${x(chosen)}" y1="${top}" y2="${bottom}"/>`,
      curve("base", (row) => row.base / now.lr),
      curve("factor", (row) => row.factor),
      curve("effective", (row) => row.effective / now.lr),
    );
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.innerHTML = parts.join("");
  }

  function words(now, run) {
    const lrs = run.rows.map((row) => row.effective);
    const peak = lrs.reduce((best, lr, i) => (lr > lrs[best] ? i : best), 0);
    const over = run.end <= now.total ? `ends with update ${run.end}` : "is not over in this run";
    const begins = now.waits && run.end >= now.total ? " The schedule never begins." : "";
    const most = `The highest effective LR is ${short(lrs[peak])}, at update ${peak + 1}.`;
    return `The warmup ${over}.${begins} ${most}`;
  }

  // The sliders and fields show what is used, also where it was limited or is not yours.
  function show(now) {
    at("steps-part").hidden = now.untuned;
    at("beta2-part").hidden = !now.untuned;
    at("waits").disabled = now.schedule === "none";
    at("start").min = at("start-slider").min = modes[now.mode].least;
    at("steps-slider").max = now.total;
    if (!now.untuned) at("steps-slider").value = now.steps;
    at("start-slider").value = now.start;
    if (ownStart === null) at("start").value = Number(now.start.toFixed(4));
    at("update").max = now.total;
  }

  function update() {
    const now = settings();
    const run = warmup.run(now);
    show(now);
    const chosen = Number(at("update").value);
    const row = run.rows[chosen - 1];
    at("chosen").textContent = chosen;
    for (const name of ["base", "factor", "effective"]) at(name).textContent = short(row[name]);
    at("words").textContent = words(now, run);
    at("code").textContent = code(now, run);
    draw(now, run, chosen);
  }

  fill(at("mode"), Object.keys(modes), "linear");
  fill(at("beta2"), betas, "0.999");
  fill(at("schedule"), Object.keys(warmup.schedules), "CosineAnnealingLR");
  at("form").addEventListener("input", ({ target }) => {
    const id = target.id.replace("explore-", "");
    if (id.endsWith("-slider")) at(id.replace("-slider", "")).value = target.value;
    if (id.startsWith("start")) ownStart = "yours";
    if (id === "mode") ownStart = null;
    update();
  });
  at("form").addEventListener("submit", (event) => event.preventDefault());
  at("picture").addEventListener("pointermove", (event) => {
    const box = at("picture").getBoundingClientRect();
    const share = (event.clientX - box.left - 36) / (box.width - 98);
    at("update").value = Math.round(1 + share * (Number(at("update").max) - 1));
    update();
  });
  window.addEventListener("resize", update);
  update();
})();
