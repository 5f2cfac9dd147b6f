// Numbers and names as the page says them.
"use strict";

const Words = (() => {
  const count = (n) => n.toLocaleString("en");
  const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;
  const ratio = (x) => `${x.toFixed(2)}×`;
  const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

  // What predicted time is counted in: seconds, or what own logits cost.
  let unit = "s";
  const countIn = (name) => { unit = name; };

  // In three digits: seconds in a fitting unit, other costs in theirs.
  function duration(seconds) {
    if (unit !== "s") return `${three(seconds)} ${unit}`;
    for (const [size, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
      if (seconds >= 0.1 * size) return `${three(seconds / size)} ${unit}`;
    }
    return `${three(seconds / 1e-9)} ns`;
  }

  function three(x) {
    return x >= 100 ? count(Math.round(x)) : x.toPrecision(3);
  }

  // A score or threshold, rounded for reading.
  function score(x) {
    return String(Number(x.toPrecision(4)));
  }

  // Points of accuracy, with their sign.
  function points(share) {
    const text = Math.abs(100 * share).toFixed(2);
    const sign = text === "0.00" ? "±" : share > 0 ? "+" : "−";
    return `${sign}${text} points`;
  }

  function interval(ends, digits = 1) {
    return ends ? `[${ends.map((end) => (100 * end).toFixed(digits)).join(", ")}]` : "";
  }

  const POLICIES = {
    best: "best of all",
    best_cutoff: "best shared cutoff",
    best_train: "best fitted to train",
    target: "target at every exit",
    report_cutoff: "report cutoff",
    full: "full network",
  };
  const policy = (name) => POLICIES[name] ?? name.replaceAll("_", " ");

  const KINDS = { shared: "shared cutoffs", targets: "one target at every exit", joint: "chosen jointly" };
  const kind = (name) => KINDS[name];

  // The size and the name of what an axis up to `end` is in.
  function axisUnit(end) {
    if (unit !== "s") return [1, unit];
    return end >= 1 ? [1, "s"] : end >= 1e-3 ? [1e-3, "ms"] : [1e-6, "µs"];
  }

  return { count, countIn, axisUnit, percent, ratio, plural, duration, score, points, interval, policy, kind };
})();

if (typeof module !== "undefined") module.exports = Words;
