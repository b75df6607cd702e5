// The formulas of warmopt/shapes.py, and schedules of torch, for the page explore.md.
// tests/project/test_explore.py compares them with Python's, number by number.
"use strict";

const warmup = (() => {
  // A shape: (update t, length n, start s) -> factor.
  const mix = (part) => (t, n, s) => s + (1 - s) * part(t, n);
  const shapes = {
    linear: mix((t, n) => t / n),
    constant: (t, n, s) => (t < n ? s : 1),
    staircase: mix((t, n) => Math.ceil((5 * t) / n) / 5),
    cosine: mix((t, n) => 0.5 * (1 - Math.cos(Math.PI * (t / n)))),
    exponential: (t, n, s) => s ** (1 - t / n),
    polynomial: mix((t, n) => (t / n) ** 2),
    sqrt: mix((t, n) => Math.sqrt(t / n)),
    one_minus_sqrt: mix((t, n) => 1 - Math.sqrt(1 - t / n)),
    log: mix((t, n) => Math.log1p(t) / Math.log1p(n)),
    saturating: mix((t, n) => 1 - Math.exp(-t / n)),
    rectified: mix(rectified),
  };
  const endless = ["saturating", "rectified"]; // they only come closer to 1

  function rho(k, n) {
    const decayed = (1 - 2 / n) ** k;
    return n - 1 - (2 * k * decayed) / (1 - decayed);
  }

  function rectified(t, n) {
    let first = 1; // the first update whose variance is finite
    while (rho(first, n) <= 4) first++;
    const most = n - 1;
    const now = rho(t + first - 1, n);
    const square = ((now - 4) * (now - 2) * most) / ((most - 4) * (most - 2) * now);
    return Math.sqrt(Math.max(square, 0));
  }

  // The factor of update t: after the end it is 1.
  function factor(shape, t, n, s) {
    if (!endless.includes(shape) && t > n) return 1;
    return shapes[shape](t, n, s);
  }

  // The last update of a warmup, or Infinity if it is not over after `total` updates.
  function last(shape, n, total) {
    if (!endless.includes(shape)) return n <= total ? Math.ceil(n) : Infinity;
    for (let t = 1; t <= total; t++) if (shapes[shape](t, n, 0) >= 1) return t;
    return Infinity;
  }

  // A schedule over n updates: its multiplier after i steps, and how to write it.
  const schedules = {
    none: { at: () => 1 },
    CosineAnnealingLR: {
      at: (i, n) => (1 + Math.cos((Math.PI * i) / n)) / 2,
      options: (n) => `T_max=${n}`,
    },
    LinearLR: {
      at: (i, n) => 1 - i / n,
      options: (n) => `start_factor=1.0, end_factor=0.0, total_iters=${n}`,
    },
    PolynomialLR: {
      at: (i, n) => (1 - i / n) ** 2,
      options: (n) => `total_iters=${n}, power=2.0`,
    },
    ExponentialLR: {
      at: (i, n) => 0.01 ** (i / n),
      options: (n) => `gamma=0.01 ** (1 / ${n})`,
    },
    StepLR: {
      at: (i, n) => 0.3 ** Math.floor(i / Math.ceil(n / 4)),
      options: (n) => `step_size=${Math.ceil(n / 4)}, gamma=0.3`,
    },
  };

  // What every update of a run uses. With `waits` the schedule begins after the warmup.
  function run({ shape, steps, start, schedule, waits, total, lr }) {
    const end = last(shape, steps, total);
    const skipped = waits ? Math.min(end, total - 1) : 0;
    const rows = [];
    for (let t = 1; t <= total; t++) {
      const i = Math.max(0, t - 1 - skipped);
      const base = lr * schedules[schedule].at(i, total - skipped);
      const part = factor(shape, t, steps, start);
      rows.push({ base, factor: part, effective: base * part });
    }
    return { end, scheduled: total - skipped, rows };
  }

  return { factor, last, run, schedules, shapes };
})();
