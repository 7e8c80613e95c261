// Speeds, compared: node bench/run.mjs, after a build. What each row compares is said beside it; how, in measure.mjs.
// With --chart it also draws docs/speed-light.svg and docs/speed-dark.svg, and prints a table in Markdown.
import { writeFileSync } from 'node:fs';
import { drawChart, format } from './chart.mjs';
import { coreRatios, runCore, sizes } from './core.mjs';
import { describeGrowth, growthTitle, runGrowth } from './growth.mjs';
import { median } from './measure.mjs';
import { runServed, servedRatios } from './served.mjs';
import { closingRatios, holding, runClosing } from './sockets.mjs';

process.env.NODE_ENV = 'development';

// Whatever hangs, this ends; and its servers with it, since they hear that it has.
setTimeout(() => {
  console.error('It takes too long: something hangs.');
  process.exit(1);
}, 380_000).unref();

const started = Date.now();
const { bytes, cookie } = await sizes();
const core = await runCore();
const growth = await runGrowth();
const served = await runServed();
const closing = await runClosing();
const held = await holding();
const ratios = [...coreRatios(core), ...servedRatios(served), ...closingRatios(closing)];
const goals = ratios.filter(({ goal }) => goal !== undefined);

console.log(`Node ${process.version}, ${process.arch}. Medians of rounds in which all take turns.`);
print('Microseconds of processor time', Object.entries({ ...core, ...served, ...closing }).map(time));
print('Times as fast, and what was aimed at', goals.map(row));
print('Times as fast, without a goal', ratios.filter(({ goal }) => goal === undefined).map(row));
print(growthTitle, growth.map(describeGrowth));
print('Sizes', [
  size(bytes, 200, 'bytes that a process keeps for each of 1,000,000 ended sessions'),
  size(cookie, 400, 'characters of a session cookie with two ptags'),
  size(
    held.ours.bytes - held.bare.bytes,
    1024,
    `bytes of heap for each of ${held.open} open sockets, beyond the ${held.bare.bytes.toFixed(0)} of bare ws`,
  ),
  `${held.ours.idle.toFixed(0).padStart(8)}             milliseconds of processor time in ${held.seconds} s with all of them idle; bare ws, which pings nobody: ${held.bare.idle.toFixed(0)}`,
]);
console.log(`\nTook ${Math.round((Date.now() - started) / 1000)} s.`);
if (process.argv.includes('--chart')) draw();

function time([name, rates]) {
  return `${(1e6 / median(rates)).toFixed(2).padStart(10)}  ${name}`;
}

function size(value, goal, what) {
  const verdict = value < goal ? 'holds ' : 'MISSED';
  return `${value.toFixed(0).padStart(8)}  below ${String(goal).padEnd(4)}  ${verdict}  ${what}`;
}

function row({ first, second, goal, note, value }) {
  const aim = goal === undefined ? '' : `  at least ${String(goal).padEnd(4)}  ${value >= goal ? 'holds ' : 'MISSED'}`;
  return `${format(value).padStart(8)}${aim}  ${first} / ${second} (${note})`;
}

function print(title, lines) {
  console.log(`\n${title}\n\n${lines.join('\n')}`);
}

function draw() {
  const rows = goals.map(({ chart, value, goal }) => ({ name: chart, value, goal }));
  for (const theme of ['light', 'dark']) {
    writeFileSync(new URL(`../docs/speed-${theme}.svg`, import.meta.url), drawChart(rows, theme));
  }
  const cells = goals.map(({ first, second, note, goal, value }) => [
    `${first} / ${second}`,
    note,
    goal,
    format(value),
  ]);
  const table = [['times as fast', '', 'at least', 'measured'], ['---', '---', '---:', '---:'], ...cells];
  console.log(`\n${table.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}`);
}
