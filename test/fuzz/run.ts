/** `npm run fuzz`, with options behind `--`: `--requests N --responses N --seed S --from INDEX`. */
import { parseArgs } from 'node:util';
import { fuzzRequests } from './drive.js';
import type { RequestReport } from './ground.js';
import type { Tally } from './report.js';
import { fuzzResponses, type ResponseReport } from './responses.js';

process.env['NODE_ENV'] = 'test';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '1000000' },
    responses: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
  },
});
const seed = readNumber(values.seed);
const from = readNumber(values.from);

function readNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new TypeError(`${text} is not a number of at most nine digits`);
}

const started = performance.now();
let told = started;

/** Says now and then how far it is. */
function progress(what: string, done: number, of: number): void {
  if (performance.now() - told < 20_000) return;
  told = performance.now();
  console.log(`${what}: ${show(done)} of ${show(of)}, after ${seconds()}`);
}

function seconds(): string {
  return `${Math.round((performance.now() - started) / 1000)} s`;
}

function show(number: number): string {
  return number.toLocaleString('en');
}

function list(tally: Tally<string | number>): string {
  return tally
    .entries()
    .map(([what, count]) => `${what} ${show(count)}`)
    .join(', ');
}

const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

function printRequests(report: RequestReport): void {
  const { sent, reached, alone, cutOff, logins, logouts, pages, sockets, tickets } = report;
  console.log(`\n${show(sent)} hostile requests; ${show(reached)} got past Node's parser`);
  console.log(
    `on a connection of their own: ${show(alone)}; of which incomplete or CONNECT, and not answered: ${show(cutOff)}`,
  );
  console.log(`genuine among them: ${show(logins)} logins, ${show(logouts)} logouts, ${show(pages)} pages opened,`);
  console.log(`  ${show(sockets)} sockets opened, ${show(tickets)} tickets taken`);
  console.log(`statuses: ${list(report.statuses)}`);
  console.log(`codes: ${list(report.codes)}`);
  for (const [i, { heap, resident, remembered, watched }] of report.servers.entries()) {
    const size = `heap ${megabytes(heap)}, resident ${megabytes(resident)}`;
    console.log(`memory ${['at a tenth', 'at the end'][i]}: ${size}; ${show(remembered)} entries, ${watched} watches`);
  }
}

function printResponses(report: ResponseReport): void {
  const { count, accepted, unsigned, compared, right, refused, refusedForAttempt } = report;
  console.log(`\n${show(count)} mutated responses; ${show(accepted)} became another genuine one, and were accepted`);
  console.log(`refused for what they are: ${show(refused.total)} (${list(refused)})`);
  console.log(`failures that nobody signed: ${show(unsigned)}`);
  console.log(`refused by an attempt that the genuine one answers: ${show(refusedForAttempt.total)}`);
  console.log(`  (${list(refusedForAttempt)})`);
  console.log(`signatures judged by both engines, which agree: ${show(compared)}, of which right: ${show(right)}`);
}

console.log(`seed ${seed}, from index ${from}`);
const requests = readNumber(values.requests);
const onProgress = (sent: number) => progress('requests', sent, requests);
const requestReport = await fuzzRequests({ seed, from, count: requests, onProgress });
printRequests(requestReport);

const responses = readNumber(values.responses);
const responseReport = run(fuzzResponses({ seed, from, count: responses }));
printResponses(responseReport);

function run(work: Generator<number, ResponseReport>): ResponseReport {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    progress('responses', value, responses);
  }
}

const findings = [...requestReport.findings, ...responseReport.findings];
for (const finding of findings) console.log(`\nFOUND: ${finding}`);
console.log(
  `\nseed ${seed}: ${findings.length === 0 ? 'nothing was found' : `${findings.length} findings`}, ${seconds()}`,
);
process.exitCode = findings.length === 0 ? 0 : 1;
