// The page's computation against the library's: tests/report/test_explorer.py writes the cases, runs
// this under `node --test`, and names their file in OFFRAMP_CASES.
"use strict";

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { test } = require("node:test");

const Logic = require("../../scripts/offramp/report/explorer_page/logic.js");
const CASES = JSON.parse(readFileSync(process.env.OFFRAMP_CASES, "utf-8"));

function near(found, wanted, tolerance, what) {
  assert.ok(Math.abs(found - wanted) <= tolerance, `${what}: ${found} is not ${wanted}`);
}

for (const { name, data, outcomes } of CASES.runs) {
  const run = Logic.open(data);

  test(`${name}: thresholds do what the library says`, () => {
    assert.ok(outcomes.length > 5);
    for (const { thresholds, n, correct, seconds, speedup, exits } of outcomes) {
      const found = Logic.evaluate(run, thresholds);
      assert.deepEqual(Array.from(found.taken), exits);
      assert.deepEqual([found.total.n, ...found.n], n);
      assert.deepEqual([found.total.correct, ...found.correct], correct);
      [found.total.seconds, ...found.seconds].forEach((s, k) => {
        near(s, seconds[k], 1e-12 * Math.max(...seconds), `${thresholds} exit ${k}`);
      });
      near(found.total.speedup, speedup, 1e-12, "speed-up");
      assert.equal(found.reach[0], run.samples);
    }
  });

  test(`${name}: the full network's seconds`, () => {
    near(Logic.fullSeconds(run), run.full.seconds, 1e-12 * run.full.seconds, "full");
  });

  test(`${name}: a view goes through the address to the last digit`, () => {
    for (const { thresholds } of outcomes) {
      for (const label of [null, 0, data.classes.length - 1]) {
        const hash = Logic.toHash({ thresholds, label });
        const back = Logic.fromHash(hash, thresholds.length, data.classes.length);
        assert.deepEqual(back, { thresholds, label });
      }
    }
  });

  test(`${name}: of each exit those are shown who leave there, in the drawn order`, () => {
    const { taken } = Logic.evaluate(run, outcomes[0].thresholds);
    for (let exit = 1; exit <= run.exits; exit++) {
      for (const label of [null, 1]) {
        const shown = Logic.shownAt(run, taken, exit, label, 3);
        const wanted = [...run.order.keys()].filter((place) => {
          const i = run.order[place];
          return taken[i] === exit && (label === null || run.labels[i] === label);
        });
        assert.deepEqual(shown, wanted.slice(0, 3));
      }
    }
  });

  test(`${name}: a slider's place and its score go into each other`, () => {
    const scale = Logic.scale(run.scale);
    for (const place of [0, 0.001, 0.25, 0.5, 1]) near(scale.place(scale.score(place)), place, 1e-9, place);
    assert.equal(scale.place(run.scale.low - 1), 0);
    assert.equal(scale.place(run.scale.high + 1), 1);
  });
}

test("intervals are those of scipy", () => {
  assert.ok(CASES.intervals.length > 100);
  for (const [correct, n, low, high] of CASES.intervals) {
    const [foundLow, foundHigh] = Logic.interval(correct, n);
    near(foundLow, low, 1e-9, `low of ${correct}/${n}`);
    near(foundHigh, high, 1e-9, `high of ${correct}/${n}`);
  }
  assert.equal(Logic.interval(0, 0), null);
});

test("an address that makes no sense asks for nothing", () => {
  const nothing = { thresholds: null, label: null };
  for (const hash of [
    "", "#", "#x", "#thresholds=", "#thresholds=1", "#thresholds=1,2,3", "#thresholds=1,x",
    "#thresholds=1,NaN", "#thresholds=1,Infinity", "#thresholds=1,1e999", "#cutoff=", "#cutoff=<b>",
    "#class=5", "#class=-1", "#class=1.5", "#class=x", "#%",
  ]) {
    assert.deepEqual(Logic.fromHash(hash, 2, 5), nothing, hash);
  }
  assert.deepEqual(Logic.fromHash("#thresholds=off,-1e-3", 2, 5).thresholds, [null, -1e-3]);
  assert.deepEqual(Logic.fromHash("#cutoff=off", 2, 5).thresholds, [null, null]);
});

test("the fewest seconds at an accuracy, and none where it is out of reach", () => {
  const points = [{ correct: 3, seconds: 1 }, { correct: 5, seconds: 4 }, { correct: 6, seconds: 3 }];
  assert.deepEqual([3, 4, 6, 7].map((c) => Logic.needed(points, c)), [1, 3, 3, null]);
});

test("a policy is known by its thresholds, to the last digit", () => {
  const policies = [{ name: "a", thresholds: [0.1, null] }, { name: "b", thresholds: [0.1, 0.1] }];
  assert.deepEqual(Logic.namesOf(policies, [0.1, null]), ["a"]);
  assert.deepEqual(Logic.namesOf(policies, [0.1 + 1e-16, null]), []);
  assert.equal(Logic.sharedCutoff([0.1, 0.1]), 0.1);
  assert.equal(Logic.sharedCutoff([0.1, null]), null);
  assert.equal(Logic.sharedCutoff([]), null);
});
